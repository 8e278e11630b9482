"""How much of a case a picture shows."""

from dataclasses import dataclass

import numpy as np

from veloxseg.evaluation.planes import Plane, box_of, box_of_indices, crop_to_box
from veloxseg.evaluation.report.largest_error import LargestError
from veloxseg.volumes.volume import Grid, Volume

_PIXELS = 360
_PIXELS_A_VOXEL = 2
_MARGIN_MM = 20.0
_SMALLEST_MM = 60.0
_LETTER, _WIDEST_ROW, _TALLEST_ROW = 13, 1088, 416  # as in page.css: 68 and 26 rem of 16

_Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class View:
    """A box in patient space and the planes through it.

    Attributes:
        low_xyz: Corner in LPS mm.
        high_xyz: The opposite corner.
        point_xyz: Point in LPS mm in which the three planes meet.
        pixel_mm: Size of the pixels of all planes.
    """

    low_xyz: _Point
    high_xyz: _Point
    point_xyz: _Point
    pixel_mm: float

    @property
    def row_pixels(self) -> tuple[float, float]:
        """Width of the three planes side by side, and height of the tallest."""
        x, y, z = (
            (high - low) / self.pixel_mm
            for low, high in zip(self.low_xyz, self.high_xyz, strict=True)
        )
        return 2 * x + y, max(y, z)

    @property
    def text_pixels(self) -> float:
        """Size of letters that are as large as the page's where a row has its largest size."""
        width, height = self.row_pixels
        return _LETTER / min(_WIDEST_ROW / width, _TALLEST_ROW / height)

    def point_on(self, plane: Plane) -> tuple[float, float]:
        """Row and column, from the upper left corner, in which the other planes pass."""
        across, down = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
        column = self.point_xyz[across] - self.low_xyz[across]
        row = self.point_xyz[down] - self.low_xyz[down]
        if plane != "axial":
            row = self.high_xyz[down] - self.point_xyz[down]
        return row / self.pixel_mm, column / self.pixel_mm

    def position_of(self, plane: Plane) -> str:
        """Where a plane lies: ``S 12.3 mm`` is 12.3 mm to the head of LPS' origin."""
        axis, sides = {"axial": (2, "SI"), "coronal": (1, "PA"), "sagittal": (0, "LR")}[plane]
        place = self.point_xyz[axis]
        return f"{sides[0] if place >= 0 else sides[1]} {abs(place):.1f} mm"


def view_of(error: LargestError, grid: Grid) -> View:
    """Show the structure that an error belongs to and 2 cm around it, 6 cm at least.

    Args:
        error: In voxels of the grid.
        grid: The view ends where the grid does, half a voxel beyond its outermost centres.
    """
    low, high = box_of_indices(grid, error.first_zyx, error.last_zyx)
    widen = np.maximum(_MARGIN_MM, (_SMALLEST_MM - (high - low)) / 2)
    ends = box_of(grid, margin_voxels=0.5)
    low, high = np.maximum(low - widen, ends[0]), np.minimum(high + widen, ends[1])
    pixel_mm = max(float((high - low).max()) / _PIXELS, min(grid.spacing_zyx) / _PIXELS_A_VOXEL)
    return View(
        low_xyz=_point(low),
        high_xyz=_point(high),
        point_xyz=_point(grid.positions_xyz(error.index_zyx)),
        pixel_mm=pixel_mm,
    )


def crop_to_view(volume: Volume, view: View) -> Volume | None:
    """The part of a volume that a view shows, copied; None where they do not meet."""
    part = crop_to_box(volume, view.low_xyz, view.high_xyz)
    return None if part is None else Volume.on_grid(part.data.copy(), part.grid)


def _point(values: "np.typing.NDArray[np.float64]") -> _Point:
    return float(values[0]), float(values[1]), float(values[2])
