"""The network as an ONNX graph, written for the inference engines of processors.

Beside the published order of operations, which it keeps, this is where it gains its speed:

- Neighbours along x of the input are taken for channels by both stems, which costs no move in
  memory and spares the engine a reordering of the whole image.
- The attention stream runs on tokens (B, N, M·A) in window order (:mod:`.attention_graph`): cutting
  into windows, pooling, spreading and merging are reshapes, products and gathers of whole rows,
  where the modules for training permute ten axes.
- The affine part of a layer norm and the scaling by √d are folded into the product that follows.
- Tokens of all scales are projected before they are spread, while they are few.

Source of the mathematics: VeloxSeg (ICLR 2026, arXiv 2509.22307).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from veloxseg.bundle.attention_graph import Array, AttentionGraph
from veloxseg.bundle.onnx_builder import GraphBuilder
from veloxseg.bundle.weights import Weights
from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig, divide

INPUT, OUTPUT = "image", "logits"
RELATIVE_OUTPUT = "relative_logits"
"""Logits less the background's, which is left out: all that a mask or softmax depends on."""

HEAD = "head"
"""Last part of the names of the nodes whose constants depend on the number of classes."""

_NORM_EPSILON = 1e-5
_NARROW_GROUP, _WIDE_KERNEL = 4, 5
"""Widths of groups and kernels from which on two neighbours are taken at a time."""


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
        self.grids = [divide(patch, config.stem_stride)]
        for stride in config.strides:
            self.grids.append(divide(self.grids[-1], stride))
        self._require_windows_to_fit()
        self.attention = AttentionGraph(graph, config, weights, self.grids)

    def _require_windows_to_fit(self) -> None:
        """The trained windows must tile the grids of a patch that is not the trained one."""
        config = self.config
        strides = np.prod([config.stem_stride, *config.strides], axis=0)
        largest = [config.window_scales(stage)[-1][0] for stage in range(config.num_stages)]
        fits = not (np.array(self.patch) % strides).any() and all(
            all(g % b == 0 for g, b in zip(grid, big, strict=True))
            for grid, big in zip(self.grids, largest, strict=True)
        )
        if not fits:
            raise PlanError(
                f"The patch {self.patch} gives grids {self.grids}. Expected multiples of the "
                f"largest windows {largest}, as {config.patch_size} has them. Choose a multiple of "
                "it."
            )

    def logits(self, classes: int, *, name: str) -> str:
        """Add the network; (B, classes, *patch)."""
        stem, attention_stem = self._stems()
        attention = self.attention.stages(self.attention.tokens(attention_stem))
        fused = self._encoder(stem, attention)
        u = fused[-1]
        for i in reversed(range(self.config.num_stages - 1)):
            up = self._norm(self._up(u, f"decoder.ups.{i}.0", self.config.strides[i]), i)
            u = self._jlc_stage(self.g.node("Add", fused[i], up), f"decoder.stages.{i}", i)
        return self._head(u, classes, name=name)

    # -- both stems

    def _stems(self) -> tuple[str, str]:
        """The convolution stem (B, C, Z, Y, X), without its norm, and the others, M·A channels."""
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
        return stem, g.concatenate(modalities, axis=1)

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
        a = self.attention.in_grid_order(a, stage)
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
