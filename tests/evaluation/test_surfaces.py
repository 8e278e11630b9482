import itertools
import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_shapes import ANISOTROPIC, EMPTY, box, ellipsoid, random_mask, voxels
from veloxseg.evaluation import surfaces
from veloxseg.evaluation.surfaces import measure_surfaces

ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.fixture(params=[False, True], ids=["far voxels by tree", "far voxels by field"])
def way_of_far_voxels(request, monkeypatch):
    monkeypatch.setattr(surfaces, "_is_field_cheaper", lambda *_: request.param)


@pytest.mark.parametrize(("axis", "expected"), [(0, 12), (1, 4.5), (2, 1.5)])
def test_distance_of_two_voxels_three_apart_is_three_spacings(axis, expected):
    second = tuple(5 if i == axis else 2 for i in range(3))
    distances = measure_surfaces(voxels((2, 2, 2)), voxels(second), ANISOTROPIC)
    assert distances.hausdorff_95_mm == pytest.approx(expected)
    assert distances.average_mm == pytest.approx(expected)
    assert distances.share_within(expected) == 1
    assert distances.share_within(0.99 * expected) == 0


@pytest.mark.usefixtures("way_of_far_voxels")
def test_distance_of_parallel_plates_is_their_gap():
    shape = (48, 6, 6)
    first = box((1, 2), (0, 6), (0, 6), shape=shape)
    second = box((46, 47), (0, 6), (0, 6), shape=shape)
    distances = measure_surfaces(first, second, ANISOTROPIC)
    assert distances.hausdorff_95_mm == pytest.approx(45 * 4)
    assert distances.average_mm == pytest.approx(45 * 4)
    assert distances.share_within(180) == 1
    assert distances.share_within(179) == 0


def test_the_larger_direction_counts_and_five_percent_of_it_are_forgiven():
    # A row of 100 voxels against the row and one voxel 50 beside it: every voxel of the short mask
    # has distance 0, 1 of the 101 of the long one has 50; the 95th percentile is still 0.
    row = np.zeros((1, 60, 100))
    row[0, 0] = 1
    one_off = row.copy()
    one_off[0, 50, 0] = 1
    assert measure_surfaces(row, one_off, ISOTROPIC).hausdorff_95_mm == 0
    # With 10 such voxels of 110 the larger direction is at 50, the pooled 95th percentile at 0.
    ten_off = row.copy()
    ten_off[0, 50, :10] = 1
    distances = measure_surfaces(row, ten_off, ISOTROPIC)
    pooled = np.concatenate([distances.from_prediction, distances.from_reference])
    assert np.percentile(pooled, 95) == 0
    assert distances.hausdorff_95_mm == pytest.approx(50)


def test_average_and_share_pool_both_surfaces():
    row = np.zeros((1, 60, 100))
    row[0, 0] = 1
    ten_off = row.copy()
    ten_off[0, 50, :10] = 1
    distances = measure_surfaces(row, ten_off, ISOTROPIC)
    # 100 voxels at 0; 100 at 0 and 10 at 50. The mean of both directions' means is another number.
    assert distances.average_mm == pytest.approx(10 * 50 / 210)
    assert distances.average_mm != pytest.approx((0 + 10 * 50 / 110) / 2, rel=0.01)
    assert distances.share_within(1) == pytest.approx(200 / 210)
    assert distances.share_within(50) == 1


def test_a_cube_grown_by_one_voxel_agrees_with_itself_within_one_voxel():
    small, large = box((2, 5), (2, 5), (2, 5)), box((1, 6), (1, 6), (1, 6))
    distances = measure_surfaces(small, large, ISOTROPIC)
    # 26 voxels face the large cube's face at 1. Of the 98, 54 face the small one's at 1, its 36
    # edge voxels are at sqrt(2) and its 8 corners at sqrt(3).
    assert distances.from_prediction.tolist() == [1] * 26
    expected = [1] * 54 + [math.sqrt(2)] * 36 + [math.sqrt(3)] * 8
    np.testing.assert_allclose(np.sort(distances.from_reference), expected)
    assert distances.share_within(1) == pytest.approx((26 + 54) / (26 + 98))
    assert distances.share_within(1.5) == pytest.approx((26 + 90) / (26 + 98))


def test_a_distance_equal_to_the_tolerance_is_within_it_though_spacing_is_stored_in_float32():
    spacing = [float(np.float32(0.1))] * 3
    distances = measure_surfaces(
        voxels((0, 0, 0), shape=(1, 1, 11)), voxels((0, 0, 10), shape=(1, 1, 11)), spacing
    )
    assert distances.from_prediction[0] > 1
    assert distances.share_within(1.0) == 1
    assert distances.share_within(0.999) == 0


def test_distances_are_infinite_and_their_statistics_undefined_when_one_mask_is_empty():
    mask = box((0, 2), (0, 2), (0, 2), shape=EMPTY.shape)
    for first, second in ((mask, EMPTY), (EMPTY, mask)):
        distances = measure_surfaces(first, second, ANISOTROPIC)
        both = np.concatenate([distances.from_prediction, distances.from_reference])
        assert both.tolist() == [math.inf] * 8
        assert math.isnan(distances.hausdorff_95_mm)
        assert math.isnan(distances.average_mm)
        assert distances.share_within(1000) == 0


def test_everything_is_undefined_when_both_masks_are_empty():
    distances = measure_surfaces(EMPTY, EMPTY, ANISOTROPIC)
    assert distances.from_prediction.size == distances.from_reference.size == 0
    assert math.isnan(distances.hausdorff_95_mm)
    assert math.isnan(distances.average_mm)
    assert math.isnan(distances.share_within(1))


def test_the_inside_of_a_mask_is_no_surface():
    solid = box((1, 6), (1, 6), (1, 6))
    hollow = solid.copy()
    hollow[3, 3, 3] = 0
    distances = measure_surfaces(solid, hollow, ISOTROPIC)
    assert distances.from_prediction.size == 5**3 - 3**3
    assert distances.from_prediction.max() == 0
    # The hollow's six faces are a surface of their own, a voxel from the middle.
    assert distances.from_reference.size == 5**3 - 3**3 + 6
    assert distances.from_reference.max() == 1


def test_a_mask_cut_off_by_the_edge_of_the_array_has_a_surface_there():
    full = np.ones((5, 5, 5), bool)
    assert measure_surfaces(full, full, ISOTROPIC).from_prediction.size == 5**3 - 3**3


@pytest.mark.usefixtures("way_of_far_voxels")
@pytest.mark.parametrize("shift", [(0, 0, 14), (9, 0, 0), (6, 8, 5)])
def test_largest_distance_of_apart_ellipsoids_is_simpleitks(shift):
    # ITK measures from all voxels of a mask; for convex masks apart the farthest is on the surface.
    first = ellipsoid((5, 6, 7), (4, 5, 6))
    second = ellipsoid([c + s for c, s in zip((5, 6, 7), shift, strict=True)], (2, 2.5, 3))
    outside = second * (1 - first)
    distances = measure_surfaces(first, outside, ANISOTROPIC)
    ours = max(distances.from_prediction.max(), distances.from_reference.max())
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
    _assert_distances_are_those_of_brute_force(first, second, ANISOTROPIC)


@pytest.mark.usefixtures("way_of_far_voxels")
@pytest.mark.parametrize("seed", range(3))
def test_far_distances_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    first, second = np.zeros((2, 40, 50, 60), bool)
    first[tuple(rng.integers(0, (40, 50, 60), (40, 3)).T)] = True
    second[tuple(rng.integers((0, 0, 45), (10, 50, 60), (20, 3)).T)] = True
    spacing = (0.9, 1.1, 1.3)
    distances = measure_surfaces(first, second, spacing)
    # Beyond the reach of the near search, in both directions.
    assert min(distances.from_prediction.max(), distances.from_reference.max()) > 8 * 1.3
    _assert_distances_are_those_of_brute_force(first, second, spacing)


def _assert_distances_are_those_of_brute_force(first, second, spacing):
    distances = measure_surfaces(first, second, spacing)
    points = [_surface_points(mask) * spacing for mask in (first, second)]
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    # Far distances may come from a field in float32.
    np.testing.assert_allclose(distances.from_prediction, between.min(1), rtol=1e-6)
    np.testing.assert_allclose(distances.from_reference, between.min(0), rtol=1e-6)
    assert distances.from_prediction.max() > 0


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
@given(seed=st.integers(0, 10_000))
def test_swapping_the_masks_swaps_the_directions(seed):
    first, second = random_mask(seed), random_mask(seed + 1)
    there = measure_surfaces(first, second, ANISOTROPIC)
    back = measure_surfaces(second, first, ANISOTROPIC)
    np.testing.assert_array_equal(there.from_prediction, back.from_reference)
    np.testing.assert_array_equal(there.from_reference, back.from_prediction)
    assert there.hausdorff_95_mm == back.hausdorff_95_mm
    assert there.average_mm == pytest.approx(back.average_mm)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        measure_surfaces(EMPTY, EMPTY[1:], ANISOTROPIC)
