"""From what a dataset looks like to the sizes of a network: pure rules, one a function.

``network_plan.py`` applies them in their order; ``docs/planning.md`` says why they are as they are.
All axes are those of the network's input.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from veloxseg.network.config import Axes, NetworkConfig, divide

Size = Literal["S", "B", "L"]

MIN_STEM_CELLS = 4
"""Cells of the first grid that the smallest structures keep across."""

MAX_CELL_RATIO = 1.5
"""Longest side of the first grid's cell over its shortest; a stride of 1 is always allowed."""

MAX_STAGES = 4
MAX_PADDING = 1.25
"""By how much a patch may grow for the sake of a last stage."""

BASE_CHANNELS: dict[Size, int] = {"S": 8, "B": 16, "L": 24}
"""Channels of the first stage; they double from stage to stage."""

GROUP_WIDTH_FACTOR = 0.78
"""Of ``group_width``: with it the rule gives the published widths for one and two modalities."""

MIN_GROUP_WIDTH, MAX_GROUP_WIDTH = 4, 16

_STEMS = (1, 2, 4)
_MIN_VIEW = 8
_EXPANSION = (3, 3, 2, 2)
_WINDOWS = (3, 6, 3, 3)
_HEADS = (1, 2, 2, 4)
_HEAD_CHANNELS = (4, 8, 8, 16)
_MAX_DEEPEST = 8  # the window of a deepest grid is the grid itself: at most 8³ tokens


def visible_stem(
    view: Axes, structure: Sequence[float], spacing: Sequence[float]
) -> tuple[Axes, Axes]:
    """The stem stride that keeps the smallest structures visible, and the largest that does.

    Per axis the largest of 4, 2, 1 that leaves the structures ``MIN_STEM_CELLS`` cells across; of
    these no cell may be longer than ``MAX_CELL_RATIO`` times its shortest side.

    Args:
        view: Field of view in voxels.
        structure: Extent of the smallest structures to be seen, in voxels.
        spacing: mm.

    Returns:
        The stride with cells of even sides, and per axis the largest one that the structures allow.
    """
    largest = [
        max(s for s in _STEMS if s == 1 or (s * MIN_STEM_CELLS <= e and 4 * s <= v))
        for e, v in zip(structure, view, strict=True)
    ]
    finest = min(s * mm for s, mm in zip(largest, spacing, strict=True))
    even = [
        max(c for c in _STEMS if c == 1 or (c <= s and c * mm <= MAX_CELL_RATIO * finest))
        for s, mm in zip(largest, spacing, strict=True)
    ]
    return _axes(even), _axes(largest)


def coarser_stem(
    stem: Axes, largest: Axes, view: Axes, spacing: Sequence[float]
) -> tuple[Axes, bool] | None:
    """The next coarser stem stride.

    First the axes grow on which the structures stay visible; then the fine axes together.

    Args:
        stem: The stride that costs too much.
        largest: Per axis the largest one that the structures allow.
        view: Field of view in voxels; four cells an axis stay.
        spacing: mm.

    Returns:
        The stride, and whether small structures stay visible; None where no axis can grow.
    """
    grows = [s < most for s, most in zip(stem, largest, strict=True)]
    visible = any(grows)
    if not visible:
        sizes = [s * mm for s, mm in zip(stem, spacing, strict=True)]
        grows = [size <= MAX_CELL_RATIO * min(sizes) for size in sizes]
        if any(
            g and (s == max(_STEMS) or 8 * s > v) for g, s, v in zip(grows, stem, view, strict=True)
        ):
            return None
    return _axes(2 * s if grow else s for s, grow in zip(stem, grows, strict=True)), visible


def cut_view(view: Axes, spacing: Sequence[float]) -> Axes | None:
    """The field of view with a thirty-second less along its physically longest axis.

    Returns:
        The smaller view; None where every axis is down to eight voxels.
    """
    lengths = [v * mm if v > _MIN_VIEW else 0.0 for v, mm in zip(view, spacing, strict=True)]
    if not any(lengths):
        return None
    axis = lengths.index(max(lengths))
    smaller = list(view)
    smaller[axis] = max(_MIN_VIEW, view[axis] - max(1, view[axis] // 32))
    return _axes(smaller)


def cut_until(view: Axes, spacing: Sequence[float], fits: Callable[[Axes], bool]) -> Axes:
    """Cut the field of view until it fits, or cannot be cut.

    Args:
        view: In voxels.
        spacing: mm.
        fits: Whether a view does; where one does, smaller ones are taken to do so too.
    """
    views: list[Axes] = []
    smaller: Axes | None = view
    while smaller is not None:
        views.append(smaller)
        smaller = cut_view(smaller, spacing)
    return views[min(bisect_left(views, True, key=fits), len(views) - 1)]


def stage_strides(grid: Axes, position_mm: Sequence[float]) -> tuple[Axes, ...]:
    """Strides between stages: halve fine axes until every grid is small, at least one stride.

    Args:
        grid: Extent of the first grid.
        position_mm: Sides of its cells.

    Returns:
        At most three strides: an axis halves where its positions are less than twice as coarse as
        the finest and the coarser grid keeps two of them.
    """
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


def whole_patch(view: Axes, stem: Axes, strides: Iterable[Axes]) -> Axes:
    """The field of view rounded up to whole cells of a deepest grid that windows can tile."""
    cell = list(stem)
    for stride in strides:
        cell = [c * s for c, s in zip(cell, stride, strict=True)]
    deepest = [_tileable(math.ceil(v / c)) for v, c in zip(view, cell, strict=True)]
    if math.prod(deepest) < 2:
        deepest[-1] = 2
    return _axes(d * c for d, c in zip(deepest, cell, strict=True))


def without_padding(view: Axes, stem: Axes, strides: tuple[Axes, ...]) -> tuple[Axes, ...]:
    """Leave out last stages for whose sake the patch would grow by more than ``MAX_PADDING``.

    Three stages always stay.
    """
    while len(strides) > 2:
        fewer = whole_patch(view, stem, strides[:-1])
        if math.prod(whole_patch(view, stem, strides)) <= MAX_PADDING * math.prod(fewer):
            break
        strides = strides[:-1]
    return strides


def window(grid: Axes, wanted: int) -> Axes:
    """Per axis the grid divided by the power of two that comes nearest to the wanted window."""
    extents = []
    for extent in grid:
        choices = [extent >> k for k in range(extent.bit_length()) if extent % (1 << k) == 0]
        extents.append(min(choices, key=lambda choice: abs(math.log(choice / wanted))))
    return _axes(extents)


def group_width(voxels: int, *, num_modalities: int) -> int:
    """Channels in a group of the JLC convolutions, from what one position stands for.

    The power of two nearest to 0.78 log2(M v), v the voxels of a position, from 4 to 16. This is in
    the spirit of the Johnson-Lindenstrauss bound, by which a group must grow with the logarithm of
    the number of tokens that it keeps apart; the paper's constants are not public, and the factor
    is the one that gives the published widths 4, 8, 8, 16 at v = 2⁶, 2⁹, 2¹², 2¹⁵.
    """
    wanted = max(GROUP_WIDTH_FACTOR * math.log2(num_modalities * voxels), 1.0)
    nearest = 1 << round(math.log2(wanted))
    return min(max(nearest, MIN_GROUP_WIDTH), MAX_GROUP_WIDTH)


def make_network(
    *,
    patch_size: Axes,
    in_channels: Sequence[int],
    num_classes: int,
    stem: Axes,
    strides: tuple[Axes, ...],
    size: Size,
) -> NetworkConfig:
    """All other sizes, from those of the patch, the stem and the stages."""
    grids = [divide(patch_size, stem)]
    voxels = [math.prod(stem)]
    for stride in strides:
        grids.append(divide(grids[-1], stride))
        voxels.append(voxels[-1] * math.prod(stride))
    stages = len(grids)
    channels = tuple(BASE_CHANNELS[size] * 2**stage for stage in range(stages))
    modalities = len(in_channels)
    return NetworkConfig(
        patch_size=patch_size,
        in_channels=tuple(in_channels),
        num_classes=num_classes,
        stem_stride=stem,
        strides=strides,
        conv_channels=channels,
        attention_channels=channels,
        conv_depths=(1,) * stages,
        attention_depths=(1,) * stages,
        group_widths=tuple(group_width(v, num_modalities=modalities) for v in voxels),
        conv_expansion=_EXPANSION[:stages],
        attention_expansion=_EXPANSION[:stages],
        big_windows=tuple(window(grids[stage], _WINDOWS[stage]) for stage in range(stages)),
        small_windows=((1, 1, 1),) * stages,
        num_heads=_HEADS[:stages],
        head_channels=_HEAD_CHANNELS[:stages],
        attention_dropout=0.0,  # augmentation regularises, as in nnU-Net's own networks
        projection_dropout=0.0,
        conv_dropout=0.0,
    )


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


def _odd_part(value: int) -> int:
    while value % 2 == 0:
        value //= 2
    return value


def _axes(values: Iterable[int]) -> Axes:
    z, y, x = values
    return (z, y, x)
