"""What is removed from a mask, against hand-made masks, nnU-Net and scipy."""

from pathlib import Path

import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import (
    remove_all_but_largest_component_from_segmentation,
)
from scipy import ndimage

import veloxseg
from bundles import write_small_bundle
from mask_shapes import voxels
from veloxseg.bundle.format import PostprocessingStep
from veloxseg.runtime.components import find_components
from veloxseg.runtime.postprocessing import postprocess_mask
from veloxseg.runtime.prediction import predict
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume

UNIT = (1.0, 1.0, 1.0)


def largest(*labels: int) -> PostprocessingStep:
    return PostprocessingStep(kind="keep_largest", labels=labels)


def smallest(minimum_ml: float, *labels: int) -> PostprocessingStep:
    return PostprocessingStep(kind="minimum_volume", labels=labels, minimum_ml=minimum_ml)


def processed(mask: np.ndarray, *steps: PostprocessingStep, spacing=UNIT) -> np.ndarray:
    before = mask.copy()
    done = postprocess_mask(mask, steps, spacing_zyx=spacing)
    np.testing.assert_array_equal(mask, before)
    assert done.dtype == mask.dtype
    return done


@pytest.mark.parametrize("seed", range(40))
def test_components_are_scipys_with_26_neighbours_in_the_order_of_their_first_voxels(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 14, 3))
    mask = rng.integers(1, 4, shape) * (rng.random(shape) < rng.uniform(0.02, 0.6))
    expected, number = ndimage.label(np.isin(mask, (1, 3)), np.ones((3, 3, 3)))
    components = find_components(mask.astype(np.uint8), (1, 3))
    assert len(components) == number
    np.testing.assert_array_equal(components.numbers(), expected)
    np.testing.assert_array_equal(components.sizes, np.bincount(expected.ravel())[1:])


def test_a_long_spiral_is_one_component():
    mask = np.zeros((3, 41, 41), np.uint8)
    for ring in range(0, 20, 2):
        mask[1, ring, ring : 41 - ring] = mask[1, 40 - ring, ring : 41 - ring] = 1
        mask[1, ring : 41 - ring, ring] = mask[1, ring : 41 - ring, 40 - ring] = 1
        mask[1, ring + 1, ring + 1] = 1  # a corner leads on to the next ring
    assert len(find_components(mask, (1,))) == 1
    mask[1, 1, 1] = 0
    assert len(find_components(mask, (1,))) == 2


def test_the_last_voxel_of_a_row_does_not_touch_the_first_of_the_next():
    assert len(find_components(voxels((0, 0, 9), (0, 1, 0)), (1,))) == 2
    assert len(find_components(voxels((0, 8, 4), (1, 0, 4)), (1,))) == 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [(1,), (1, 2), (2, 3)])
def test_keeping_the_largest_component_is_nnunets(seed, target):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (6, 7, 8)) * (rng.random((6, 7, 8)) < 0.25)
    mask = mask.astype(np.uint8)
    expected = remove_all_but_largest_component_from_segmentation(mask, target)
    assert (expected != mask).any()
    np.testing.assert_array_equal(processed(mask, largest(*target)), expected)


def test_of_two_components_the_larger_stays_and_other_labels_are_untouched():
    mask = voxels((0, 0, 0), (0, 0, 1), (5, 5, 5))
    mask[7, 8, 9] = 2
    expected = voxels((0, 0, 0), (0, 0, 1))
    expected[7, 8, 9] = 2
    np.testing.assert_array_equal(processed(mask, largest(1)), expected)


def test_components_of_one_size_all_stay_however_the_array_lies():
    mask = voxels((0, 0, 0), (5, 5, 5), (7, 0, 0), (7, 0, 1), (2, 8, 8), (2, 8, 9))
    expected = voxels((7, 0, 0), (7, 0, 1), (2, 8, 8), (2, 8, 9))
    np.testing.assert_array_equal(processed(mask, largest(1)), expected)
    np.testing.assert_array_equal(
        processed(mask[::-1, :, ::-1], largest(1))[::-1, :, ::-1], expected
    )


def test_the_whole_foreground_is_one_component_where_labels_touch():
    mask = voxels((0, 0, 0), (0, 0, 1), (5, 5, 5), (5, 5, 7))
    mask[0, 0, 2] = 2
    mask[5, 5, 6] = 2
    mask[5, 5, 8] = 2
    done = processed(mask, largest(1, 2))
    assert done.sum() == 1 + 2 + 1 + 2
    np.testing.assert_array_equal(np.argwhere(done)[:, 0], [5, 5, 5, 5])


def test_a_region_is_the_union_of_its_labels_and_what_is_removed_is_background():
    mask = voxels((0, 0, 0), (5, 5, 5))
    mask[0, 0, 1] = 2  # with label 1 a component of the region (1, 2), and the larger one
    np.testing.assert_array_equal(processed(mask, largest(1, 2))[0, 0, :2], [1, 2])
    assert processed(mask, largest(1, 2))[5, 5, 5] == 0
    np.testing.assert_array_equal(processed(mask, largest(1)), mask)  # two of one size


def test_the_smallest_volume_is_measured_in_the_images_own_voxels():
    mask = voxels((0, 0, 0), (0, 0, 1), (5, 5, 5))  # 2 voxels and 1 voxel of 4 x 1.5 x 0.5 mm
    spacing = (4.0, 1.5, 0.5)
    one, two = 0.003, 0.006
    np.testing.assert_array_equal(processed(mask, smallest(one, 1), spacing=spacing), mask)
    expected = voxels((0, 0, 0), (0, 0, 1))
    for volume in (0.0031, two):
        found = processed(mask, smallest(volume, 1), spacing=spacing)
        np.testing.assert_array_equal(found, expected)
    assert not processed(mask, smallest(0.0061, 1), spacing=spacing).any()


def test_a_component_of_just_the_smallest_volume_stays_in_spite_of_rounding():
    spacing = (0.3, 10.0, 10.0)
    assert 11 * 0.03 < 0.33  # ml, in doubles
    mask = np.ones((1, 1, 11), np.uint8)
    assert processed(mask, smallest(0.33, 1), spacing=spacing).all()
    assert not processed(mask, smallest(0.331, 1), spacing=spacing).any()


def test_steps_go_one_after_the_other():
    mask = voxels((0, 0, 0), (0, 0, 1), (5, 5, 5))
    mask[5, 5, 6:9] = 2  # in one component of the foreground with the label 1 beside it
    done = processed(mask, largest(1, 2), largest(1))
    np.testing.assert_array_equal(done[0, 0, :2], [0, 0])
    np.testing.assert_array_equal(done[5, 5, 5:9], [1, 2, 2, 2])
    done = processed(mask, largest(1), largest(1, 2))
    np.testing.assert_array_equal(done[0, 0, :2], [0, 0])
    np.testing.assert_array_equal(done[5, 5, 5:9], [0, 2, 2, 2])


@pytest.mark.parametrize("step", [largest(1, 2), smallest(1.0, 1, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_an_empty_mask_stays_empty(step, dtype):
    assert not processed(np.zeros((3, 4, 5), dtype), step).any()


def test_a_mask_without_steps_is_the_same_array():
    mask = voxels((1, 1, 1))
    assert postprocess_mask(mask, (), spacing_zyx=UNIT) is mask


def test_a_bundle_postprocesses_on_the_images_grid_and_can_be_told_not_to(tmp_path: Path) -> None:
    steps = (smallest(0.05, 2), largest(1))
    bundle = write_small_bundle(tmp_path / "small.veloxseg", postprocessing=steps)
    images = []
    for channel in range(2):
        data = np.random.default_rng(channel).normal(0, 80, (20, 24, 28)).astype(np.float32)
        images.append(tmp_path / f"a_{channel:04d}.nii.gz")
        write_volume(images[-1], Volume(data=data, spacing_zyx=(3.0, 2.0, 2.5)))

    raw = veloxseg.load(bundle).predict(images, postprocessing=False)
    predict(bundle, images, tmp_path / "raw" / "a.nii.gz", postprocessing=False)
    done = predict(bundle, images, tmp_path / "done" / "a.nii.gz")

    expected = postprocess_mask(raw.mask, steps, spacing_zyx=(3.0, 2.0, 2.5))
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(raw.mask)
    np.testing.assert_array_equal(read_volume(tmp_path / "raw" / "a.nii.gz").data, raw.mask)
    np.testing.assert_array_equal(read_volume(done.masks[0]).data, expected)
    row = done.volumes[1].read_text().splitlines()[1]
    liver, lesion = ((expected == value).sum() * 0.015 for value in (1, 2))
    assert row == f"a,{liver:.4f},{lesion:.4f}"
