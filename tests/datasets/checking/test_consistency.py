from pathlib import Path

import nibabel
import numpy as np
import pytest

from small_datasets import describe, put_case, set_header, sound_dataset
from veloxseg.datasets.cases import Case
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.checking.case import CheckedCase
from veloxseg.datasets.checking.consistency import check_consistency, orientation
from veloxseg.datasets.description import validate_description
from veloxseg.volumes.reading import read_grid
from veloxseg.volumes.volume import Grid

LPS = (1, 0, 0, 0, 1, 0, 0, 0, 1)
RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)


def description(**change):
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return validate_description(content | change, where="test")


def grid(spacing=(3.0, 1.0, 1.0), size=(10, 50, 60), direction=LPS):
    return Grid(size_zyx=size, spacing_zyx=spacing, origin_xyz=(0, 0, 0), direction=direction)


def check(grids, **change):
    cases = [
        CheckedCase(
            case=Case(name=f"c{index}", images=(Path("x"),), label=None),
            part="Tr",
            channels=("CT",),
            problems=(),
            grid=one,
            has_place=True,
            label_values=frozenset(),
            hashes={},
        )
        for index, one in enumerate(grids)
    ]
    return list(check_consistency(cases, description(**change)))


def test_cases_of_one_protocol_have_no_outlier():
    assert check([grid()] * 12) == []


def test_a_spacing_five_times_the_median_is_an_outlier():
    (problem,) = check([*[grid(size=(40, 50, 60))] * 9, grid(spacing=(15.0, 1.0, 1.0))])
    assert (problem.kind, problem.case) == ("spacing_outlier", "c9")
    assert "15 mm; the median of the dataset is 3 mm" in problem.message
    assert "feet to head" in problem.message
    assert problem.numbers["spacing_zyx_mm"] == [15.0, 1.0, 1.0]
    assert problem.numbers["median_spacing_zyx_mm"] == [3.0, 1.0, 1.0]


def test_spacings_that_vary_over_the_dataset_have_no_outlier():
    thicknesses = [0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0]
    assert check([grid(spacing=(z, 1, 1), size=(int(300 / z), 50, 60)) for z in thicknesses]) == []


def test_a_small_deviation_is_no_outlier_however_alike_the_others_are():
    assert check([*[grid()] * 20, grid(spacing=(4.0, 1.0, 1.0))]) == []


def test_axes_are_compared_along_the_patient():
    sagittal = (0, 0, 1, 1, 0, 0, 0, 1, 0)  # x to posterior, y to superior, z to left
    turned = grid(spacing=(1.0, 3.0, 1.0), size=(60, 10, 50), direction=sagittal)
    assert {problem.kind for problem in check([*[grid()] * 9, turned])} == {"orientation_differs"}


def test_an_extent_of_a_third_is_an_outlier_as_when_slices_are_missing():
    problems = check([*[grid(size=(40, 50, 60))] * 9, grid(size=(10, 50, 60))])
    assert [(problem.kind, problem.case) for problem in problems] == [("extent_outlier", "c9")]
    assert "30 mm; the median of the dataset is 120 mm" in problems[0].message


def test_of_four_cases_none_can_be_called_odd():
    assert check([*[grid()] * 3, grid(spacing=(30.0, 1.0, 1.0))]) == []


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAS", "PIR", "ASL", "SRP", "IAR"])
def test_the_orientation_is_that_of_nibabel(codes, tmp_path):
    affine = np.eye(4) * (0, 0, 0, 1)
    for axis, (patient, sense) in enumerate(nibabel.orientations.axcodes2ornt(codes)):
        affine[int(patient), axis] = sense
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), affine), tmp_path / "x.nii.gz")
    assert "".join(nibabel.aff2axcodes(affine)) == codes
    assert orientation(read_grid(tmp_path / "x.nii.gz")) == codes


def test_cases_whose_axes_run_otherwise_are_listed_in_one_warning():
    (problem,) = check([*[grid()] * 7, *[grid(direction=RAS)] * 6])
    assert (problem.kind, problem.severity, problem.case) == (
        "orientation_differs",
        "warning",
        None,
    )
    assert "Cases c7, c8, c9, c10, c11 and 1 more: the axes run to RAS" in problem.message
    assert problem.numbers["usual"] == "LPS"
    assert len(problem.numbers["cases"]) == 6


def test_orientations_may_differ_where_nnunets_reader_turns_them():
    grids = [*[grid()] * 7, grid(direction=RAS)]
    assert check(grids, overwrite_image_reader_writer="NibabelIOWithReorient") == []


def test_a_flipped_case_of_a_dataset_is_found_whole(tmp_path):
    folder = sound_dataset(tmp_path)
    put_case(folder, "tumour_006", 6, direction=RAS)
    describe(folder, numTraining=6)
    (problem,) = check_dataset(folder).problems
    assert (problem.kind, problem.numbers["cases"]) == ("orientation_differs", ["tumour_006"])


def test_headers_without_a_place_are_listed_in_one_warning(tmp_path):
    folder = sound_dataset(tmp_path)
    for path in folder.glob("*Tr/*"):
        set_header(path, qform_code=0, sform_code=0)
    (problem,) = check_dataset(folder).problems
    assert (problem.kind, len(problem.numbers["cases"])) == ("no_place", 5)
