"""The one place where ITK's x, y, z meets our z, y, x."""

from typing import Any

import numpy as np
import SimpleITK

from veloxseg.volumes.volume import Grid, Volume

sitk: Any = SimpleITK  # half of it is annotated, which strict type checks cannot use


def to_itk(volume: Volume) -> Any:
    """SimpleITK image with the voxels (Z, Y, X) and the grid of ``volume``."""
    data = volume.data
    image = sitk.GetImageFromArray(data.astype(np.uint8) if data.dtype == np.bool_ else data)
    image.SetSpacing(volume.spacing_zyx[::-1])
    image.SetOrigin(volume.origin_xyz)
    image.SetDirection(volume.direction)
    return image


def from_itk(image: Any) -> Volume:
    """Volume with the voxels and the grid of a single-channel 3-D SimpleITK image."""
    return Volume.on_grid(sitk.GetArrayFromImage(image), grid_of_itk(image))


def last_line(error: BaseException) -> str:
    """What an ITK error says; the lines before it are places in ITK's sources."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def grid_of_itk(image: Any) -> Grid:
    """Grid of the first three axes of a SimpleITK image or reader.

    Raises:
        GeometryError: the header is not a legal grid.
    """
    axes = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    width, height, depth = image.GetSize()[:3]
    return Grid(
        size_zyx=(depth, height, width),
        spacing_zyx=image.GetSpacing()[2::-1],
        origin_xyz=image.GetOrigin()[:3],
        direction=tuple(float(cosine) for cosine in direction.flat),
    )
