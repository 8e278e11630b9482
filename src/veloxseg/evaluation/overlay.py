"""Pictures of cases: channels side by side, one over another, and the outlines of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.atomic import atomic_path
from veloxseg.errors import GeometryError, VeloxSegError
from veloxseg.evaluation.metrics import dice
from veloxseg.evaluation.planes import box_of, cut, display_window, plane_grid
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Grid, Volume, describe_difference, same_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PIXELS = 360
_PANEL_INCHES = 2.7
_GAP_INCHES = 0.06
_ROW_TITLE_INCHES = 0.34
_HEAD_INCHES = 0.5
_FOOT_INCHES = 0.42
_BACKGROUND, _TEXT, _FAINT = "#0d1117", "#e6edf3", "#9aa7b4"
_OUTLINES = ("#3ddc97", "#ff6b6b", "#ffd166", "#5cc8ff")


@dataclass(frozen=True, kw_only=True)
class OverlayCase:
    """One row of the picture.

    Attributes:
        name: Shown above the row.
        channels: Names and images, one panel each; the second is also washed over the first. Each
            may lie on a grid of its own.
        masks: Up to four names and masks, outlined over the first channel; whatever is not 0 is in
            the mask. The first is the reference: the row shows its largest lesion, and the others'
            Dice with it.
    """

    name: str
    channels: Sequence[tuple[str, Path]]
    masks: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class _Row:
    title: str
    channels: Sequence[tuple[str, NDArray[Any], tuple[float, float]]]
    masks: Mapping[str, NDArray[Any]]
    height_per_width: float


def draw_overlay(cases: Sequence[OverlayCase], output: Path, *, title: str) -> Path:
    """Draw one row of axial slices a case as a PNG.

    Slices are looked up in patient space, so every case shows the patient's right side on the left
    and the front above, in true proportions, whatever the directions of its arrays.

    Args:
        cases: At least one; all name the same masks in the same order.
        output: The PNG to write, whole or not at all.
        title: Shown above the first row.

    Returns:
        ``output``.

    Raises:
        VeloxSegError: matplotlib is not installed.
        GeometryError: masks of a case do not share one grid.
        ImageReadError: a file is no image.
        ValueError: there is no case, a case has no channel, or the cases' masks are not named
            alike or are more than four.
    """
    if not cases or any(not case.channels for case in cases):
        raise ValueError("Expected at least one case, each with at least one channel.")
    names = list(cases[0].masks)
    if len(names) > len(_OUTLINES) or any(list(case.masks) != names for case in cases):
        raise ValueError(f"Expected the same masks in every case, at most {len(_OUTLINES)}.")
    rows = [_load_row(case) for case in cases]
    figure = _draw(rows, title)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=150, facecolor=_BACKGROUND)
    return output


def _load_row(case: OverlayCase) -> _Row:
    masks = {name: read_volume(path) for name, path in case.masks.items()}
    _require_one_grid(case.name, masks)
    channels = [(name, read_volume(path)) for name, path in case.channels]
    windows = [display_window(name, volume.data) for name, volume in channels]
    _, first = channels[0]
    plane = _axial_plane(first.grid, _interesting_height_mm(first, list(masks.values())))
    return _Row(
        title=_row_title(case.name, masks),
        channels=[
            (name, cut(volume, plane, fill=window[0]), window)
            for (name, volume), window in zip(channels, windows, strict=True)
        ],
        masks={name: cut(_binary(mask), plane, fill=0) for name, mask in masks.items()},
        height_per_width=plane.size_zyx[1] / plane.size_zyx[2],
    )


def _require_one_grid(case: str, masks: Mapping[str, Volume]) -> None:
    named = list(masks.items())
    for name, mask in named[1:]:
        if not same_grid(mask, named[0][1]):
            raise GeometryError(
                f"Case {case}: {describe_difference(*named[0], name, mask)}. "
                "Masks to compare must share one grid."
            )


def _row_title(case: str, masks: Mapping[str, Volume]) -> str:
    if not masks:
        return case
    reference, *others = masks
    scores = [(name, dice(masks[name].data, masks[reference].data)) for name in others]
    if len(scores) == 1:
        return f"{case}    Dice {scores[0][1]:.2f}"
    return "    ".join([case, *(f"{name}: Dice {score:.2f}" for name, score in scores)])


def _interesting_height_mm(first: Volume, masks: Sequence[Volume]) -> float:
    """LPS z of the largest lesion in the first mask that has one, else of the image's middle."""
    for mask in masks:
        labelled, count = ndimage.label(mask.data != 0)
        if count:
            largest = 1 + int(np.bincount(labelled.ravel())[1:].argmax())
            index_zyx = ndimage.center_of_mass(labelled == largest)
            return float(mask.grid.positions_xyz(index_zyx)[2])
    return float(first.grid.positions_xyz((np.array(first.data.shape) - 1) / 2)[2])


def _axial_plane(grid: Grid, height_mm: float) -> Grid:
    """One axial slice with square pixels, x to the left of the patient, y to the back."""
    low, high = box_of(grid)
    pixel_mm = max(float((high - low)[:2].max()) / _PIXELS, 1e-3)
    return plane_grid("axial", low, high, through_xyz=(0.0, 0.0, height_mm), pixel_mm=pixel_mm)


def _binary(mask: Volume) -> Volume:
    # Interpolated linearly, the outline at one half is smooth.
    return Volume.on_grid((mask.data != 0).astype(np.float32), mask.grid)


def _draw(rows: Sequence[_Row], title: str) -> "Figure":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise VeloxSegError(
            "Pictures need matplotlib, which is not installed. Install it: pip install matplotlib"
        ) from error
    num_panels = max(len(_panels(row)) for row in rows)
    heights = [_PANEL_INCHES * row.height_per_width for row in rows]
    width = num_panels * (_PANEL_INCHES + _GAP_INCHES) + 3 * _GAP_INCHES
    height = sum(heights) + len(rows) * _ROW_TITLE_INCHES + _HEAD_INCHES + _FOOT_INCHES
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    left = 2 * _GAP_INCHES / width
    figure.text(
        left,
        1 - 0.5 * _HEAD_INCHES / height,
        title,
        color=_TEXT,
        size=14,
        weight="bold",
        va="center",
    )
    top = height - _HEAD_INCHES
    for row, row_height in zip(rows, heights, strict=True):
        middle = top - _ROW_TITLE_INCHES / 2
        figure.text(left, middle / height, row.title, color=_TEXT, size=10.5, va="center")
        top -= _ROW_TITLE_INCHES + row_height
        for column, panel in enumerate(_panels(row)):
            x = 2 * _GAP_INCHES + column * (_PANEL_INCHES + _GAP_INCHES)
            box = (x / width, top / height, _PANEL_INCHES / width, row_height / height)
            _draw_panel(figure.add_axes(box), row, panel)
    _draw_legend(figure, list(rows[0].masks))
    return figure


def _panels(row: _Row) -> list[str]:
    panels = [name for name, _, _ in row.channels]
    if len(row.channels) > 1:
        panels.append(f"{row.channels[0][0]} + {row.channels[1][0]}")
    return [*panels, "Outlines"] if row.masks else panels


def _draw_panel(axes: "Axes", row: _Row, panel: str) -> None:
    axes.set_axis_off()
    by_name = {name: (image, window) for name, image, window in row.channels}
    first, *_ = by_name.values()
    image, (low, high) = by_name.get(panel, first)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    if panel == "Outlines":
        for number, mask in enumerate(row.masks.values()):
            if mask.min() < 0.5 < mask.max():
                # The reference is wider, so that it shows below a prediction that hits it.
                linewidth = 1.3 if number else 2.2
                axes.contour(mask, [0.5], colors=[_OUTLINES[number]], linewidths=linewidth)
    elif panel not in by_name:
        _, wash, (low, high) = row.channels[1]
        strength = np.clip((wash - low) / (high - low), 0, 1)
        alpha = np.clip(1.6 * strength, 0, 0.85)
        axes.imshow(strength, cmap="hot", vmin=0, vmax=1, alpha=alpha, interpolation="bilinear")
    label: dict[str, Any] = {"transform": axes.transAxes, "color": _FAINT, "size": 8}
    axes.text(0.03, 0.03, panel, **label)
    axes.text(0.02, 0.5, "R", va="center", **label)
    axes.text(0.98, 0.5, "L", va="center", ha="right", **label)


def _draw_legend(figure: "Figure", masks: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    if masks:
        colours = _OUTLINES[: len(masks)]
        figure.legend(
            [Line2D([], [], color=colour, linewidth=2) for colour in colours],
            masks,
            loc="lower right",
            ncols=len(masks),
            frameon=False,
            labelcolor=_TEXT,
            fontsize=10,
        )
