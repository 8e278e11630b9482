"""The picture of the hippocampus demo: three planes of a brain, and each nearer below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from veloxseg.atomic import atomic_path
from veloxseg.errors import VeloxSegError
from veloxseg.installation import INSTALL_DEMO
from veloxseg.volumes.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BACKGROUND, _TEXT, _FAINT, _FRAME = "#0d1117", "#e6edf3", "#8b98a5", "#5a6672"
_COLOURS = ("#ffb454", "#5cc8ff", "#3ddc97", "#ff6b6b")
MAX_PARTS = len(_COLOURS)
"""How many parts a picture has colours for."""

_PANEL_INCHES, _GAP_INCHES = 3.6, 0.12
_HEAD_INCHES, _FOOT_INCHES = 0.55, 0.5
_BRAIN_MM = (204.0, 192.0)
_ZOOM_MM = (96.0, 62.0)
_WINDOW_PERCENTILES = (2, 99.8)


@dataclass(frozen=True, kw_only=True)
class _Plane:
    name: str
    across: str
    up: str
    place: str
    position_mm: float
    edges: tuple[str, str, str, str]
    image: NDArray[Any]
    masks: Sequence[NDArray[Any]]
    across_mm: NDArray[Any]
    up_mm: NDArray[Any]

    def centre_of(self, shown: NDArray[Any]) -> tuple[float, float]:
        """In mm, of the box around what is shown."""
        rows, columns = np.nonzero(shown)
        return (
            float(self.across_mm[[columns.min(), columns.max()]].mean()),
            float(self.up_mm[[rows.min(), rows.max()]].mean()),
        )


def draw_parts(
    image: Volume,
    mask: NDArray[Any],
    output: Path,
    *,
    parts: Mapping[str, Sequence[int]],
    title: str,
    note: str,
) -> Path:
    """Draw parts of a brain over three planes, as a PNG.

    The patient's right side is on the left, on the sagittal plane the front.

    Args:
        image: Its axes grow to right, front and head; what is 0 is outside the brain.
        mask: (Z, Y, X) labels on its grid, not empty.
        output: The PNG to write, whole or not at all.
        parts: Name of each part to the values it has in the mask; at most ``MAX_PARTS``.
        title: Shown above.
        note: Shown below, as volumes.

    Returns:
        ``output``.

    Raises:
        VeloxSegError: matplotlib is not installed, or nothing was found that could be drawn.
    """
    if not mask.any():
        raise VeloxSegError("The model found nothing in the image, so there is nothing to draw.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise VeloxSegError(
            f"Pictures need matplotlib, which is not installed. Install: {INSTALL_DEMO}"
        ) from error
    brain = image.data[image.data > 0]
    low, high = (float(limit) for limit in np.percentile(brain, _WINDOW_PERCENTILES))
    planes = _planes(image, mask, list(parts.values()))
    whole_inches, zoom_inches = (
        _PANEL_INCHES * extent[1] / extent[0] for extent in (_BRAIN_MM, _ZOOM_MM)
    )
    width = 3 * _PANEL_INCHES + 4 * _GAP_INCHES
    height = _HEAD_INCHES + whole_inches + zoom_inches + _GAP_INCHES + _FOOT_INCHES
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    for number, plane in enumerate(planes):
        x = _GAP_INCHES + number * (_PANEL_INCHES + _GAP_INCHES)
        y = _FOOT_INCHES + _GAP_INCHES + zoom_inches
        boxes = [
            (x / width, start / height, _PANEL_INCHES / width, extent / height)
            for start, extent in ((y, whole_inches), (_FOOT_INCHES, zoom_inches))
        ]
        near = plane.centre_of(np.any(plane.masks, axis=0))
        far = plane.centre_of(plane.image > 0)
        whole, nearer = (figure.add_axes(box) for box in boxes)
        for axes, centre, extent, line in (
            (whole, far, _BRAIN_MM, 0.9),
            (nearer, near, _ZOOM_MM, 1.6),
        ):
            _draw_plane(axes, plane, low, high, linewidth=line)
            _show(axes, centre, extent)
        _frame(whole, near)
        _name_edges(whole, plane)
        for spine in nearer.spines.values():
            spine.set_color(_FRAME)
    _write_around(figure, list(parts), title=title, note=note)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor=_BACKGROUND)
    return output


def _planes(image: Volume, mask: NDArray[Any], parts: Sequence[Sequence[int]]) -> list[_Plane]:
    """Axial and sagittal ones show all parts at once, the coronal one what is largest."""
    of_parts = np.stack([np.isin(mask, values) for values in parts])
    left = of_parts.copy()
    left[..., image.data.shape[2] // 2 :] = False  # one side for the sagittal plane
    shown = {"x": left if left.any() else of_parts, "y": of_parts, "z": of_parts}
    ox, oy, oz = image.origin_xyz
    first_mm = {"x": -ox, "y": -oy, "z": oz}  # RAS
    positions = {
        axis: first_mm[axis] + image.spacing_zyx[number] * np.arange(image.data.shape[number])
        for number, axis in enumerate("zyx")
    }
    planes = []
    for name, axis, across, up, edges in (
        ("Axial", "z", "x", "y", ("R", "L", "A", "P")),
        ("Coronal", "y", "x", "z", ("R", "L", "S", "I")),
        ("Sagittal", "x", "y", "z", ("A", "P", "S", "I")),
    ):
        number = "zyx".index(axis)
        index = _fullest(shown[axis], number, together=name != "Coronal")
        planes.append(
            _Plane(
                name=name,
                across=across,
                up=up,
                place=axis,
                position_mm=float(positions[axis][index]),
                edges=edges,
                image=image.data.take(index, axis=number),
                masks=[part.take(index, axis=number) for part in of_parts],
                across_mm=positions[across],
                up_mm=positions[up],
            )
        )
    return planes


def _fullest(of_parts: NDArray[Any], axis: int, *, together: bool) -> int:
    """Index of the plane across an axis that shows most: of the least part, or of all."""
    others = tuple(1 + number for number in range(3) if number != axis)
    areas = of_parts.sum(axis=others)
    least = areas.min(axis=0)
    return int((least if together and least.any() else areas.sum(axis=0)).argmax())


def _draw_plane(axes: "Axes", plane: _Plane, low: float, high: float, *, linewidth: float) -> None:
    across, up = plane.across_mm, plane.up_mm
    half_across, half_up = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2
    extent = (
        across[0] - half_across,
        across[-1] + half_across,
        up[0] - half_up,
        up[-1] + half_up,
    )
    axes.imshow(
        np.ma.masked_equal(plane.image, 0),
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=extent,
        origin="lower",
        interpolation="bilinear",
    )
    for mask, colour in zip(plane.masks, _COLOURS, strict=False):
        if mask.any():
            smooth = _smoothed(mask.astype(float))
            axes.contourf(across, up, smooth, [0.5, 2], colors=[colour], alpha=0.3)
            axes.contour(across, up, smooth, [0.5], colors=[colour], linewidths=linewidth)


def _smoothed(plane: NDArray[Any]) -> NDArray[Any]:
    """Without the steps of voxels: a tent of three voxels along both axes."""
    for axis in (0, 1):
        padded = np.pad(plane, [(1, 1) if number == axis else (0, 0) for number in (0, 1)])
        size = plane.shape[axis]
        before, here, after = (
            padded.take(range(shift, shift + size), axis=axis) for shift in (0, 1, 2)
        )
        plane = (before + 2 * here + after) / 4
    return plane


def _show(axes: "Axes", centre_mm: tuple[float, float], extent_mm: tuple[float, float]) -> None:
    """Across runs to the left: right and front are on the left of the picture."""
    (x, y), (width, height) = centre_mm, extent_mm
    axes.set_xlim(x + width / 2, x - width / 2)
    axes.set_ylim(y - height / 2, y + height / 2)
    axes.set_aspect("equal")
    axes.set_facecolor(_BACKGROUND)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_BACKGROUND)


def _frame(axes: "Axes", centre_mm: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    (x, y), (width, height) = centre_mm, _ZOOM_MM
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=_FRAME, linewidth=0.9))


def _name_edges(axes: "Axes", plane: _Plane) -> None:
    style: dict[str, Any] = {"transform": axes.transAxes, "color": _FAINT, "size": 9}
    left, right, top, bottom = plane.edges
    axes.text(0.02, 0.5, left, va="center", **style)
    axes.text(0.98, 0.5, right, va="center", ha="right", **style)
    axes.text(0.5, 0.985, top, va="top", ha="center", **style)
    axes.text(0.5, 0.015, bottom, va="bottom", ha="center", **style)
    where = f"{plane.name}  {plane.place} = {plane.position_mm:.0f} mm"
    axes.text(0.02, 0.985, where, va="top", **style | {"color": _TEXT})


def _write_around(figure: "Figure", parts: Sequence[str], *, title: str, note: str) -> None:
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    left, middle = _GAP_INCHES / width, 0.5 * _FOOT_INCHES / height
    top = 1 - 0.5 * _HEAD_INCHES / height
    figure.text(left, top, title, color=_TEXT, size=15, weight="bold", va="center")
    figure.text(left, middle, note, color=_TEXT, size=11, va="center")
    figure.legend(
        [Patch(color=colour) for colour in _COLOURS[: len(parts)]],
        parts,
        loc="center right",
        bbox_to_anchor=(1 - left, middle),
        ncols=len(parts),
        frameon=False,
        labelcolor=_TEXT,
        fontsize=11,
        borderaxespad=0,
    )
