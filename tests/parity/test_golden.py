"""The published network's tensors, reproduced."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from veloxseg.errors import PlanError
from veloxseg.network import DistillationModel, NetworkConfig, TrainingOutput
from veloxseg.network.published import load_published, published_config
from veloxseg.training.objective import Objective

NAMES = ("petct_64", "mri4_64x64x32", "mixed_32x48x64")


@pytest.fixture(params=NAMES)
def golden(request, shared: Path):
    folder = shared / "golden"
    config = json.loads((folder / f"{request.param}.json").read_text())
    tensors = load_file(folder / f"{request.param}.safetensors")
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights")}
    return config, weights, tensors


def close(ours, theirs):
    assert theirs.numel() == 1 or theirs.std() > 1e-3  # the golden output is not trivial
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_logits_in_evaluation_match(golden):
    config, weights, tensors = golden
    model = load_published(config, weights).eval()
    with torch.no_grad():
        close(model.network(tensors["input"]), tensors["eval.logits"])


def test_every_training_output_matches(golden):
    config, weights, tensors = golden
    model = load_published(config, {"model": {f"module.{k}": v for k, v in weights.items()}})
    with torch.no_grad():
        output = model.train()(tensors["input"])
    assert len(output.logits) == 4
    for i, logits in enumerate(output.logits):
        close(logits, tensors[f"train.logits.{i}"])
    close(output.reconstruction, tensors["train.reconstruction"])
    close(output.student_gram, tensors["train.gram.student"])
    for m, gram in enumerate(output.teacher_grams):
        close(gram, tensors[f"train.gram.teacher.{m}"])


def test_both_objective_terms_match_on_golden_outputs_and_on_ours(golden):
    config, weights, tensors = golden
    objective = Objective(in_channels=config["in_ch"], num_heads=4)
    modalities = range(len(config["in_ch"]))
    theirs = TrainingOutput(
        logits=tuple(tensors[f"train.logits.{i}"] for i in range(4)),
        reconstruction=tensors["train.reconstruction"],
        student_gram=tensors["train.gram.student"],
        teacher_grams=tuple(tensors[f"train.gram.teacher.{m}"] for m in modalities),
    )
    with torch.no_grad():
        ours = load_published(config, weights).train()(tensors["input"])
    for output in (theirs, ours):
        targets = [torch.zeros(logits[:, :1].shape) for logits in output.logits]
        terms = objective(output, targets, tensors["input"])
        assert terms.reconstruction > 1e-3
        close(terms.reconstruction, tensors["objective.reconstruction"])
        assert terms.sdkt > 1e-3
        close(terms.sdkt, tensors["objective.sdkt"])


def test_a_missing_weight_is_refused_and_named(golden):
    config, weights, _ = golden
    for key in (
        "encoder.encoder_conv.down1.down.weight",
        "encoder.encoder_attn.layers.0.blocks.0.attn.qkv_proj.0.1.bias",
        "encoder.encoder_attn.layers.1.downs.0.reduction.weight",
        "rc_decoders.0.enc2rc_2.0.bias",
        "decoder.out_conv3.weight",
    ):
        with pytest.raises(PlanError, match=key):
            load_published(config, {k: v for k, v in weights.items() if k != key})


@pytest.mark.parametrize("key", ["decoder.out_conv2.weight", "rc_decoders.0.out_conv.0.weight"])
def test_half_of_the_training_only_weights_is_not_taken_for_none(golden, key):
    config, weights, _ = golden
    with pytest.raises(PlanError, match=f"Not used: {key.split('.')[0]}"):
        load_published(config, {k: v for k, v in weights.items() if k != key})


def test_a_weight_too_many_is_refused_and_named(golden):
    config, weights, _ = golden
    extra = {**weights, "decoder.layer9.weight": torch.zeros(3)}
    with pytest.raises(PlanError, match=r"decoder\.layer9\.weight"):
        load_published(config, extra)


@pytest.mark.parametrize(
    ("key", "axis"),
    [
        ("decoder.layer1.0.channel_conv.1.weight", 1),
        ("encoder.encoder_conv.down2.down.bias", 0),
        ("encoder.encoder_attn.layers.0.blocks.0.attn.qkv_proj.0.0.weight", 0),
        ("encoder.encoder_attn.layers.0.blocks.0.attn.qkv_proj.0.1.weight", 1),
        ("encoder.encoder_attn.layers.0.blocks.0.attn.qkv_proj.0.2.bias", 0),
        ("encoder.encoder_attn.layers.0.blocks.0.norms.0.weight", 0),
        ("encoder.encoder_attn.layers.0.blocks.0.ffns.0.linear1.weight", 1),
        ("encoder.encoder_attn.layers.0.blocks.0.attn.mix_channels.0.weight", 0),
        ("encoder.encoder_attn.layers.2.downs.0.reduction.weight", 1),
    ],
)
def test_a_weight_of_another_shape_is_refused(golden, key, axis):
    config, weights, _ = golden
    longer = torch.cat([weights[key], weights[key].narrow(axis, 0, 1)], dim=axis)
    with pytest.raises(PlanError, match=r"[Ss]hape"):
        load_published(config, {**weights, key: longer})


def test_weights_of_another_configuration_are_refused(golden):
    config, weights, _ = golden
    with pytest.raises(PlanError):
        load_published({**config, "in_ch": [*config["in_ch"], 1]}, weights)
    with pytest.raises(PlanError):
        load_published({**config, "base_ch": 32}, weights)


def test_an_unknown_or_missing_configuration_key_is_refused_and_named(golden):
    config, _, _ = golden
    with pytest.raises(PlanError, match="window_size"):
        load_published({**config, "window_size": 7})
    with pytest.raises(PlanError, match="in_ch"):
        load_published({k: v for k, v in config.items() if k != "in_ch"})
    with pytest.raises(PlanError, match="always 2"):
        load_published({**config, "scale_factors": [[2, 2, 1]] * 3})


def test_absent_configuration_keys_have_the_published_defaults():
    config = published_config({"in_ch": [1, 1], "n_classes": 2, "input_size": [96, 96, 96]})
    assert config == NetworkConfig(
        patch_size=(96, 96, 96),
        in_channels=(1, 1),
        num_classes=2,
        attention_depths=(2, 2, 2, 2),
        conv_dropout=0.0,
    )


def test_a_checkpoint_of_inference_weights_alone_gives_the_same_logits(golden):
    config, weights, tensors = golden
    heads = tuple(f"decoder.out_conv{i}." for i in (2, 3, 4))
    bare = {k: v for k, v in weights.items() if not k.startswith(("rc_decoders.", *heads))}
    assert len(bare) < len(weights)
    model = load_published(config, bare).eval()
    with torch.no_grad():
        close(model.network(tensors["input"]), tensors["eval.logits"])


def test_weights_with_one_kernel_load_from_their_own_names():
    config = {
        "in_ch": [1, 1],
        "n_classes": 2,
        "input_size": [32, 32, 32],
        "patch_size": 2,
        "base_ch": 16,
        "kernel_sizes": [3],
        "depths": [1, 1, 1, 1],
        "conv_depths": [1, 2, 1, 1],
        "min_big_window_sizes": [[4] * 3, [4] * 3, [2] * 3, [2] * 3],
    }
    torch.manual_seed(0)
    model = load_published(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    published = renamed(model)
    name = "encoder.encoder_conv.layer2.1.spatial_convs.0.weight"
    assert published[name].shape == (32, 8, 3, 3, 3)
    again = load_published(config, published).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(again[key], value), key


def renamed(model: DistillationModel) -> dict[str, torch.Tensor]:
    """A model's weights in the published names, written apart from the importer."""
    config = model.network.config
    encoder, published = model.network.encoder, {}

    def put(name, module, part=slice(None)):
        for key, value in module.state_dict().items():
            published[f"{name}.{key}"] = value[part]

    def put_decoder(name, decoder):
        for i, up in enumerate(decoder.ups):
            put(f"{name}.layer_up{i + 1}.up", up[0])
            put_blocks(f"{name}.layer{i + 1}", decoder.stages[i])

    def put_blocks(name, stage):
        for j, block in enumerate(stage):
            put(f"{name}.{j}.spatial_convs.0", block.branches[0])
            for layer in (1, 3):
                put(f"{name}.{j}.channel_conv.{layer}", block.mlp[layer])

    for i, stage in enumerate(encoder.stages):
        put(
            f"encoder.encoder_conv.down{i + 1}.down",
            (encoder.downs[i - 1] if i else encoder.stem)[0],
        )
        put(f"encoder.attn2conv_{i + 1}.0", encoder.mixers[i][0])
        put_blocks(f"encoder.encoder_conv.layer{i + 1}", stage)
    put_decoder("decoder", model.network.decoder)
    put("decoder.out_conv1.0", model.network.head.conv)
    for i, head in enumerate(model.heads):
        put(f"decoder.out_conv{i + 2}", head)
    for m, teacher in enumerate(model.teachers):
        put_decoder(f"rc_decoders.{m}", teacher.decoder)
        put(f"rc_decoders.{m}.out_conv.0", teacher.head.conv)
        for i, fusion in enumerate(teacher.fusions):
            put(f"rc_decoders.{m}.enc2rc_{i + 1}.0", fusion[0])
        put(f"encoder.encoder_attn.patch_embeds.{m}.proj", encoder.attention.stems[m])
        for i, (block,) in enumerate(encoder.attention.stages):
            name = f"encoder.encoder_attn.layers.{i}.blocks.0"
            put(f"{name}.attn.input_norms.{m}", block.attention.norm, m)
            put(f"{name}.norms.{m}", block.mlp[0], m)
            put_part(published, f"{name}.attn.mix_channels.{m}", block.attention.output, m)
            for layer, linear in ((1, "linear1"), (4, "linear2")):
                put_part(published, f"{name}.ffns.{m}.{linear}", block.mlp[layer], m)
            table = f"{name}.attn.position_embedding.relative_position_bias_table"
            published[table] = block.attention.position_table.detach()
            put_projections(published, f"{name}.attn.qkv_proj.{m}", block.attention, m)
        for i, merging in enumerate(encoder.attention.mergings):
            name = f"encoder.encoder_attn.layers.{i}.downs.{m}"
            put(f"{name}.norm", merging.norm, m)
            put_part(published, f"{name}.reduction", merging.reduction, m)
    assert config.num_modalities == 2
    return published


def put_part(published, name, module, modality):
    for key, value in module.state_dict().items():
        published[f"{name}.{key}"] = value.chunk(2)[modality]


def put_projections(published, name, attention, modality):
    """Ours are ordered (scale, head, [q, k, v]), the published ones q, k, v of (scale, head)."""
    d, c = attention.key_channels, attention.value_channels
    for key, value in attention.qkv.state_dict().items():
        rows = value.chunk(2)[modality].split(2 * d + c)
        for i, part in enumerate((slice(0, d), slice(d, 2 * d), slice(2 * d, 2 * d + c))):
            published[f"{name}.{i}.{key}"] = torch.cat([row[part] for row in rows])
