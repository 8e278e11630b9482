import numpy as np
import pytest

from veloxseg.datasets.converters.target_grid import common_view, with_spacing
from veloxseg.errors import GeometryError
from veloxseg.volumes.volume import Grid, same_grid

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""x runs to posterior, y to the right, z to inferior."""


def grid(size, spacing, origin=(0.0, 0.0, 0.0), direction=None):
    where = {"size_zyx": size, "spacing_zyx": spacing, "origin_xyz": origin}
    return Grid(**where, **({} if direction is None else {"direction": direction}))


def corners_of_view(of):
    """First and last corner of the field of view, half a voxel beyond the voxel centres."""
    return of.positions_xyz([[-0.5] * 3, [size - 0.5 for size in of.size_zyx]])


@pytest.mark.parametrize("direction", [None, TURNED])
def test_a_new_spacing_keeps_the_field_of_view(direction):
    before = grid((10, 20, 30), (3.0, 0.5, 2.0), (-7.0, 11.0, 40.0), direction)
    after = with_spacing(before, (1.0, 1.0, 1.0))
    assert after.size_zyx == (30, 10, 60)
    assert after.spacing_zyx == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(corners_of_view(after), corners_of_view(before), atol=1e-12)


def test_a_size_that_is_not_whole_is_rounded_and_one_corner_stays():
    before = grid((3, 1, 4), (2.5, 0.3, 1.0))
    after = with_spacing(before, (1.0, 1.0, 1.0))
    assert after.size_zyx == (8, 1, 4)  # 7.5 mm, 0.3 mm, 4 mm
    np.testing.assert_allclose(corners_of_view(after)[0], corners_of_view(before)[0])


def test_the_same_spacing_changes_nothing():
    before = grid((5, 6, 7), (3.0, 1.0, 1.0), (1.0, 2.0, 3.0), TURNED)
    assert same_grid(with_spacing(before, before.spacing_zyx), before)


def test_the_common_view_keeps_the_voxels_whose_centres_lie_in_both():
    ct = grid((10, 10, 10), (1.0, 1.0, 1.0))
    # From 1.5 to 5.5 mm in x, 3 to 23 in y, -1 to 29 in z.
    pet = grid((10, 5, 1), (3.0, 4.0, 4.0), (3.5, 5.0, 0.5))
    common = common_view(ct, [ct, pet])
    assert common.size_zyx == (10, 7, 4)  # z 0..9, y 3..9, x 2..5
    assert common.origin_xyz == (2.0, 3.0, 0.0)


def test_the_common_view_of_turned_grids_is_the_same_place():
    ct = grid((8, 9, 10), (2.0, 1.0, 1.0), (5.0, -3.0, 2.0))
    # x to posterior, y to the right, z to inferior: covers x 6..11, y -3..3, z 5..13 mm.
    turned = grid((9, 6, 7), (1.0, 1.0, 1.0), (11.0, -3.0, 13.0), TURNED)
    common = common_view(ct, [turned])
    low, high = common.positions_xyz([[0, 0, 0], np.array(common.size_zyx) - 1])
    np.testing.assert_allclose(low, (6.0, -3.0, 6.0))  # z: centres at 2, 4, 6, ...
    np.testing.assert_allclose(high, (11.0, 3.0, 12.0))


def test_the_common_view_with_itself_is_itself():
    ct = grid((8, 9, 10), (2.0, 1.0, 0.7), (5.1, -3.3, 2.7), TURNED)
    assert common_view(ct, [ct]) == ct


def test_fields_of_view_without_common_voxel_are_an_error():
    ct = grid((8, 9, 10), (1.0, 1.0, 1.0))
    with pytest.raises(GeometryError, match="no voxel in common"):
        common_view(ct, [grid((8, 9, 10), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0))])
