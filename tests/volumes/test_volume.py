import numpy as np
import pytest

from veloxseg.errors import GeometryError
from veloxseg.volumes.volume import (
    CORNER_TOLERANCE_MM,
    Grid,
    Volume,
    describe_difference,
    describe_grid,
    same_grid,
)

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def grid(
    size=(4, 5, 6),
    spacing=(3.0, 1.0, 0.5),
    origin=(10.0, 20.0, 30.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
):
    return Grid(size_zyx=size, spacing_zyx=spacing, origin_xyz=origin, direction=direction)


def test_positions_of_an_axis_aligned_grid_follow_from_its_spacing_by_hand():
    assert grid().positions_xyz((1, 2, 4)).tolist() == [10 + 4 * 0.5, 20 + 2 * 1, 30 + 1 * 3]


def test_positions_of_a_turned_grid_follow_its_direction_columns():
    # Column 0 of the matrix is (0, 1, 0): x of the array grows along the patient's y.
    turned = grid(direction=TURNED)
    assert turned.positions_xyz((0, 0, 2)).tolist() == [10, 20 + 2 * 0.5, 30]
    assert turned.positions_xyz((0, 3, 0)).tolist() == [10 - 3 * 1, 20, 30]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 5, 6)},
        {"spacing": (3.0, 0.0, 1.0)},
        {"spacing": (3.0, float("nan"), 1.0)},
        {"spacing": (3.0, 1.0)},
        {"origin": (float("inf"), 0.0, 0.0)},
        {"direction": (1.0, 0.2, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)},
        {"direction": (1.0, 0.0, 0.0)},
    ],
)
def test_an_illegal_grid_is_refused(wrong):
    with pytest.raises(GeometryError):
        grid(**wrong)


def test_a_volume_knows_its_grid_and_a_grid_its_volume():
    volume = Volume.on_grid(np.zeros((4, 5, 6)), grid(direction=TURNED))
    assert volume.grid == grid(direction=TURNED)


def test_data_that_do_not_fit_a_grid_are_refused():
    with pytest.raises(GeometryError, match="4 x 5 x 6 voxels"):
        Volume.on_grid(np.zeros((6, 5, 4)), grid())


def test_a_volume_of_two_axes_is_refused():
    with pytest.raises(GeometryError, match=r"\(Z, Y, X\)"):
        Volume(data=np.zeros((5, 6)), spacing_zyx=(1.0, 1.0, 1.0))


def test_grids_within_the_corner_tolerance_are_the_same_and_beyond_it_are_not():
    near = grid(origin=(10.0 + 0.9 * CORNER_TOLERANCE_MM, 20.0, 30.0))
    far = grid(origin=(10.0 + 1.1 * CORNER_TOLERANCE_MM, 20.0, 30.0))
    assert same_grid(grid(), near)
    assert not same_grid(grid(), far)


def test_spacings_that_nnunet_would_refuse_are_not_the_same_though_the_corners_are_near():
    # 4 slices: the corners move by 3 * 6e-5 mm only; nnU-Net compares with 1e-5 of the spacing.
    assert not same_grid(grid(), grid(spacing=(3.00006, 1.0, 0.5)))


def test_a_flip_about_the_origin_is_another_grid():
    flipped = grid(direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    assert not same_grid(grid(), flipped)
    assert "x to left" in describe_difference("CT", grid(), "PET", flipped)
    assert "x to right" in describe_difference("CT", grid(), "PET", flipped)


def test_a_difference_in_spacing_is_described_as_the_house_style_has_it():
    text = describe_difference(
        "CT", grid(spacing=(3.0, 1.0, 1.0)), "PET", grid(spacing=(3.0, 0.8, 0.5))
    )
    assert text == "CT has spacing 3 x 1 x 1 mm (z, y, x), PET has 3 x 0.8 x 0.5 mm (z, y, x)"


def test_differences_in_size_and_origin_are_described():
    assert "size 4 x 5 x 6 voxels" in describe_difference("a", grid(), "b", grid(size=(4, 5, 7)))
    moved = describe_difference("a", grid(), "b", grid(origin=(13.0, 24.0, 30.0)))
    assert "origin 10, 20, 30 mm" in moved
    assert "5 mm apart" in moved


def test_a_grid_is_described_with_size_spacing_origin_and_axes():
    assert describe_grid(grid()) == (
        "4 x 5 x 6 voxels of 3 x 1 x 0.5 mm (z, y, x), origin 10, 20, 30 mm (x, y, z; LPS), "
        "axes z to superior, y to posterior, x to left"
    )
    angle = np.radians(10)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    assert "x to left tilted 10 degrees" in describe_grid(
        grid(direction=(c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
    )
