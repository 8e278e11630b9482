"""Sizes of labelled structures, on volumes made by hand."""

import json

import nibabel
import numpy as np
import pytest

from veloxseg.planning.structures import StructureSizes, component_extents_mm, measure_structures


def test_extents_are_bounding_boxes_in_mm_by_axis():
    label = np.zeros((10, 12, 14), dtype=np.uint8)
    label[1:4, 2:8, 5:7] = 1
    extents = component_extents_mm(label, [1], (3.0, 0.5, 2.0))
    np.testing.assert_allclose(extents, [[9.0, 3.0, 4.0]])


def test_apart_components_and_labels_are_measured_apart():
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    label[0:2, 0:2, 0:2] = 1
    label[4:8, 0:2, 0:2] = 1
    label[2:4, 0:2, 0:2] = 2  # touches both, and joins neither
    extents = component_extents_mm(label, [1, 2], (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(extents, [[2, 2, 2], [4, 2, 2], [2, 2, 2]])


def test_voxels_that_touch_at_a_corner_are_one_component():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = 1
    np.testing.assert_array_equal(component_extents_mm(label, [1], (1, 1, 1)), [[2, 2, 2]])


def test_specks_of_one_voxel_and_labels_not_asked_for_are_left_out():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[0, 0, 0] = 1
    label[2:4] = 7
    assert component_extents_mm(label, [1], (1, 1, 1)).shape == (0, 3)
    assert component_extents_mm(label, [], (1, 1, 1)).shape == (0, 3)


def test_a_line_of_voxels_is_a_structure():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[0, 0, 0:2] = 1
    np.testing.assert_array_equal(component_extents_mm(label, [1], (2, 2, 2)), [[2, 2, 4]])


def write(path, label, spacing_zyx):
    """NIfTI holds (X, Y, Z)."""
    affine = np.diag([*spacing_zyx[::-1], 1.0])
    nibabel.save(nibabel.Nifti1Image(label.transpose(2, 1, 0), affine), path)
    return path


def test_the_smallest_structure_is_the_tenth_percentile_over_all_cases(tmp_path):
    # lengths 2, 4, ..., 22 voxels along z, in two cases of different spacing: 2 to 22 mm
    first, second = np.zeros((2, 90, 8, 8), dtype=np.uint8)
    place = 0
    for length in range(2, 13, 2):
        first[place : place + length, 0:3, 0:4] = 1
        place += length + 1
    place = 0
    for length in range(7, 12):
        second[place : place + length, 0:3, 0:4] = 1
        place += length + 1
    paths = [
        write(tmp_path / "a.nii.gz", first, (1.0, 1.0, 1.0)),
        write(tmp_path / "b.nii.gz", second, (2.0, 1.0, 1.0)),
    ]
    # eleven values 2, 4, ..., 22: the tenth percentile is the second
    found = measure_structures(paths, [1])
    assert found.percentile_10_mm == pytest.approx((4.0, 3.0, 4.0))
    assert found.median_mm == pytest.approx((12.0, 3.0, 4.0))
    assert found.num_components == 11
    assert measure_structures(paths, [1], num_workers=2) == found
    assert StructureSizes.from_json(found.to_json()) == found


def test_where_images_are_turned_when_they_are_read_so_are_the_extents(tmp_path):
    label = np.zeros((12, 12, 12), dtype=np.uint8)
    label[1:4, 1:6, 1:8] = 1  # 3, 5 and 7 voxels along the array's Z, Y and X
    sagittal = np.eye(4)[[2, 0, 1, 3]]  # the array's X, Y and Z run along y, z and x
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label.transpose(2, 1, 0), sagittal), path)
    assert measure_structures([path], [1]).median_mm == pytest.approx((3, 5, 7))
    assert measure_structures([path], [1], turned=True).median_mm == pytest.approx((5, 7, 3))


def test_an_unlabelled_dataset_has_structures_of_infinite_size(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), dtype=np.uint8), (1.0, 1.0, 1.0))
    found = measure_structures([path], [1])
    assert (found.num_components, found.percentile_10_mm) == (0, (float("inf"),) * 3)
    assert StructureSizes.from_json(json.loads(json.dumps(found.to_json()))) == found
