import numpy as np
import pydicom
import pytest

from dicom_files import SAGITTAL, oblique, uid, write_structures
from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.dicom.contours import rasterise
from veloxseg.volumes.dicom.index import index_dicom
from veloxseg.volumes.dicom.rtstruct import read_structure_set, roi_mask
from veloxseg.volumes.dicom.stacking import stack_slices
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Grid

GRID = Grid(size_zyx=(5, 8, 10), spacing_zyx=(3.0, 2.0, 1.5), origin_xyz=(-7.0, 11.0, 40.0))


def on(grid, corners, z):
    """Positions in mm of corners (x, y in voxels) in slice ``z``."""
    index = np.array([(z, y, x) for x, y in corners], dtype=float)
    return grid.positions_xyz(index)


def box(x0, x1, y0, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def fill(*contours, grid=GRID):
    return rasterise(contours, grid, where="ROI")


def test_a_box_holds_the_voxels_whose_centres_lie_in_it():
    inside = fill(on(GRID, box(1.5, 4.5, 2.5, 5.5), 2))
    expected = np.zeros(GRID.size_zyx, bool)
    expected[2, 3:6, 2:5] = True
    np.testing.assert_array_equal(inside, expected)


def test_a_triangle_is_counted_by_hand():
    inside = fill(on(GRID, [(0.5, 0.5), (6.5, 0.5), (0.5, 6.5)], 0))
    # x + y < 7 with x, y >= 1: 5 + 4 + 3 + 2 + 1 centres, and those on the slanted edge are out.
    expected = np.zeros((8, 10), bool)
    for y in range(1, 6):
        expected[y, 1 : 7 - y] = True
    np.testing.assert_array_equal(inside[0], expected)


def test_neighbours_that_share_an_edge_neither_overlap_nor_leave_a_gap():
    rng = np.random.default_rng(0)
    middle = [(x, y) for x, y in zip(rng.uniform(3, 6, 9), np.linspace(-1, 9, 9), strict=True)]
    middle[4] = (5.0, 4.0)  # a corner on a voxel's centre
    left = fill(on(GRID, [(-1, -1), *middle, (-1, 9)], 1))
    right = fill(on(GRID, [(11, -1), *middle, (11, 9)], 1))
    np.testing.assert_array_equal(left[1] ^ right[1], np.ones((8, 10), bool))
    assert not (left & right).any()


@pytest.mark.parametrize("flip", [False, True])
def test_the_sense_of_rotation_does_not_matter(flip):
    corners = box(1.5, 4.5, 2.5, 5.5)
    inside = fill(on(GRID, corners[::-1] if flip else corners, 2))
    assert inside.sum() == 9


def test_a_contour_within_another_is_a_hole_and_one_within_that_is_filled():
    inside = fill(
        on(GRID, box(0.5, 8.5, 0.5, 6.5), 3),
        on(GRID, box(1.5, 7.5, 1.5, 5.5), 3),
        on(GRID, box(3.5, 5.5, 2.5, 4.5), 3),
    )
    assert inside[3].sum() == 8 * 6 - 6 * 4 + 2 * 2
    assert inside[3, 3, 4]
    assert not inside[3, 2, 2]


def test_a_keyhole_is_the_same_as_two_contours():
    keyhole = [
        (0.5, 0.5), (8.5, 0.5), (8.5, 6.5), (0.5, 6.5), (0.5, 0.5),
        (1.5, 1.5), (7.5, 1.5), (7.5, 5.5), (1.5, 5.5), (1.5, 1.5),
    ]  # fmt: skip
    inside = fill(on(GRID, keyhole, 3))
    assert inside[3].sum() == 8 * 6 - 6 * 4


def test_a_contour_is_cut_at_the_border_of_the_grid():
    inside = fill(on(GRID, box(-30, 2.5, -30, 30), 4))
    assert inside[4, :, :3].all()
    assert inside.sum() == 8 * 3
    assert not fill(on(GRID, box(20, 30, 1, 5), 4)).any()


def test_a_contour_a_little_off_its_slice_goes_to_the_nearest():
    inside = fill(on(GRID, box(1.5, 4.5, 2.5, 5.5), 1.98), on(GRID, box(1.5, 4.5, 2.5, 5.5), 3.03))
    assert inside.any(axis=(1, 2)).tolist() == [False, False, True, True, False]


def test_contours_of_a_slice_whose_depths_were_rounded_apart_are_all_drawn():
    inside = fill(
        on(GRID, box(0.5, 2.5, 2.5, 5.5), 1.98),
        on(GRID, box(3.5, 5.5, 2.5, 5.5), 2),
        on(GRID, box(6.5, 8.5, 2.5, 5.5), 2.03),
        on(GRID, box(6.5, 8.5, 2.5, 5.5), 3.02),
    )
    assert inside[2].sum() == 3 * 6
    assert inside[3].sum() == 6
    assert not inside[[0, 1, 4]].any()


def test_contours_finer_than_the_slices_are_thinned_to_the_nearest():
    boxes = [on(GRID, box(0.5, 1.5 + plane, 0.5, 2.5), plane / 2) for plane in range(5)]
    inside = fill(*boxes)
    assert inside.sum(axis=(1, 2)).tolist() == [2, 6, 10, 0, 0]


def test_a_contour_midway_between_two_slices_goes_to_the_higher():
    inside = fill(on(GRID, box(0.5, 2.5, 0.5, 2.5), 2.5))
    assert inside.any(axis=(1, 2)).tolist() == [False, False, False, True, False]


def test_contours_coarser_than_the_slices_fill_those_between():
    boxes = [on(GRID, box(0.5, 2.5, 0.5, 2.5), plane) for plane in (0, 2, 4)]
    assert fill(*boxes).any(axis=(1, 2)).all()


def test_where_a_contour_was_left_out_nothing_is():
    grid = Grid(size_zyx=(9, 8, 10), spacing_zyx=(3.0, 2.0, 1.5), origin_xyz=(-7.0, 11.0, 40.0))
    boxes = [on(grid, box(0.5, 2.5, 0.5, 2.5), plane) for plane in (0, 1, 2, 6, 7, 8)]
    inside = fill(*boxes, grid=grid)
    assert np.flatnonzero(inside.any(axis=(1, 2))).tolist() == [0, 1, 2, 6, 7, 8]


def test_a_ball_on_an_oblique_grid_has_its_volume():
    row, column = np.reshape(oblique(seed=5), (2, 3))
    matrix = np.stack([row, column, np.cross(row, column)], axis=1)
    grid = Grid(
        size_zyx=(30, 40, 40),
        spacing_zyx=(1.0, 0.8, 0.9),
        origin_xyz=(3.0, -8.0, 5.0),
        direction=tuple(matrix.flat),
    )
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    contours = []
    for z in range(30):
        radius = np.sqrt(max(0.0, 100 - (z - 15.0) ** 2))
        if radius > 0:
            x, y = 18 + radius / 0.9 * np.cos(angles), 20 + radius / 0.8 * np.sin(angles)
            contours.append(on(grid, list(zip(x, y, strict=True)), z))
    inside = rasterise(contours, grid, where="ROI")
    index = np.stack(np.indices(grid.size_zyx), axis=-1)
    offset = (index - (15, 20, 18)) * grid.spacing_zyx
    ball = (offset**2).sum(axis=-1) < 100
    overlap = 2 * (inside & ball).sum() / (inside.sum() + ball.sum())
    assert overlap > 0.995  # polygons lie within their circles, by 1 um here
    assert inside.sum() * 0.72 / 1000 == pytest.approx(4 / 3 * np.pi, rel=0.01)


def test_contours_across_the_slices_are_refused():
    upright = GRID.positions_xyz(np.array([(0, 2, 2), (3, 2, 2), (3, 2, 6), (0, 2, 6)]))
    with pytest.raises(GeometryError, match=r"ROI: a contour of 4 points crosses 3 slices"):
        fill(upright)


def test_regions_are_read_by_name(tmp_path):
    path = write_structures(
        tmp_path / "rs",
        {"GTV": [on(GRID, box(1.5, 4.5, 2.5, 5.5), 2)], "Empty": []},
        series_uid=uid("series", "CT"),
    )
    structures = read_structure_set(path)
    assert [roi.name for roi in structures.rois] == ["GTV", "Empty"]
    assert structures.series_uids == (uid("series", "CT"),)
    gtv, empty = structures.rois
    assert roi_mask(gtv, GRID, frame_of_reference_uid=uid("frame"), where="rs").sum() == 9
    assert not roi_mask(empty, GRID, frame_of_reference_uid=uid("frame"), where="rs").any()


def test_points_enclose_nothing_and_are_counted(tmp_path):
    path = write_structures(
        tmp_path / "rs", {"Mark": [on(GRID, [(3, 3)], 2)]}, geometric_type="POINT"
    )
    (mark,) = read_structure_set(path).rois
    assert (len(mark.contours), mark.num_others) == (0, 1)


def test_another_frame_of_reference_is_an_error_with_both(tmp_path):
    path = write_structures(
        tmp_path / "rs", {"GTV": [on(GRID, box(1, 4, 2, 5), 2)]}, frame_uid=uid("elsewhere")
    )
    (roi,) = read_structure_set(path).rois
    with pytest.raises(GeometryError) as error:
        roi_mask(roi, GRID, frame_of_reference_uid=uid("frame"), where="rs")
    assert uid("elsewhere") in str(error.value)
    assert uid("frame") in str(error.value)


def test_what_is_no_structure_set_is_refused(tmp_path):
    path = write_structures(tmp_path / "rs", {"GTV": [on(GRID, box(1, 4, 2, 5), 2)]})
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    dataset.save_as(path)
    with pytest.raises(ImageReadError, match="rs: no readable DICOM file"):
        read_structure_set(path)
    del dataset.StructureSetROISequence
    dataset.save_as(path)
    with pytest.raises(ImageReadError, match="rs: no readable DICOM file"):
        read_structure_set(path)


def test_the_drawn_sarcoma_is_the_known_mask(shared):
    folder = shared / "data/dicom/pet/STS_001/FDG_PET"
    (series,) = index_dicom(folder).studies[0].series
    grid = stack_slices(series.slices, where="PET").grid
    (path,) = (folder / "mask").iterdir()
    roi = next(roi for roi in read_structure_set(path).rois if roi.name == "GTV_Mass")
    inside = roi_mask(roi, grid, frame_of_reference_uid="", where="rs")
    known = read_volume(shared / "data/sts/STS_001/PET_mask.nii.gz")
    first = (np.array(known.origin_xyz) - grid.origin_xyz) @ grid.matrix()
    z, y, x = np.rint(first[::-1] / grid.spacing_zyx).astype(int)
    depth, height, width = known.data.shape
    crop = inside[z : z + depth, y : y + height, x : x + width]
    assert known.data.sum() == 5095
    assert inside.sum() == crop.sum()
    np.testing.assert_array_equal(crop, known.data > 0)


def test_sagittal_contours_fit_a_sagittal_grid():
    row, column = np.reshape(SAGITTAL, (2, 3))
    matrix = np.stack([row, column, np.cross(row, column)], axis=1)
    grid = Grid(
        size_zyx=(5, 8, 10),
        spacing_zyx=(3.0, 2.0, 1.5),
        origin_xyz=(0.0, 0.0, 0.0),
        direction=tuple(matrix.flat),
    )
    inside = fill(on(grid, box(1.5, 4.5, 2.5, 5.5), 2), grid=grid)
    assert inside[2, 3:6, 2:5].all()
    assert inside.sum() == 9
