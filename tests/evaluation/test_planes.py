import numpy as np
import pytest

from veloxseg.evaluation.planes import SIDES, box_of, cut, display_window, plane_grid
from veloxseg.volumes.volume import Volume

AXES = {"RAS": (-1, -1, 1), "LPS": (1, 1, 1), "LAI": (1, -1, -1)}


def marked(corner_xyz: tuple[int, int, int], signs: tuple[int, int, int]) -> Volume:
    """4 x 6 x 8 voxels (z, y, x) with one bright voxel, stored along axes of the given signs."""
    data = np.zeros((4, 6, 8), np.float32)
    z, y, x = (-1 if corner else 0 for corner in corner_xyz[::-1])
    data[z, y, x] = 1
    size_mm = (np.array(data.shape[::-1]) - 1) * (2.0, 3.0, 5.0)
    origin = tuple(
        0.0 if sign > 0 else float(size) for sign, size in zip(signs, size_mm, strict=True)
    )
    for axis, sign in enumerate(reversed(signs)):
        data = data if sign > 0 else np.flip(data, axis)
    return Volume(
        data=np.ascontiguousarray(data),
        spacing_zyx=(5.0, 3.0, 2.0),
        origin_xyz=origin,
        direction=tuple(np.diag(signs).astype(float).ravel()),
    )


@pytest.mark.parametrize("signs", AXES.values(), ids=AXES.keys())
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("corner_xyz", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_each_side_of_the_patient_is_shown_where_it_is_said_to_be(plane, corner_xyz, signs):
    volume = marked(corner_xyz, signs)
    low, high = box_of(volume.grid)
    bright = np.where(corner_xyz, high, low)
    grid = plane_grid(plane, low, high, through_xyz=bright, pixel_mm=1.0)
    row, column = np.unravel_index(cut(volume, grid, fill=0).argmax(), grid.size_zyx[1:])
    sides = {0: "RL", 1: "AP", 2: "IS"}
    held = {sides[axis][end] for axis, end in enumerate(corner_xyz)}
    left, right, upper, lower = SIDES[plane]
    assert (left if column == 0 else right) in held
    assert (upper if row == 0 else lower) in held


def test_a_box_reaches_half_a_voxel_further_where_asked():
    volume = marked((0, 0, 0), AXES["LPS"])
    assert np.allclose(box_of(volume.grid), ((0, 0, 0), (14, 15, 15)))
    assert np.allclose(box_of(volume.grid, margin_voxels=0.5), ((-1, -1.5, -2.5), (15, 16.5, 17.5)))


@pytest.mark.parametrize("name", ["CT", "ct", "low-dose CT", "CT_1"])
def test_a_channel_named_ct_is_shown_in_the_soft_tissue_window(name):
    assert display_window(name, np.arange(8)) == (-160, 240)


@pytest.mark.parametrize("name", ["PET", "T1ct", "CTA"])
def test_other_channels_are_shown_from_the_first_to_the_last_percentile(name):
    low, high = display_window(name, np.arange(1001))
    assert (low, high) == (pytest.approx(10), pytest.approx(998))


def test_a_constant_channel_has_a_window_too():
    low, high = display_window("PET", np.zeros((2, 2, 2)))
    assert low < high


def test_an_image_without_a_finite_voxel_has_a_window_too():
    assert display_window("PET", np.full((2, 2, 2), np.nan)) == (0, 1)
