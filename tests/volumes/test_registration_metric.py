import numpy as np
import pytest

from veloxseg.volumes.registration_metric import (
    clip_intensities,
    compare_agreement,
    share_inside,
)
from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Grid, Volume

STILL = AffineMap.identity()
GRID = Grid(size_zyx=(20, 24, 28), spacing_zyx=(2.0, 1.0, 1.0), origin_xyz=(0.0, 0.0, 0.0))


def shifted(x, y=0.0, z=0.0):
    return AffineMap.of(np.eye(3), (x, y, z))


def binary(seed):
    values = np.random.default_rng(seed).integers(0, 2, GRID.size_zyx).astype(np.float32)
    return Volume.on_grid(values, GRID)


def test_an_image_of_two_values_shares_log_two_with_itself_and_with_its_negative():
    image = binary(0)
    negative = Volume.on_grid(1 - image.data, GRID)
    for other in (image, negative):
        agreement = compare_agreement(image, other, before=STILL, after=STILL)
        # ITK's B-spline window spreads a value over bins, which costs a few per cent.
        assert agreement.before == pytest.approx(np.log(2), rel=0.05)
        assert agreement.improvement == 0
        assert agreement.num_voxels == image.data.size


def test_independent_images_share_about_as_much_as_chance_gives():
    rng = np.random.default_rng(1)
    a, b = (Volume.on_grid(rng.uniform(size=GRID.size_zyx).astype(np.float32), GRID) for _ in "ab")
    agreement = compare_agreement(a, b, before=STILL, after=STILL)
    assert 0 < agreement.before < 1.5 * agreement.chance


def test_before_and_after_are_measured_on_the_voxels_that_are_inside_both_times():
    image = binary(0)
    agreement = compare_agreement(image, image, before=shifted(3.0), after=shifted(0.0, -2.0))
    assert agreement.num_voxels == 20 * 22 * 25
    swapped = compare_agreement(image, image, before=shifted(0.0, -2.0), after=shifted(3.0))
    assert (swapped.before, swapped.after) == (agreement.after, agreement.before)


def test_images_apart_have_no_agreement():
    assert compare_agreement(binary(0), binary(0), before=STILL, after=shifted(1e3)) is None


def test_half_a_field_of_view_apart_half_is_inside():
    assert share_inside(GRID, GRID, STILL) == 1
    assert share_inside(GRID, GRID, shifted(13.5)) == pytest.approx(0.5, abs=0.04)
    assert share_inside(GRID, GRID, shifted(100.0)) == 0


def test_clipping_takes_the_extremes_and_leaves_a_nearly_constant_image_its_range():
    data = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    data[0, 0, 0] = 30000
    clipped = clip_intensities(Volume(data=data, spacing_zyx=(1.0, 1.0, 1.0)))
    assert clipped.data.dtype == np.float32
    assert clipped.data.max() < 1000
    assert data[0, 0, 0] == 30000
    rare = np.zeros((10, 10, 10), np.float32)
    rare[0, 0, :3] = 5
    assert clip_intensities(Volume(data=rare, spacing_zyx=(1.0, 1.0, 1.0))).data.max() == 5
