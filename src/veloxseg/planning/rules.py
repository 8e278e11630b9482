"""From what a dataset looks like to the sizes of a network: pure functions of a few numbers.

The rules, in order:

1. Field of view: the patch starts as the median shape and shrinks along its physically longest axis
   until it has at most ``voxels`` of the memory target.
2. Stem stride: per axis the largest of 4, 2, 1 that leaves the smallest structures
   ``MIN_STEM_CELLS`` cells across and no cell longer than 1.5 times its shortest side (a stride of
   1 excepted). Where the first grid then has more positions than the target
   allows, the strides grow as far as the structures stay visible, then together on the fine axes,
   and what is still too much is cut off the view.
3. Stages: an axis halves while its positions are not coarser than twice the finest axis and the
   coarser grid keeps two of them; up to four stages, until no axis halves. A last stage for whose
   sake the patch would be padded by more than ``MAX_PADDING`` is left out (three always stay).
4. The patch is rounded up to whole cells of the deepest grid (down, where it would outgrow the
   target by more than a quarter), and its deepest grid to an extent that windows can tile.
5. Windows, widths, heads: the published ones by stage; per axis the window is the divisor of the
   grid by a power of two that is nearest to the published window.

The group widths 4, 8, 8, 16 are the published heuristic guided by the Johnson-Lindenstrauss bound,
not computed from it.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from veloxseg.errors import PlanError
from veloxseg.network.config import Axes, NetworkConfig, divide

DEFAULT_MEMORY_GB = 4.0
MIN_STEM_CELLS = 4
MAX_STAGES = 4
MAX_PADDING = 1.25
_STEMS = (1, 2, 4)
_MIN_VIEW = 8
_BASE_CHANNELS = 16
_GROUP_WIDTHS = (4, 8, 8, 16)
_EXPANSION = (3, 3, 2, 2)
_WINDOWS = (3, 6, 3, 3)
_HEADS = (1, 2, 2, 4)
_HEAD_CHANNELS = (4, 8, 8, 16)
_MAX_DEEPEST = 8  # the window of a deepest grid is the grid itself: at most 8³ tokens


@dataclass(frozen=True, kw_only=True)
class MemoryTarget:
    """What a training batch of two may hold.

    Attributes:
        voxels: Of a patch: the full-resolution logits, losses and images grow with it.
        positions: Of the first grid: the features grow with it.
    """

    voxels: int
    positions: int

    @classmethod
    def from_gb(cls, gigabytes: float) -> "MemoryTarget":
        """Scale from the published 96³ patch with its 24³ positions, at home in 4 GB.

        Raises:
            PlanError: the target is not positive.
        """
        if gigabytes <= 0:
            raise PlanError(f"The memory target is {gigabytes} GB: expected a positive number.")
        scale = gigabytes / 4
        return cls(voxels=round(96**3 * scale), positions=round(1.5 * 24**3 * scale))


def plan_network(
    *,
    median_shape: Sequence[float],
    spacing_zyx: Sequence[float],
    structure_zyx: Sequence[float],
    in_channels: Sequence[int],
    num_classes: int,
    target: MemoryTarget,
) -> NetworkConfig:
    """Choose all sizes of a network for a dataset.

    Args:
        median_shape: Median case after cropping and resampling, voxels, (Z, Y, X).
        spacing_zyx: Target spacing, mm.
        structure_zyx: Extent of the smallest structures to be seen, voxels at the target spacing.
        in_channels: Channels of each modality.
        num_classes: Outputs.
        target: Bound on patch and first grid.

    Raises:
        PlanError: the dataset is not three-dimensional.
    """
    shape = [max(1, round(extent)) for extent in median_shape]
    if len(shape) != 3 or min(shape) < 2:
        raise PlanError(
            f"The median case has the shape {tuple(shape)} (z, y, x). VeloxSeg needs 3-D volumes "
            "of at least two voxels an axis; use nnU-Net's 2d configuration for single slices."
        )
    view = field_of_view(shape, spacing_zyx, lambda view: math.prod(view) <= target.voxels)
    stem = stem_stride(view, structure_zyx, spacing_zyx, max_positions=target.positions)
    view = field_of_view(view, spacing_zyx, lambda view: positions(view, stem) <= target.positions)
    position_mm = [mm * s for mm, s in zip(spacing_zyx, stem, strict=True)]
    strides = stage_strides(divide(view, stem), position_mm)
    patch = whole_patch(view, stem, strides, max_voxels=target.voxels)
    while len(strides) > 2:
        smaller = whole_patch(view, stem, strides[:-1], max_voxels=target.voxels)
        if math.prod(patch) <= MAX_PADDING * math.prod(smaller):
            break
        strides, patch = strides[:-1], smaller
    grids = [divide(patch, stem)]
    for stride in strides:
        grids.append(divide(grids[-1], stride))
    stages = range(len(grids))
    channels = tuple(_BASE_CHANNELS * 2**stage for stage in stages)
    return NetworkConfig(
        patch_size=patch,
        in_channels=tuple(in_channels),
        num_classes=num_classes,
        stem_stride=stem,
        strides=strides,
        conv_channels=channels,
        attention_channels=channels,
        conv_depths=(1,) * len(grids),
        attention_depths=(1,) * len(grids),
        group_widths=_GROUP_WIDTHS[: len(grids)],
        conv_expansion=_EXPANSION[: len(grids)],
        attention_expansion=_EXPANSION[: len(grids)],
        big_windows=tuple(window(grids[stage], _WINDOWS[stage]) for stage in stages),
        small_windows=((1, 1, 1),) * len(grids),
        num_heads=_HEADS[: len(grids)],
        head_channels=_HEAD_CHANNELS[: len(grids)],
        attention_dropout=0.0,  # augmentation regularises, as in nnU-Net's own networks
        projection_dropout=0.0,
        conv_dropout=0.0,
    )


def field_of_view(
    shape: Sequence[int], spacing_zyx: Sequence[float], fits: Callable[[Axes], bool]
) -> Axes:
    """The shape, cut along its longest physical axis until it fits; eight voxels always stay."""
    view = [int(extent) for extent in shape]
    while not fits(_axes(view)) and max(view) > _MIN_VIEW:
        lengths = [v * s if v > _MIN_VIEW else 0.0 for v, s in zip(view, spacing_zyx, strict=True)]
        axis = lengths.index(max(lengths))
        view[axis] = max(_MIN_VIEW, view[axis] - max(1, view[axis] // 32))
    return _axes(view)


def stem_stride(
    view: Axes,
    structure_zyx: Sequence[float],
    spacing_zyx: Sequence[float],
    *,
    max_positions: int,
) -> Axes:
    """The largest stride that keeps small structures visible and the first grid affordable."""
    visible = [
        max(s for s in _STEMS if s == 1 or (s * MIN_STEM_CELLS <= e and 4 * s <= v))
        for e, v in zip(structure_zyx, view, strict=True)
    ]
    finest = min(s * mm for s, mm in zip(visible, spacing_zyx, strict=True))
    stem = [
        max(c for c in _STEMS if c == 1 or (c <= s and c * mm <= 1.5 * finest))
        for s, mm in zip(visible, spacing_zyx, strict=True)
    ]
    while positions(view, stem) > max_positions:
        sizes = [s * mm for s, mm in zip(stem, spacing_zyx, strict=True)]
        grows = [s < most for s, most in zip(stem, visible, strict=True)]
        if not any(grows):  # nothing is left but to give up small structures, on all fine axes
            grows = [size <= 1.5 * min(sizes) for size in sizes]
            if any(
                g and (s == max(_STEMS) or 4 * s >= v)
                for g, s, v in zip(grows, stem, view, strict=True)
            ):
                break
        stem = [2 * s if grow else s for s, grow in zip(stem, grows, strict=True)]
    return _axes(stem)


def positions(view: Sequence[int], stem: Sequence[int]) -> float:
    """Positions of the first grid, not rounded."""
    return math.prod(v / s for v, s in zip(view, stem, strict=True))


def stage_strides(grid: Axes, position_mm: Sequence[float]) -> tuple[Axes, ...]:
    """Strides between stages: halve fine axes until every grid is small, at least one stride."""
    extent, size = list(grid), list(position_mm)
    strides: list[Axes] = []
    while len(strides) < MAX_STAGES - 1:
        finest = min(mm for mm, e in zip(size, extent, strict=True) if e >= 4 or e == max(extent))
        stride = [
            2 if e >= 4 and mm < 2 * finest else 1 for e, mm in zip(extent, size, strict=True)
        ]
        if max(stride) == 1:
            break
        strides.append(_axes(stride))
        extent = [math.ceil(e / s) for e, s in zip(extent, stride, strict=True)]
        size = [mm * s for mm, s in zip(size, stride, strict=True)]
    return tuple(strides) or ((1, 1, 1),)


def whole_patch(view: Axes, stem: Axes, strides: Iterable[Axes], *, max_voxels: int) -> Axes:
    """Round the field of view to whole cells of the deepest grid, small enough for one window."""
    cell = list(stem)
    for stride in strides:
        cell = [c * s for c, s in zip(cell, stride, strict=True)]
    deepest = [_tileable(math.ceil(v / c)) for v, c in zip(view, cell, strict=True)]
    if math.prod(deepest) < 2:
        deepest[-1] = 2
    patch = [d * c for d, c in zip(deepest, cell, strict=True)]
    while math.prod(patch) > 1.25 * max_voxels and math.prod(deepest) > 2:
        excess = [d * c / v if d > 1 else 0.0 for d, c, v in zip(deepest, cell, view, strict=True)]
        axis = excess.index(max(excess))
        deepest[axis] = _tileable_below(deepest[axis])
        patch = [d * c for d, c in zip(deepest, cell, strict=True)]
    return _axes(patch)


def window(grid: Axes, wanted: int) -> Axes:
    """Per axis the grid divided by the power of two that comes nearest to the wanted window."""
    extents = []
    for extent in grid:
        choices = [extent >> k for k in range(extent.bit_length()) if extent % (1 << k) == 0]
        extents.append(min(choices, key=lambda choice: abs(math.log(choice / wanted))))
    return _axes(extents)


def modality_groups(channel_names: Sequence[str]) -> tuple[int, ...]:
    """Channels of each modality: neighbours of one kind (CT, PET, everything else) go together.

    The network's published uses: CT and PET are modalities of one channel each, four MR sequences
    are one modality of four.
    """
    kinds = [_kind(name) for name in channel_names]
    groups: list[int] = []
    for index, kind in enumerate(kinds):
        if index and kind == kinds[index - 1]:
            groups[-1] += 1
        else:
            groups.append(1)
    return tuple(groups)


def _kind(name: str) -> str:
    word = re.split(r"[^a-z]", name.strip().lower(), maxsplit=1)[0]
    if word == "ct":
        return "ct"
    return "pet" if word in {"pet", "pt", "suv", "fdg"} else "other"


def _tileable(extent: int) -> int:
    """The smallest extent, not below this one, that is at most 8 times a power of two."""
    return next(e for e in range(extent, 2 * extent + 1) if _odd_part(e) <= _MAX_DEEPEST)


def _tileable_below(extent: int) -> int:
    return next(e for e in range(extent - 1, 0, -1) if _odd_part(e) <= _MAX_DEEPEST)


def _odd_part(value: int) -> int:
    while value % 2 == 0:
        value //= 2
    return value


def _axes(values: Iterable[int]) -> Axes:
    z, y, x = values
    return (z, y, x)
