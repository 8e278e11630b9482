"""Axes of plots, and numbers as the page writes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

MINUS = "\N{MINUS SIGN}"
UNDEFINED = "\N{EN DASH}"
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis from its first to its last tick.

    Attributes:
        ticks: Values that are marked, rising.
        places: Decimal places that the ticks need.
        start: Where the first tick lies in the picture.
        end: Where the last one lies.
    """

    ticks: Sequence[float]
    places: int
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies in the picture."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def fit_axis(
    values: Sequence[float],
    *,
    start: float,
    end: float,
    limits: tuple[float | None, float | None] = (None, None),
    num_steps: int = 5,
) -> Axis:
    """An axis with round ticks that holds all values.

    Args:
        values: At least one, all finite.
        start: Where the axis begins in the picture.
        end: Where it ends.
        limits: What the axis begins and ends with; None where the values say.
        num_steps: About how many steps between ticks.
    """
    low = min(values) if limits[0] is None else limits[0]
    high = max(values) if limits[1] is None else limits[1]
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-3):
        widen = max(abs(high), 1e-3) / 10
        low = low - widen if limits[0] is None else low
        high = high + widen if limits[1] is None or limits[0] is not None else high
    rough = (high - low) / num_steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((one * power for one in _STEPS if one * power >= rough * 0.999), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(round(step, places), step, rel_tol=1e-6):
        places += 1
    ticks = [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]
    return Axis(ticks=ticks, places=places, start=start, end=end)


def write_number(value: float, places: int) -> str:
    """A number with a true minus sign, never ``-0``; a dash where it is undefined."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:.{places}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def draw_text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> Markup:
    """An SVG text element; the page's styles know its class."""
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(
        f"{x:.1f}", f"{y:.1f}", anchor, kind, text
    )
