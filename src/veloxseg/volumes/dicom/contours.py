"""Closed planar contours to voxels.

A voxel belongs to a contour if its centre lies inside by the even-odd rule. Edges own their lower
end and a centre on an edge belongs to the side of larger x, so that contours which share an edge
neither overlap nor leave a gap. Contours of one plane are combined by exclusive or: one within
another is a hole, whether it is drawn as a contour of its own or through a keyhole.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError
from veloxseg.volumes.volume import Grid

LARGEST_SLANT_VOXELS = 0.5
"""How far a contour may leave its plane, in slices: beyond, it was drawn in another one."""

SAME_PLANE_VOXELS = 0.05
"""Contours no farther apart, in slices, are of one plane: their numbers were rounded."""

_TIE_VOXELS = 0.01


def rasterise(
    contours: Sequence[npt.NDArray[np.float64]], grid: Grid, *, where: str
) -> npt.NDArray[np.bool_]:
    """Find the voxels within closed planar contours that are parallel to the slices of a grid.

    Each slice takes the contours of the plane nearest to it, if that is no farther than half of the
    larger of the slices' and the planes' usual distance; a plane midway between two slices belongs
    to the higher one. So finer planes are thinned, coarser ones fill the slices between them, and
    where a contour was left out, nothing is.

    Args:
        contours: (N, 3) LPS positions in mm of each contour's corners.
        grid: Where the voxels lie.
        where: What to call the contours in the error.

    Returns:
        (Z, Y, X) booleans.

    Raises:
        GeometryError: a contour is not parallel to the slices.
    """
    inside = np.zeros(grid.size_zyx, dtype=np.bool_)
    flat = [_on_grid(contour, grid) for contour in contours if len(contour) >= 3]
    if not flat:
        return inside
    depths = np.array([_depth(contour, where) for contour in flat])
    plane_of, planes = _planes(depths)
    steps = np.diff(planes)
    reach = 0.5 * max(1.0, float(np.median(steps)) if steps.size else 1.0)
    for z in range(grid.size_zyx[0]):
        above = z - planes
        near = np.flatnonzero((above > _TIE_VOXELS - reach) & (above <= reach + _TIE_VOXELS))
        if near.size:
            nearest = near[np.abs(above[near]).argmin()]
            here = np.flatnonzero(plane_of == nearest)
            inside[z] = _fill([flat[index][:, :2] for index in here], grid.size_zyx[1:])
    return inside


def _on_grid(contour: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    """(N, 3) x, y, z in voxels of the grid."""
    offsets = (np.asarray(contour, dtype=np.float64) - grid.origin_xyz) @ grid.matrix()
    voxels: npt.NDArray[np.float64] = offsets / grid.spacing_zyx[::-1]
    return voxels


def _depth(contour: npt.NDArray[np.float64], where: str) -> float:
    slant = float(np.ptp(contour[:, 2]))
    if slant > LARGEST_SLANT_VOXELS:
        raise GeometryError(
            f"{where}: a contour of {len(contour)} points crosses {slant:.3g} slices. Expected "
            "contours parallel to the slices of the series that they are put on. Take as the "
            "reference the series that they were drawn on."
        )
    return float(contour[:, 2].mean())


def _planes(
    depths: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Number of each contour's plane, and the mean depth of each plane, rising."""
    order = np.argsort(depths, kind="stable")
    is_next = np.diff(depths[order], prepend=-np.inf) > SAME_PLANE_VOXELS
    plane_of = np.empty(len(depths), dtype=np.intp)
    plane_of[order] = np.cumsum(is_next) - 1
    return plane_of, np.bincount(plane_of, weights=depths) / np.bincount(plane_of)


def _fill(
    contours: Sequence[npt.NDArray[np.float64]], size_yx: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Even-odd fill of closed polygons, (N, 2) x, y in voxels, in one (Y, X) plane."""
    height, width = size_yx
    toggles = np.zeros((height, width + 1), dtype=np.bool_)
    for contour in contours:
        start, end = contour, np.roll(contour, -1, axis=0)
        low = np.ceil(np.minimum(start[:, 1], end[:, 1])).astype(np.int64).clip(0, height)
        high = np.ceil(np.maximum(start[:, 1], end[:, 1])).astype(np.int64).clip(0, height)
        # Rows low .. high - 1 cross the edge: each owns its lower end alone.
        edges = np.repeat(np.arange(len(contour)), high - low)
        rows = np.arange(len(edges)) - np.repeat(np.cumsum(high - low) - high, high - low)
        slope = (end[edges, 0] - start[edges, 0]) / (end[edges, 1] - start[edges, 1])
        crossing = start[edges, 0] + (rows - start[edges, 1]) * slope
        columns = np.ceil(crossing).astype(np.int64).clip(0, width)
        np.logical_xor.at(toggles, (rows, columns), True)
    filled: npt.NDArray[np.bool_] = np.logical_xor.accumulate(toggles, axis=1)[:, :width]
    return filled
