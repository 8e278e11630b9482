"""Every case of a metric as a dot over a box, one row a label."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from veloxseg.evaluation.measuring import Metric
from veloxseg.evaluation.report.axes import Axis, draw_text, fit_axis, write_number

WIDTH = 400
"""Of every plot, in its own units, which are pixels on a telephone."""

_EDGE = 14
_ROW = 50
_STRIP = 26
_FOOT = 24
_RADIUS = 2.4
_TITLED_DOTS = 6000
_LETTER = 7
_CUT = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, kw_only=True)
class DistributionRow:
    """The cases of one label.

    Attributes:
        label: Its name.
        values: Of the cases for which the metric is defined, by the cases' names.
        num_undefined: How many cases it is not defined for.
    """

    label: str
    values: Mapping[str, float]
    num_undefined: int


def draw_distribution(metric: Metric, rows: Sequence[DistributionRow]) -> Markup:
    """Draw the rows one below the other over one axis.

    A box reaches from the first to the third quartile, its line is the median. Dots that would lie
    on one another are moved up and down; that distance means nothing.

    Args:
        metric: Shown.
        rows: One at least with a value.
    """
    values = [value for row in rows for value in row.values.values()]
    axis = fit_axis(values, start=_EDGE, end=WIDTH - _EDGE, limits=_limits(metric, values))
    height = _ROW * len(rows) + _FOOT
    titled = len(values) <= _TITLED_DOTS
    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH,
            height,
            " ".join(
                [f"{metric.heading} of every case.", *(_in_words(metric, row) for row in rows)]
            ),
        ),
        _ticks(axis, height - _FOOT),
    ]
    for number, row in enumerate(rows):
        parts.append(_draw_row(metric, row, axis, top=_ROW * number, titled=titled))
    return Markup("").join([*parts, Markup("</svg>")])


def _limits(metric: Metric, values: Sequence[float]) -> tuple[float | None, float | None]:
    if not metric.unit and metric.better == "larger":  # a share
        return None, 1.0
    return (0.0, None) if min(values) >= 0 else (None, None)


def _in_words(metric: Metric, row: DistributionRow) -> str:
    if not row.values:
        return f"{row.label}: undefined in all cases."
    first, median, third = (
        write_number(float(one), metric.places)
        for one in np.percentile(list(row.values.values()), (25, 50, 75))
    )
    return f"{row.label}: median {median}, quartiles {first} and {third}."


def _ticks(axis: Axis, bottom: float) -> Markup:
    lines = Markup("").join(
        Markup('<path class="grid" d="M{} 0V{}"/>').format(f"{axis.at(tick):.1f}", bottom)
        for tick in axis.ticks
    )
    last = len(axis.ticks) - 1
    anchors = {0: "start", last: "end"}
    texts = Markup("").join(
        draw_text(
            axis.at(tick) + {0: -_EDGE / 2, last: _EDGE / 2}.get(number, 0),
            bottom + 16,
            write_number(tick, axis.places),
            anchor=anchors.get(number, "middle"),
            kind="tick",
        )
        for number, tick in enumerate(axis.ticks)
    )
    return lines + texts


def _draw_row(
    metric: Metric, row: DistributionRow, axis: Axis, *, top: float, titled: bool
) -> Markup:
    undefined = f"{row.num_undefined} undefined" if row.num_undefined else ""
    parts = [
        draw_text(_EDGE / 2, top + 14, _fitting(row.label, beside=undefined), kind="name"),
        draw_text(WIDTH - _EDGE / 2, top + 14, undefined, anchor="end", kind="tick"),
    ]
    middle = top + 20 + _STRIP / 2
    if row.values:
        parts += [_box(list(row.values.values()), axis, middle), Markup('<g class="dots">')]
        offsets = _spread([axis.at(value) for value in row.values.values()])
        for (case, value), offset in zip(row.values.items(), offsets, strict=True):
            place = (f"{axis.at(value):.1f}", f"{middle + offset:.1f}")
            title = f"{case}: {write_number(value, metric.places)}"
            parts.append(
                Markup('<circle cx="{}" cy="{}" r="2.4"><title>{}</title></circle>').format(
                    *place, title
                )
                if titled
                else Markup('<circle cx="{}" cy="{}" r="2.4"/>').format(*place)
            )
        parts.append(Markup("</g>"))
    return Markup("").join(parts)


def _fitting(label: str, *, beside: str) -> str:
    """A label's name, cut where it would run into the text at the other end of its line."""
    room = int((WIDTH - _EDGE) / _LETTER) - len(beside)
    return label if len(label) <= room else label[: room - 1] + _CUT


def _box(values: Sequence[float], axis: Axis, middle: float) -> Markup:
    first, median, third = (axis.at(float(one)) for one in np.percentile(values, (25, 50, 75)))
    half = _STRIP / 2 - 2
    return Markup(
        '<rect class="box" x="{}" y="{}" width="{}" height="{}"/>'
        '<path class="median" d="M{} {}v{}"/>'
    ).format(
        f"{first:.1f}",
        f"{middle - half:.1f}",
        f"{third - first:.1f}",
        f"{2 * half:.1f}",
        f"{median:.1f}",
        f"{middle - half - 2:.1f}",
        f"{2 * half + 4:.1f}",
    )


def _spread(places: Sequence[float]) -> list[float]:
    """How far to move each dot up or down, so that few lie on one another."""
    bins: dict[int, list[int]] = defaultdict(list)
    for number in sorted(range(len(places)), key=places.__getitem__):
        bins[round(places[number] / (2 * _RADIUS))].append(number)
    offsets = [0.0] * len(places)
    room = _STRIP / 2 - _RADIUS
    for held in bins.values():
        step = min(2 * _RADIUS, 2 * room / max(1, len(held) - 1))
        for rank, number in enumerate(held):  # from the middle outwards, by turns
            offsets[number] = ((rank + 1) // 2) * step * (1 if rank % 2 else -1)
    return offsets
