"""The grid that the images of a case are brought to, made from that of their reference."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from veloxseg.errors import GeometryError
from veloxseg.volumes.volume import Grid

_Index = NDArray[np.float64]
_EPSILON_VOXELS = 1e-4
"""A voxel centre this far outside still counts as inside: float32 headers are no more exact."""


def with_spacing(grid: Grid, spacing_zyx: tuple[float, float, float]) -> Grid:
    """The grid over the same field of view with another spacing.

    The corner of the field of view beside voxel (0, 0, 0), half a voxel beyond its centre, stays;
    the opposite one moves by half a new voxel at most, since sizes are whole numbers.

    Args:
        grid: The grid.
        spacing_zyx: In mm along each array axis.
    """
    ratio = np.asarray(spacing_zyx) / np.asarray(grid.spacing_zyx)
    sizes = np.maximum(1, np.rint(np.asarray(grid.size_zyx) / ratio)).astype(int)
    x, y, z = grid.positions_xyz((ratio - 1) / 2)
    return Grid(
        size_zyx=(int(sizes[0]), int(sizes[1]), int(sizes[2])),
        spacing_zyx=spacing_zyx,
        origin_xyz=(float(x), float(y), float(z)),
        direction=grid.direction,
    )


def common_view(grid: Grid, others: Sequence[Grid]) -> Grid:
    """The part of a grid that lies in the field of view of others, too.

    A field of view ends half a voxel beyond the outermost voxel centres. Whole voxels are kept,
    those whose centres lie inside; where another grid's axes are askew to this one's, inside the
    smallest box along this one's axes that holds the other's field of view.

    Args:
        grid: The grid to cut.
        others: The grids of the other images.

    Returns:
        The cut grid: its voxels lie where ``grid`` has voxels.

    Raises:
        GeometryError: the fields of view have no voxel in common.
    """
    first, last = np.zeros(3), np.asarray(grid.size_zyx, dtype=float) - 1
    for other in others:
        low, high = _extent(other, grid)
        first, last = np.maximum(first, low), np.minimum(last, high)
    begin = np.ceil(first - _EPSILON_VOXELS).astype(int)
    sizes = np.floor(last + _EPSILON_VOXELS).astype(int) - begin + 1
    if sizes.min() < 1:
        raise GeometryError("the fields of view have no voxel in common")
    x, y, z = grid.positions_xyz(begin)
    return Grid(
        size_zyx=(int(sizes[0]), int(sizes[1]), int(sizes[2])),
        spacing_zyx=grid.spacing_zyx,
        origin_xyz=(float(x), float(y), float(z)),
        direction=grid.direction,
    )


def _extent(grid: Grid, frame: Grid) -> tuple[_Index, _Index]:
    """Lowest and highest index (z, y, x) in ``frame`` that a grid's field of view reaches."""
    corners = np.array(list(product(*[(-0.5, size - 0.5) for size in grid.size_zyx])))
    offset_xyz = grid.positions_xyz(corners) - np.asarray(frame.origin_xyz)
    index_zyx = (offset_xyz @ frame.matrix())[:, ::-1] / np.asarray(frame.spacing_zyx)
    return index_zyx.min(axis=0), index_zyx.max(axis=0)
