"""Images turned so that their axes run to the patient's right, front and head, and masks back.

Axes are permuted and reversed, no voxel is interpolated: the turned axes are those nearest to the
patient's, as nibabel's ``as_closest_canonical`` and nnU-Net's ``NibabelIOWithReorient`` have them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.volume import Grid, Volume

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How array axes are brought to another order and sense.

    Attributes:
        axes_zyx: For each axis of the turned array, z, y, x, the axis of the stored one it was.
        reversed_zyx: Whether that axis is reversed, in the turned array's order.
    """

    axes_zyx: tuple[int, int, int]
    reversed_zyx: tuple[bool, bool, bool]


def turn_to_ras(grid: Grid) -> Turn:
    """The turn after which x, y and z grow to right, anterior and superior, as nearly as may be."""
    cosines = _RAS_FROM_LPS @ grid.matrix()  # row: R, A, S; column: stored x, y, z
    axes, is_reversed = [0, 0, 0], [False, False, False]
    for stored in np.argsort(-(cosines**2).max(axis=0), kind="stable"):  # the surest first
        patient = int(np.abs(cosines[:, stored]).argmax())
        axes[2 - patient] = 2 - int(stored)
        is_reversed[2 - patient] = bool(cosines[patient, stored] < 0)
        cosines[patient] = 0  # each of the patient's axes once
    return Turn(
        axes_zyx=(axes[0], axes[1], axes[2]),
        reversed_zyx=(is_reversed[0], is_reversed[1], is_reversed[2]),
    )


def to_ras(volume: Volume) -> Volume:
    """The same image with x, y and z growing to right, anterior and superior; a view of its voxels.

    Returns:
        A volume whose every voxel lies where it lay.
    """
    turn = turn_to_ras(volume.grid)
    data = _reverse(volume.data.transpose(turn.axes_zyx), turn)
    return Volume.on_grid(data, _turned_grid(volume.grid, turn))


def from_ras(data: npt.NDArray[Any], grid: Grid) -> npt.NDArray[Any]:
    """Bring an array back that lies on the grid that :func:`to_ras` makes of ``grid``.

    Args:
        data: (..., Z, Y, X) on the turned grid, such as a mask.
        grid: The image's own.

    Returns:
        (..., Z, Y, X) on ``grid``, a view.
    """
    turn = turn_to_ras(grid)
    leading = data.ndim - 3
    back = [leading + axis for axis in np.argsort(turn.axes_zyx)]
    turned: npt.NDArray[Any] = _reverse(data, turn).transpose(*range(leading), *back)
    return turned


def _reverse(data: npt.NDArray[Any], turn: Turn) -> npt.NDArray[Any]:
    z, y, x = (slice(None, None, -1 if back else 1) for back in turn.reversed_zyx)
    return data[..., z, y, x]


def _turned_grid(grid: Grid, turn: Turn) -> Grid:
    corner = [0, 0, 0]  # the stored index of the turned array's first voxel
    for axis, is_reversed in zip(turn.axes_zyx, turn.reversed_zyx, strict=True):
        corner[axis] = grid.size_zyx[axis] - 1 if is_reversed else 0
    signs = np.where(turn.reversed_zyx, -1.0, 1.0)
    columns = [2 - axis for axis in turn.axes_zyx]
    direction = (grid.matrix()[:, columns] * signs)[:, ::-1]
    depth, height, width = (grid.size_zyx[axis] for axis in turn.axes_zyx)
    sz, sy, sx = (grid.spacing_zyx[axis] for axis in turn.axes_zyx)
    x, y, z = (float(place) for place in grid.positions_xyz(corner))
    return Grid(
        size_zyx=(depth, height, width),
        spacing_zyx=(sz, sy, sx),
        origin_xyz=(x, y, z),
        direction=tuple(float(cosine) for cosine in direction.flat),
    )
