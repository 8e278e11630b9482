import itertools
import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn

from veloxseg.evaluation.metrics import (
    Confusion,
    confusion,
    dice,
    hausdorff_95_mm,
    volume_ml,
)
from veloxseg.evaluation.surfaces import measure_surfaces

ANISOTROPIC = (4.0, 1.5, 0.5)
EMPTY = np.zeros((4, 5, 6), np.uint8)


def surface_distances_mm(first, second, spacing):
    distances = measure_surfaces(first, second, spacing)
    return distances.from_prediction, distances.from_reference


def box(*ranges: tuple[int, int], shape: tuple[int, int, int] = (8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*limits) for limits in ranges)] = 1
    return mask


def ellipsoid(centre, semi_axes, shape=(20, 24, 28)) -> np.ndarray:
    index = np.indices(shape).astype(float)
    away = sum(((index[i] - centre[i]) / semi_axes[i]) ** 2 for i in range(3))
    return (away <= 1).astype(np.uint8)


def random_mask(seed: int, share: float = 0.2) -> np.ndarray:
    return (np.random.default_rng(seed).random((6, 7, 8)) < share).astype(np.uint8)


def test_dice_of_a_mask_with_itself_is_one():
    mask = box((1, 3), (2, 5), (3, 7))
    assert dice(mask, mask) == 1


def test_dice_of_a_mask_and_its_half_is_two_thirds():
    assert dice(box((0, 2), (0, 4), (0, 2)), box((0, 2), (0, 4), (0, 4))) == pytest.approx(2 / 3)


def test_dice_of_disjoint_masks_is_zero():
    assert dice(box((0, 2), (0, 2), (0, 2)), box((4, 6), (4, 6), (4, 6))) == 0


def test_dice_and_iou_are_undefined_when_both_masks_are_empty():
    counts = confusion(EMPTY, EMPTY)
    assert math.isnan(counts.dice)
    assert math.isnan(counts.iou)
    assert math.isnan(hausdorff_95_mm(EMPTY, EMPTY, ANISOTROPIC))


def test_dice_is_zero_and_distance_undefined_when_one_mask_is_empty():
    mask = box((0, 2), (0, 2), (0, 2), shape=EMPTY.shape)
    for first, second in ((mask, EMPTY), (EMPTY, mask)):
        assert dice(first, second) == 0
        assert confusion(first, second).iou == 0
        assert math.isnan(hausdorff_95_mm(first, second, ANISOTROPIC))


def test_counts_of_a_case_done_by_hand():
    prediction = np.array([[[1, 1, 1, 0, 0, 0]]])
    reference = np.array([[[0, 1, 1, 1, 1, 0]]])
    assert confusion(prediction, reference) == Confusion(
        true_positives=2, false_positives=1, false_negatives=2, true_negatives=1
    )
    assert confusion(prediction, reference).iou == pytest.approx(2 / 5)


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
    assert dice(prediction, reference) == pytest.approx(overlap.GetDiceCoefficient())
    assert confusion(prediction, reference).iou == pytest.approx(overlap.GetJaccardCoefficient())


def test_volume_of_a_litre_is_a_thousand_millilitres():
    assert volume_ml(np.ones((10, 10, 10)), (10, 10, 10)) == 1000


def test_volume_of_an_anisotropic_voxel_is_the_product_of_its_edges():
    assert volume_ml(box((1, 2), (1, 2), (1, 3)), ANISOTROPIC) == pytest.approx(2 * 3 / 1000)
    assert volume_ml(EMPTY, ANISOTROPIC) == 0


@pytest.mark.parametrize(("axis", "expected"), [(0, 12), (1, 4.5), (2, 1.5)])
def test_distance_of_two_voxels_three_apart_is_three_spacings(axis, expected):
    first, second = np.zeros((8, 8, 8)), np.zeros((8, 8, 8))
    first[2, 2, 2] = 1
    second[tuple(5 if i == axis else 2 for i in range(3))] = 1
    assert hausdorff_95_mm(first, second, ANISOTROPIC) == pytest.approx(expected)


def test_distance_of_parallel_plates_is_their_gap():
    shape = (8, 6, 6)
    first = box((1, 2), (0, 6), (0, 6), shape=shape)
    second = box((6, 7), (0, 6), (0, 6), shape=shape)
    assert hausdorff_95_mm(first, second, ANISOTROPIC) == pytest.approx(5 * 4)


def test_the_larger_direction_counts_and_five_percent_of_it_are_forgiven():
    # A row of 100 voxels against the row and one voxel 50 beside it: every voxel of the short mask
    # has distance 0, 1 of the 101 of the long one has 50; the 95th percentile is still 0.
    row = np.zeros((1, 60, 100))
    row[0, 0] = 1
    one_off = row.copy()
    one_off[0, 50, 0] = 1
    assert hausdorff_95_mm(row, one_off, (1, 1, 1)) == 0
    # With 10 such voxels of 110 the larger direction is at 50, the pooled 95th percentile at 0.
    ten_off = row.copy()
    ten_off[0, 50, :10] = 1
    pooled = np.concatenate(surface_distances_mm(row, ten_off, (1, 1, 1)))
    assert np.percentile(pooled, 95) == 0
    assert hausdorff_95_mm(row, ten_off, (1, 1, 1)) == pytest.approx(50)


def test_the_inside_of_a_mask_is_no_surface():
    solid = box((1, 6), (1, 6), (1, 6))
    hollow = solid.copy()
    hollow[3, 3, 3] = 0
    from_solid, from_hollow = surface_distances_mm(solid, hollow, (1, 1, 1))
    assert from_solid.size == 5**3 - 3**3
    assert from_solid.max() == 0
    # The hollow's six faces are a surface of their own, a voxel from the middle.
    assert from_hollow.size == from_solid.size + 6
    assert from_hollow.max() == 1


@pytest.mark.parametrize("shift", [(0, 0, 14), (9, 0, 0), (6, 8, 5)])
def test_largest_distance_of_apart_ellipsoids_is_simpleitks(shift):
    # ITK measures from all voxels of a mask; for convex masks apart the farthest is on the surface.
    first = ellipsoid((5, 6, 7), (4, 5, 6))
    second = ellipsoid([c + s for c, s in zip((5, 6, 7), shift, strict=True)], (2, 2.5, 3))
    outside = second * (1 - first)
    ours = max(d.max() for d in surface_distances_mm(first, outside, ANISOTROPIC))
    images = [SimpleITK.GetImageFromArray(mask) for mask in (first, outside)]
    for image in images:
        image.SetSpacing(ANISOTROPIC[::-1])
    hausdorff = SimpleITK.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    assert ours > 1
    # ITK's distance map is float32.
    assert ours == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-5)


def test_distances_are_those_of_brute_force():
    first, second = random_mask(1), random_mask(2)
    ours = surface_distances_mm(first, second, ANISOTROPIC)
    points = [_surface_points(mask) * ANISOTROPIC for mask in (first, second)]
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    np.testing.assert_allclose(ours[0], between.min(1))
    np.testing.assert_allclose(ours[1], between.min(0))
    assert ours[0].max() > 0


def _surface_points(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    steps = [s for s in itertools.product((-1, 0, 1), repeat=3) if np.abs(s).sum() == 1]
    surface = [
        index
        for index in np.argwhere(mask)
        if any(padded[tuple(index + 1 + np.array(step))] == 0 for step in steps)
    ]
    return np.array(surface, float)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(range(3)),
    flips=st.lists(st.integers(0, 2), max_size=3, unique=True),
)
def test_no_metric_depends_on_flips_or_the_order_of_axes(seed, order, flips):
    first, second = random_mask(seed), random_mask(seed + 1)
    turned = [np.flip(mask.transpose(order), flips) for mask in (first, second)]
    spacing = [ANISOTROPIC[axis] for axis in order]
    assert dice(*turned) == dice(first, second)
    assert volume_ml(turned[0], spacing) == pytest.approx(volume_ml(first, ANISOTROPIC))
    assert hausdorff_95_mm(*turned, spacing) == pytest.approx(
        hausdorff_95_mm(first, second, ANISOTROPIC)
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_metrics_are_symmetric_and_ignore_empty_margins(seed):
    first, second = random_mask(seed), random_mask(seed + 1)
    distance = hausdorff_95_mm(first, second, ANISOTROPIC)
    assert hausdorff_95_mm(second, first, ANISOTROPIC) == distance
    assert dice(second, first) == dice(first, second)
    padded = [np.pad(mask, 3) for mask in (first, second)]
    assert hausdorff_95_mm(*padded, ANISOTROPIC) == pytest.approx(distance)


def test_masks_of_different_shapes_are_refused():
    for metric in (dice, confusion, lambda a, b: hausdorff_95_mm(a, b, ANISOTROPIC)):
        with pytest.raises(ValueError, match="one shape"):
            metric(EMPTY, EMPTY[1:])
