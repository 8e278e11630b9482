import math

import numpy as np
import pytest
from scipy import stats

from veloxseg.evaluation.comparison import compare, holm, wilcoxon_p


def test_holm_of_four_p_values_done_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, and none smaller than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stays_below_one_and_keeps_a_single_test():
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_does_not_count_tests_that_were_not_made():
    corrected = holm([0.02, math.nan, 0.01])
    assert corrected[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(corrected[1])


def test_wilcoxon_of_five_positive_differences_is_two_of_32_signs():
    assert wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 32)


def test_wilcoxon_of_a_small_table_counted_by_hand():
    differences = [1.0, 2.0, -3.0, 4.0, 5.0, 6.0]
    # W- = 3. Of 64 signs, W- is at most 3 for {}, {1}, {2}, {3} and {1, 2}: 5; both sides: 10.
    assert wilcoxon_p(differences) == pytest.approx(10 / 64)


def test_wilcoxon_agrees_with_all_signs_tried():
    differences = np.random.default_rng(0).normal(0.4, size=9)
    ranks = stats.rankdata(np.abs(differences))
    signs = 1 - 2 * np.stack(np.meshgrid(*[(0, 1)] * 9), axis=-1).reshape(-1, 9)
    found, possible = abs(ranks @ np.sign(differences)), np.abs(signs @ ranks)
    assert wilcoxon_p(differences) == pytest.approx(np.mean(possible >= found - 1e-9))


def test_wilcoxon_is_scipys_for_many_differences_with_ties():
    differences = np.random.default_rng(1).integers(-3, 6, 80).astype(float)
    expected = stats.wilcoxon(differences[differences != 0], method="asymptotic").pvalue
    assert 0 < wilcoxon_p(differences) == pytest.approx(expected)


def test_few_differences_with_ties_raise_no_warning():
    assert 0 < wilcoxon_p([1.0, 1.0, 2.0]) <= 1


def test_wilcoxon_leaves_out_zeros_and_without_others_finds_nothing():
    assert wilcoxon_p([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0]) == pytest.approx(2 / 32)
    assert wilcoxon_p([0.0, 0.0]) == 1
    assert wilcoxon_p([0.3]) == 1
    assert math.isnan(wilcoxon_p([]))


def test_methods_are_compared_where_both_are_defined():
    ours = np.array([0.9, 0.8, math.nan, 0.7])
    other = np.array([0.8, math.nan, 0.5, 0.5])
    (found,) = compare({("other", 1, "Dice"): (ours, other)})
    assert (found.other, found.label, found.metric) == ("other", 1, "Dice")
    assert (found.num_pairs, found.num_left_out) == (2, 2)
    assert found.mean_difference == pytest.approx(0.15)
    assert found.interval == pytest.approx((0.1, 0.2))
    assert found.p == found.p_holm == 0.5  # both of two positive: 2 of 4 signs


def test_a_metric_that_is_never_defined_in_both_is_not_compared():
    nowhere, ours = np.full(5, math.nan), np.arange(1.0, 6.0)
    first, second = compare(
        {("a", None, "HD95_mm"): (ours, nowhere), ("a", None, "Dice"): (ours, ours * 0.9)}
    )
    assert first.to_json() == {
        "other": "a",
        "label": "foreground_mean",
        "metric": "HD95_mm",
        "num_pairs": 0,
        "num_left_out": 5,
        "mean_difference": None,
        "interval_95": None,
        "p": None,
        "p_holm": None,
    }
    assert second.p_holm == second.p == pytest.approx(2 / 32)


def test_p_values_are_corrected_for_all_comparisons_made_together():
    rng = np.random.default_rng(2)
    ours = rng.random(20)
    pairs = {
        (name, label, "Dice"): (ours, ours - shift + 0.05 * rng.normal(size=20))
        for name, shift in (("a", 0.05), ("b", 0.01))
        for label in (1, (1, 2))
    }
    found = compare(pairs)
    assert [one.p_holm for one in found] == holm([one.p for one in found])
    assert min(one.p for one in found) * 4 == pytest.approx(min(one.p_holm for one in found))
    assert [one.to_json()["label"] for one in found] == ["1", "(1, 2)", "1", "(1, 2)"]


def test_a_true_difference_lies_in_the_paired_interval_though_methods_vary_more():
    rng = np.random.default_rng(3)
    difficulty = rng.normal(0.7, 0.2, size=50)
    ours, other = difficulty + 0.02, difficulty + rng.normal(0, 0.01, size=50)
    (found,) = compare({("other", 1, "Dice"): (ours, other)})
    assert found.interval[0] < 0.02 < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.01
    assert found.p < 1e-6
