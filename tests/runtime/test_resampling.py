import itertools

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from skimage.transform import resize

from veloxseg.bundle.format import Resampling
from veloxseg.runtime.resampling import resample, resampled_shape, separate_axis
from veloxseg.runtime.separable import AxisMap, GridMap
from veloxseg.runtime.splines import axis_matrix

FLOAT32_TOLERANCE = 2e-6
"""Of values around 1: a few of float32's roundings of 6e-8, summed over three axes."""


def random_image(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_nnunet(image, new_shape, spacing, new_spacing, resampling: Resampling) -> np.ndarray:
    return resample_data_or_seg_to_shape(
        image[None],
        new_shape,
        spacing,
        new_spacing,
        is_seg=False,
        order=resampling.order,
        order_z=resampling.order_z,
        force_separate_z=resampling.force_separate_z,
        separate_z_anisotropy_threshold=resampling.anisotropy_threshold,
    )[0]


def test_doubling_linearly_mixes_quarters_and_keeps_the_edges():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert axis_matrix(2, 4, 1).tolist() == expected


def test_halving_by_nearest_takes_the_later_of_two():
    assert axis_matrix(4, 2, 0).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("order", range(4))
def test_matrices_are_skimages_resize_along_one_axis(order):
    rng = np.random.default_rng(order)
    for num_in, num_out in rng.integers(1, 70, (60, 2)):
        line = rng.normal(size=num_in)
        expected = resize(line, (num_out,), order, mode="edge", anti_aliasing=False, clip=False)
        if num_in == num_out:  # skimage does nothing; the spline through samples keeps them too
            expected = line
        np.testing.assert_allclose(axis_matrix(num_in, num_out, order) @ line, expected, atol=1e-12)


@pytest.mark.parametrize("order", range(4))
def test_a_constant_stays_that_constant(order):
    for num_in, num_out in ((1, 7), (2, 5), (30, 11), (11, 30)):
        rows = axis_matrix(num_in, num_out, order).sum(axis=1)
        np.testing.assert_allclose(rows, 1, atol=1e-12)


@pytest.mark.parametrize(("num_in", "num_out", "order"), [(0, 3, 1), (3, 0, 1), (3, 3, 4)])
def test_an_axis_without_voxels_or_of_unknown_order_is_refused(num_in, num_out, order):
    with pytest.raises(ValueError, match="Cannot resize"):
        axis_matrix(num_in, num_out, order)


def test_leaving_out_negligible_weights_changes_less_than_float32_resolves():
    axis = AxisMap.of_order(200, 333, 3)
    assert axis.reach < 40
    left_out = np.abs(axis.matrix - axis_matrix(200, 333, 3)).sum(axis=1)
    assert left_out.max() < 3e-7  # mostly the rounding to float32


def test_planes_one_at_a_time_are_those_of_the_whole():
    image = random_image((9, 10, 11))
    for new_shape, orders in itertools.product(((14, 7, 15), (5, 17, 11)), ((1, 1, 1), (0, 3, 1))):
        grid = GridMap.of_orders(image.shape, new_shape, orders)
        whole = grid.planes(image, 0, new_shape[0])
        for plane in range(new_shape[0]):
            low, high = grid.span(plane, plane + 1)
            one = grid.planes(image[low:high], plane, plane + 1)
            np.testing.assert_allclose(one[0], whole[plane], atol=FLOAT32_TOLERANCE)


def test_a_volume_of_the_right_shape_is_copied_to_the_bit():
    image = random_image((4, 5, 6))
    same = resample(
        image, (4, 5, 6), spacing=(1, 1, 1), new_spacing=(2, 2, 2), resampling=Resampling()
    )
    assert np.array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_cubic_splines_do_not_overshoot_the_range_of_the_image():
    image = np.zeros((8, 8, 8), np.float32)
    image[4:] = 1
    larger = resample(
        image, (20, 20, 20), spacing=(1, 1, 1), new_spacing=(0.4, 0.4, 0.4), resampling=Resampling()
    )
    assert (larger.min(), larger.max()) == (0, 1)


ISOTROPIC, ANISOTROPIC_OLD, ANISOTROPIC_NEW = (
    ((1.5, 1.2, 1.0), (1.0, 1.0, 1.0)),
    ((5.0, 1.0, 1.1), (2.5, 0.9, 1.0)),
    ((1.0, 1.0, 1.1), (4.0, 0.9, 1.0)),
)
RESAMPLINGS = (
    Resampling(order=3, order_z=0),
    Resampling(order=1, order_z=0),
    Resampling(order=0, order_z=0),
    Resampling(order=2, order_z=1),
    Resampling(order=1, order_z=3),
    Resampling(order=3, order_z=1, force_separate_z=True),
    Resampling(order=3, order_z=0, force_separate_z=False),
)


@pytest.mark.parametrize("resampling", RESAMPLINGS, ids=str)
@pytest.mark.parametrize("spacings", [ISOTROPIC, ANISOTROPIC_OLD, ANISOTROPIC_NEW], ids=str)
def test_volumes_are_those_of_nnunet_whatever_axis_is_anisotropic(resampling, spacings):
    rng = np.random.default_rng(1)
    for turn in range(3):
        spacing, new_spacing = (np.roll(s, turn).tolist() for s in spacings)
        image = random_image(rng.integers(3, 24, 3))
        # Up, down, and one axis kept, which the separate branch treats specially.
        for new_shape in (
            resampled_shape(image.shape, spacing, new_spacing),
            tuple(rng.integers(1, 40, 3)),
            (image.shape[0], *rng.integers(1, 40, 2)),
            (*rng.integers(1, 40, 2), image.shape[2]),
        ):
            found = resample(
                image, new_shape, spacing=spacing, new_spacing=new_spacing, resampling=resampling
            )
            expected = by_nnunet(image, new_shape, spacing, new_spacing, resampling)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=FLOAT32_TOLERANCE)
            assert found.size == 1 or np.ptp(found) > 0


def test_a_large_volume_in_many_blocks_is_that_of_nnunet():
    image = random_image((70, 90, 101))
    spacings = {"spacing": (2.0, 1.0, 1.0), "new_spacing": (1.5, 0.8, 1.3)}
    new_shape = resampled_shape(image.shape, *spacings.values())
    found = resample(image, new_shape, **spacings, resampling=Resampling())
    expected = by_nnunet(image, new_shape, *spacings.values(), Resampling())
    np.testing.assert_allclose(found, expected, atol=FLOAT32_TOLERANCE)


def test_shapes_are_those_of_nnunet():
    rng = np.random.default_rng(2)
    for _ in range(200):
        shape = rng.integers(5, 400, 3)
        spacing, new_spacing = rng.choice([0.5, 0.78, 1, 1.5, 2.04, 3, 5], (2, 3))
        expected = tuple(compute_new_shape(shape, spacing, new_spacing))
        assert resampled_shape(shape, spacing, new_spacing) == expected


def test_an_axis_never_vanishes():
    assert resampled_shape((1, 4, 4), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)) == (1, 4, 4)


def test_the_axis_treated_apart_is_that_of_nnunet():
    rng = np.random.default_rng(3)
    found = set()
    for _ in range(300):
        spacing, new_spacing = rng.choice([0.5, 1, 1.5, 3, 3.1, 5], (2, 3)).tolist()
        force = rng.choice(np.array([None, True, False]))
        resampling = Resampling(force_separate_z=force)
        apart, axis = determine_do_sep_z_and_axis(force, spacing, new_spacing, 3)
        assert separate_axis(spacing, new_spacing, resampling) == (axis if apart else None)
        found.add(separate_axis(spacing, new_spacing, resampling))
    assert found == {None, 0, 1, 2}
