"""The attention stream of the network as part of an ONNX graph.

It runs on tokens (B, N, M·A) in window order (:mod:`.token_order`): cutting into windows, pooling,
spreading and merging are reshapes, products and gathers of whole rows.

Source of the mathematics: VeloxSeg (ICLR 2026), paired window attention.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
from veloxseg.bundle.weights import Weights
from veloxseg.network.config import Axes, NetworkConfig, divide

Array = npt.NDArray[np.float32]

_LAYER_NORM_EPSILON = 1e-6
_MAX_MATRIX = 2**20
"""Entries above which interpolation is done axis by axis instead of by one matrix."""


class AttentionGraph:
    """Adds the attention stream to a graph; methods follow ``veloxseg.network.window_attention``.

    Args:
        graph: What to add to.
        config: The network's sizes; its window scales are kept on any grids that they divide.
        weights: The network's state dict.
        grids: Extent of each stage.
    """

    def __init__(
        self, graph: GraphBuilder, config: NetworkConfig, weights: Weights, grids: Sequence[Axes]
    ) -> None:
        self.g, self.config, self.w, self.grids = graph, config, weights, grids
        self.scales = [config.window_scales(stage) for stage in range(config.num_stages)]
        self.orders = [
            nested_order(grid, [big for big, _ in scales])
            for grid, scales in zip(grids, self.scales, strict=True)
        ]

    def tokens(self, stem: str) -> str:
        """(B, M·A, Z, Y, X) of the stem as tokens."""
        channels = self.config.num_modalities * self.config.attention_channels[0]
        rows = self.g.reshape(
            self.g.transpose(stem, 0, 2, 3, 4, 1), 0, math.prod(self.grids[0]), channels
        )
        return self._rows(rows, self.orders[0])

    def in_grid_order(self, tokens: str, stage: int) -> str:
        """A stage's tokens with the last axis of its grid fastest."""
        return self._rows(tokens, inverse(self.orders[stage]))

    def stages(self, a: str) -> list[str]:
        """Tokens of every stage, from the stem's."""
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
