"""Two methods on the same cases: their paired differences, and whether chance explains them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.evaluation.label_set import Label
from veloxseg.evaluation.statistics import (
    Interval,
    bootstrap_intervals,
    interval_or_none,
    number_or_none,
)

COMPARED = ("Dice", "HD95_mm", "NSD")
"""The metrics that methods are compared by."""

Values = npt.NDArray[np.float64]
"""One metric over cases, NaN where undefined."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of one label, of the evaluated method against another.

    Attributes:
        other: Name of the other method.
        label: None for the cases' foreground means, over the labels for which both are defined.
        metric: Key of the metric.
        num_pairs: Cases in which both are defined.
        num_left_out: Cases in which one or both are not.
        mean_difference: Evaluated method minus the other; NaN without a pair.
        interval: 95 % bootstrap interval of the mean difference; NaN for fewer than two pairs.
        p: Wilcoxon signed-rank test, two-sided; NaN without a pair.
        p_holm: The same, corrected for all comparisons that were made along with it.
    """

    other: str
    label: Label | None
    metric: str
    num_pairs: int
    num_left_out: int
    mean_difference: float
    interval: Interval
    p: float
    p_holm: float

    def to_json(self) -> dict[str, Any]:
        """As JSON: undefined is None, and the cases' foreground mean is ``foreground_mean``."""
        return {
            "other": self.other,
            "label": "foreground_mean" if self.label is None else str(self.label),
            "metric": self.metric,
            "num_pairs": self.num_pairs,
            "num_left_out": self.num_left_out,
            "mean_difference": number_or_none(self.mean_difference),
            "interval_95": interval_or_none(self.interval),
            "p": number_or_none(self.p),
            "p_holm": number_or_none(self.p_holm),
        }


def compare(
    pairs: Mapping[tuple[str, Label | None, str], tuple[Values, Values]],
) -> list[Comparison]:
    """Compare pairs of columns, and correct the p values for their number.

    Args:
        pairs: Other method, label (None for the foreground mean) and metric, to the evaluated
            method's values and the other's, over the same cases.
    """
    differences = {
        key: difference[~np.isnan(difference)]
        for key, difference in ((key, first - second) for key, (first, second) in pairs.items())
    }
    intervals = bootstrap_intervals(list(differences.values()))
    compared = [
        Comparison(
            other=key[0],
            label=key[1],
            metric=key[2],
            num_pairs=len(found),
            num_left_out=len(pairs[key][0]) - len(found),
            mean_difference=float(found.mean()) if len(found) else math.nan,
            interval=interval,
            p=wilcoxon_p(found),
            p_holm=math.nan,
        )
        for (key, found), interval in zip(differences.items(), intervals, strict=True)
    ]
    corrected = holm([one.p for one in compared])
    return [replace(one, p_holm=p) for one, p in zip(compared, corrected, strict=True)]


def wilcoxon_p(differences: npt.ArrayLike) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that differences lie around 0, by SciPy.

    Differences of 0 are left out, as Wilcoxon had it (1945); SciPy takes the exact distribution for
    few differences and the normal one for many. Where all are 0, nothing speaks against chance: 1.

    Returns:
        NaN without a difference.
    """
    found = np.asarray(differences, np.float64)
    if not found.size:
        return math.nan
    found = found[found != 0]
    if not found.size:
        return 1.0
    from scipy.stats import wilcoxon

    with warnings.catch_warnings():  # older versions say that few cases with ties are few
        warnings.simplefilter("ignore", UserWarning)
        return float(wilcoxon(found).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, as Holm does (Scand. J. Statist. 6, 1979).

    The smallest of m is multiplied by m, the next by m - 1 and so on; none may become smaller than
    the one before it, or larger than 1.

    Args:
        p_values: NaN marks a test that could not be made; it counts for nothing and stays.
    """
    corrected = [math.nan] * len(p_values)
    tested = sorted(
        (place for place, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__
    )
    largest = 0.0
    for rank, place in enumerate(tested):
        largest = max(largest, min(1.0, p_values[place] * (len(tested) - rank)))
        corrected[place] = largest
    return corrected
