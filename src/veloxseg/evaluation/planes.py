"""Planes through images as a radiologist sees them, cut in patient space.

Every plane shows the patient as if seen from the feet, the front or the left: on axial and coronal
planes the patient's right side is on the left, on sagittal ones the front is; above is the front on
axial planes and the head on the others. So it is whatever the directions of an image's array.
"""

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Grid, Volume

Plane = Literal["axial", "coronal", "sagittal"]

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

SIDES: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""The patient's sides at the left, right, upper and lower edge of a plane."""

CT_WINDOW_HU = (-160.0, 240.0)
"""Soft tissue: what radiologists call window 400, level 40."""

_SHOWN_PERCENTILES = (1, 99.8)
_SAMPLED_VOXELS = 4_000_000
_AXES: dict[Plane, tuple[int, int]] = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_DIRECTIONS: dict[Plane, tuple[float, ...]] = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0),
    "sagittal": (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
}


def display_window(name: str, data: NDArray[Any]) -> tuple[float, float]:
    """Which values are shown black and white.

    Args:
        name: The channel's. With the word CT in it, the window is ``CT_WINDOW_HU``.
        data: All its voxels (Z, Y, X); without that word, their 1st and 99.8th percentile are the
            window, in large images those of every nth voxel.
    """
    if "CT" in re.split(r"[^A-Z0-9]+", name.upper()):
        return CT_WINDOW_HU
    voxels = data.reshape(-1)[:: 1 + data.size // _SAMPLED_VOXELS]
    voxels = voxels[np.isfinite(voxels)]
    if not voxels.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(voxels, _SHOWN_PERCENTILES))
    return (low, high) if high > low else (low, low + 1)


def box_of(grid: Grid, *, margin_voxels: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """The smallest box, in LPS mm, that holds all voxel centres of a grid.

    Args:
        grid: Whose.
        margin_voxels: How far the grid reaches beyond its outermost centres, in voxels: one half
            for whole voxels.

    Returns:
        The corners ``low_xyz`` and ``high_xyz``.
    """
    first = np.full(3, -margin_voxels)
    last = np.array(grid.size_zyx) - 1 + margin_voxels
    return box_of_indices(grid, first, last)


def box_of_indices(
    grid: Grid, first_zyx: ArrayLike, last_zyx: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The smallest box, in LPS mm, that holds a grid's voxel centres from index to index."""
    first, last = np.asarray(first_zyx, float), np.asarray(last_zyx, float)
    ends = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corners_xyz = grid.positions_xyz(first + ends * (last - first))
    return corners_xyz.min(0), corners_xyz.max(0)


def plane_grid(
    plane: Plane,
    low_xyz: ArrayLike,
    high_xyz: ArrayLike,
    *,
    through_xyz: ArrayLike,
    pixel_mm: float,
) -> Grid:
    """The pixels of a plane through a box.

    Args:
        plane: Which.
        low_xyz: Corner of the box in LPS mm; the picture's edge runs through it.
        high_xyz: The opposite corner.
        through_xyz: Point in LPS mm that the plane passes through.
        pixel_mm: Size of the square pixels.

    Returns:
        A grid of one slice; its rows run down the picture, its columns to the right.
    """
    low, high = np.asarray(low_xyz, float), np.asarray(high_xyz, float)
    across, down = _AXES[plane]
    width, height = (
        max(1, round(float(high[axis] - low[axis]) / pixel_mm)) for axis in (across, down)
    )
    origin = np.array(through_xyz, float)
    origin[across] = low[across] + pixel_mm / 2
    from_above = low[down] + pixel_mm / 2 if plane == "axial" else high[down] - pixel_mm / 2
    origin[down] = from_above
    return Grid(
        size_zyx=(1, height, width),
        spacing_zyx=(1.0, pixel_mm, pixel_mm),
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=_DIRECTIONS[plane],
    )


def crop_to_box(volume: Volume, low_xyz: ArrayLike, high_xyz: ArrayLike) -> Volume | None:
    """The part of a volume within a box in LPS mm and a voxel around it, as a view of its data.

    Returns:
        None where the volume does not reach into the box.
    """
    low, high = np.asarray(low_xyz, float), np.asarray(high_xyz, float)
    ends = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets_xyz = (low + ends * (high - low) - volume.origin_xyz) @ volume.grid.matrix()
    index_zyx = offsets_xyz[:, ::-1] / volume.spacing_zyx
    first = np.maximum(np.floor(index_zyx.min(0)).astype(int) - 1, 0)
    stop = np.minimum(np.ceil(index_zyx.max(0)).astype(int) + 2, volume.data.shape)
    if (first >= stop).any():
        return None
    x, y, z = volume.grid.positions_xyz(first)
    return Volume(
        data=volume.data[tuple(map(slice, first, stop))],
        spacing_zyx=volume.spacing_zyx,
        origin_xyz=(float(x), float(y), float(z)),
        direction=volume.direction,
    )


def cut(volume: Volume, plane: Grid, *, fill: float) -> NDArray[Any]:
    """Look a volume up on a plane, linearly: (Y, X) float32, ``fill`` outside the volume."""
    part = crop_to_box(volume, *box_of(plane))
    if part is None:
        return np.full(plane.size_zyx[1:], fill, np.float32)
    pixels: NDArray[Any] = resample(part, plane, interpolation="linear", fill=fill).data[0]
    return pixels
