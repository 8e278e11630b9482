"""The tables of a report: figures over cases, methods compared, and every case by itself."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from veloxseg.evaluation.measuring import METRICS, Metric
from veloxseg.evaluation.report.axes import UNDEFINED, write_number
from veloxseg.evaluation.report.cases import ReportedCase, find_metrics
from veloxseg.evaluation.report.reading import FOREGROUND, PairEntry, SummaryFile
from veloxseg.evaluation.statistics import Statistics, describe

MAIN = ("Dice", "IoU", "HD95_mm", "ASSD_mm", "NSD", "volume_error_ml", "lesion_F1")
"""Metrics that the first table shows; the others are a click away."""

MAIN_OF_CASES = ("Dice", "HD95_mm", "NSD", "volume_ml", "reference_volume_ml", "volume_error_ml")
"""Metrics of each case that are shown without a click, where the summary has them."""

MAIN_OF_SUBSETS = ("Dice", "HD95_mm", "NSD")
"""Metrics of the cases with the same channels; the first that a summary has is with interval."""

_LEAST_OF_CASES = ("Dice", "IoU")
_SMALLEST_P = 0.001


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One metric over cases, as text: ``cells`` are mean, sd, median, interval and counts."""

    heading: str
    main: bool
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class FigureGroup:
    """The metrics of one label."""

    label: str
    rows: Sequence[FigureRow]


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """One label of one case, as text; ``subset`` are the case's channels."""

    case: str
    label: str
    subset: str
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SubsetGroup:
    """The cases that have the same channels: for each label's name its cells, as text."""

    subset: str
    num_cases: int
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One metric of one label of two methods, as text."""

    other: str
    label: str
    cells: Sequence[str]


def shown_labels(summary: SummaryFile) -> dict[str, str]:
    """Name of each label, and of their mean where there are several, by key."""
    labels = dict(summary.labels)
    return {**labels, FOREGROUND: "Mean of labels"} if len(labels) > 1 else labels


def headings(metrics: Iterable[Metric], tolerance_mm: float | None) -> dict[str, str]:
    """Title and unit of each metric by its key; NSD with its tolerance, where it is known."""
    names = {metric.key: metric.heading for metric in metrics}
    if "NSD" in names and tolerance_mm is not None:
        names["NSD"] += f" at {tolerance_mm:g} mm"
    return names


def describe_cases(
    cases: Sequence[ReportedCase], metrics: Sequence[Metric], labels: Iterable[str]
) -> dict[str, dict[str, Statistics]]:
    """Statistics over cases of each metric of each label, as `veloxseg evaluate` has them."""
    keys = [(label, metric.key) for label in labels for metric in metrics]
    columns = [[case.values[label].get(key, math.nan) for case in cases] for label, key in keys]
    found: dict[str, dict[str, Statistics]] = {}
    for (label, key), statistics in zip(keys, describe(columns), strict=True):
        found.setdefault(label, {})[key] = statistics
    return found


def list_figures(
    statistics: Mapping[str, Mapping[str, Statistics]],
    labels: Mapping[str, str],
    names: Mapping[str, str],
) -> list[FigureGroup]:
    """The first table: each label's metrics; of the mean over labels, those without a unit of size.

    Args:
        statistics: Of each label and metric by their keys.
        labels: Names of the labels to show, by key.
        names: Headings of the metrics, by key.
    """
    return [
        FigureGroup(
            label=name,
            rows=[
                FigureRow(heading=names[key], main=key in MAIN, cells=_figures(METRICS[key], found))
                for key, found in statistics[label].items()
                if label != FOREGROUND or _averages(METRICS[key])
            ],
        )
        for label, name in labels.items()
    ]


def list_cases_by_label(
    cases: Iterable[ReportedCase], metrics: Sequence[Metric], labels: Mapping[str, str]
) -> list[CaseRow]:
    """The last table: every label of every case, by case."""
    return [
        CaseRow(
            case=case.name,
            label=name,
            subset=case.subset,
            cells=[
                write_number(case.values[label].get(metric.key, math.nan), metric.places)
                if label != FOREGROUND or _averages(metric)
                else UNDEFINED
                for metric in metrics
            ],
        )
        for case in cases
        for label, name in labels.items()
    ]


def list_subsets(
    summary: SummaryFile, cases: Sequence[ReportedCase], labels: Mapping[str, str]
) -> list[SubsetGroup]:
    """The cases by the channels they have, and all of them; empty where all have the same."""
    parts = {name: [case for case in cases if case.subset == name] for name in summary.subsets}
    parts = {name: part for name, part in parts.items() if part}
    if len(parts) < 2:
        return []
    metrics = metrics_of_subsets(find_metrics(cases))
    groups = []
    for name, part in {**parts, "All": cases}.items():
        statistics = describe_cases(part, metrics, labels)
        rows = {text: _of_subset(statistics[label], metrics) for label, text in labels.items()}
        groups.append(SubsetGroup(subset=name, num_cases=len(part), rows=rows))
    return groups


def metrics_of_subsets(metrics: Sequence[Metric]) -> list[Metric]:
    """Of the metrics that a summary has, those to show of subsets."""
    return [metric for metric in metrics if metric.key in MAIN_OF_SUBSETS]


def main_of_cases(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Keys of the metrics of each case to show without a click."""
    held = [metric.key for metric in metrics]
    main = tuple(key for key in MAIN_OF_CASES if key in held)
    return main if len(main) > 1 else tuple(key for key in held if key in _LEAST_OF_CASES) or main


def list_comparisons(
    summary: SummaryFile, labels: Mapping[str, str], names: Mapping[str, str]
) -> list[ComparedRow]:
    """Each pair of methods by label and metric; empty where there is one method only."""
    if summary.comparison is None:
        return []
    return [
        ComparedRow(
            other=pair.other,
            label=labels.get(pair.label, pair.label),
            cells=_compared(pair, summary, names),
        )
        for pair in summary.comparison.pairs
    ]


def write_p(p: float | None) -> str:
    """A p value, ``< 0.001`` where it is smaller."""
    if p is None or math.isnan(p):
        return UNDEFINED
    return f"< {_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.3f}"


def _figures(metric: Metric, found: Statistics) -> list[str]:
    places = max(1, metric.places)
    return [
        write_number(found.mean, places),
        write_number(found.sd, places),
        write_number(found.median, metric.places),
        _interval(found.interval, places),
        str(found.num_defined),
        str(found.num_undefined),
    ]


def _of_subset(found: Mapping[str, Statistics], metrics: Sequence[Metric]) -> list[str]:
    """Means, the first one's interval, and how many values are undefined, if any are."""
    cells = []
    for metric in metrics:
        one = found[metric.key]
        undefined = f" ({one.num_undefined} undefined)" if one.num_undefined else ""
        cells.append(f"{write_number(one.mean, metric.places)}{undefined}")
        if metric is metrics[0]:
            cells.append(_interval(one.interval, metric.places))
    return cells


def _compared(pair: PairEntry, summary: SummaryFile, names: Mapping[str, str]) -> list[str]:
    metric = METRICS.get(pair.metric)
    places = 3 if metric is None else metric.places
    method = "" if summary.comparison is None else summary.comparison.method
    return [
        names.get(pair.metric, pair.metric),
        *(_mean_of(summary, name, pair, places) for name in (method, pair.other)),
        write_number(_value(pair.mean_difference), places),
        _interval(pair.interval_95 or (math.nan, math.nan), places),
        write_p(pair.p),
        write_p(pair.p_holm),
        str(pair.num_pairs),
        str(pair.num_left_out),
    ]


def _mean_of(summary: SummaryFile, method: str, pair: PairEntry, places: int) -> str:
    entry = summary.methods.get(method)
    found = None if entry is None else entry.statistics.get(pair.label, {}).get(pair.metric)
    return write_number(_value(None if found is None else found.mean), places)


def _value(number: float | None) -> float:
    return math.nan if number is None else number


def _interval(interval: tuple[float, float], places: int) -> str:
    if math.isnan(interval[0]):
        return UNDEFINED
    return " to ".join(write_number(limit, places) for limit in interval)


def _averages(metric: Metric) -> bool:
    """Whether a metric means something as a mean over labels of different sizes."""
    return metric.better != "neither" and metric.unit in ("", "mm")
