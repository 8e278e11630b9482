"""Mean, spread and bootstrap interval of what was measured, over cases.

The interval is the percentile bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13): as many cases as there are, drawn with replacement, 10,000 times; it reaches from
the 2.5th to the 97.5th percentile of the draws' means. The draws have a fixed seed, so the same
values give the same interval.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
"""How often the cases are drawn."""

SEED = 0
"""Of the draws."""

LEVEL = 0.95
"""Share of the draws' means that lies within the interval."""

_DRAWN_AT_ONCE = 2_000_000

Interval = tuple[float, float]
"""Lower and upper limit; both NaN where undefined."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """One metric over cases.

    Attributes:
        num_defined: In how many cases it is defined; the others count for nothing.
        num_undefined: In how many it is not.
        mean: NaN where it is defined in no case.
        sd: Standard deviation with n - 1; NaN for fewer than two cases.
        median: NaN where it is defined in no case.
        interval: 95 % bootstrap interval of the mean; NaN for fewer than two cases.
    """

    num_defined: int
    num_undefined: int
    mean: float
    sd: float
    median: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """As JSON: undefined is None."""
        return {
            "num_defined": self.num_defined,
            "num_undefined": self.num_undefined,
            "mean": number_or_none(self.mean),
            "sd": number_or_none(self.sd),
            "median": number_or_none(self.median),
            "interval_95": interval_or_none(self.interval),
        }


def describe(columns: Sequence[npt.ArrayLike]) -> list[Statistics]:
    """Statistics of each column: its values over cases, NaN where undefined."""
    tables = [np.asarray(column, np.float64) for column in columns]
    defined = [values[~np.isnan(values)] for values in tables]
    intervals = bootstrap_intervals(defined)
    return [
        Statistics(
            num_defined=len(values),
            num_undefined=len(whole) - len(values),
            mean=float(values.mean()) if len(values) else math.nan,
            sd=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
            median=float(np.median(values)) if len(values) else math.nan,
            interval=interval,
        )
        for whole, values, interval in zip(tables, defined, intervals, strict=True)
    ]


def bootstrap_intervals(columns: Sequence[npt.NDArray[np.float64]]) -> list[Interval]:
    """95 % percentile bootstrap interval of each column's mean.

    Columns of one length share their draws, so that many cost little more than one. An interval
    depends on its own column alone.

    Args:
        columns: Values over cases, all defined; lengths may differ.

    Returns:
        An interval a column; NaN for fewer than two values.
    """
    intervals: list[Interval] = [(math.nan, math.nan)] * len(columns)
    lengths = {len(column) for column in columns}
    for length in sorted(lengths - {0, 1}):
        places = [place for place, column in enumerate(columns) if len(column) == length]
        values = np.stack([columns[place] for place in places], axis=1)
        tail = (1 - LEVEL) / 2
        lower, upper = np.quantile(_means_of_draws(values), (tail, 1 - tail), axis=0)
        # Rounding in the means must not carry a limit beyond what was measured.
        lower, upper = np.maximum(lower, values.min(axis=0)), np.minimum(upper, values.max(axis=0))
        for place, low, high in zip(places, lower, upper, strict=True):
            intervals[place] = (float(low), float(high))
    return intervals


def _means_of_draws(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means (resamples, columns) of draws from ``values`` (cases, columns)."""
    generator = np.random.default_rng(SEED)
    num_cases = len(values)
    step = max(1, _DRAWN_AT_ONCE // num_cases)
    means = []
    for start in range(0, NUM_RESAMPLES, step):
        num_draws = min(step, NUM_RESAMPLES - start)
        drawn = generator.integers(num_cases, size=(num_draws, num_cases))
        drawn += np.arange(num_draws)[:, None] * num_cases
        # How often each case was drawn: the mean is then one product for all columns.
        counts = np.bincount(drawn.ravel(), minlength=num_draws * num_cases)
        means.append(counts.reshape(num_draws, num_cases) @ values / num_cases)
    return np.concatenate(means)


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN where none is left."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def number_or_none(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if math.isnan(value) else value


def interval_or_none(interval: Interval) -> list[float] | None:
    """Both limits, or None where they are undefined."""
    return None if math.isnan(interval[0]) else list(interval)
