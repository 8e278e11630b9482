"""Images from one grid to another."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.itk import sitk, to_itk
from veloxseg.volumes.volume import Grid, Volume, same_grid

_INTERPOLATORS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}


def resample(
    volume: Volume, grid: Grid, *, interpolation: Literal["linear", "nearest"], fill: float
) -> Volume:
    """Look a volume up at the voxels of another grid.

    A volume that lies on ``grid`` already keeps its values to the bit.

    Args:
        volume: (Z, Y, X) image.
        grid: Where the result lies.
        interpolation: ``linear`` for images, ``nearest`` for labels.
        fill: Value outside the volume's field of view, which ends half a voxel beyond its outermost
            voxel centres.

    Returns:
        A volume exactly on ``grid``: float32 if linear, of ``volume``'s type if nearest.
    """
    if same_grid(volume, grid):
        return Volume.on_grid(_values(volume, interpolation), grid)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    return look_up(volume, grid, identity, interpolation=interpolation, fill=fill)


def look_up(
    volume: Volume,
    grid: Grid,
    transform: Any,
    *,
    interpolation: Literal["linear", "nearest"],
    fill: float,
) -> Volume:
    """Look a volume up where ITK's ``transform`` takes the voxels of a grid, LPS mm.

    The rest is as for :func:`resample`, but that no volume is taken as it is.
    """
    data = _values(volume, interpolation)
    moved = sitk.Resample(
        to_itk(Volume.on_grid(data, volume.grid)),
        grid.size_zyx[::-1],
        transform,
        _INTERPOLATORS[interpolation],
        grid.origin_xyz,
        grid.spacing_zyx[::-1],
        grid.direction,
        fill,
    )
    return Volume.on_grid(sitk.GetArrayFromImage(moved).astype(data.dtype, copy=False), grid)


def _values(volume: Volume, interpolation: str) -> npt.NDArray[Any]:
    """Voxels as they are, or as float32 where they will be mixed."""
    if interpolation == "linear":
        return volume.data.astype(np.float32, copy=False)
    return volume.data
