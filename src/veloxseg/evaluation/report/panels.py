"""One plane of a case as SVG: the image in grey, the outlines of both masks, a scale."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from veloxseg.evaluation.planes import SIDES, Plane

_SCALES_MM = (500, 200, 100, 50, 20, 10, 5, 2, 1)
_LARGEST_SCALE = 0.4
_LOWEST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plane.

    Attributes:
        plane: Which.
        pixel_mm: Size of its square pixels.
        image: (Y, X) values; None draws none.
        window: Values shown black and white.
        reference: Of each label, (Y, X): how much of a pixel belongs to the reference, 0 to 1.
        prediction: The same for the prediction.
        point_yx: Pixel, with fractions, in which the case's planes meet.
        text_pixels: Size of the letters, in pixels of the plane.
    """

    plane: Plane
    pixel_mm: float
    image: NDArray[Any] | None
    window: tuple[float, float]
    reference: Sequence[NDArray[Any]]
    prediction: Sequence[NDArray[Any]]
    point_yx: tuple[float, float]
    text_pixels: float


def draw_panel(panel: Panel, *, description: str) -> Markup:
    """Draw a plane as an SVG element whose unit is one pixel of the plane.

    Colours are the page's: classes ``ground``, ``reference``, ``prediction``, ``side``, ``scale``
    and ``cross``.

    Args:
        panel: What to draw.
        description: For those who cannot see it.
    """
    masks = [*panel.reference, *panel.prediction]
    height, width = masks[0].shape if panel.image is None else panel.image.shape
    parts = [
        Markup('<svg class="panel" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            width, height, description
        ),
        Markup('<rect class="ground" width="{}" height="{}"/>').format(width, height),
    ]
    if panel.image is not None:
        parts.append(
            Markup('<image width="{}" height="{}" href="data:image/png;base64,{}"/>').format(
                width, height, _png(panel.image, panel.window)
            )
        )
    for kind in ("reference", "prediction"):
        outlines = "".join(_outline(mask) for mask in getattr(panel, kind))
        if outlines:
            parts.append(Markup('<path class="{}" d="{}"/>').format(kind, outlines))
    parts += [_cross(panel, width, height), _sides(panel, width, height)]
    parts += [_scale(panel, width, height), Markup("</svg>")]
    return Markup("").join(parts)


def _png(image: NDArray[Any], window: tuple[float, float]) -> str:
    from PIL import Image

    low, high = window
    # In float32 the largest floats, with which some mark what is outside the scan, overflow.
    grey = np.nan_to_num((image.astype(np.float64) - low) / (high - low), nan=0.0)
    buffer = io.BytesIO()
    pixels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _outline(mask: NDArray[Any]) -> str:
    """Path along which a mask is one half; its edges on the picture's edge stay open."""
    from contourpy import contour_generator

    if min(mask.shape) < 2 or not mask.min() < 0.5 < mask.max():
        return ""
    path = []
    for line in contour_generator(z=mask).lines(0.5):
        points = np.asarray(line) + 0.5  # a pixel's centre is at one half
        text = " ".join(f"{x:.1f} {y:.1f}" for x, y in points)
        path.append(f"M{text}")
    return "".join(path)


def _cross(panel: Panel, width: int, height: int) -> Markup:
    """Short lines at the edges, to where the other planes pass."""
    y, x = panel.point_yx
    length = 0.7 * panel.text_pixels
    return Markup('<path class="cross" d="M{} 0v{}M{} {}v-{}M0 {}h{}M{} {}h-{}"/>').format(
        *(f"{number:.1f}" for number in (x, length, x, height, length, y, length, width, y, length))
    )


def _sides(panel: Panel, width: int, height: int) -> Markup:
    size = panel.text_pixels
    left, right, upper, lower = SIDES[panel.plane]
    places = [
        (left, 0.4 * size, 0.42 * height, "start"),
        (right, width - 0.4 * size, 0.42 * height, "end"),
        (upper, 0.42 * width, 1.1 * size, "middle"),
        (lower, 0.42 * width, height - 0.4 * size, "middle"),
    ]
    if _is_low(panel, height):
        places = [(letter, x, height / 2 + 0.36 * size, end) for letter, x, _, end in places[:2]]
    return Markup("").join(
        Markup('<text class="side" x="{}" y="{}" font-size="{}" text-anchor="{}">{}</text>').format(
            f"{x:.1f}", f"{y:.1f}", f"{size:.1f}", anchor, letter
        )
        for letter, x, y, anchor in places
    )


def _is_low(panel: Panel, height: int) -> bool:
    """Whether a plane is of a slice or two, so that letters and scale would lie on one another."""
    return height < _LOWEST_NAMED * panel.text_pixels


def _scale(panel: Panel, width: int, height: int) -> Markup:
    room_mm = _LARGEST_SCALE * width * panel.pixel_mm
    length_mm = next((one for one in _SCALES_MM if one <= room_mm), None)
    if length_mm is None or _is_low(panel, height):
        return Markup("")
    size = panel.text_pixels
    end, low = width - 0.6 * size, height - 0.6 * size
    start = end - length_mm / panel.pixel_mm
    return Markup(
        '<path class="scale" d="M{} {}H{}"/>'
        '<text class="side" x="{}" y="{}" font-size="{}" text-anchor="end">{}</text>'
    ).format(
        f"{start:.1f}",
        f"{low:.1f}",
        f"{end:.1f}",
        f"{end:.1f}",
        f"{low - 0.5 * size:.1f}",
        f"{size:.1f}",
        escape(f"{length_mm} mm"),
    )
