"""An evaluation as JSON: nnU-Net's summary.json, and more beside its keys."""

import math
from typing import Any

from veloxseg.evaluation.comparison import COMPARED
from veloxseg.evaluation.results import CaseResult, Metrics, Summary
from veloxseg.evaluation.statistics import LEVEL, NUM_RESAMPLES, SEED


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Content of ``summary.json``, as docs/evaluation.md lists it; undefined values are None."""
    labels = summary.label_names
    subsets = {
        subset: {"num_cases": len(part.cases), **_means(part)}
        for subset, part in summary.by_subset().items()
    }
    content = {
        **_means(summary),
        "label_names": {str(label): name for label, name in labels.items()},
        "metric_per_case": [_case(case, summary.subsets.get(case.name)) for case in summary.cases],
        "num_undefined": {str(label): summary.num_undefined(label) for label in labels},
        "statistics": _statistics(summary),
        "bootstrap": {
            "method": "percentile",
            "level": LEVEL,
            "num_resamples": NUM_RESAMPLES,
            "seed": SEED,
        },
        "not_predicted": list(summary.not_predicted),
    }
    if subsets:
        content["subsets"] = subsets
    if summary.cross_validation is not None:
        content["cross_validation"] = summary.cross_validation.to_json()
    if summary.others:
        content["methods"] = _methods(summary)
        content["comparison"] = _comparison(summary)
    if summary.provenance is not None:
        content["provenance"] = summary.provenance.to_json()
    return content


def _means(summary: Summary) -> dict[str, Any]:
    return {
        "foreground_mean": _without_nan(summary.foreground_mean()),
        "mean": {str(label): _without_nan(summary.mean(label)) for label in summary.label_names},
    }


def _case(case: CaseResult, subset: str | None = None) -> dict[str, Any]:
    return {
        "case": case.name,
        "metrics": {str(label): _without_nan(row) for label, row in case.metrics.items()},
        "prediction_file": str(case.prediction_file),
        "reference_file": str(case.reference_file),
        **({} if case.fold is None else {"fold": case.fold}),
        **({} if subset is None else {"subset": subset}),
        **({"resampled": True} if case.resampled else {}),
    }


def _statistics(summary: Summary) -> dict[str, Any]:
    return {
        "foreground_mean" if label is None else str(label): {
            metric: found.to_json() for metric, found in metrics.items()
        }
        for label, metrics in summary.statistics.items()
    }


def _methods(summary: Summary) -> dict[str, Any]:
    """The method evaluated first; its cases are the summary's own."""
    methods: dict[str, Any] = {
        summary.name: {**_means(summary), "statistics": _statistics(summary)}
    }
    for name, other in summary.others.items():
        methods[name] = {
            **_means(other),
            "statistics": _statistics(other),
            "metric_per_case": [_case(case) for case in other.cases],
        }
        if other.cross_validation is not None:
            methods[name]["cross_validation"] = other.cross_validation.to_json()
    return methods


def _comparison(summary: Summary) -> dict[str, Any]:
    return {
        "method": summary.name,
        "metrics": list(COMPARED),
        "test": "Wilcoxon signed-rank, two-sided, differences of 0 left out",
        "correction": "Holm",
        "num_comparisons": sum(not math.isnan(one.p) for one in summary.comparisons),
        "pairs": [one.to_json() for one in summary.comparisons],
    }


def _without_nan(metrics: Metrics) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
