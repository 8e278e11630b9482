import math

import numpy as np
import pytest
from scipy import stats

from veloxseg.evaluation.statistics import NUM_RESAMPLES, bootstrap_intervals, describe


def test_statistics_of_four_values_done_by_hand():
    (found,) = describe([[1, 2, 3, 6]])
    assert (found.num_defined, found.num_undefined) == (4, 0)
    assert found.mean == 3
    assert found.median == 2.5
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3))
    # Of 256 equal draws 6.4 lie below the interval. The sums 4 and 5 come up 1 + 4 times, 6 another
    # 10 times; from above, 24 and 21 come up 1 + 4 times and 20 another 4 times.
    assert found.interval == (6 / 4, 20 / 4)


def test_the_interval_of_four_values_is_that_of_all_256_draws():
    values = np.array([1, 2, 3, 6])
    draws = np.stack(np.meshgrid(*[values] * 4), axis=-1).reshape(-1, 4).mean(axis=1)
    lower, upper = np.quantile(draws, (0.025, 0.975))
    assert describe([values])[0].interval == (lower, upper)


def test_undefined_values_are_left_out_and_counted():
    whole, gaps = describe([[1, 2, 6], [1, math.nan, 2, 6, math.nan]])
    assert (gaps.num_defined, gaps.num_undefined) == (3, 2)
    assert (gaps.mean, gaps.sd, gaps.median, gaps.interval) == (
        whole.mean,
        whole.sd,
        whole.median,
        whole.interval,
    )


def test_one_case_has_a_mean_but_no_spread():
    (found,) = describe([[0.5, math.nan]])
    assert (found.mean, found.median) == (0.5, 0.5)
    assert math.isnan(found.sd)
    assert found.to_json() == {
        "num_defined": 1,
        "num_undefined": 1,
        "mean": 0.5,
        "sd": None,
        "median": 0.5,
        "interval_95": None,
    }


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_defined_has_no_statistics(values):
    (found,) = describe([values])
    assert (found.num_defined, found.num_undefined) == (0, len(values))
    assert math.isnan(found.mean)
    assert found.to_json()["median"] is None


def test_equal_values_have_an_interval_of_no_width():
    assert describe([[0.1] * 7])[0].interval == (0.1, 0.1)


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).gamma(2.0, size=30)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=NUM_RESAMPLES, method="percentile", rng=2
    ).confidence_interval
    ours = describe([values])[0].interval
    error = 0.05 * values.std() / math.sqrt(30)  # three standard errors of either's quantile
    assert ours == pytest.approx(theirs, abs=3 * error)
    assert ours[0] < values.mean() < ours[1]


def test_an_interval_depends_on_its_own_column_alone():
    rng = np.random.default_rng(3)
    columns = [rng.random(12), rng.random(5), rng.random(12)]
    together = bootstrap_intervals(columns)
    for column, interval in zip(columns, together, strict=True):
        assert bootstrap_intervals([column])[0] == pytest.approx(interval, rel=1e-12)


def test_the_order_of_cases_moves_the_interval_by_the_draws_alone():
    values = np.random.default_rng(4).random(40)
    lower, upper = bootstrap_intervals([values])[0]
    assert bootstrap_intervals([values[::-1]])[0] == pytest.approx((lower, upper), abs=0.005)


@pytest.mark.parametrize(("num_cases", "least", "most"), [(10, 0.87, 0.93), (60, 0.93, 0.96)])
def test_intervals_cover_the_true_mean_as_often_as_documented(num_cases, least, most):
    samples = np.random.default_rng(5).normal(size=(1000, num_cases))
    lower, upper = np.array(bootstrap_intervals(list(samples))).T
    assert least < np.mean((lower <= 0) & (upper >= 0)) < most
