"""An evaluation as tables to print."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veloxseg.evaluation.comparison import Comparison
from veloxseg.evaluation.label_set import Label
from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.results import Metrics, Summary
from veloxseg.evaluation.statistics import Interval, Statistics

SHOWN_CASES = 30
"""Up to so many cases each has its row in the table; all are in the JSON and the CSV."""

_BY_CASE = ("Dice", "HD95_mm", "volume_ml", "reference_volume_ml")
_OVER_CASES = ("Dice", "HD95_mm", "NSD", "volume_error_ml")


def format_summary(summary: Summary) -> Table:
    """Lay out Dice, HD95 and volumes of every case and label, and their means below.

    Of more than `SHOWN_CASES` cases there are the means alone. Where subsets of channels were asked
    for, there are means of each, with its number of cases. What is undefined shows as a dash.
    """
    num_cases = len(summary.cases)
    table = Table(title=f"{num_cases} case{'s' if num_cases > 1 else ''}")
    table.add_column("Case", overflow="fold")
    table.add_column("Label", overflow="fold")
    for heading in ("Dice", "HD95 mm", "Volume ml", "Reference ml"):
        table.add_column(heading, justify="right")
    if num_cases <= SHOWN_CASES:
        for case in summary.cases:
            for label, name in summary.label_names.items():
                table.add_row(case.name, name, *_cells(case.metrics[label]))
    for subset, part in summary.by_subset().items():
        _add_means(table, f"{subset} ({len(part.cases)})", part)
    _add_means(table, "Mean", summary, style="bold")
    return table


def format_statistics(summary: Summary) -> list[Table]:
    """Lay out mean, sd, median and interval over cases: a table for each method.

    A row is a label, with a line for each metric; the row ``all`` is of the cases' means over
    labels. Dashes are undefined.
    """
    tables = []
    for method in (summary, *summary.others.values()):
        table = _narrow(f"Over cases: {method.name}" if summary.others else "Over cases")
        for heading in ("Mean", "SD", "Median", "95 % interval", "Cases", "Undefined"):
            table.add_column(heading, justify="right", no_wrap=True)
        for label, statistics in method.statistics.items():
            if label is None and len(summary.label_names) == 1:
                continue
            lines = {
                metric: _statistics_cells(metric, statistics[metric]) for metric in _OVER_CASES
            }
            _add_lines(table, _label_name(label, summary.label_names), lines)
        tables.append(table)
    return tables


def format_comparisons(summary: Summary) -> list[Table]:
    """Lay out how the method differs from each other one on the same cases: a table for each.

    A row is a label, with a line for each metric.
    """
    tables = []
    for other, of_other in groupby(summary.comparisons, key=lambda one: one.other):
        table = _narrow(f"{summary.name} minus {other}, case by case")
        for heading in ("Difference", "95 % interval", "p", "p Holm", "Pairs", "Left out"):
            table.add_column(heading, justify="right", no_wrap=True)
        for label, group in groupby(of_other, key=lambda one: one.label):
            lines = {one.metric: _comparison_cells(one) for one in group}
            _add_lines(table, _label_name(label, summary.label_names), lines)
        tables.append(table)
    return tables


def _narrow(title: str) -> Table:
    """A table without lines between columns: figures stay whole in a terminal of 80 columns.

    Names of methods, which are as long as folders' names, stand above and not in a column.
    """
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False, title_justify="left")
    table.add_column("Label", overflow="fold")
    table.add_column("Metric", no_wrap=True)
    return table


def _add_lines(table: Table, label: str, lines: Mapping[str, Sequence[str]]) -> None:
    """Add one row with a line for each metric, so that a long label is folded beside them."""
    columns = zip(*lines.values(), strict=True)
    table.add_section()
    table.add_row(
        label, "\n".join(METRICS[metric].heading for metric in lines), *map("\n".join, columns)
    )


def _add_means(table: Table, title: str, summary: Summary, *, style: str = "") -> None:
    table.add_section()
    for label, name in summary.label_names.items():
        table.add_row(title, name, *_cells(summary.mean(label)), style=style)
    if len(summary.label_names) > 1:
        table.add_row(title, "all", *_cells(summary.foreground_mean()), style=style)


def _label_name(label: Label | None, names: Mapping[Label, str]) -> str:
    return "all" if label is None else names[label]


def _cells(metrics: Metrics) -> list[str]:
    return [_number(metrics[metric], METRICS[metric].places) for metric in _BY_CASE]


def _statistics_cells(metric: str, found: Statistics) -> list[str]:
    places = METRICS[metric].places
    return [
        *(_number(value, places) for value in (found.mean, found.sd, found.median)),
        _interval(found.interval, places),
        str(found.num_defined),
        str(found.num_undefined),
    ]


def _comparison_cells(one: Comparison) -> list[str]:
    places = METRICS[one.metric].places
    return [
        _number(one.mean_difference, places, sign="+"),
        _interval(one.interval, places),
        _p_value(one.p),
        _p_value(one.p_holm),
        str(one.num_pairs),
        str(one.num_left_out),
    ]


def _number(value: float, places: int, *, sign: Literal["-", "+"] = "-") -> str:
    if math.isnan(value):
        return "-"
    return f"{round(value, places) + 0.0:{sign}.{places}f}"  # adding 0 turns -0.00 into 0.00


def _interval(interval: Interval, places: int) -> str:
    lower, upper = (_number(value, places) for value in interval)
    return "-" if lower == upper == "-" else f"{lower} to {upper}"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
