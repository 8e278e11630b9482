"""The network as an ONNX graph, written for the inference engines of processors.

Beside the published order of operations, which it keeps, this is where it gains its speed:

- Neighbours along x of the input are taken for channels by both stems, which costs no move in
  memory and spares the engine a reordering of the whole image.
- The attention stream runs on tokens (B, N, M·A) in window order (:mod:`.token_order`): cutting
  into windows, pooling, spreading and merging are reshapes, products and gathers of whole rows,
  where the modules for training permute ten axes.
- The affine part of a layer norm and the scaling by √d are folded into the product that follows.
- Tokens of all scales are projected before they are spread, while they are few.

Source of the mathematics: VeloxSeg (ICLR 2026, arXiv 2509.22307).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from veloxseg.bundle.onnx_builder import GraphBuilder
from veloxseg.bundle.token_order import (
    Order,
    cells,
    inverse,
    linear_interpolation,
    nested_order,
    relative_positions,
    tokens_of_windows,
)
from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig, divide

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
"""A network's state dict as arrays."""

INPUT, OUTPUT = "image", "logits"
RELATIVE_OUTPUT = "relative_logits"
"""Logits less the background's, which is left out: all that a mask or softmax depends on."""

HEAD = "head"
"""Last part of the names of the nodes whose constants depend on the number of classes."""

_NORM_EPSILON = 1e-5
_LAYER_NORM_EPSILON = 1e-6
_NARROW_GROUP, _WIDE_KERNEL = 4, 5
_MAX_MATRIX = 2**20
"""Entries above which interpolation is done axis by axis instead of by one matrix."""


def network_graph(
    config: NetworkConfig,
    folds: Sequence[Weights],
    *,
    patch_size: Axes | None = None,
    relative: bool = False,
) -> onnx.ModelProto:
    """Write the network as it is at inference, of one fold or the mean of several.

    The input ``image`` is (B, sum(in_channels), *patch_size), the output ``logits`` (B,
    num_classes, *patch_size), with B free.

    Args:
        config: The sizes that the weights were trained with.
        folds: The state dict of each network to average.
        patch_size: Extent of the input if it is not the trained one. Attention keeps the trained
            window scales, which must divide every stage's grid; norms see the larger patch.
        relative: The output is ``relative_logits`` (B, num_classes - 1, *patch_size).

    Raises:
        PlanError: windows do not divide the grids of ``patch_size``.
    """
    graph = GraphBuilder()
    patch = patch_size or config.patch_size
    output = RELATIVE_OUTPUT if relative else OUTPUT
    networks = [
        _Network(graph, config, _relative(weights, config) if relative else weights, patch)
        for weights in folds
    ]
    classes = config.num_classes - (1 if relative else 0)
    if len(networks) == 1:
        networks[0].logits(classes, name=output)
    else:
        names = [n.logits(classes, name=f"fold_{i}_{HEAD}") for i, n in enumerate(networks)]
        graph.node("Mean", *names, name=output)
    return graph.model(
        inputs={INPUT: ["batch", sum(config.in_channels), *patch]},
        outputs={output: ["batch", classes, *patch]},
    )


def _relative(weights: Weights, config: NetworkConfig) -> dict[str, Array]:
    cell = math.prod(config.stem_stride)
    changed = {
        name: weights[name][cell:]
        - np.concatenate([weights[name][:cell]] * (config.num_classes - 1))
        for name in ("head.conv.weight", "head.conv.bias")
    }
    return {**weights, **changed}


class _Network:
    """Adds one network to a graph; its methods follow the modules of :mod:`veloxseg.network`."""

    def __init__(
        self, graph: GraphBuilder, config: NetworkConfig, weights: Weights, patch: Axes
    ) -> None:
        self.g, self.config, self.w, self.patch = graph, config, weights, patch
        self.scales = [config.window_scales(stage) for stage in range(config.num_stages)]
        self.grids = [divide(patch, config.stem_stride)]
        for stride in config.strides:
            self.grids.append(divide(self.grids[-1], stride))
        strides = np.prod([config.stem_stride, *config.strides], axis=0)
        fits = not (np.array(patch) % strides).any() and all(
            all(g % b == 0 for g, b in zip(grid, scales[-1][0], strict=True))
            for grid, scales in zip(self.grids, self.scales, strict=True)
        )
        if not fits:
            raise PlanError(
                f"The patch {patch} gives grids {self.grids}. Expected multiples of the largest "
                f"windows {[scales[-1][0] for scales in self.scales]}, as {config.patch_size} has "
                "them. Choose a multiple of it."
            )
        self.orders = [
            nested_order(grid, [big for big, _ in scales])
            for grid, scales in zip(self.grids, self.scales, strict=True)
        ]

    def logits(self, classes: int, *, name: str) -> str:
        """Add the network; (B, classes, *patch)."""
        stem, tokens = self._stems()
        attention = self._attention_stream(tokens)
        fused = self._encoder(stem, attention)
        u = fused[-1]
        for i in reversed(range(self.config.num_stages - 1)):
            up = self._norm(self._up(u, f"decoder.ups.{i}.0", self.config.strides[i]), i)
            u = self._jlc_stage(self.g.node("Add", fused[i], up), f"decoder.stages.{i}", i)
        return self._head(u, classes, name=name)

    # -- both stems

    def _stems(self) -> tuple[str, str]:
        """The convolution stem without its norm, (B, C, Z, Y, X), and tokens (B, N, M·A)."""
        config, g = self.config, self.g
        (sz, sy, sx), grid = config.stem_stride, self.grids[0]
        num = sum(config.in_channels)
        blocked = []
        for channel in g.split(INPUT, [1] * num, axis=1):
            rows = g.reshape(channel, 0, *self.patch[:2], grid[2], sx)
            blocked.append(g.transpose(rows, 0, 4, 1, 2, 3))  # (B, sx, Z·sz, Y·sy, X)
        kernel = _blocked_stem(self.w["encoder.stem.0.weight"], sx)
        pads = [sz - 1, sy - 1, kernel.shape[-1] - 1, sz - 1, sy - 1, 0]
        stem = self._sum_of_convs(
            blocked, kernel, "encoder.stem.0.bias", strides=[sz, sy, 1], pads=pads
        )
        modalities, first = [], 0
        for m, count in enumerate(config.in_channels):
            name = f"encoder.attention.stems.{m}"
            kernel = np.moveaxis(self.w[f"{name}.weight"], -1, 2)[..., None]
            channels = blocked[first : first + count]
            modalities.append(
                self._sum_of_convs(channels, kernel, f"{name}.bias", strides=[sz, sy, 1])
            )
            first += count
        joined = g.transpose(g.concatenate(modalities, axis=1), 0, 2, 3, 4, 1)
        tokens = g.reshape(
            joined, 0, math.prod(grid), len(modalities) * config.attention_channels[0]
        )
        return stem, self._rows(tokens, self.orders[0])

    def _sum_of_convs(
        self, channels: Sequence[str], kernel: Array, bias: str, **attributes: Any
    ) -> str:
        """Convolve each input channel by its part of a kernel (C, c, sx, kz, ky, kx)."""
        g = self.g
        total = ""
        for index, x in enumerate(channels):
            inputs = [x, g.constant(kernel[:, index])]
            if not total:
                inputs.append(g.constant(self.w[bias]))
            y = g.node("Conv", *inputs, kernel_shape=list(kernel.shape[3:]), **attributes)
            total = g.node("Add", total, y) if total else y
        return total

    # -- convolution stream, (B, C, Z, Y, X)

    def _encoder(self, e: str, attention: Sequence[str]) -> list[str]:
        config = self.config
        fused: list[str] = []
        for i in range(config.num_stages):
            if i > 0:
                e = self._conv(e, f"encoder.downs.{i - 1}.0", stride=config.strides[i - 1])
            e = self.g.node("Add", self._norm(e, i), self._mixer(attention[i], i))
            e = self._jlc_stage(e, f"encoder.stages.{i}", i)
            fused.append(e)
        return fused

    def _mixer(self, a: str, stage: int) -> str:
        """1×1×1 convolution of all modalities' tokens, and its norm, which undoes its bias."""
        g = self.g
        weight = self.w[f"encoder.mixers.{stage}.0.weight"][:, :, 0, 0, 0]  # (C, M·A)
        a = self._rows(a, inverse(self.orders[stage]))
        mixed = g.reshape(g.linear(a, weight.T), 0, *self.grids[stage], len(weight))
        return self._norm(g.transpose(mixed, 0, 4, 1, 2, 3), stage)

    def _jlc_stage(self, x: str, name: str, stage: int) -> str:
        for depth in range(self.config.conv_depths[stage]):
            x = self._jlc(x, f"{name}.{depth}", stage)
        return x

    def _jlc(self, x: str, name: str, stage: int) -> str:
        g, kernels = self.g, len(self.config.kernel_sizes)
        groups = self.config.conv_channels[stage] // self.config.group_widths[stage]
        y = x
        for k in range(kernels):
            branch = self._grouped_conv(x, f"{name}.branches.{k}", groups=groups, stage=stage)
            if kernels > 1:
                branch = g.node("Gelu", self._norm(branch, stage))
            y = g.node("Add", y, branch)
        hidden = g.node("Gelu", self._conv(self._norm(y, stage), f"{name}.mlp.1"))
        return g.node("Add", y, self._conv(hidden, f"{name}.mlp.3"))

    def _conv(
        self, x: str, name: str, *, stride: Axes = (1, 1, 1), groups: int = 1, node: str = ""
    ) -> str:
        weight = self.w[f"{name}.weight"]
        half = [k // 2 for k in weight.shape[2:]]
        return self.g.node(
            "Conv",
            x,
            self.g.constant(weight),
            self.g.constant(self.w[f"{name}.bias"]),
            name=node,
            kernel_shape=list(weight.shape[2:]),
            strides=list(stride),
            pads=half + half,
            group=groups,
        )

    def _grouped_conv(self, x: str, name: str, *, groups: int, stage: int) -> str:
        """A JLC branch; wide kernels of narrow groups take two neighbours along x at a time.

        That doubles the width of the groups, which fills an engine's vectors, for a fifth more
        products with 5³ kernels.
        """
        weight = self.w[f"{name}.weight"]
        channels, width = weight.shape[:2]
        z, y, x_size = self.grids[stage]
        narrow = width <= _NARROW_GROUP and weight.shape[-1] >= _WIDE_KERNEL
        if not narrow or x_size % 2 or channels != groups * width:
            return self._conv(x, name, groups=groups)
        g = self.g
        pairs = g.reshape(g.transpose(x, 0, 2, 3, 4, 1), 0, z, y, x_size // 2, 2, groups, width)
        pairs = g.reshape(
            g.transpose(pairs, 0, 1, 2, 3, 5, 4, 6), 0, z, y, x_size // 2, 2 * channels
        )
        paired = _paired_kernel(weight, groups)
        half = [k // 2 for k in paired.shape[2:]]
        pairs = g.node(
            "Conv",
            g.transpose(pairs, 0, 4, 1, 2, 3),
            g.constant(paired),
            g.constant(self.w[f"{name}.bias"].reshape(groups, 1, width).repeat(2, axis=1).ravel()),
            kernel_shape=list(paired.shape[2:]),
            pads=half + half,
            group=groups,
        )
        pairs = g.reshape(g.transpose(pairs, 0, 2, 3, 4, 1), 0, z, y, x_size // 2, groups, 2, width)
        pairs = g.reshape(g.transpose(pairs, 0, 1, 2, 3, 5, 4, 6), 0, z, y, x_size, channels)
        return g.transpose(pairs, 0, 4, 1, 2, 3)

    def _up(self, x: str, name: str, stride: Axes) -> str:
        weight, bias = (self.g.constant(self.w[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.g.node(
            "ConvTranspose", x, weight, bias, kernel_shape=list(stride), strides=list(stride)
        )

    def _norm(self, x: str, stage: int) -> str:
        channels = self.config.conv_channels[stage]
        one, zero = (self.g.constant(np.full(channels, v, np.float32)) for v in (1, 0))
        return self.g.node("InstanceNormalization", x, one, zero, epsilon=_NORM_EPSILON)

    def _head(self, u: str, classes: int, *, name: str) -> str:
        """3³ convolution and pixel shuffle: (B, C, Z, Y, X) -> (B, classes, *patch)."""
        g, (sz, sy, sx), (z, y, x) = self.g, self.config.stem_stride, self.grids[0]
        u = self._conv(u, "head.conv", node=f"{name}/{HEAD}_conv")
        u = g.reshape(u, 0, classes, sz, sy, sx, z, y, x, name=f"{name}/{HEAD}_cells")
        u = g.transpose(u, 0, 1, 5, 2, 6, 3, 7, 4)
        return g.reshape(u, 0, classes, *self.patch, name=name)

    # -- attention stream, tokens (B, N, M·A) in window order

    def _attention_stream(self, a: str) -> list[str]:
        features = []
        for i in range(self.config.num_stages):
            if i > 0:
                a = self._merge(a, i)
            for depth in range(self.config.attention_depths[i]):
                a = self._attention_block(a, f"encoder.attention.stages.{i}.{depth}", i)
            features.append(a)
        return features

    def _merge(self, a: str, stage: int) -> str:
        """Cells of the stage before become positions of ``stage``."""
        config, g = self.config, self.g
        stride = config.strides[stage - 1]
        rows = cells(self.grids[stage - 1], stride)[self.orders[stage]]  # (N', cell)
        a = self._rows(a, inverse(self.orders[stage - 1])[rows].ravel())
        modalities, channels = config.num_modalities, config.attention_channels[stage - 1]
        if modalities > 1:  # (cell, M, A) -> (M, cell, A)
            a = g.reshape(a, 0, len(rows), math.prod(stride), modalities, channels)
            a = g.transpose(a, 0, 1, 3, 2, 4)
        a = g.reshape(a, 0, len(rows), modalities * math.prod(stride) * channels)
        name = f"encoder.attention.mergings.{stage - 1}"
        weight, bias = self._after_norm(f"{name}.norm", f"{name}.reduction")
        return self._by_modality(self._layer_norm(a, weight.shape[1]), weight, bias)

    def _attention_block(self, x: str, name: str, stage: int) -> str:
        g = self.g
        twice = g.node("Add", x, x)  # as published: see veloxseg.network.window_attention
        h = g.node("Add", twice, self._attention(x, f"{name}.attention", stage))
        weight, bias = self._after_norm(f"{name}.mlp.0", f"{name}.mlp.1")
        hidden = self._by_modality(self._layer_norm(h, weight.shape[1]), weight, bias)
        weight = self._modality_weight(f"{name}.mlp.4.weight")
        bias = self.w[f"{name}.mlp.4.bias"].reshape(len(weight), -1)
        return g.node("Add", h, self._by_modality(g.node("Gelu", hidden), weight, bias))

    def _attention(self, x: str, name: str, stage: int) -> str:
        """Paired window attention: tokens of all scales' windows attend in one batch."""
        config, g = self.config, self.g
        heads, d = config.num_heads[stage], config.head_channels[stage]
        length = math.prod(divide(*self.scales[stage][0])) * config.num_modalities
        tokens, width = self._window_tokens(x, name, stage)
        widths = [heads * d, heads * d, width - 2 * heads * d]
        value_channels = widths[2] // heads
        parts = g.split(g.reshape(tokens, -1, length, width), widths, axis=-1)  # (B·W, L·M, ...)

        def by_head(part: str, channels: int, *order: int) -> str:
            return g.transpose(g.reshape(part, -1, length, heads, channels), *order)

        query = by_head(parts[0], d, 0, 2, 1, 3)
        key = by_head(parts[1], d, 0, 2, 3, 1)
        value = by_head(parts[2], value_channels, 0, 2, 1, 3)
        scores = g.node("MatMul", query, key)
        scores = g.node("Add", scores, g.constant(self._position_bias(name, stage)))
        attended = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
        attended = g.transpose(attended, 0, 2, 1, 3)  # (B·W, L·M, H, c)
        return self._spread(attended, heads * value_channels, name, stage)

    def _window_tokens(self, x: str, name: str, stage: int) -> tuple[str, int]:
        """Queries, keys and values (B, W·L, M·F) of all scales' windows, and F."""
        config, g = self.config, self.g
        grid, scales = self.grids[stage], self.scales[stage]
        weight, bias = self._qkv(name, stage)  # (M·A, S, M·F), (S, M·F)
        width = weight.shape[-1]
        normal = self._layer_norm(x, config.attention_channels[stage])
        volumes = [math.prod(small) for _, small in scales]
        plain = volumes.count(1)  # scales whose tokens are single positions come first
        tokens = [g.linear(normal, weight[:, j], bias[j]) for j in range(plain)]
        if plain < len(scales):
            order = nested_order(grid, [small for _, small in scales])
            y = self._rows(normal, inverse(self.orders[stage])[order])
            y = g.linear(y, weight[:, plain:].reshape(len(weight), -1), bias[plain:].ravel())
            pooled = 1
            for j in range(plain, len(scales)):  # a maximum of maxima
                rest = (len(scales) - j) * width
                y = g.reshape(y, 0, len(order) // volumes[j], volumes[j] // pooled, rest)
                y = g.node("ReduceMax", y, g.constant([2]), keepdims=0)
                pooled = volumes[j]
                sizes = [width] if rest == width else [width, rest - width]
                part, *remaining = g.split(y, sizes, axis=-1)
                tokens.append(self._rows(part, tokens_of_windows(grid, scales, j, order)))
                y = remaining[0] if remaining else ""
        return g.concatenate(tokens, axis=1), width // config.num_modalities

    def _spread(self, attended: str, width: int, name: str, stage: int) -> str:
        """Project every scale's tokens, spread them over their windows, and add up: (B, N, M·A)."""
        config, g = self.config, self.g
        scales, modalities = self.scales[stage], config.num_modalities
        length = math.prod(divide(*scales[0]))
        windows = [math.prod(divide(self.grids[stage], big)) for big, _ in scales]
        joined = g.reshape(attended, -1, sum(windows) * length, modalities * width)
        parts = g.split(joined, [count * length for count in windows], axis=1)
        weight = self._modality_weight(f"{name}.output.weight")  # (M, S·H·c, A)
        channels = weight.shape[-1]
        weight = weight.reshape(modalities, len(scales), width, channels)
        total = g.constant(self.w[f"{name}.output.bias"])
        for j, part in enumerate(parts):
            y = g.linear(part, _block_diagonal(weight[:, j]))
            if math.prod(scales[j][1]) > 1:
                y = self._interpolate(y, windows[j], modalities * channels, stage, j)
            total = g.node("Add", y, total)
        return total

    def _interpolate(self, tokens: str, windows: int, channels: int, stage: int, j: int) -> str:
        """Trilinear (align_corners) inside each window: (B, W·L, C) -> (B, N, C)."""
        g, scales = self.g, self.scales[stage]
        (big, _), extent = scales[j], divide(*scales[0])
        axes = [linear_interpolation(n, b) for n, b in zip(extent, big, strict=True)]
        inside = nested_order(big, [b for b, _ in scales[: j + 1]])
        num = windows * math.prod(big)
        if math.prod(big) * math.prod(extent) <= _MAX_MATRIX:
            matrix = np.kron(np.kron(axes[0], axes[1]), axes[2])[inside]
            y = g.reshape(tokens, -1, windows, math.prod(extent), channels)
            return g.reshape(g.node("MatMul", g.constant(matrix), y), -1, num, channels)
        y = tokens
        for axis, matrix in enumerate(axes):
            y = g.reshape(y, -1, extent[axis], math.prod(extent[axis + 1 :]) * channels)
            y = g.node("MatMul", g.constant(matrix), y)
        starts = np.arange(windows)[:, None] * math.prod(big)
        return self._rows(g.reshape(y, -1, num, channels), (starts + inside).ravel())

    def _qkv(self, name: str, stage: int) -> tuple[Array, Array]:
        """Weight (M·A, S, M·F) and bias (S, M·F); F is (queries, keys, values), each by head."""
        config = self.config
        scales, heads, d = (
            len(self.scales[stage]),
            config.num_heads[stage],
            config.head_channels[stage],
        )
        weight, bias = self._after_norm(f"{name}.norm", f"{name}.qkv")  # (M, A, S·H·(2d + c))

        def reorder(x: Array) -> Array:
            x = x.reshape(*x.shape[:2], scales, heads, -1)
            parts = (x[..., :d] * d**-0.5, x[..., d : 2 * d], x[..., 2 * d :])
            return np.concatenate([p.reshape(*x.shape[:3], -1) for p in parts], axis=-1)

        weight, bias = reorder(weight), reorder(bias[:, None])  # (M, A or 1, S, F)
        diagonal = np.stack([_block_diagonal(weight[:, :, j]) for j in range(scales)], axis=1)
        return diagonal, bias[:, 0].swapaxes(0, 1).reshape(scales, -1)

    def _position_bias(self, name: str, stage: int) -> Array:
        """(H, L·M, L·M): the same for every pair of modalities."""
        rows = relative_positions(divide(*self.scales[stage][0]))
        bias: Array = self.w[f"{name}.position_table"][rows].transpose(2, 0, 1)
        modalities = self.config.num_modalities
        tiled: Array = bias.repeat(modalities, axis=1).repeat(modalities, axis=2)
        return tiled

    def _layer_norm(self, x: str, channels: int) -> str:
        """Layer norm of each modality's channels, (B, N, M·channels), without its affine part."""
        g, modalities = self.g, self.config.num_modalities
        scale = g.constant(np.ones(channels, np.float32))
        if modalities > 1:
            x = g.reshape(x, 0, 0, modalities, channels)
        x = g.node("LayerNormalization", x, scale, axis=-1, epsilon=_LAYER_NORM_EPSILON)
        return x if modalities == 1 else g.reshape(x, 0, 0, modalities * channels)

    def _after_norm(self, norm: str, linear: str) -> tuple[Array, Array]:
        """A norm's affine part and the product after it: weight (M, in, out), bias (M, out)."""
        weight = self._modality_weight(f"{linear}.weight")
        scale, shift = self.w[f"{norm}.weight"], self.w[f"{norm}.bias"]
        bias = np.einsum("mio,mi->mo", weight.astype(np.float64), shift)
        if f"{linear}.bias" in self.w:
            bias = bias + self.w[f"{linear}.bias"].reshape(bias.shape)
        return weight * scale[..., None], bias.astype(np.float32)

    def _modality_weight(self, name: str) -> Array:
        """The weight of a grouped 1×1×1 convolution as (M, in, out)."""
        weight = self.w[name]
        by_modality = weight.reshape(self.config.num_modalities, -1, weight.shape[1])
        return np.swapaxes(by_modality, 1, 2)

    def _by_modality(self, x: str, weight: Array, bias: Array) -> str:
        """Each modality's own product: (B, N, M·in) with (M, in, out) and (M, out)."""
        g = self.g
        if len(weight) == 1:
            return g.linear(x, weight[0], bias[0])
        kernel = g.constant(weight.swapaxes(1, 2).reshape(-1, weight.shape[1], 1))
        y = g.node(
            "Conv",
            g.transpose(x, 0, 2, 1),
            kernel,
            g.constant(bias.ravel()),
            group=len(weight),
            kernel_shape=[1],
        )
        return g.transpose(y, 0, 2, 1)

    def _rows(self, x: str, index: Order) -> str:
        """Rows of the token axis."""
        if np.array_equal(index, np.arange(len(index))):
            return x
        return self.g.node("Gather", x, self.g.constant(index.astype(np.int32)), axis=1)


def _block_diagonal(blocks: Array) -> Array:
    """(M, in, out) -> (M·in, M·out)."""
    modalities, rows, columns = blocks.shape
    full = np.zeros((modalities, rows, modalities, columns), np.float32)
    for m, block in enumerate(blocks):
        full[m, :, m] = block
    return full.reshape(modalities * rows, modalities * columns)


def _paired_kernel(weight: Array, groups: int) -> Array:
    """A grouped kernel (G·w, w, kz, ky, kx) for pairs of neighbours along x.

    Output p of a pair takes, with tap t, input q of the pair b further on: p + t = 2 b + q.

    Returns:
        (G·2·w, 2·w, kz, ky, k), channels of a group ordered (place in the pair, channel).
    """
    width, (kz, ky, kx) = weight.shape[1], weight.shape[2:]
    reach = kx // 2
    half = (reach + 1) // 2
    paired = np.zeros((groups, 2, width, 2, width, kz, ky, 2 * half + 1), np.float32)
    taps = weight.reshape(groups, width, width, kz, ky, kx)
    for p in range(2):
        for t in range(-reach, reach + 1):
            b, q = divmod(p + t, 2)
            paired[:, p, :, q, :, :, :, b + half] = taps[..., t + reach]
    return paired.reshape(groups * 2 * width, 2 * width, kz, ky, 2 * half + 1)


def _blocked_stem(weight: Array, stride: int) -> Array:
    """A stem's kernel (C, c, kz, ky, 2s - 1) for blocks of s neighbours along x.

    Returns:
        (C, c, s, kz, ky, k).

    Position s·i + t lies in block i where t >= 0 and in block i - 1 where t < 0; hence k = 2, or
    1 where s is 1.
    """
    if stride == 1:
        return weight[:, :, None]
    taps = np.pad(weight, [(0, 0)] * 4 + [(1, 0)])  # from -s on
    return np.moveaxis(taps.reshape(*weight.shape[:4], 2, stride), -1, 2)
