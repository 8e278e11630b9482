"""A 3-D image and the grid it lies on.

Arrays are (Z, Y, X). Physical positions are x, y, z in millimetres in LPS (x grows to the patient's
left, y to posterior, z to superior), as ITK and DICOM have them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError

CORNER_TOLERANCE_MM = 0.01
"""How far apart, in mm, the corners of two grids may lie that count as one.

NIfTI's float32 header moves a corner by up to about 0.001 mm; scanners' voxels are 0.1 mm and
more.
"""

SPACING_TOLERANCE_RELATIVE = 1e-5
"""Largest relative difference of two spacings that count as one: nnU-Net's own limit."""

ORTHONORMAL_TOLERANCE = 1e-4
"""Largest departure of direction^T direction from the identity; float32 cosines reach 1e-6."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the voxels of a 3-D image lie.

    The centre of voxel (z, y, x) lies at ``origin + D (x sx, y sy, z sz)``.

    Attributes:
        size_zyx: Number of voxels along each array axis.
        spacing_zyx: Distance of neighbouring voxels in mm along each array axis.
        origin_xyz: LPS position in mm of the centre of voxel (0, 0, 0).
        direction: ITK's direction cosines: the 3x3 matrix D row by row, nine numbers. Column 0 is
            the LPS direction in which x (the last array axis) grows, column 2 that of z.

    Raises:
        GeometryError: a size or spacing is not positive, or the directions are not orthonormal.
    """

    size_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    origin_xyz: tuple[float, float, float]
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        lengths = tuple(len(part) for part in (self.size_zyx, self.spacing_zyx, self.origin_xyz))
        if lengths != (3, 3, 3) or len(self.direction) != 9:
            raise GeometryError(
                f"A grid has sizes, spacings and origin of lengths {lengths} and "
                f"{len(self.direction)} direction cosines. Expected 3, 3, 3 and 9."
            )
        if min(self.size_zyx) < 1:
            raise GeometryError(f"A grid has size {self.size_zyx} (z, y, x). Expected 1 or more.")
        if not all(np.isfinite(step) and step > 0 for step in self.spacing_zyx):
            raise GeometryError(
                f"A grid has spacing {_triple(self.spacing_zyx)} mm (z, y, x). "
                "Expected positive numbers. Correct the image's header."
            )
        if not np.isfinite(self.origin_xyz).all():
            raise GeometryError(f"A grid has origin {self.origin_xyz}. Expected finite numbers.")
        matrix = self.matrix()
        if not np.allclose(matrix.T @ matrix, np.eye(3), rtol=0, atol=ORTHONORMAL_TOLERANCE):
            raise GeometryError(
                f"A grid has direction cosines {self.direction}, which are not orthonormal. "
                "Resample the image to a grid with perpendicular axes."
            )

    def matrix(self) -> npt.NDArray[np.float64]:
        """Direction cosines as a 3x3 matrix; its columns are the LPS directions of x, y and z."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    def positions_xyz(self, index_zyx: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """LPS positions in mm of voxel indices.

        Args:
            index_zyx: (..., 3) indices, z, y, x; fractions are positions between voxel centres.

        Returns:
            (..., 3) positions, x, y, z in mm.
        """
        offset_xyz = (np.asarray(index_zyx, dtype=np.float64) * self.spacing_zyx)[..., ::-1]
        positions: npt.NDArray[np.float64] = offset_xyz @ self.matrix().T + self.origin_xyz
        return positions


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A single-channel 3-D image on its own grid.

    Attributes:
        data: (Z, Y, X) voxel values.
        spacing_zyx: Distance of neighbouring voxels in mm along each array axis.
        origin_xyz: LPS position in mm of the centre of voxel (0, 0, 0).
        direction: ITK's direction cosines, the 3x3 matrix row by row; see :class:`Grid`.

    Raises:
        GeometryError: ``data`` has not three axes, or the grid is not a legal one.
    """

    data: npt.NDArray[Any]
    spacing_zyx: tuple[float, float, float]
    origin_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Check that there are three axes and that the grid is legal."""
        if self.data.ndim != 3:
            raise GeometryError(f"A volume has shape {self.data.shape}. Expected (Z, Y, X).")
        _ = self.grid

    @classmethod
    def on_grid(cls, data: npt.NDArray[Any], grid: Grid) -> "Volume":
        """Lay ``data`` (Z, Y, X) on ``grid``.

        Raises:
            GeometryError: the shape is not the grid's size.
        """
        if data.shape != grid.size_zyx:
            raise GeometryError(f"Data of shape {data.shape} do not fit {describe_grid(grid)}.")
        return cls(
            data=data,
            spacing_zyx=grid.spacing_zyx,
            origin_xyz=grid.origin_xyz,
            direction=grid.direction,
        )

    @property
    def grid(self) -> Grid:
        """The grid that the voxels lie on."""
        depth, height, width = self.data.shape
        return Grid(
            size_zyx=(depth, height, width),
            spacing_zyx=self.spacing_zyx,
            origin_xyz=self.origin_xyz,
            direction=self.direction,
        )


def same_grid(a: Grid | Volume, b: Grid | Volume) -> bool:
    """Whether two images share one grid.

    They do when their sizes are equal, their spacings within ``SPACING_TOLERANCE_RELATIVE`` and
    each of their eight corner voxels within ``CORNER_TOLERANCE_MM``.
    """
    return _same_size_and_spacing(_grid(a), _grid(b)) and corner_distance_mm(a, b) <= (
        CORNER_TOLERANCE_MM
    )


def corner_distance_mm(a: Grid | Volume, b: Grid | Volume) -> float:
    """Largest distance in mm between the corresponding corner voxels of two grids."""
    first, second = _grid(a), _grid(b)
    corners = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    apart = first.positions_xyz(corners * (np.array(first.size_zyx) - 1)) - second.positions_xyz(
        corners * (np.array(second.size_zyx) - 1)
    )
    return float(np.linalg.norm(apart, axis=1).max())


def describe_grid(grid: Grid | Volume) -> str:
    """Say in words where a grid lies: size, spacing, origin, and the sense of its axes."""
    grid = _grid(grid)
    return (
        f"{_triple(grid.size_zyx)} voxels of {_triple(grid.spacing_zyx)} mm (z, y, x), "
        f"origin {_triple(grid.origin_xyz, ', ')} mm (x, y, z; LPS), {_describe_axes(grid)}"
    )


def describe_difference(name_a: str, a: Grid | Volume, name_b: str, b: Grid | Volume) -> str:
    """Say in words how two grids differ: the first of size, spacing, directions and origin.

    Example: ``CT has spacing 3 x 1 x 1 mm (z, y, x), PET has 3 x 0.8 x 0.5 mm (z, y, x)``.
    """
    first, second = _grid(a), _grid(b)
    if first.size_zyx != second.size_zyx:
        return (
            f"{name_a} has size {_triple(first.size_zyx)} voxels (z, y, x), "
            f"{name_b} has {_triple(second.size_zyx)} voxels (z, y, x)"
        )
    if not _same_size_and_spacing(first, second):
        return (
            f"{name_a} has spacing {_triple(first.spacing_zyx)} mm (z, y, x), "
            f"{name_b} has {_triple(second.spacing_zyx)} mm (z, y, x)"
        )
    apart = f"corners up to {corner_distance_mm(first, second):.3g} mm apart"
    if not np.allclose(first.direction, second.direction, rtol=0, atol=ORTHONORMAL_TOLERANCE):
        return (
            f"{name_a} has {_describe_axes(first)}, {name_b} has {_describe_axes(second)}; {apart}"
        )
    return (
        f"{name_a} has origin {_triple(first.origin_xyz, ', ')} mm (x, y, z; LPS), "
        f"{name_b} has {_triple(second.origin_xyz, ', ')} mm (x, y, z; LPS); {apart}"
    )


def _grid(image: Grid | Volume) -> Grid:
    return image.grid if isinstance(image, Volume) else image


def _same_size_and_spacing(a: Grid, b: Grid) -> bool:
    return a.size_zyx == b.size_zyx and np.allclose(
        a.spacing_zyx, b.spacing_zyx, rtol=SPACING_TOLERANCE_RELATIVE, atol=0
    )


def _describe_axes(grid: Grid) -> str:
    # For each of z, y, x: the patient's side that the axis points to most, and how nearly.
    axes = []
    for name, column in zip("zyx", (2, 1, 0), strict=True):
        cosines = grid.matrix()[:, column]
        main = int(np.abs(cosines).argmax())
        side = (("left", "right"), ("posterior", "anterior"), ("superior", "inferior"))[main]
        tilt = np.degrees(np.arccos(min(1.0, abs(cosines[main]))))
        tilted = f" tilted {tilt:.2g} degrees" if tilt > 0.01 else ""
        axes.append(f"{name} to {side[0] if cosines[main] > 0 else side[1]}{tilted}")
    return "axes " + ", ".join(axes)


def _triple(numbers: tuple[float, ...], joint: str = " x ") -> str:
    return joint.join(f"{number:.6g}" for number in numbers)
