"""Affine maps of physical space: applied to points and images, read and written as ITK's files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.errors import ImageReadError
from veloxseg.volumes.itk import last_line, sitk
from veloxseg.volumes.resampling import look_up
from veloxseg.volumes.volume import Grid, Volume

_RIGID_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class AffineMap:
    """Positions x to ``matrix x + offset``, in LPS mm.

    Attributes:
        matrix: The 3x3 matrix row by row, nine numbers.
        offset_xyz: In mm.
    """

    matrix: tuple[float, ...]
    offset_xyz: tuple[float, float, float]

    @classmethod
    def of(cls, matrix: npt.ArrayLike, offset_xyz: npt.ArrayLike) -> "AffineMap":
        """From a (3, 3) and a (3,) array."""
        x, y, z = (float(value) for value in np.asarray(offset_xyz))
        return cls(
            matrix=tuple(float(value) for value in np.asarray(matrix).flat), offset_xyz=(x, y, z)
        )

    @classmethod
    def identity(cls) -> "AffineMap":
        """Everything stays where it is."""
        return cls.of(np.eye(3), np.zeros(3))

    @classmethod
    def of_itk(cls, transform: Any) -> "AffineMap":
        """From an ITK transform with a matrix, about whatever centre."""
        matrix = np.reshape(transform.GetMatrix(), (3, 3))
        centre = np.array(transform.GetCenter())
        return cls.of(matrix, centre + transform.GetTranslation() - matrix @ centre)

    def array(self) -> npt.NDArray[np.float64]:
        """The matrix (3, 3)."""
        return np.asarray(self.matrix, dtype=np.float64).reshape(3, 3)

    def __call__(self, points_xyz: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map points (..., 3), x, y, z in mm."""
        mapped: npt.NDArray[np.float64] = (
            np.asarray(points_xyz, dtype=np.float64) @ self.array().T + self.offset_xyz
        )
        return mapped

    def inverse(self) -> "AffineMap":
        """The map back."""
        back = np.linalg.inv(self.array())
        return AffineMap.of(back, -back @ np.array(self.offset_xyz))

    def after(self, first: "AffineMap") -> "AffineMap":
        """``first``, then this."""
        return AffineMap.of(self.array() @ first.array(), self(first.offset_xyz))

    @property
    def is_rigid(self) -> bool:
        """Whether distances and handedness are kept."""
        matrix = self.array()
        departure = np.abs(matrix.T @ matrix - np.eye(3)).max()
        return bool(departure < _RIGID_TOLERANCE and np.linalg.det(matrix) > 0)

    def to_itk(self) -> Any:
        """ITK's rigid (Euler) or affine transform; the rigid one's angles round the last bits."""
        transform = sitk.Euler3DTransform() if self.is_rigid else sitk.AffineTransform(3)
        transform.SetMatrix(self.matrix)
        transform.SetTranslation(self.offset_xyz)
        return transform


def resample_through(
    volume: Volume,
    grid: Grid,
    *,
    transform: AffineMap,
    interpolation: Literal["linear", "nearest"],
    fill: float,
) -> Volume:
    """Look a volume up at the voxels of a grid of another space, in one interpolation.

    Args:
        volume: (Z, Y, X) image.
        grid: Where the result lies.
        transform: From positions on ``grid`` to positions in ``volume``'s space.
        interpolation: ``linear`` for images, ``nearest`` for labels.
        fill: Value outside the volume's field of view.

    Returns:
        A volume exactly on ``grid``: float32 if linear, of ``volume``'s type if nearest.
    """
    return look_up(volume, grid, transform.to_itk(), interpolation=interpolation, fill=fill)


def move_header(volume: Volume, transform: AffineMap) -> Volume:
    """Carry an image over by its header alone; no voxel is interpolated.

    Args:
        volume: (Z, Y, X) image.
        transform: Rigid, from the wanted space to ``volume``'s.

    Returns:
        The same voxels, at their places in the wanted space.

    Raises:
        ValueError: the transform is not rigid; a header holds no scaling and no shear.
    """
    if not transform.is_rigid:
        raise ValueError("Expected a rigid transform; resample through others.")
    back = transform.inverse()
    x, y, z = (float(value) for value in back(volume.origin_xyz))
    direction = back.array() @ volume.grid.matrix()
    return Volume(
        data=volume.data,
        spacing_zyx=volume.spacing_zyx,
        origin_xyz=(x, y, z),
        direction=tuple(float(cosine) for cosine in direction.flat),
    )


def write_transform(path: Path, transform: AffineMap) -> None:
    """Write ITK's text format (``.tfm``), whole or not at all; Slicer and elastix read it.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            sitk.WriteTransform(transform.to_itk(), str(temporary))
        except RuntimeError as error:
            raise OSError(
                f"{path}: the transform could not be written ({last_line(error)}). "
                "Check the space left on the disk and the file's ending, .tfm."
            ) from error


def read_transform(path: Path) -> AffineMap:
    """Read what :func:`write_transform` wrote.

    Raises:
        ImageReadError: the file is missing, damaged, or holds another kind of transform.
    """
    try:
        transform = sitk.ReadTransform(str(path)).Downcast()
        return AffineMap.of_itk(transform)
    except (RuntimeError, AttributeError) as error:
        raise ImageReadError(
            f"{path}: no rigid or affine transform ({last_line(error)}). "
            "Expected a file written by registration. Register again."
        ) from error
