"""Published model configurations and checkpoints, read into our modules.

The published network reads its axes as (X, Y, Z): feed an imported network transposed arrays (a
plan's ``transpose_forward``), as this module permutes no weight.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from veloxseg.errors import PlanError
from veloxseg.network.config import NetworkConfig
from veloxseg.network.distillation import DistillationModel
from veloxseg.network.veloxseg import VeloxSeg

_DEFAULTS: dict[str, Any] = {
    "patch_size": 4,
    "base_ch": 16,
    "attn_base_ch": 16,
    "conv_depths": [1, 1, 1, 1],
    "depths": [2, 2, 2, 2],
    "kernel_sizes": [1, 3, 5],
    "min_dim_group": [4, 8, 8, 16],
    "conv_expansion_factor": [3, 3, 2, 2],
    "ffn_expansion_ratio": [3, 3, 2, 2],
    "min_big_window_sizes": [[3, 3, 3], [6, 6, 6], [3, 3, 3], [3, 3, 3]],
    "min_small_window_sizes": [[1, 1, 1]] * 4,
    "scale_factors": [[2, 2, 2]] * 3,
    "num_heads": [1, 2, 2, 4],
    "min_dim_head": [4, 8, 8, 16],
    "attn_drop": 0.1,
    "proj_drop": 0.1,
    "conv_drop": 0.0,
    "drop_path": 0.0,
    "deep_supervision": True,
}
_REQUIRED = ("in_ch", "n_classes", "input_size")


def load_published(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None
) -> DistillationModel:
    """Build the network of a published configuration and load a published state dict into it.

    Args:
        config: The inner dictionary of a published model JSON, in its key names.
        state_dict: Published weights: a state dict, or a checkpoint ``{"model": state_dict}``;
            keys may carry the prefix ``module.``. None leaves the network freshly initialised.

    Returns:
        The model with its training-only parts; ``.network`` is the bare network.

    Raises:
        PlanError: an unknown or missing key, sizes that cannot be built, or weights that do not
            fit the configuration.
    """
    model = DistillationModel(VeloxSeg(published_config(config)))
    if state_dict is not None:
        try:
            _load(model, state_dict)
        except RuntimeError as error:  # tensors that cannot even be joined
            raise PlanError(
                f"Published weights do not fit the configuration: shapes differ ({error}). Use the "
                "checkpoint and the JSON of one training."
            ) from error
    return model


def published_config(config: Mapping[str, Any]) -> NetworkConfig:
    """Translate a published configuration's key names.

    Raises:
        PlanError: an unknown or missing key, or sizes that cannot be built.
    """
    missing = [key for key in _REQUIRED if key not in config]
    unknown = sorted(set(config) - set(_DEFAULTS) - set(_REQUIRED))
    if missing or unknown:
        raise PlanError(
            f"Published model configuration: missing {missing or 'nothing'}, unknown "
            f"{unknown or 'nothing'}. Expected {', '.join(_REQUIRED)} and any of "
            f"{', '.join(_DEFAULTS)}."
        )
    try:
        return _translate({**_DEFAULTS, **config})
    except (TypeError, ValueError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(
            f"Published model configuration: a value has a wrong type ({error})."
        ) from error


def _translate(values: Mapping[str, Any]) -> NetworkConfig:
    factors = values["scale_factors"]
    if any(factor != 2 for factor in _flat(factors)):
        raise PlanError(f"scale_factors is {factors}: published networks halve the grid, always 2.")
    stages = len(values["conv_depths"])
    return NetworkConfig(
        patch_size=_axes(values["input_size"]),
        in_channels=tuple(values["in_ch"]),
        num_classes=values["n_classes"],
        stem_stride=_axes(values["patch_size"]),
        strides=((2, 2, 2),) * (stages - 1),
        conv_channels=tuple(values["base_ch"] * 2**i for i in range(stages)),
        attention_channels=tuple(values["attn_base_ch"] * 2**i for i in range(stages)),
        conv_depths=values["conv_depths"],
        attention_depths=values["depths"],
        kernel_sizes=values["kernel_sizes"],
        group_widths=values["min_dim_group"],
        conv_expansion=values["conv_expansion_factor"],
        attention_expansion=values["ffn_expansion_ratio"],
        big_windows=tuple(_axes(window) for window in values["min_big_window_sizes"]),
        small_windows=tuple(_axes(window) for window in values["min_small_window_sizes"]),
        num_heads=values["num_heads"],
        head_channels=values["min_dim_head"],
        attention_dropout=values["attn_drop"],
        projection_dropout=values["proj_drop"],
        conv_dropout=values["conv_drop"],
        drop_path=values["drop_path"],
    )


def _load(model: DistillationModel, state_dict: Mapping[str, Any]) -> None:
    inner = state_dict.get("model", state_dict)
    source = _Source({key.removeprefix("module."): value for key, value in inner.items()})
    config = model.network.config
    ours: dict[str, Tensor] = {}
    for stage in range(config.num_stages):
        ours |= _attention_stage(source, config, stage)
        ours |= _convolution_stage(source, config, stage)
    for m in range(config.num_modalities):
        theirs = f"encoder.encoder_attn.patch_embeds.{m}.proj"
        ours |= source.pair(f"network.encoder.attention.stems.{m}", theirs)
    ours |= _decoder(source, config, "network.decoder", "decoder")
    ours |= source.pair("network.head.conv", "decoder.out_conv1.0")
    if source.has("decoder.out_conv2.weight"):  # a checkpoint of inference weights has no others
        for stage in range(1, config.num_stages):
            ours |= source.pair(f"heads.{stage - 1}", f"decoder.out_conv{stage + 1}")
    if source.has("rc_decoders.0.out_conv.0.weight"):
        for m in range(config.num_modalities):
            ours |= _teacher(source, config, m)

    expected = dict(model.state_dict())
    absent = [key for key in expected if key not in ours]
    if any(key.startswith("network.") for key in absent):
        raise PlanError(f"Published weights: nothing for {absent[:5]} and {len(absent)} in all.")
    wrong = [
        f"{key}: {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
        for key, value in ours.items()
        if key not in expected or value.shape != expected[key].shape
    ]
    left = source.unused()
    if wrong or left:
        raise PlanError(
            "Published weights do not fit the configuration. "
            f"Shapes: {'; '.join(wrong[:5]) or 'fine'}. "
            f"Not used: {', '.join(left[:5]) or 'none'} ({len(left)} in all). "
            "Use the checkpoint and the JSON of one training."
        )
    model.load_state_dict({**expected, **ours})


class _Source:
    """A published state dict that remembers what was taken from it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._taken: set[str] = set()

    def has(self, key: str) -> bool:
        return key in self._tensors

    def take(self, key: str) -> Tensor:
        if key not in self._tensors:
            raise PlanError(f"Published weights: no {key}. Use the checkpoint's own JSON.")
        self._taken.add(key)
        return self._tensors[key]

    def pair(self, ours: str, theirs: str) -> dict[str, Tensor]:
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def stacked(self, ours: str, theirs: list[str], *, norm: bool = False) -> dict[str, Tensor]:
        """One module for all modalities: a norm's rows, or a grouped convolution's groups."""
        join = torch.stack if norm else torch.cat
        return {
            f"{ours}.{part}": join([self.take(f"{name}.{part}") for name in theirs])
            for part in ("weight", "bias")
        }

    def unused(self) -> list[str]:
        """Keys that no module took; the index of the position table is derived, not stored."""
        left = set(self._tensors) - self._taken
        return sorted(key for key in left if not key.endswith("relative_position_index"))


def _attention_stage(source: _Source, config: NetworkConfig, stage: int) -> dict[str, Tensor]:
    modalities = range(config.num_modalities)
    ours: dict[str, Tensor] = {}
    for block in range(config.attention_depths[stage]):
        theirs = f"encoder.encoder_attn.layers.{stage}.blocks.{block}"
        prefix = f"network.encoder.attention.stages.{stage}.{block}"
        attention = f"{prefix}.attention"
        ours |= source.stacked(
            f"{attention}.norm", [f"{theirs}.attn.input_norms.{m}" for m in modalities], norm=True
        )
        for part in ("weight", "bias"):
            ours[f"{attention}.qkv.{part}"] = torch.cat(
                [_fused_projection(source, config, stage, theirs, m, part) for m in modalities]
            )
        ours[f"{attention}.position_table"] = source.take(
            f"{theirs}.attn.position_embedding.relative_position_bias_table"
        )
        ours |= source.stacked(
            f"{attention}.output", [f"{theirs}.attn.mix_channels.{m}" for m in modalities]
        )
        ours |= source.stacked(
            f"{prefix}.mlp.0", [f"{theirs}.norms.{m}" for m in modalities], norm=True
        )
        for layer, name in ((1, "linear1"), (4, "linear2")):
            ours |= source.stacked(
                f"{prefix}.mlp.{layer}", [f"{theirs}.ffns.{m}.{name}" for m in modalities]
            )
    if stage < config.num_stages - 1:
        theirs = f"encoder.encoder_attn.layers.{stage}.downs"
        prefix = f"network.encoder.attention.mergings.{stage}"
        ours |= source.stacked(
            f"{prefix}.norm", [f"{theirs}.{m}.norm" for m in modalities], norm=True
        )
        ours[f"{prefix}.reduction.weight"] = torch.cat(
            [source.take(f"{theirs}.{m}.reduction.weight") for m in modalities]
        )
    return ours


def _fused_projection(
    source: _Source, config: NetworkConfig, stage: int, block: str, modality: int, part: str
) -> Tensor:
    """Interleave q, k, v, each ordered (scale, head, c), to (scale, head, [q, k, v])."""
    heads = len(config.window_scales(stage)) * config.num_heads[stage]
    parts = [
        source.take(f"{block}.attn.qkv_proj.{modality}.{i}.{part}").unflatten(0, (heads, -1))
        for i in range(3)
    ]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _convolution_stage(source: _Source, config: NetworkConfig, stage: int) -> dict[str, Tensor]:
    encoder = "network.encoder"
    down = f"{encoder}.stem.0" if stage == 0 else f"{encoder}.downs.{stage - 1}.0"
    ours = source.pair(down, f"encoder.encoder_conv.down{stage + 1}.down")
    ours |= source.pair(f"{encoder}.mixers.{stage}.0", f"encoder.attn2conv_{stage + 1}.0")
    theirs = f"encoder.encoder_conv.layer{stage + 1}"
    return ours | _jlc_stage(source, config, stage, f"{encoder}.stages.{stage}", theirs)


def _decoder(source: _Source, config: NetworkConfig, ours: str, theirs: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for stage in range(config.num_stages - 1):
        tensors |= source.pair(f"{ours}.ups.{stage}.0", f"{theirs}.layer_up{stage + 1}.up")
        name = f"{theirs}.layer{stage + 1}"
        tensors |= _jlc_stage(source, config, stage, f"{ours}.stages.{stage}", name)
    return tensors


def _jlc_stage(
    source: _Source, config: NetworkConfig, stage: int, ours: str, theirs: str
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    single = len(config.kernel_sizes) == 1
    for block in range(config.conv_depths[stage]):
        for k in range(len(config.kernel_sizes)):
            name = f"{theirs}.{block}.spatial_convs.{k}"
            tensors |= source.pair(f"{ours}.{block}.branches.{k}", name if single else f"{name}.0")
        for layer in (1, 3):
            tensors |= source.pair(
                f"{ours}.{block}.mlp.{layer}", f"{theirs}.{block}.channel_conv.{layer}"
            )
    return tensors


def _teacher(source: _Source, config: NetworkConfig, modality: int) -> dict[str, Tensor]:
    ours, theirs = f"teachers.{modality}", f"rc_decoders.{modality}"
    tensors = _decoder(source, config, f"{ours}.decoder", theirs)
    for stage in range(config.num_stages):
        tensors |= source.pair(f"{ours}.fusions.{stage}.0", f"{theirs}.enc2rc_{stage + 1}.0")
    return tensors | source.pair(f"{ours}.head.conv", f"{theirs}.out_conv.0")


def _axes(value: Any) -> tuple[int, int, int]:
    z, y, x = (value,) * 3 if isinstance(value, int) else value
    return (z, y, x)


def _flat(value: Any) -> list[Any]:
    return (
        [v for entry in value for v in _flat(entry)]
        if isinstance(value, (list, tuple))
        else [value]
    )
