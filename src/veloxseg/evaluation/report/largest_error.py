"""Where a prediction is most wrong: the point that a report's pictures pass through."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.evaluation.masks import smallest_box
from veloxseg.volumes.volume import Grid

_CONNECTED = ndimage.generate_binary_structure(3, 2)
_MOST_VALUES = 2**16
_SAME_DEPTH_MM = 1e-6


@dataclass(frozen=True, kw_only=True)
class LargestError:
    """The largest error of a case.

    Attributes:
        index_zyx: Voxel that pictures pass through.
        first_zyx: Corner of the smallest box around the structure that the error belongs to.
        last_zyx: The opposite corner; both are in it.
        error_ml: Volume of the error; 0 where nothing is wrong.
    """

    index_zyx: tuple[int, int, int]
    first_zyx: tuple[int, int, int]
    last_zyx: tuple[int, int, int]
    error_ml: float


def label_values(key: str) -> tuple[int, ...]:
    """The values of a label, ``1``, or of a region, ``(1, 2)``, by its key in the metrics.

    Empty for a key that is a name, as another tool may have it.
    """
    if not re.fullmatch(r"[\d\s,()]+", key):
        return ()
    return tuple(int(digits) for digits in re.findall(r"\d+", key))


def find_largest_error(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    *,
    labels: Iterable[Sequence[int]],
    grid: Grid,
) -> LargestError:
    """Find the largest connected part in which prediction and reference differ.

    Voxels are connected by faces and edges. The point is on the axial slice with most of that
    part's voxels and, of these, the one that is farthest from the part's border on that slice; of
    several such ones, the most central one.
    Where nothing is wrong, the largest structure of the reference takes the error's place, and
    where there is none either, the middle of the image. Reference values that belong to no label
    are ignored ones: there nothing is wrong.

    Args:
        prediction: (Z, Y, X) values.
        reference: (Z, Y, X) values, on the same grid.
        labels: The values of each label or region.
        grid: Of both.
    """
    groups = list(labels)
    box = smallest_box((prediction != 0) | (reference != 0))
    predicted, referred = (_classes(mask[box], groups) for mask in (prediction, reference))
    wrong = (predicted != referred) & ((reference[box] == 0) | (referred > 0))
    either = (predicted > 0) | (referred > 0)
    is_wrong = bool(wrong.any())
    if not either.any():
        return _middle(grid)
    part = _largest_component(wrong if is_wrong else either)
    point = _inner_point(part, grid)
    structure, _ = ndimage.label(either, _CONNECTED)
    held = smallest_box(structure == structure[point])
    start = [side.start for side in box]
    first = [side.start + offset for side, offset in zip(held, start, strict=True)]
    last = [side.stop - 1 + offset for side, offset in zip(held, start, strict=True)]
    index = [place + offset for place, offset in zip(point, start, strict=True)]
    voxel_ml = float(np.prod(grid.spacing_zyx)) / 1000
    return LargestError(
        index_zyx=(index[0], index[1], index[2]),
        first_zyx=(first[0], first[1], first[2]),
        last_zyx=(last[0], last[1], last[2]),
        error_ml=int(np.count_nonzero(part)) * voxel_ml if is_wrong else 0.0,
    )


def _middle(grid: Grid) -> LargestError:
    z, y, x = grid.size_zyx
    return LargestError(
        index_zyx=(z // 2, y // 2, x // 2),
        first_zyx=(0, 0, 0),
        last_zyx=(z - 1, y - 1, x - 1),
        error_ml=0.0,
    )


def _classes(mask: NDArray[Any], labels: Sequence[Sequence[int]]) -> NDArray[np.uint16]:
    """Number each set of labels that a voxel can belong to; 0 belongs to none."""
    sets: dict[tuple[int, ...], int] = {(): 0}
    table = np.zeros(_MOST_VALUES, np.uint16)
    for value in sorted({value for group in labels for value in group}):
        if 0 < value < _MOST_VALUES:
            held = tuple(number for number, group in enumerate(labels) if value in group)
            table[value] = sets.setdefault(held, len(sets))
    classes = np.empty(mask.shape, np.uint16)
    for source, target in zip(mask, classes, strict=True):  # by slice: indices take 8 bytes each
        known = source if source.dtype == np.uint8 else np.clip(source, 0, _MOST_VALUES - 1)
        target[:] = table[known]
    return classes


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, _ = ndimage.label(mask, _CONNECTED)
    sizes = np.bincount(components[mask])
    largest: NDArray[np.bool_] = components == int(sizes.argmax())
    return largest


def _inner_point(part: NDArray[np.bool_], grid: Grid) -> tuple[int, ...]:
    heights = np.abs(grid.matrix()[2])  # how much x, y and z of the array run to the head
    axis = 2 - int(heights.argmax())
    others = tuple(other for other in range(3) if other != axis)
    number = int(part.sum(axis=others).argmax())
    slices: NDArray[np.bool_] = np.moveaxis(part, axis, 0)
    index = _deepest(slices[number], spacing=[grid.spacing_zyx[other] for other in others])
    return (*index[:axis], number, *index[axis:])


def _deepest(part: NDArray[np.bool_], *, spacing: Sequence[float]) -> tuple[int, ...]:
    """The pixel farthest from the border; of several, the one nearest to the middle of them all."""
    depth = ndimage.distance_transform_edt(np.pad(part, 1), sampling=spacing)[1:-1, 1:-1]
    deepest = np.argwhere(depth > depth.max() - _SAME_DEPTH_MM)
    away = (deepest - np.argwhere(part).mean(0)) * spacing
    nearest = deepest[int((away**2).sum(1).argmin())]
    return int(nearest[0]), int(nearest[1])
