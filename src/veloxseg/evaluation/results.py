"""What an evaluation found: each case, the means and statistics over cases, and comparisons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from veloxseg.evaluation.comparison import COMPARED, Comparison, Values, compare
from veloxseg.evaluation.label_set import Label
from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.pairing import CrossValidation
from veloxseg.evaluation.provenance import Provenance
from veloxseg.evaluation.statistics import Statistics, describe, mean_of_defined

Metrics = dict[str, float]
"""The figures of `veloxseg.evaluation.measuring` by their keys; NaN where undefined."""

STUDIED = tuple(key for key, metric in METRICS.items() if metric.unit != "voxels")
"""Metrics that have statistics over cases: all but nnU-Net's voxel counts, which have means."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """How well one case was predicted.

    Attributes:
        name: The case, which is its file's name without the ending.
        prediction_file: The mask that was judged.
        reference_file: The mask that it was compared with.
        metrics: For each label its metrics.
        fold: That the case was validated in; None without folds.
        resampled: Whether the prediction was brought onto the reference's grid first.
    """

    name: str
    prediction_file: Path
    reference_file: Path
    metrics: Mapping[Label, Metrics]
    fold: int | None = None
    resampled: bool = False


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All cases of an evaluation.

    Attributes:
        label_names: Name of each evaluated label or region.
        cases: One result a case, by name.
        subsets: Case to the channels it has, as ``CT+PET``; empty where nobody asked.
        name: Of the method that predicted.
        others: Name of each other method to its results on the same cases.
        not_predicted: Cases of the references that have no prediction and were passed over.
        cross_validation: The folds; None where the masks lay in one folder.
        provenance: How it was made; None for a part of an evaluation.
    """

    label_names: Mapping[Label, str]
    cases: Sequence[CaseResult]
    subsets: Mapping[str, str] = field(default_factory=dict)
    name: str = "prediction"
    others: Mapping[str, "Summary"] = field(default_factory=dict)
    not_predicted: tuple[str, ...] = ()
    cross_validation: CrossValidation | None = None
    provenance: Provenance | None = None

    def mean(self, label: Label) -> Metrics:
        """Means over the cases in which a metric is defined; NaN where it never is."""
        return _means([case.metrics[label] for case in self.cases])

    def foreground_mean(self) -> Metrics:
        """Means over the labels' means; NaN where none is defined."""
        return _means([self.mean(label) for label in self.label_names])

    def num_undefined(self, label: Label) -> dict[str, int]:
        """In how many cases Dice, IoU and HD95 are undefined for a label."""
        return {
            metric: sum(math.isnan(case.metrics[label][metric]) for case in self.cases)
            for metric in ("Dice", "IoU", "HD95_mm")
        }

    def values(self, metric: str, label: Label | None) -> npt.NDArray[np.float64]:
        """One metric over cases, NaN where undefined.

        Args:
            metric: Its key.
            label: None takes of each case the mean over the labels for which it is defined.
        """
        if label is not None:
            return np.array([case.metrics[label][metric] for case in self.cases])
        return np.array(
            [mean_of_defined(row[metric] for row in case.metrics.values()) for case in self.cases]
        )

    @cached_property
    def statistics(self) -> Mapping[Label | None, Mapping[str, Statistics]]:
        """For each label, and for the cases' foreground means (None), each metric's statistics."""
        labels = [*self.label_names, None]
        columns = [self.values(metric, label) for label in labels for metric in STUDIED]
        found = iter(describe(columns))
        return {label: {metric: next(found) for metric in STUDIED} for label in labels}

    @cached_property
    def comparisons(self) -> Sequence[Comparison]:
        """This method against each other one, per label and for the foreground mean."""
        labels = [*self.label_names, None] if len(self.label_names) > 1 else [*self.label_names]
        return compare(
            {
                (name, label, metric): _paired(self, other, metric, label)
                for name, other in self.others.items()
                for label in labels
                for metric in COMPARED
            }
        )

    def by_subset(self) -> dict[str, "Summary"]:
        """The cases by the channels they have, as ``CT+PET``; nothing where nobody asked."""
        return {
            subset: Summary(
                label_names=self.label_names,
                cases=[case for case in self.cases if self.subsets[case.name] == subset],
            )
            for subset in dict.fromkeys(self.subsets.values())
        }


def _paired(
    first: Summary, second: Summary, metric: str, label: Label | None
) -> tuple[Values, Values]:
    """One metric of two methods over cases.

    Foreground means (None) are over the labels for which both methods have a value: a label that
    one of them missed has no distance, and must not make its mean the better one.
    """
    if label is not None:
        return first.values(metric, label), second.values(metric, label)
    ours, theirs = (
        np.array([method.values(metric, one) for one in first.label_names])
        for method in (first, second)
    )
    defined = ~(np.isnan(ours) | np.isnan(theirs))
    return _column_means(ours, defined), _column_means(theirs, defined)


def _column_means(table: Values, defined: npt.NDArray[np.bool_]) -> Values:
    columns = zip(table.T, defined.T, strict=True)
    return np.array([mean_of_defined(column[chosen]) for column, chosen in columns])


def _means(rows: Sequence[Metrics]) -> Metrics:
    return {metric: mean_of_defined(row[metric] for row in rows) for metric in rows[0]}
