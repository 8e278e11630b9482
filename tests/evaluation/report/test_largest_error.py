import numpy as np
import pytest

from veloxseg.evaluation.report.largest_error import find_largest_error, label_values
from veloxseg.evaluation.report.views import crop_to_view, view_of
from veloxseg.volumes.volume import Grid, Volume

SHAPE = (10, 20, 30)
GRID = Grid(size_zyx=SHAPE, spacing_zyx=(5.0, 2.0, 1.0), origin_xyz=(-10.0, 0.0, 100.0))


def masks() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)


def find(prediction, reference, labels=((1,),), grid=GRID):
    return find_largest_error(prediction, reference, labels=labels, grid=grid)


def test_the_larger_of_two_errors_is_found_on_the_slice_with_most_of_it():
    predicted, referred = masks()
    predicted[1, 1, 1:4] = 1  # 3 voxels made up
    referred[5, 5:8, 5:8] = 1  # 9 + 15 voxels missed
    referred[6, 5:8, 5:10] = 1
    found = find(predicted, referred)
    assert found.index_zyx[0] == 6
    assert found.index_zyx[1:] == (6, 7)  # the middle row and column of 3 x 5 voxels
    assert found.error_ml == pytest.approx(24 * 10 / 1000)
    assert (found.first_zyx, found.last_zyx) == ((5, 5, 5), (6, 7, 9))


def test_the_point_lies_within_the_error_where_the_middle_of_it_does_not():
    predicted, referred = masks()
    referred[4, 4:16, 4:20] = 1
    predicted[4, 6:14, 6:18] = 1  # a frame two voxels wide is missed
    found = find(predicted, referred)
    assert referred[found.index_zyx] != predicted[found.index_zyx]


def test_slices_are_counted_along_the_patient_whatever_the_axes_of_the_array():
    predicted, referred = masks()
    referred[2:8, 3, 3:6] = 1  # y is the patient's height here: 18 voxels on y 3, 6 on y 4
    referred[2:8, 4, 3] = 1
    turned = Grid(
        size_zyx=SHAPE,
        spacing_zyx=(1.0, 1.0, 1.0),
        origin_xyz=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    )
    assert find(predicted, referred, grid=turned).index_zyx[1] == 3


def test_confusing_two_labels_is_an_error_and_confusing_values_of_one_region_is_none():
    predicted, referred = masks()
    predicted[3, 3, 3:6], referred[3, 3, 3:6] = 1, 2
    assert find(predicted, referred, labels=[(1,), (2,)]).error_ml == pytest.approx(0.03)
    assert find(predicted, referred, labels=[(1, 2)]).error_ml == 0
    assert find(predicted, referred, labels=[(1, 2), (2,)]).error_ml == pytest.approx(0.03)


def test_nothing_is_wrong_where_the_reference_is_ignored():
    predicted, referred = masks()
    predicted[3, 3, 3:6], referred[3, 3, 3:6] = 1, 9
    predicted[3, 3, 6] = 1
    assert find(predicted, referred).index_zyx == (3, 3, 6)


def test_without_an_error_the_point_is_in_the_reference_or_the_middle():
    predicted, referred = masks()
    assert find(predicted, referred).index_zyx == (5, 10, 15)
    predicted[2, 3:6, 4:7] = referred[2, 3:6, 4:7] = 1
    found = find(predicted, referred)
    assert (found.index_zyx, found.error_ml) == ((2, 4, 5), 0)


def test_the_values_of_a_label_and_of_a_region_are_read_from_their_keys():
    assert label_values("3") == (3,)
    assert label_values("(1, 12)") == (1, 12)


def test_a_view_reaches_two_centimetres_around_the_structure_and_ends_with_the_image():
    predicted, referred = masks()
    referred[4:6, 4:6, 10:12] = 1
    view = view_of(find(predicted, referred), GRID)
    # x: voxels 10 and 11 at 0 and 1 mm; 60 mm about them are cut at the image's edges.
    assert view.low_xyz == (-10.5, -1.0, 97.5)
    assert view.high_xyz == (19.5, 39.0, 147.5)
    assert view.pixel_mm == pytest.approx(0.5)  # half of the smallest voxel's edge
    large = Grid(size_zyx=(200, 300, 300), spacing_zyx=(1.0, 1.0, 1.0), origin_xyz=(0, 0, 0))
    referred = np.zeros(large.size_zyx, np.uint8)
    referred[100:150, 100:102, 100:102] = 1
    view = view_of(find(np.zeros_like(referred), referred, grid=large), large)
    assert view.low_xyz == (70.5, 70.5, 80.0)
    assert view.high_xyz == (130.5, 130.5, 169.0)


def test_a_crop_holds_the_same_values_at_the_same_positions():
    data = np.random.default_rng(0).random((20, 80, 100))
    origin = (99.0, 158.0, 0.0)
    direction = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    flipped = Volume(data=data, spacing_zyx=(5.0, 2.0, 1.0), origin_xyz=origin, direction=direction)
    referred = np.zeros(data.shape, np.uint8)
    referred[4, 40, 50] = 1
    view = view_of(find(np.zeros_like(referred), referred, grid=flipped.grid), flipped.grid)
    part = crop_to_view(flipped, view)
    x, y, z = np.round((np.array(part.origin_xyz) - origin) * (-1, -1, 1) / (1, 2, 5)).astype(int)
    assert part.data[0, 0, 0] == data[z, y, x]
    assert part.data.size < data.size / 2
    away = Volume(data=data, spacing_zyx=(5.0, 2.0, 1.0), origin_xyz=(500.0, 0.0, 0.0))
    assert crop_to_view(away, view) is None
