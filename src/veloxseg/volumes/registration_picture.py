"""A picture of a registration: three planes, before and after, the images as a checkerboard."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.errors import VeloxSegError
from veloxseg.volumes.registration import Registration
from veloxseg.volumes.registration_transform import AffineMap, resample_through
from veloxseg.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS = 300
_TILES = 8
_PANEL_INCHES = 3.0
_HEAD_INCHES = 0.75
_BACKGROUND, _TEXT = "#0d1117", "#e6edf3"
_PLANES = ("axial", "coronal", "sagittal")
_SHOWN_PERCENTILES = (1, 99)


def draw_registration(
    output: Path, *, moving: Volume, fixed: Volume, registration: Registration, title: str
) -> Path:
    """Draw axial, coronal and sagittal planes through the middle of where the images overlap.

    Squares of the fixed image (grey) and of the moving one (copper) alternate: where they agree,
    edges run on from square to square. Every picture shows the patient's right side on the left,
    the front or the head above, in true proportions. Squares outside the moving image's field of
    view stay black.

    Args:
        output: The PNG to write, whole or not at all.
        moving: (Z, Y, X) image as it was given to registration.
        fixed: (Z, Y, X) image that stayed where it is.
        registration: What was found.
        title: Shown above.

    Returns:
        ``output``.

    Raises:
        VeloxSegError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    low, high, middle = _view(moving, fixed, registration)
    rows = {
        f"before: {registration.metric_before:.3f} nats": registration.initial,
        f"after: {registration.metric_after:.3f} nats": registration.transform,
    }
    figure, box_axes = _canvas(high - low, title, list(rows))
    for row, transform in enumerate(rows.values()):
        for column in range(3):
            plane = _plane(column, low, high, middle)
            picture = _checkerboard(moving, fixed, plane, transform)
            axes = box_axes[row][column]
            axes.imshow(picture, interpolation="nearest", aspect="auto")
    with atomic_path(output) as temporary:
        figure.savefig(
            temporary, format="png", dpi=100, facecolor=_BACKGROUND, metadata={"Software": None}
        )
    return output


def _view(
    moving: Volume, fixed: Volume, registration: Registration
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The box to show, both images' after registration, and the middle of what they share."""
    first = _corners_xyz(fixed.grid)
    second = registration.transform.inverse()(_corners_xyz(moving.grid))
    shared_low = np.maximum(first.min(0), second.min(0))
    shared_high = np.minimum(first.max(0), second.max(0))
    return first.min(0), first.max(0), (shared_low + shared_high) / 2


def _corners_xyz(grid: Grid) -> npt.NDArray[np.float64]:
    corners = np.indices((2, 2, 2)).reshape(3, -1).T
    return grid.positions_xyz(corners * (np.array(grid.size_zyx) - 1))


def _plane(
    column: int,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    middle: npt.NDArray[np.float64],
) -> Grid:
    """A slice of one voxel across the axis that the plane is perpendicular to; LPS."""
    across = 2 - column  # axial: z, coronal: y, sagittal: x
    pixel_mm = max(float((high - low).max()) / _PIXELS, 1e-3)
    size = np.ceil((high - low) / pixel_mm).astype(int) + 1
    origin = np.array(low)
    size[across], origin[across] = 1, middle[across]
    x, y, z = (float(value) for value in origin)
    width, height, depth = (int(value) for value in size)
    return Grid(
        size_zyx=(depth, height, width),
        spacing_zyx=(pixel_mm, pixel_mm, pixel_mm),
        origin_xyz=(x, y, z),
    )


def _checkerboard(
    moving: Volume, fixed: Volume, plane: Grid, transform: AffineMap
) -> npt.NDArray[np.float64]:
    """(rows, columns, 3) colours from 0 to 1."""
    grey = _brightness(_cut(fixed, plane, AffineMap.identity()), fixed)
    copper = _brightness(_cut(moving, plane, transform), moving)
    tile = max(grey.shape) / _TILES
    rows, columns = (np.floor(np.arange(size) / tile).astype(int) for size in grey.shape)
    even = (rows[:, None] + columns[None, :]) % 2 == 0
    colours = np.where(
        even[..., None],
        grey[..., None] * np.ones(3),
        copper[..., None] * np.array([1.0, 0.75, 0.45]),
    )
    return colours


def _cut(volume: Volume, plane: Grid, transform: AffineMap) -> npt.NDArray[Any]:
    cut = resample_through(
        volume,
        plane,
        transform=transform,
        interpolation="linear",
        fill=float(volume.data.min()),
    ).data
    flat = cut.reshape([size for size in cut.shape if size > 1])
    # Heads are above: z grows upwards in a coronal or sagittal picture.
    return flat if plane.size_zyx[0] == 1 else flat[::-1]


def _brightness(image: npt.NDArray[Any], volume: Volume) -> npt.NDArray[np.float64]:
    low, high = (float(limit) for limit in np.percentile(volume.data, _SHOWN_PERCENTILES))
    if high <= low:
        low, high = float(volume.data.min()), float(volume.data.max())
    shown: npt.NDArray[np.float64] = np.clip((image - low) / (high - low), 0, 1)
    return shown


def _canvas(
    extent_mm: npt.NDArray[np.float64], title: str, row_titles: list[str]
) -> tuple["Figure", list[list[Any]]]:
    """A figure with two rows of three axes in proportion."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise VeloxSegError(
            "Pictures need matplotlib, which is not installed. Install it: pip install matplotlib"
        ) from error
    x, y, z = (_PANEL_INCHES * float(side) / float(extent_mm.max()) for side in extent_mm)
    boxes = [(x, y), (x, z), (y, z)]  # width and height of each plane
    row_height = max(height for _, height in boxes) + 0.35
    width = sum(box[0] for box in boxes) + 0.4
    height = _HEAD_INCHES + 2 * row_height
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    style: dict[str, Any] = {"color": _TEXT, "va": "center"}
    figure.text(0.1 / width, 1 - 0.22 / height, title, size=12, weight="bold", **style)
    figure.text(
        0.1 / width, 1 - 0.5 / height, "squares: fixed grey, moving copper", size=8, **style
    )
    rows = []
    for row, row_title in enumerate(row_titles):
        top = height - _HEAD_INCHES - row * row_height
        figure.text(0.1 / width, (top - 0.15) / height, row_title, size=9, **style)
        left, axes = 0.1, []
        for box_width, box_height in boxes:
            bottom = top - 0.3 - box_height
            place = (left / width, bottom / height, box_width / width, box_height / height)
            axes.append(figure.add_axes(place))
            axes[-1].set_axis_off()
            left += box_width + 0.1
        rows.append(axes)
    return figure, rows
