"""The network as an ONNX graph, written for a processor's inference engines.

The attention stream runs on tokens (B, M, N, A) whose N positions are in *window order*: nested
windows one after the other, so that the windows of every scale are contiguous runs. Cutting a grid
into windows, pooling, spreading and merging are then reshapes, matrix products and gathers of whole
rows, where PyTorch's modules permute ten axes. Affine parts of layer norms and the scaling by √d are
folded into the products that follow. The convolution stream is (B, C, Z, Y, X), as published.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from veloxseg.bundle.onnx_builder import GraphBuilder
from veloxseg.network.config import Axes, NetworkConfig, divide

Weights = Mapping[str, npt.NDArray[np.float32]]
"""A network's state dict as arrays."""

_NORM_EPSILON = 1e-5
_LAYER_NORM_EPSILON = 1e-6


def network_graph(config: NetworkConfig, folds: list[Weights]) -> onnx.ModelProto:
    """Write the network at inference, of one fold or the mean of several.

    Input ``image`` (B, sum(in_channels), *patch_size), output ``logits`` (B, num_classes,
    *patch_size); B is free.

    Args:
        config: The sizes, with the patch that the graph is for.
        folds: The weights of each network to average.

    Source: VeloxSeg (ICLR 2026, arXiv 2509.22307).
    """
    graph = GraphBuilder()
    logits = [_NetworkGraph(graph, config, weights).logits("image") for weights in folds]
    mean = logits[0] if len(logits) == 1 else graph.node("Mean", *logits)
    return graph.model(
        inputs={"image": ["batch", sum(config.in_channels), *config.patch_size]},
        outputs={"logits": (mean, ["batch", config.num_classes, *config.patch_size])},
    )


class _NetworkGraph:
    """Adds one network to a graph. Methods follow the modules of ``veloxseg.network``."""

    def __init__(self, graph: GraphBuilder, config: NetworkConfig, weights: Weights) -> None:
        self.g = graph
        self.config = config
        self.w = weights

    def logits(self, image: str) -> str:
        config = self.config
        attention = self._attention_stream(image)
        fused: list[str] = []
        e = self._norm(
            self._conv(image, "encoder.stem.0", stride=config.stem_stride), config.conv_channels[0]
        )
        for i in range(config.num_stages):
            if i > 0:
                down = self._conv(e, f"encoder.downs.{i - 1}.0", stride=config.strides[i - 1])
                e = self._norm(down, config.conv_channels[i])
            e = self.g.node("Add", e, self._mixer(attention[i], i))
            e = self._jlc_stage(e, f"encoder.stages.{i}", i)
            fused.append(e)
        u = fused[-1]
        for i in reversed(range(config.num_stages - 1)):
            up = self._up(u, f"decoder.ups.{i}.0", config.strides[i])
            up = self._norm(up, config.conv_channels[i])
            u = self._jlc_stage(self.g.node("Add", fused[i], up), f"decoder.stages.{i}", i)
        return self._head(u)

    # -- convolution stream, (B, C, Z, Y, X)

    def _conv(self, x: str, name: str, *, stride: Axes = (1, 1, 1), groups: int = 1) -> str:
        weight = self.w[f"{name}.weight"]
        half = [k // 2 for k in weight.shape[2:]]
        return self.g.node(
            "Conv",
            x,
            self.g.constant(weight),
            self.g.constant(self.w[f"{name}.bias"]),
            kernel_shape=list(weight.shape[2:]),
            strides=list(stride),
            pads=half + half,
            group=groups,
        )

    def _up(self, x: str, name: str, stride: Axes) -> str:
        return self.g.node(
            "ConvTranspose",
            x,
            self.g.constant(self.w[f"{name}.weight"]),
            self.g.constant(self.w[f"{name}.bias"]),
            kernel_shape=list(stride),
            strides=list(stride),
        )

    def _norm(self, x: str, channels: int) -> str:
        g = self.g
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return g.node(
            "InstanceNormalization", x, g.constant(one), g.constant(zero), epsilon=_NORM_EPSILON
        )

    def _jlc_stage(self, x: str, name: str, stage: int) -> str:
        for depth in range(self.config.conv_depths[stage]):
            x = self._jlc(x, f"{name}.{depth}", stage)
        return x

    def _jlc(self, x: str, name: str, stage: int) -> str:
        config = self.config
        channels = config.conv_channels[stage]
        groups = channels // config.group_widths[stage]
        y = x
        for k in range(len(config.kernel_sizes)):
            branch = self._conv(x, f"{name}.branches.{k}", groups=groups)
            if len(config.kernel_sizes) > 1:
                branch = self.g.node("Gelu", self._norm(branch, channels))
            y = self.g.node("Add", y, branch)
        hidden = self.g.node("Gelu", self._conv(self._norm(y, channels), f"{name}.mlp.1"))
        return self.g.node("Add", y, self._conv(hidden, f"{name}.mlp.3"))

    # -- attention stream, tokens (B, M, N, A)

    def _attention_stream(self, image: str) -> list[str]:
        config = self.config
        a = self._stem(image)
        features = []
        for i in range(config.num_stages):
            if i > 0:
                a = self._merge(a, i)
            for depth in range(config.attention_depths[i]):
                a = self._attention_block(a, f"encoder.attention.stages.{i}.{depth}", i)
            features.append(a)
        return features

    def _stem(self, image: str) -> str:
        """(B, C, *patch) -> (B, M, N, A): a product of each cell of stem³ voxels."""
        config, g = self.config, self.g
        grid = config.grids[0]
        weights = [self.w[f"encoder.attention.stems.{m}.weight"] for m in range(config.num_modalities)]
        biases = [self.w[f"encoder.attention.stems.{m}.bias"] for m in range(config.num_modalities)]
        alike = len(set(config.in_channels)) == 1
        groups = [config.in_channels] if alike else [(c,) for c in config.in_channels]
        slices = [image]
        if not alike:
            slices = g.nodes(
                "Split", image, g.constant(list(config.in_channels)), outputs=len(groups), axis=1
            )
        stems, m = [], 0
        for x, channels in zip(slices, groups, strict=True):
            count = len(channels)
            (z, y, w), (sz, sy, sx) = grid, config.stem_stride
            x = g.reshape(x, 0, count * channels[0], z, sz, y, sy, w, sx)
            x = g.transpose(x, 0, 2, 4, 6, 1, 3, 5, 7)  # (B, Z, Y, X, M·c, sz, sy, sx)
            x = g.reshape(x, 0, math.prod(grid), count, channels[0] * sz * sy * sx)
            x = g.transpose(x, 0, 2, 1, 3)
            matrix = np.stack([w.reshape(len(w), -1).T for w in weights[m : m + count]])
            stems.append(g.linear(x, matrix, np.stack(biases[m : m + count])[:, None]))
            m += count
        tokens = stems[0] if len(stems) == 1 else g.node("Concat", *stems, axis=1)
        return self._take(tokens, self._window_order(0))

    def _merge(self, a: str, stage: int) -> str:
        """Cells of stage - 1 -> positions of ``stage``, both in window order."""
        config = self.config
        stride = config.strides[stage - 1]
        index = _cells(config.grids[stage - 1], stride)[self._window_order(stage)]  # (N', cell)
        index = _inverse(self._window_order(stage - 1))[index]
        a = self._take(a, index.ravel())
        width = config.attention_channels[stage - 1] * math.prod(stride)
        a = self.g.reshape(a, 0, config.num_modalities, len(index), width)
        name = f"encoder.attention.mergings.{stage - 1}"
        return self.g.linear(
            self._layer_norm(a, width), *self._after_norm(f"{name}.norm", f"{name}.reduction")
        )

    def _attention_block(self, x: str, name: str, stage: int) -> str:
        g = self.g
        attended = self._attention(x, f"{name}.attention", stage)
        twice = g.node("Add", x, x)  # as published: see veloxseg.network.window_attention
        h = g.node("Add", twice, attended)
        hidden = g.linear(self._layer_norm(h, self.config.attention_channels[stage]), *self._after_norm(f"{name}.mlp.0", f"{name}.mlp.1"))
        second = self._by_modality(f"{name}.mlp.4.weight")
        bias = self.w[f"{name}.mlp.4.bias"].reshape(self.config.num_modalities, 1, -1)
        return g.node("Add", h, g.linear(g.node("Gelu", hidden), second.swapaxes(1, 2), bias))

    def _attention(self, x: str, name: str, stage: int) -> str:
        config, g = self.config, self.g
        scales = config.window_scales(stage)
        modalities, heads = config.num_modalities, config.num_heads[stage]
        length = math.prod(divide(*scales[0]))
        weight, bias = self._qkv(name, stage, len(scales))
        normal = self._layer_norm(x, config.attention_channels[stage])
        order = self._window_order(stage)
        celled: str | None = None
        cells = _nested_order(config.grids[stage], [small for _, small in scales])
        tokens = []
        for j, (big, small) in enumerate(scales):
            count = config_windows(config.grids[stage], big)
            if math.prod(small) == 1:
                tokens.append(g.linear(normal, weight[:, j], bias[:, j]))
                continue
            if celled is None:
                celled = self._take(normal, _inverse(order)[cells])
            y = g.linear(celled, weight[:, j], bias[:, j])
            volume = math.prod(small)
            y = g.reshape(y, 0, modalities, count * length, volume, weight.shape[-1])
            y = g.node("ReduceMax", y, g.constant([3]), keepdims=0)
            tokens.append(self._take(y, self._pooled_order(stage, j, cells)))
        joined = tokens[0] if len(tokens) == 1 else g.node("Concat", *tokens, axis=2)
        windows = [config_windows(config.grids[stage], big) for big, _ in scales]
        d = config.head_channels[stage]
        c = weight.shape[-1] // heads - 2 * d
        parts = g.nodes(
            "Split", joined, g.constant([heads * d, heads * d, heads * c]), outputs=3, axis=-1
        )
        total = sum(windows)

        def by_window(part: str, width: int, *order: int) -> str:
            part = g.reshape(part, 0, modalities, total, length, heads, width)
            return g.transpose(part, *order)  # from (B, M, W, L, H, c)

        query = g.reshape(by_window(parts[0], d, 0, 2, 4, 1, 3, 5), 0, total, heads, modalities * length, d)
        key = g.reshape(by_window(parts[1], d, 0, 2, 4, 5, 1, 3), 0, total, heads, d, modalities * length)
        value = g.reshape(by_window(parts[2], c, 0, 2, 4, 1, 3, 5), 0, total, heads, modalities * length, c)
        scores = g.node(
            "Add", g.node("MatMul", query, key), g.constant(self._position_bias(name, scales))
        )
        attended = g.node("MatMul", g.node("Softmax", scores, axis=-1), value)
        # (B, W, H, M·L, c) -> (B, M, W, L, H·c)
        attended = g.reshape(attended, 0, total, heads, modalities, length, c)
        attended = g.reshape(
            g.transpose(attended, 0, 3, 1, 4, 2, 5), 0, modalities, total, length, heads * c
        )
        split = [attended]
        if len(scales) > 1:
            split = g.nodes("Split", attended, g.constant(windows), outputs=len(scales), axis=2)
        return self._spread(split, name, stage)

    def _spread(self, attended: list[str], name: str, stage: int) -> str:
        """Project the tokens of every scale, spread them over their windows, and add up."""
        config, g = self.config, self.g
        scales = config.window_scales(stage)
        output = self._by_modality(f"{name}.output.weight")  # (M, A, S·H·c)
        modalities, channels = output.shape[:2]
        output = output.reshape(modalities, channels, len(scales), -1)
        total = self.g.constant(self.w[f"{name}.output.bias"].reshape(modalities, 1, -1))
        for j, (tokens, (big, small)) in enumerate(zip(attended, scales, strict=True)):
            matrix = output[:, :, j].swapaxes(1, 2)  # (M, H·c, A)
            y = g.linear(tokens, matrix[:, None])
            if math.prod(small) > 1:
                y = g.node("MatMul", g.constant(self._upsampling(stage, j)), y)
            y = g.reshape(y, 0, modalities, math.prod(config.grids[stage]), channels)
            total = g.node("Add", y, total)
        return total

    def _qkv(self, name: str, stage: int, scales: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weight (M, S, A, F) and bias (M, S, 1, F), F ordered (queries, keys, values)."""
        config = self.config
        heads, d = config.num_heads[stage], config.head_channels[stage]
        weight, bias = self._after_norm(f"{name}.norm", f"{name}.qkv")
        modalities, channels, _ = weight.shape

        def reorder(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            x = x.reshape(*x.shape[:2], scales, heads, -1)  # (M, A or 1, S, H, 2d + c)
            parts = [x[..., :d] * d**-0.5, x[..., d : 2 * d], x[..., 2 * d :]]
            joined = np.concatenate([part.reshape(*x.shape[:3], -1) for part in parts], axis=-1)
            return joined.swapaxes(1, 2).astype(np.float32)

        assert bias is not None
        return reorder(weight), reorder(bias)

    def _position_bias(self, name: str, scales: tuple[tuple[Axes, Axes], ...]) -> npt.NDArray[np.float32]:
        """(H, M·L, M·L): the same for every pair of modalities."""
        table = self.w[f"{name}.position_table"]  # (positions, H)
        tokens = divide(*scales[0])
        position = np.stack(np.unravel_index(np.arange(math.prod(tokens)), tokens), axis=-1)
        offset = position[:, None] - position[None] + np.array(tokens) - 1
        row = np.ravel_multi_index(tuple(np.moveaxis(offset, -1, 0)), tuple(2 * n - 1 for n in tokens))
        bias = table[row].transpose(2, 0, 1)
        return np.tile(bias, (1, self.config.num_modalities, self.config.num_modalities))

    def _upsampling(self, stage: int, scale: int) -> npt.NDArray[np.float32]:
        """(positions of a window in window order, L): trilinear, align_corners."""
        scales = self.config.window_scales(stage)
        big, _ = scales[scale]
        matrix = np.ones((1, 1))
        for n, extent in zip(divide(*scales[0]), big, strict=True):
            matrix = np.kron(matrix, _linear(n, extent))
        order = _nested_order(big, [b for b, _ in scales[: scale + 1]])
        return matrix[order].astype(np.float32)

    def _pooled_order(self, stage: int, scale: int, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For the tokens of all windows of a scale, which pooled cell each is."""
        config = self.config
        grid = config.grids[stage]
        scales = config.window_scales(stage)
        big, small = scales[scale]
        coarse = divide(grid, small)
        rank = np.empty(math.prod(coarse), np.int64)
        position = np.stack(np.unravel_index(cells[:: math.prod(small)], grid), axis=-1) // small
        rank[np.ravel_multi_index(tuple(position.T), coarse)] = np.arange(len(rank))
        return rank[_nested_order(coarse, [divide(b, small) for b, _ in scales[scale:]])]

    def _mixer(self, a: str, stage: int) -> str:
        config, g = self.config, self.g
        grid = config.grids[stage]
        weight = self.w[f"encoder.mixers.{stage}.0.weight"][:, :, 0, 0, 0]  # (C, M·A)
        weight = weight.reshape(len(weight), config.num_modalities, -1).transpose(1, 2, 0)
        mixed = g.linear(a, weight)  # its bias goes with the instance norm's mean
        if config.num_modalities > 1:
            mixed = g.node("ReduceSum", mixed, g.constant([1]), keepdims=1)
        mixed = self._take(mixed, _inverse(self._window_order(stage)))
        mixed = g.reshape(g.transpose(mixed, 0, 1, 3, 2), 0, config.conv_channels[stage], *grid)
        return self._norm(mixed, config.conv_channels[stage])

    def _layer_norm(self, x: str, channels: int) -> str:
        scale = self.g.constant(np.ones(channels, np.float32))
        return self.g.node(
            "LayerNormalization", x, scale, axis=-1, epsilon=_LAYER_NORM_EPSILON
        )

    def _after_norm(
        self, norm: str, linear: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """A norm's affine part and the product after it, as one: weight (M, in, out), bias."""
        weight = self._by_modality(f"{linear}.weight")  # (M, out, in)
        scale, shift = self.w[f"{norm}.weight"], self.w[f"{norm}.bias"]
        bias = np.einsum("moi,mi->mo", weight.astype(np.float64), shift)
        if f"{linear}.bias" in self.w:
            bias = bias + self.w[f"{linear}.bias"].reshape(bias.shape)
        scaled = (weight * scale[:, None]).swapaxes(1, 2)
        return scaled, bias[:, None].astype(np.float32)

    def _by_modality(self, name: str) -> npt.NDArray[np.float32]:
        """The weight of a grouped 1x1x1 convolution as (M, out, in)."""
        weight = self.w[name]
        return weight.reshape(self.config.num_modalities, -1, weight.shape[1])

    def _take(self, x: str, index: npt.NDArray[np.int64]) -> str:
        """Rows of the token axis."""
        if np.array_equal(index, np.arange(len(index))):
            return x
        return self.g.node("Gather", x, self.g.constant(index), axis=2)

    def _window_order(self, stage: int) -> npt.NDArray[np.int64]:
        scales = self.config.window_scales(stage)
        return _nested_order(self.config.grids[stage], [big for big, _ in scales])

    # -- head

    def _head(self, u: str) -> str:
        config, g = self.config, self.g
        (sz, sy, sx), (z, y, x) = config.stem_stride, config.grids[0]
        u = self._conv(u, "head.conv")
        u = g.reshape(u, 0, config.num_classes, sz, sy, sx, z, y, x)
        u = g.transpose(u, 0, 1, 5, 2, 6, 3, 7, 4)
        return g.reshape(u, 0, config.num_classes, *config.patch_size)


def config_windows(grid: Axes, big: Axes) -> int:
    return math.prod(divide(grid, big))


def _nested_order(grid: Axes, boxes: list[Axes]) -> npt.NDArray[np.int64]:
    """Flat grid positions, sorted by boxes that nest: the largest (last) first."""
    position = np.stack(np.unravel_index(np.arange(math.prod(grid)), grid))
    keys = [np.arange(math.prod(grid))]
    for box in boxes:
        extent = np.array(grid) // box
        keys.append(np.ravel_multi_index(tuple(position // np.array(box)[:, None]), tuple(extent)))
    return np.lexsort(keys)


def _inverse(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse


def _cells(grid: Axes, stride: Axes) -> npt.NDArray[np.int64]:
    """(coarse positions, Π stride): flat positions of every cell, the last axis fastest."""
    flat = np.arange(math.prod(grid)).reshape(grid)
    (sz, sy, sx), (z, y, x) = stride, divide(grid, stride)
    cells = flat.reshape(z, sz, y, sy, x, sx).transpose(0, 2, 4, 1, 3, 5)
    return cells.reshape(z * y * x, -1)


def _linear(num: int, extent: int) -> npt.NDArray[np.float64]:
    """(extent, num): linear interpolation, the first and last of both coinciding."""
    if num == 1:
        return np.ones((extent, 1))
    place = np.linspace(0, num - 1, extent) if extent > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(num)))
