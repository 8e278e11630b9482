"""Planning rules one by one."""

import math

import pytest

from veloxseg.planning.rules import (
    coarser_stem,
    cut_view,
    group_width,
    modality_groups,
    stage_strides,
    visible_stem,
    whole_patch,
    window,
    without_padding,
)

ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("structure", "stem"),
    [(3.9, 1), (4.0, 1), (7.9, 1), (8.0, 2), (15.9, 2), (16.0, 4), (math.inf, 4)],
)
def test_the_smallest_structures_keep_four_cells(structure, stem):
    assert visible_stem((64, 64, 64), (structure,) * 3, ISOTROPIC)[0] == (stem,) * 3


def test_cells_are_nearly_cubes_where_slices_are_thick():
    stem, largest = visible_stem((64, 256, 256), (40.0, 40.0, 40.0), (3.0, 1.0, 1.0))
    assert largest == (4, 4, 4)
    assert stem == (2, 4, 4)  # 6 x 4 x 4 mm; 12 x 4 x 4 would be three times as long as wide


def test_a_stride_of_one_is_allowed_however_thick_the_slices():
    assert visible_stem((24, 256, 256), (40.0, 40.0, 40.0), (9.0, 0.5, 0.5))[0] == (1, 4, 4)


def test_a_short_axis_keeps_four_cells():
    assert visible_stem((8, 64, 64), (math.inf,) * 3, ISOTROPIC)[1] == (2, 4, 4)


def test_a_stem_grows_first_where_structures_stay_visible_then_on_all_fine_axes():
    view = (64, 64, 64)
    assert coarser_stem((1, 4, 4), (4, 4, 4), view, ISOTROPIC) == ((2, 4, 4), True)
    assert coarser_stem((2, 2, 2), (2, 2, 2), view, ISOTROPIC) == ((4, 4, 4), False)
    assert coarser_stem((1, 2, 2), (1, 2, 2), view, (4.0, 1.0, 1.0)) == ((1, 4, 4), False)
    assert coarser_stem((4, 4, 4), (4, 4, 4), view, ISOTROPIC) is None
    assert coarser_stem((2, 2, 2), (2, 2, 2), (8, 64, 64), ISOTROPIC) is None


def test_the_view_is_cut_along_its_physically_longest_axis_down_to_eight_voxels():
    assert cut_view((64, 64, 64), (1.0, 2.0, 1.0)) == (64, 62, 64)
    assert cut_view((9, 8, 8), ISOTROPIC) == (8, 8, 8)
    assert cut_view((8, 8, 8), ISOTROPIC) is None


def test_axes_halve_until_the_grid_is_small_and_coarse_axes_wait():
    assert stage_strides((24, 24, 24), ISOTROPIC) == ((2, 2, 2),) * 3
    assert stage_strides((24, 24, 24), (4.0, 1.0, 1.0)) == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert stage_strides((3, 6, 6), ISOTROPIC) == ((1, 2, 2),)
    assert stage_strides((2, 2, 2), ISOTROPIC) == ((1, 1, 1),)


def test_a_patch_is_whole_cells_of_the_deepest_grid():
    assert whole_patch((36, 50, 35), (2, 2, 2), ((2, 2, 2), (2, 2, 2))) == (40, 56, 40)
    assert whole_patch((96, 96, 96), (4, 4, 4), ((2, 2, 2),) * 3) == (96, 96, 96)
    # nine cells are no window times a power of two: ten, which are five times two
    assert whole_patch((9, 8, 8), (1, 1, 1), ()) == (10, 8, 8)


def test_a_last_stage_that_pads_the_patch_by_more_than_a_quarter_is_left_out():
    strides = ((2, 2, 2),) * 3
    assert without_padding((36, 50, 35), (2, 2, 2), strides) == strides[:2]
    assert without_padding((96, 96, 96), (4, 4, 4), strides) == strides


@pytest.mark.parametrize("modalities", [1, 2])
def test_group_widths_are_the_published_ones_at_the_published_sizes(modalities):
    widths = [group_width(2**power, num_modalities=modalities) for power in (6, 9, 12, 15)]
    assert widths == [4, 8, 8, 16]


def test_group_widths_grow_with_compression_within_their_bounds():
    widths = [group_width(v, num_modalities=1) for v in (1, 8, 64, 512, 2**15, 2**40)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (4, 16)


@pytest.mark.parametrize(
    ("grid", "wanted", "expected"),
    [
        ((24, 24, 24), 3, (3, 3, 3)),
        ((12, 12, 12), 6, (6, 6, 6)),
        ((32, 32, 16), 3, (4, 4, 4)),
        ((1, 2, 7), 3, (1, 2, 7)),
        ((20, 10, 5), 3, (5, 5, 5)),
    ],
)
def test_a_window_is_the_grid_divided_by_the_power_of_two_nearest_to_the_wanted(
    grid, wanted, expected
):
    assert window(grid, wanted) == expected


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["CT"], (1,)),
        (["CT", "PET"], (1, 1)),
        (["PET", "CT"], (1, 1)),
        (["ct", "SUV"], (1, 1)),
        (["FDG-PET", "CTA"], (1, 1)),
        (["T1", "T1ce", "T2", "FLAIR"], (4,)),
        (["T1", "T2", "PET"], (2, 1)),
        (["CT", "T1", "CT"], (1, 1, 1)),
        (["CT", "CT", "PET", "T2"], (2, 1, 1)),
    ],
)
def test_neighbouring_channels_of_one_kind_are_one_modality(names, groups):
    assert modality_groups(names) == groups
    assert sum(groups) == len(names)
