"""What a report needs of a summary.json: ours, or a plain one of nnU-Net.

Keys that are not named here are passed by: a report of a newer summary leaves out what it does not
know. Metrics that a summary lacks are left out of its report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from veloxseg.atomic import read_json
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.evaluation.measuring import METRICS
from veloxseg.validation import describe_faults

FOREGROUND = "foreground_mean"
"""In place of a label: the mean over the labels."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CaseEntry(_Part):
    """One case of ``metric_per_case``.

    Attributes:
        metrics: Of each label, by the metric's key; None where undefined.
        prediction_file: The mask that was judged; None where the summary does not say.
        reference_file: The mask that it was compared with.
        case: The case's name, which nnU-Net does not write.
        resampled: Whether the prediction was brought onto the reference's grid.
        subset: The channels that it has, as ``CT+PET``; None where nobody asked.
    """

    metrics: dict[str, dict[str, float | None]]
    prediction_file: Path | None = None
    reference_file: Path | None = None
    case: str | None = None
    resampled: bool = False
    subset: str | None = None


class CrossValidationEntry(_Part):
    """The folds whose cases were evaluated together.

    Attributes:
        num_cases: Of each fold that has masks.
        missing: Folds that have none.
        unfinished: Folds whose masks may be incomplete.
    """

    num_cases: dict[str, int]
    missing: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()


class StatisticsEntry(_Part):
    """One metric of one label over cases, of one of several methods."""

    mean: float | None = None


class MethodEntry(_Part):
    """One of several methods."""

    statistics: dict[str, dict[str, StatisticsEntry]] = Field(default_factory=dict)


class PairEntry(_Part):
    """One metric of one label, of the evaluated method against another."""

    other: str
    label: str
    metric: str
    num_pairs: int
    num_left_out: int
    mean_difference: float | None
    interval_95: tuple[float, float] | None
    p: float | None
    p_holm: float | None


class ComparisonEntry(_Part):
    """The evaluated method against others."""

    method: str
    test: str
    correction: str
    num_comparisons: int
    pairs: tuple[PairEntry, ...]


class ModelEntry(_Part):
    """The bundle that made the masks."""

    name: str
    sha256: str


class ProvenanceEntry(_Part):
    """How the evaluation was made."""

    created: str | None = None
    command: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    prediction: str | None = None
    methods: dict[str, str] = Field(default_factory=dict)
    reference: str | None = None
    tolerance_mm: float | None = None
    resample: bool = False
    model: ModelEntry | None = None


class SummaryFile(_Part):
    """A summary.json.

    Attributes:
        metric_per_case: The cases; one at least, all with the same labels.
        label_names: Name of each label or region, by its key in the metrics; empty in nnU-Net's.
        not_predicted: Cases that were passed over.
        subsets: Channels that cases have, in the order to show; empty where nobody asked.
        cross_validation: The folds; None where the masks lay in one folder.
        methods: By name, the evaluated method first; empty if there is one only.
        comparison: Of the methods.
        provenance: How the summary was made; None in nnU-Net's.
    """

    metric_per_case: tuple[CaseEntry, ...] = Field(min_length=1)
    label_names: dict[str, str] = Field(default_factory=dict)
    not_predicted: tuple[str, ...] = ()
    subsets: dict[str, Any] = Field(default_factory=dict)
    cross_validation: CrossValidationEntry | None = None
    methods: dict[str, MethodEntry] = Field(default_factory=dict)
    comparison: ComparisonEntry | None = None
    provenance: ProvenanceEntry | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """Name of each label, by its key in the metrics."""
        if self.label_names:
            return self.label_names
        keys = dict.fromkeys(key for case in self.metric_per_case for key in case.metrics)
        return {key: f"label {key}" for key in keys}


def read_summary(path: Path) -> SummaryFile:
    """Read a summary.json.

    Raises:
        DatasetError: the path is a folder, the file is cut short, no JSON or no summary of an
            evaluation, or it names no case, no label or no metric that is known.
        FileNotFoundError: there is none.
    """
    if path.is_dir():
        raise DatasetError(
            f"{path}: is a folder. Expected the file that veloxseg evaluate -o or nnU-Net writes, "
            f"such as {path / 'summary.json'}."
        )
    try:
        content: Any = read_json(path)
    except VeloxSegError as error:  # whose advice is to remove the file
        raise _no_summary(path, "cut short or no JSON") from error
    try:
        summary = SummaryFile.model_validate(content)
    except ValidationError as error:
        raise _no_summary(path, describe_faults(error)) from error
    labels = summary.labels
    if not labels:
        raise _no_summary(path, "metric_per_case: no label in any case")
    rows = (case.metrics.get(label, {}) for case in summary.metric_per_case for label in labels)
    if not any(key in METRICS for row in rows for key in row):
        fault = "metric_per_case: none of the metrics of veloxseg evaluate for the labels"
        raise _no_summary(path, f"{fault} {', '.join(labels.values())}")
    return summary


def _no_summary(path: Path, fault: str) -> DatasetError:
    return DatasetError(
        f"{path}: no summary of an evaluation ({fault}). Expected what veloxseg evaluate -o or "
        "nnU-Net writes. Make it: veloxseg evaluate PREDICTIONS REFERENCES -o summary.json"
    )
