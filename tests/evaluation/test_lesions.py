import math

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_shapes import EMPTY, box, random_mask, voxels
from veloxseg.evaluation.lesions import Lesions, count_lesions


def merged(*masks: np.ndarray) -> np.ndarray:
    return np.maximum.reduce(masks)


FIRST = box((0, 2), (0, 2), (0, 2))  # 8 voxels
SECOND = box((4, 7), (0, 2), (0, 2))  # 12 voxels
THIRD = box((0, 2), (5, 8), (5, 8))  # 18 voxels
EMPTY_OF_ITS_SHAPE = np.zeros((8, 9, 10), np.uint8)


def test_found_missed_and_made_up_lesions_are_counted_and_weighed():
    lesions = count_lesions(merged(FIRST, THIRD), merged(FIRST, SECOND))
    assert lesions == Lesions(
        predicted=2,
        true=1,
        referred=2,
        found=1,
        false_positive_voxels=18,
        false_negative_voxels=12,
    )
    assert lesions.precision == lesions.recall == lesions.f1 == 0.5


def test_one_shared_voxel_finds_a_lesion_and_none_of_it_is_a_false_volume():
    corner = box((1, 6), (1, 6), (1, 6))
    lesions = count_lesions(corner, FIRST)
    assert (lesions.true, lesions.found) == (1, 1)
    assert lesions.false_positive_voxels == lesions.false_negative_voxels == 0


def test_a_neighbour_that_shares_no_voxel_finds_nothing():
    lesions = count_lesions(box((2, 4), (0, 2), (0, 2)), FIRST)
    assert (lesions.true, lesions.found) == (0, 0)
    assert (lesions.false_positive_voxels, lesions.false_negative_voxels) == (8, 8)
    assert lesions.f1 == 0


def test_one_prediction_over_two_lesions_is_one_true_lesion_that_finds_two():
    bridge = box((0, 7), (0, 2), (0, 2))
    lesions = count_lesions(bridge, merged(FIRST, SECOND))
    assert (lesions.predicted, lesions.true) == (1, 1)
    assert (lesions.referred, lesions.found) == (2, 2)
    assert lesions.precision == lesions.recall == lesions.f1 == 1


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    # One lesion in three pieces and one made up: precision 3/4, recall 1/2.
    pieces = voxels((4, 0, 0), (6, 0, 0), (4, 0, 2), shape=(8, 9, 10))
    reference = merged(box((4, 7), (0, 1), (0, 3)), THIRD)
    lesions = count_lesions(merged(pieces, FIRST), reference)
    assert lesions.precision == pytest.approx(3 / 4)
    assert lesions.recall == pytest.approx(1 / 2)
    assert lesions.f1 == pytest.approx(2 * (3 / 4) * (1 / 2) / (3 / 4 + 1 / 2))


@pytest.mark.parametrize(
    ("second", "num_lesions"), [((1, 1, 2), 1), ((1, 2, 2), 1), ((2, 2, 2), 2), ((1, 1, 3), 2)]
)
def test_voxels_that_share_a_face_or_an_edge_are_one_lesion(second, num_lesions):
    assert count_lesions(voxels((1, 1, 1), second), EMPTY_OF_ITS_SHAPE).predicted == num_lesions


def test_without_a_prediction_all_is_missed_and_precision_is_undefined():
    lesions = count_lesions(EMPTY_OF_ITS_SHAPE, merged(FIRST, SECOND))
    assert (lesions.predicted, lesions.referred, lesions.found) == (0, 2, 0)
    assert math.isnan(lesions.precision)
    assert (lesions.recall, lesions.f1) == (0, 0)
    assert (lesions.false_positive_voxels, lesions.false_negative_voxels) == (0, 20)


def test_without_a_reference_all_is_made_up_and_recall_is_undefined():
    lesions = count_lesions(merged(FIRST, SECOND), EMPTY_OF_ITS_SHAPE)
    assert (lesions.predicted, lesions.true, lesions.referred) == (2, 0, 0)
    assert math.isnan(lesions.recall)
    assert (lesions.precision, lesions.f1) == (0, 0)
    assert (lesions.false_positive_voxels, lesions.false_negative_voxels) == (20, 0)


def test_all_ratios_are_undefined_when_both_masks_are_empty():
    lesions = count_lesions(EMPTY, EMPTY)
    assert math.isnan(lesions.precision)
    assert math.isnan(lesions.recall)
    assert math.isnan(lesions.f1)
    assert lesions.false_positive_voxels == lesions.false_negative_voxels == 0


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_false_volumes_are_those_of_cc3d_with_the_neighbours_of_autopet(seed):
    # Sparse enough that corners matter.
    prediction, reference = np.random.default_rng(seed).random((2, 18, 20, 22)) < 0.06
    lesions = count_lesions(prediction, reference)
    num_predicted, num_true, false_positives = _by_cc3d(prediction, reference)
    num_referred, num_found, false_negatives = _by_cc3d(reference, prediction)
    assert lesions == Lesions(
        predicted=num_predicted,
        true=num_true,
        referred=num_referred,
        found=num_found,
        false_positive_voxels=false_positives,
        false_negative_voxels=false_negatives,
    )
    assert 0 < lesions.true < lesions.predicted
    assert cc3d.connected_components(prediction, connectivity=26).max() < num_predicted


def _by_cc3d(mask, other):
    components = cc3d.connected_components(mask, connectivity=18)
    lesions = [components == number for number in range(1, components.max() + 1)]
    touching = [bool((lesion & (other > 0)).any()) for lesion in lesions]
    apart = sum(
        int(lesion.sum()) for lesion, does in zip(lesions, touching, strict=True) if not does
    )
    return len(lesions), sum(touching), apart


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.4))
def test_swapping_the_masks_swaps_precision_with_recall_and_the_false_volumes(seed, share):
    first, second = random_mask(seed, share), random_mask(seed + 1, share)
    lesions, swapped = count_lesions(first, second), count_lesions(second, first)
    assert (lesions.predicted, lesions.true) == (swapped.referred, swapped.found)
    assert lesions.false_positive_voxels == swapped.false_negative_voxels
    np.testing.assert_equal(lesions.f1, swapped.f1)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        count_lesions(EMPTY, EMPTY[1:])
