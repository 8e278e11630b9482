import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn

from mask_shapes import EMPTY, box, random_mask
from veloxseg.evaluation.metrics import Confusion, confusion, dice


def test_dice_of_a_mask_with_itself_is_one():
    mask = box((1, 3), (2, 5), (3, 7))
    assert dice(mask, mask) == 1


def test_dice_of_a_mask_and_its_half_is_two_thirds():
    assert dice(box((0, 2), (0, 4), (0, 2)), box((0, 2), (0, 4), (0, 4))) == pytest.approx(2 / 3)


def test_dice_of_disjoint_masks_is_zero():
    assert dice(box((0, 2), (0, 2), (0, 2)), box((4, 6), (4, 6), (4, 6))) == 0


def test_overlap_is_undefined_when_both_masks_are_empty():
    counts = confusion(EMPTY, EMPTY)
    for value in (counts.dice, counts.iou, counts.precision, counts.recall):
        assert math.isnan(value)


def test_dice_and_iou_are_zero_when_one_mask_is_empty():
    mask = box((0, 2), (0, 2), (0, 2), shape=EMPTY.shape)
    for first, second in ((mask, EMPTY), (EMPTY, mask)):
        assert dice(first, second) == 0
        assert confusion(first, second).iou == 0


def test_counts_of_a_case_done_by_hand():
    prediction = np.array([[[1, 1, 1, 0, 0, 0]]])
    reference = np.array([[[0, 1, 1, 1, 1, 0]]])
    counts = confusion(prediction, reference)
    assert counts == Confusion(
        true_positives=2, false_positives=1, false_negatives=2, true_negatives=1
    )
    assert counts.iou == pytest.approx(2 / 5)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 4)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_nnunet(seed):
    prediction, reference = random_mask(seed), random_mask(seed + 10, 0.4)
    counts = confusion(prediction, reference)
    theirs = compute_tp_fp_fn_tn(reference > 0, prediction > 0)
    assert theirs == (
        counts.true_positives,
        counts.false_positives,
        counts.false_negatives,
        counts.true_negatives,
    )
    assert counts.true_positives > 0


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_that_of_simpleitk(seed):
    prediction, reference = random_mask(seed), random_mask(seed + 10, 0.4)
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(SimpleITK.GetImageFromArray(reference), SimpleITK.GetImageFromArray(prediction))
    counts = confusion(prediction, reference)
    assert counts.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert counts.iou == pytest.approx(overlap.GetJaccardCoefficient())
    assert counts.dice > 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_swapping_the_masks_swaps_precision_and_recall_and_keeps_dice(seed):
    first, second = random_mask(seed), random_mask(seed + 1)
    counts, swapped = confusion(first, second), confusion(second, first)
    assert counts.dice == swapped.dice
    assert (counts.precision, counts.recall) == (swapped.recall, swapped.precision)
    # Dice is the harmonic mean of both.
    if counts.true_positives:
        mean = 2 / (1 / counts.precision + 1 / counts.recall)
        assert counts.dice == pytest.approx(mean)


def test_masks_of_different_shapes_are_refused():
    for metric in (dice, confusion):
        with pytest.raises(ValueError, match="one shape"):
            metric(EMPTY, EMPTY[1:])
