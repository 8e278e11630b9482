"""Images from one grid to another."""

from typing import Literal

import numpy as np

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
    if interpolation == "linear":
        floats = volume.data.astype(np.float32, copy=False)
        volume = Volume.on_grid(floats, volume.grid)
    if same_grid(volume, grid):
        return Volume.on_grid(volume.data, grid)
    moved = sitk.Resample(
        to_itk(volume),
        grid.size_zyx[::-1],
        sitk.Transform(3, sitk.sitkIdentity),
        _INTERPOLATORS[interpolation],
        grid.origin_xyz,
        grid.spacing_zyx[::-1],
        grid.direction,
        fill,
    )
    data = sitk.GetArrayFromImage(moved).astype(volume.data.dtype, copy=False)
    return Volume.on_grid(data, grid)
