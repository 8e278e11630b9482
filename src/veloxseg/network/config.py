"""The sizes of a VeloxSeg network, checked before anything is built."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from veloxseg.errors import PlanError

Axes = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of a VeloxSeg network; every sequence with one entry a stage runs from fine to coarse.

    The three axes are the array's, in the order of the input tensor: (Z, Y, X) in our own plans,
    (X, Y, Z) in published configurations. Lists (as read from JSON) are taken for tuples.

    Attributes:
        patch_size: Input extent per axis, in voxels. It fixes the grids and with them the windows.
        in_channels: Input channels of each modality, in the order of the input tensor.
        num_classes: Output channels of the segmentation (with background, unless regions).
        stem_stride: Stride of both stems per axis; the first grid is ``patch_size / stem_stride``.
        strides: Per axis, between successive stages: one entry fewer than there are stages.
        conv_channels: Channels of the convolution stream per stage (C_i).
        attention_channels: Channels of the attention stream per modality and stage (A_i).
        conv_depths: JLC blocks per stage, in the encoder and in every decoder.
        attention_depths: Paired window attention blocks per stage.
        kernel_sizes: Odd extents of the JLC branches. With a single one the block is the published
            ``y = x + G_k(x)``, without norm and GELU.
        group_widths: Channels in one group of the JLC convolutions, per stage.
        conv_expansion: Expansion of the JLC block's MLP per stage.
        attention_expansion: Expansion of the attention block's MLP per stage.
        big_windows: Smallest window per stage and axis (b_0), in positions of the stage's grid.
        small_windows: Extent pooled into one token at that window (s_0).
        num_heads: Attention heads per stage and window scale.
        head_channels: Channels of queries and keys per head (d); values have at least as many.
        attention_dropout: Dropout on attention weights.
        projection_dropout: Dropout on attention stems, attention outputs and their MLPs.
        conv_dropout: Dropout on the JLC block's MLP.
        drop_path: Probability of skipping a residual branch of an attention block, per sample.

    Raises:
        PlanError: the network cannot be built; the message names the stage and the numbers.

    Source: VeloxSeg (ICLR 2026, arXiv 2509.22307).
    """

    patch_size: Axes
    in_channels: tuple[int, ...]
    num_classes: int
    stem_stride: Axes = (4, 4, 4)
    strides: tuple[Axes, ...] = ((2, 2, 2),) * 3
    conv_channels: tuple[int, ...] = (16, 32, 64, 128)
    attention_channels: tuple[int, ...] = (16, 32, 64, 128)
    conv_depths: tuple[int, ...] = (1, 1, 1, 1)
    attention_depths: tuple[int, ...] = (1, 1, 1, 1)
    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    group_widths: tuple[int, ...] = (4, 8, 8, 16)
    conv_expansion: tuple[int, ...] = (3, 3, 2, 2)
    attention_expansion: tuple[int, ...] = (3, 3, 2, 2)
    big_windows: tuple[Axes, ...] = ((3, 3, 3), (6, 6, 6), (3, 3, 3), (3, 3, 3))
    small_windows: tuple[Axes, ...] = ((1, 1, 1),) * 4
    num_heads: tuple[int, ...] = (1, 2, 2, 4)
    head_channels: tuple[int, ...] = (4, 8, 8, 16)
    attention_dropout: float = 0.1
    projection_dropout: float = 0.1
    conv_dropout: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _as_tuples(getattr(self, field.name)))
        self._check_types()
        self._check_scalars()
        self._check_stages()
        self._check_grids()

    @property
    def num_stages(self) -> int:
        """Number of encoder stages."""
        return len(self.conv_channels)

    @property
    def num_modalities(self) -> int:
        """Number of modalities, each with a stem and a teacher of its own."""
        return len(self.in_channels)

    @property
    def grids(self) -> tuple[Axes, ...]:
        """Extent of every stage's grid, in positions per axis."""
        grid = divide(self.patch_size, self.stem_stride)
        grids = [grid]
        for stride in self.strides:
            grid = divide(grid, stride)
            grids.append(grid)
        return tuple(grids)

    def window_scales(self, stage: int) -> tuple[tuple[Axes, Axes], ...]:
        """The (big, small) windows of every scale of a stage's attention, from small to large.

        Scale j has ``b_j = 2^j b_0`` and ``s_j = 2^j s_0``, as long as b_j fits into the grid. An
        axis that has reached its grid stays there, with its small window, while others grow.

        Raises:
            PlanError: a window does not divide its grid.
        """
        grid, big, small = self.grids[stage], self.big_windows[stage], self.small_windows[stage]
        if any(g % b for g, b in zip(grid, big, strict=True)):
            raise PlanError(
                f"Stage {stage}: the window {big} does not divide the grid {grid} (patch "
                f"{self.patch_size}, stem {self.stem_stride}). Choose windows that divide it."
            )
        scales = [(big, small)]
        while True:
            grows = tuple(2 * b <= g for b, g in zip(big, grid, strict=True))
            if not any(grows):
                return tuple(scales)
            big = _double_where(big, grows)
            small = _double_where(small, grows)
            if any(g % b for g, b in zip(grid, big, strict=True)):
                raise PlanError(
                    f"Stage {stage}: window scale {len(scales)} is {big}, which does not divide "
                    f"the grid {grid}. Scales double while they fit, so on every axis the grid "
                    "must be the smallest window times a power of two."
                )
            scales.append((big, small))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values, from which ``NetworkConfig(**json)`` makes it."""
        return {name: _as_lists(value) for name, value in asdict(self).items()}

    def _check_types(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _RATES:
                fits = isinstance(value, (int, float)) and not isinstance(value, bool)
                expected = "a number"
            elif field.name == "num_classes":
                fits, expected = isinstance(value, int), "an integer"
            else:
                fits, expected = isinstance(value, tuple), "a list"
            if not fits:
                raise PlanError(f"{field.name} is {value!r}: expected {expected}.")

    def _check_scalars(self) -> None:
        for name in ("patch_size", "stem_stride"):
            _require_axes(name, getattr(self, name))
        if not self.in_channels or not all(_positive(c) for c in self.in_channels):
            raise PlanError(
                f"in_channels is {self.in_channels}: expected the channel count of at least one "
                "modality, each a positive integer."
            )
        if not _positive(self.num_classes):
            raise PlanError(f"num_classes is {self.num_classes}: expected a positive integer.")
        kernels = self.kernel_sizes
        if not kernels or not all(_positive(k) and k % 2 for k in kernels):
            raise PlanError(f"kernel_sizes is {kernels}: expected odd positive integers.")
        for name in _RATES:
            if not 0 <= getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}: expected 0 <= rate < 1.")

    def _check_stages(self) -> None:
        stages = self.num_stages
        if stages < 2:
            raise PlanError(f"conv_channels has {stages} stage(s): expected two or more.")
        for name, length in _LENGTHS.items():
            values = getattr(self, name)
            expected = stages + length
            if len(values) != expected:
                raise PlanError(
                    f"{name} is {values}: expected {expected} entries for {stages} stages "
                    "(conv_channels sets their number)."
                )
            for value in values:
                if name in _PER_AXIS:
                    _require_axes(name, value)
                elif not _positive(value):
                    raise PlanError(f"{name} is {values}: expected positive integers.")
        for stage in range(stages):
            channels, width = self.conv_channels[stage], self.group_widths[stage]
            if channels % width:
                raise PlanError(
                    f"Stage {stage}: the group width {width} does not divide the {channels} "
                    "channels of the convolution stream. Choose a divisor."
                )

    def _check_grids(self) -> None:
        extent = self.patch_size
        steps = (("stem_stride", self.stem_stride), *(("strides", s) for s in self.strides))
        for stage, (name, stride) in enumerate(steps):
            if any(e % s for e, s in zip(extent, stride, strict=True)):
                raise PlanError(
                    f"Stage {stage}: {name} {stride} does not divide the extent {extent}. "
                    f"The patch {self.patch_size} must be a multiple of all strides together on "
                    "every axis."
                )
            extent = divide(extent, stride)
        for stage, grid in enumerate(self.grids):
            if math.prod(grid) < 2:
                raise PlanError(
                    f"Stage {stage}: the grid {grid} has a single position, and instance norm "
                    "needs two. Use a larger patch, smaller strides or fewer stages."
                )
            big, small = self.big_windows[stage], self.small_windows[stage]
            if any(b % s for b, s in zip(big, small, strict=True)):
                raise PlanError(
                    f"Stage {stage}: the small window {small} does not divide the big one {big}."
                )
            self.window_scales(stage)


_RATES = ("attention_dropout", "projection_dropout", "conv_dropout", "drop_path")
_PER_AXIS = frozenset({"strides", "big_windows", "small_windows"})
_LENGTHS = {  # entries beyond the number of stages
    "strides": -1,
    "attention_channels": 0,
    "conv_depths": 0,
    "attention_depths": 0,
    "group_widths": 0,
    "conv_expansion": 0,
    "attention_expansion": 0,
    "big_windows": 0,
    "small_windows": 0,
    "num_heads": 0,
    "head_channels": 0,
    "conv_channels": 0,
}


def divide(extent: Sequence[int], stride: Sequence[int]) -> Axes:
    """Whole division of an extent by a stride, axis by axis."""
    z, y, x = (e // s for e, s in zip(extent, stride, strict=True))
    return (z, y, x)


def _double_where(extent: Axes, grows: tuple[bool, ...]) -> Axes:
    z, y, x = (2 * e if grow else e for e, grow in zip(extent, grows, strict=True))
    return (z, y, x)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _require_axes(name: str, value: object) -> None:
    if not (isinstance(value, tuple) and len(value) == 3 and all(_positive(v) for v in value)):
        raise PlanError(f"{name} has {value!r}: expected three positive integers, one per axis.")


def _as_tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_as_tuples(entry) for entry in value)
    return value


def _as_lists(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_lists(entry) for entry in value]
    return value
