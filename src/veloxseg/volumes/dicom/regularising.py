"""Layers at their true positions to the layers of a regular grid."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.volume import CORNER_TOLERANCE_MM, Grid

FloatArray = npt.NDArray[np.float32]

_NO_SHIFT_VOXELS = 0.02
"""Interpolating by less within the plane would blur every layer and move nothing."""


def regularise(
    layers: Iterable[FloatArray], indices_zyx: npt.NDArray[np.float64], grid: Grid
) -> FloatArray:
    """Interpolate a regular volume linearly between layers, each at its true position.

    Each layer is first shifted within its plane to the grid's columns and rows; where it does not
    reach, voxels take the lowest value of all layers. A layer within ``CORNER_TOLERANCE_MM`` of
    one of the grid's keeps its values. At most two layers are held beside the result.

    Args:
        layers: (Y, X) layers in the order of their rising positions.
        indices_zyx: (N, 3) where the first voxel of each layer lies on the grid, in its voxels.
        grid: Its first and last layers lie within those of ``layers``.

    Returns:
        The (Z, Y, X) float32 volume.
    """
    size_zyx = grid.size_zyx
    snap = CORNER_TOLERANCE_MM / grid.spacing_zyx[0]
    volume = np.full(size_zyx, np.nan, dtype=np.float32)
    depths = indices_zyx[:, 0]
    before: FloatArray | None = None
    lowest = np.float32(np.inf)
    for number, layer in enumerate(layers):
        lowest = min(lowest, layer.min())
        here = _shift(layer, indices_zyx[number, 1:], size_zyx[1:])
        if before is None:
            volume[0] = here
        else:
            start, end = depths[number - 1], depths[number]
            for z in _between(start, end, size_zyx[0], last=number == len(depths) - 1):
                volume[z] = _mix(before, here, z - start, end - z, snap)
        before = here
    np.copyto(volume, lowest, where=np.isnan(volume))
    return volume


def _between(start: float, end: float, depth: int, *, last: bool) -> range:
    """Grid layers in (start, end]; the last one too if rounding puts it a hair beyond."""
    first = int(np.floor(start)) + 1
    stop = depth if last else int(np.floor(end)) + 1
    return range(max(1, first), stop)


def _mix(
    before: FloatArray, here: FloatArray, after: float, until: float, snap: float
) -> FloatArray:
    """Weigh two layers by how far the wanted one is after the first and before the second."""
    if until <= snap:
        return here
    if after <= snap:
        return before
    weight = np.float32(after / (after + until))
    mixed: FloatArray = (1 - weight) * before + weight * here
    return mixed


def _shift(
    layer: FloatArray, offset_yx: npt.NDArray[np.float64], size_yx: tuple[int, ...]
) -> FloatArray:
    """Put a layer's first voxel at ``offset_yx`` of a larger plane, linearly; NaN beyond it."""
    for axis in (0, 1):
        offset, size = float(offset_yx[axis]), size_yx[axis]
        whole = int(np.floor(offset))
        fraction = np.float32(offset - whole)
        if min(fraction, 1 - fraction) < _NO_SHIFT_VOXELS:
            whole, fraction = round(offset), np.float32(0)
        shape = list(layer.shape)
        shape[axis] = size
        moved = np.full(shape, np.nan, dtype=np.float32)
        # Voxel i of the result lies at i - offset of the layer, between i - whole - 1 and
        # i - whole.
        length = layer.shape[axis]
        rows = np.moveaxis(layer, axis, 0)
        target = np.moveaxis(moved, axis, 0)
        if fraction == 0:
            target[whole : whole + length] = rows
        else:
            mixed = fraction * rows[:-1] + (1 - fraction) * rows[1:]
            target[whole + 1 : whole + length] = mixed
        layer = moved
    return layer
