"""How predicted and reference volumes agree: Bland and Altman's plot (Lancet 327, 1986, 307)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from veloxseg.evaluation.report.axes import Axis, draw_text, fit_axis, write_number
from veloxseg.evaluation.report.distribution import WIDTH

_HEIGHT = 262
_RIGHT, _TOP, _BOTTOM = 14, 16, 38
_DIGIT, _GAP = 7, 6
"""Width of a digit of the ticks, and room between them and the plot."""
_PLACES = 2


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The volumes of one label.

    Attributes:
        label: Its name.
        volumes_ml: Predicted and reference volume by the cases' names, both defined; one case at
            least.
    """

    label: str
    volumes_ml: Mapping[str, tuple[float, float]]

    @property
    def bias_ml(self) -> float:
        """Mean of prediction minus reference."""
        return float(np.mean(self._differences))

    @property
    def limits_ml(self) -> tuple[float, float]:
        """Limits of agreement: the bias less and plus 1.96 standard deviations (n - 1).

        NaN for one case.
        """
        if len(self.volumes_ml) < 2:
            return math.nan, math.nan
        reach = 1.96 * float(np.std(self._differences, ddof=1))
        return self.bias_ml - reach, self.bias_ml + reach

    @property
    def _differences(self) -> list[float]:
        return [predicted - referred for predicted, referred in self.volumes_ml.values()]


def draw_agreement(agreement: Agreement) -> Markup:
    """Draw the mean of both volumes against their difference, the bias and its limits."""
    lines = {
        "bias": agreement.bias_ml,
        "\N{MINUS SIGN}1.96 sd": agreement.limits_ml[0],
        "+1.96 sd": agreement.limits_ml[1],
    }
    lines = {name: value for name, value in lines.items() if not math.isnan(value)}
    pairs = agreement.volumes_ml.values()
    up = fit_axis(
        [0.0, *lines.values(), *(predicted - referred for predicted, referred in pairs)],
        start=_HEIGHT - _BOTTOM,
        end=_TOP,
    )
    longest = max(len(write_number(tick, up.places)) for tick in up.ticks)
    across = fit_axis(
        [(predicted + referred) / 2 for predicted, referred in pairs],
        start=_DIGIT * longest + _GAP,
        end=WIDTH - _RIGHT,
    )
    places = up.places + 1
    said = ", ".join(f"{name} {write_number(value, places)} ml" for name, value in lines.items())
    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH,
            _HEIGHT,
            f"{agreement.label}: {said}, {len(pairs)} case{'s' if len(pairs) > 1 else ''}",
        ),
        _frame(across, up),
        _lines(lines, across, up, places),
        Markup('<g class="dots">'),
    ]
    for case, (predicted, referred) in agreement.volumes_ml.items():
        parts.append(
            Markup('<circle cx="{}" cy="{}" r="2.4"><title>{}</title></circle>').format(
                f"{across.at((predicted + referred) / 2):.1f}",
                f"{up.at(predicted - referred):.1f}",
                f"{case}: {write_number(predicted, _PLACES)} ml predicted, "
                f"{write_number(referred, _PLACES)} ml reference",
            )
        )
    return Markup("").join([*parts, Markup("</g></svg>")])


def _frame(across: Axis, up: Axis) -> Markup:
    parts = []
    for tick in up.ticks:
        y = up.at(tick)
        kind = "zero" if tick == 0 else "grid"
        parts.append(
            Markup('<path class="{}" d="M{} {}H{}"/>').format(
                kind, across.start, f"{y:.1f}", WIDTH - _RIGHT
            )
        )
        text = write_number(tick, up.places)
        parts.append(draw_text(across.start - _GAP, y + 4, text, anchor="end", kind="tick"))
    for tick in across.ticks:
        text = write_number(tick, across.places)
        y = _HEIGHT - _BOTTOM + 16
        parts.append(draw_text(across.at(tick), y, text, anchor="middle", kind="tick"))
    middle = (across.start + across.end) / 2
    parts.append(
        draw_text(middle, _HEIGHT - 4, "Mean of both volumes, ml", anchor="middle", kind="tick")
    )
    return Markup("").join(parts)


def _lines(lines: Mapping[str, float], across: Axis, up: Axis, places: int) -> Markup:
    # The limits are named at the right end, the bias at the left: it may lie close to them.
    parts = []
    for name, value in lines.items():
        y = up.at(value)
        kind = "bias" if name == "bias" else "limit"
        parts.append(
            Markup('<path class="{}" d="M{} {}H{}"/>').format(
                kind, across.start, f"{y:.1f}", WIDTH - _RIGHT
            )
        )
        text = f"{name} {write_number(value, places)}"
        below = name.startswith("\N{MINUS SIGN}") or (name == "bias" and value < 0)
        x, anchor = (across.start + 2, "start") if name == "bias" else (across.end, "end")
        parts.append(draw_text(x, y + (12 if below else -4), text, anchor=anchor, kind="value"))
    return Markup("").join(parts)
