import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import SimpleITK
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from small_datasets import SHAPE, ct, describe, mask, pet, put, put_case, shear, sound_dataset
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.folder import convert_folder
from veloxseg.datasets.problems import Kind
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import read_volume


@pytest.fixture
def dataset(tmp_path):
    """Five sound cases of CT and PET."""
    return sound_dataset(tmp_path)


def only_problem(folder, severity):
    report = check_dataset(folder)
    (problem,) = report.problems
    assert problem.severity == severity
    return problem


def test_a_sound_dataset_has_no_problems_and_its_progress_is_reported(dataset):
    steps = []
    report = check_dataset(dataset, progress=lambda done, total: steps.append((done, total)))
    assert report.problems == []
    assert report.num_cases == 5
    assert steps == [(done, 5) for done in range(1, 6)]
    report.raise_for_errors()


def test_channels_on_different_grids_are_described_with_the_remedy(dataset):
    put(dataset / "imagesTr/tumour_001_0001.nii.gz", pet(), spacing=(3.0, 0.8, 0.5))
    assert only_problem(dataset, "error").message == (
        "Case tumour_001: CT has spacing 3 x 1 x 1 mm (z, y, x), PET has 3 x 0.8 x 0.5 mm "
        "(z, y, x). All channels of a case must share one grid. "
        "Resample first: veloxseg convert folder ... --reference CT"
    )


def test_a_label_on_another_grid_is_an_error(dataset):
    put(dataset / "labelsTr/tumour_002.nii.gz", mask(), origin=(1.0, 0.0, 0.0))
    assert "label has 1, 0, 0 mm" in only_problem(dataset, "error").message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(dataset, value):
    data = pet()
    data[0, 0, :3] = value
    put(dataset / "imagesTr/tumour_001_0001.nii.gz", data)
    problem = only_problem(dataset, "error")
    assert problem.case == "tumour_001"
    assert "PET has 3 voxels that are NaN or infinite" in problem.message


def test_a_label_value_that_is_not_in_dataset_json_is_an_error(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 3)
    assert "values [3]" in only_problem(dataset, "error").message


def test_a_label_between_integers_is_an_error(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * np.float32(0.5))
    assert "Expected integers" in only_problem(dataset, "error").message


def test_integers_stored_as_floats_are_a_warning(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask().astype(np.float32))
    problem = only_problem(dataset, "warning")
    assert (problem.kind, problem.part) == ("label_as_float", "label")


def test_floats_just_below_integers_which_nnunet_cuts_to_zero_are_an_error(dataset):
    path = dataset / "labelsTr/tumour_001.nii.gz"
    put(path, mask() * np.float32(0.99999997))
    problem = only_problem(dataset, "error")
    assert problem.kind == "label_inexact"
    assert problem.numbers["departure"] == pytest.approx(2**-24)
    assert SimpleITKIO().read_seg(str(path))[0].astype(np.int8).max() == 0  # as its preprocessor


def test_an_empty_label_is_a_warning(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 0)
    assert "no foreground" in only_problem(dataset, "warning").message
    check_dataset(dataset).raise_for_errors()


def test_a_constant_channel_is_a_warning(dataset):
    put(dataset / "imagesTr/tumour_001_0000.nii.gz", ct() * 0 + 7)
    assert "every voxel of CT is 7" in only_problem(dataset, "warning").message


def test_a_label_that_no_case_has_is_a_warning(dataset):
    describe(dataset, labels={"background": 0, "tumour": 1, "node": 2})
    assert "[2]" in only_problem(dataset, "warning").message


def test_a_wrong_number_of_cases_is_an_error(dataset):
    describe(dataset, numTraining=3)
    assert "numTraining is 3, but there are 5" in only_problem(dataset, "error").message


@pytest.mark.parametrize("axes", [2, 4])
def test_an_image_of_two_or_four_axes_is_an_error(dataset, axes):
    shape = SHAPE[1:] if axes == 2 else (2, *SHAPE)
    image = SimpleITK.GetImageFromArray(np.ones(shape, np.float32), isVector=False)
    SimpleITK.WriteImage(image, str(dataset / "imagesTr/tumour_001_0000.nii.gz"))
    assert f"has {axes} axes" in only_problem(dataset, "error").message


def test_a_truncated_file_and_a_text_file_are_errors(dataset):
    whole = (dataset / "imagesTr/tumour_001_0000.nii.gz").read_bytes()
    (dataset / "imagesTr/tumour_001_0000.nii.gz").write_bytes(whole[:-50])
    (dataset / "labelsTr/tumour_002.nii.gz").write_text("no image")
    report = check_dataset(dataset)
    assert [problem.case for problem in report.errors] == ["tumour_001", "tumour_002"]


@pytest.mark.parametrize(
    ("file", "part"), [("imagesTr/tumour_001_0001", "PET"), ("labelsTr/tumour_001", "label")]
)
def test_a_sheared_header_that_nnunet_refuses_is_an_error_with_the_remedy(dataset, file, part):
    path = dataset / f"{file}.nii.gz"
    shear(path)
    read_volume(path)
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITKIO().read_images((str(path),))
    refused, moved = check_dataset(dataset).errors
    assert (refused.kind, refused.part) == ("not_orthonormal", part)
    assert refused.message.startswith(f"Case tumour_001, {part}: {path}: ")
    assert "veloxseg convert folder" in refused.message
    assert refused.numbers["departure"] == pytest.approx(0.02, rel=0.01)
    assert (moved.kind, moved.part) == ("grids_nearly_equal", part)


def test_a_sheared_header_is_a_warning_where_nnunet_reads_with_nibabel(dataset):
    for path in dataset.glob("*Tr/tumour_001*"):
        shear(path)
    assert len(check_dataset(dataset).errors) == 3
    describe(dataset, overwrite_image_reader_writer="NibabelIO")
    report = check_dataset(dataset)
    assert report.errors == []
    assert [problem.kind for problem in report.warnings] == ["not_orthonormal"] * 3


@pytest.mark.parametrize(("num_cases", "text"), [(1, "1 training case."), (4, "4 training cases.")])
def test_fewer_cases_than_folds_are_a_warning(dataset, num_cases, text):
    for number in range(num_cases + 1, 6):
        for path in dataset.glob(f"*Tr/tumour_00{number}*"):
            path.unlink()
    describe(dataset, numTraining=num_cases)
    message = only_problem(dataset, "warning").message
    assert text in message
    assert "Train fold all, or write splits_final.json" in message


def test_missing_files_do_not_hide_the_other_cases(dataset):
    (dataset / "imagesTr/tumour_001_0001.nii.gz").unlink()
    put(dataset / "labelsTr/tumour_002.nii.gz", mask() * 3)
    report = check_dataset(dataset)
    assert [problem.case for problem in report.errors] == ["tumour_001", "tumour_002"]
    assert report.num_cases == 4


def test_test_cases_are_checked_too(dataset):
    put(dataset / "imagesTs/new_0000.nii.gz", ct())
    put(dataset / "imagesTs/new_0001.nii.gz", pet(), spacing=(1.0, 1.0, 1.0))
    assert only_problem(dataset, "error").case == "new"


def test_a_broken_dataset_json_is_the_one_problem(dataset):
    (dataset / "dataset.json").write_text("{")
    assert only_problem(dataset, "error").case is None


def test_problems_are_written_with_stable_keys(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 3)
    content = json.loads(json.dumps(check_dataset(dataset).to_json()))
    assert set(content) == {
        "folder",
        "num_cases",
        "num_errors",
        "num_warnings",
        "subsets",
        "problems",
    }
    (problem,) = content["problems"]
    assert set(problem) == {"kind", "severity", "case", "part", "message", "numbers"}
    assert (problem["kind"], problem["case"], problem["part"]) == (
        "label_unknown_value",
        "tumour_001",
        "label",
    )
    assert problem["numbers"] == {"num_voxels": {"3": 17}}


def test_every_kind_of_problem_is_explained_in_the_documentation():
    documented = (Path(__file__).resolve().parents[2] / "docs/checking.md").read_text()
    assert [kind for kind in get_args(Kind) if f"`{kind}`" not in documented] == []


def test_several_processes_find_what_one_finds(dataset):
    put(dataset / "labelsTr/tumour_002.nii.gz", mask() * 3)
    put(dataset / "imagesTr/tumour_004_0000.nii.gz", ct(4) / 1000)
    steps = []
    two = check_dataset(
        dataset, num_workers=2, progress=lambda done, total: steps.append((done, total))
    )
    assert two == check_dataset(dataset)
    assert [problem.case for problem in two.problems] == ["tumour_002", "tumour_004"]
    assert steps == [(done, 5) for done in range(1, 6)]


def test_each_file_is_read_once(dataset, monkeypatch):
    read = []

    def counting(path):
        read.append(path)
        return read_volume(path)

    monkeypatch.setattr("veloxseg.datasets.checking.case.read_volume", counting)
    check_dataset(dataset)
    assert sorted(read) == sorted(dataset.glob("*Tr/*"))


def test_cases_that_lack_optional_channels_are_counted_and_no_error(dataset):
    describe(dataset, optional=["PET"])
    (dataset / "imagesTr/tumour_001_0001.nii.gz").unlink()
    report = check_dataset(dataset)
    assert report.problems == []
    assert report.subsets == {"CT + PET": 4, "CT": 1}


def test_without_optional_channels_no_subsets_are_counted(dataset):
    assert check_dataset(dataset).subsets == {}


def test_the_grid_of_a_case_without_its_first_channel_is_that_of_the_next(dataset):
    describe(dataset, optional=["CT", "PET"])
    (dataset / "imagesTr/tumour_001_0000.nii.gz").unlink()
    put(dataset / "labelsTr/tumour_001.nii.gz", mask(1), origin=(1.0, 0.0, 0.0))
    problem = only_problem(dataset, "error")
    assert problem.kind == "grids_differ"
    assert "PET has origin" in problem.message


def test_a_case_without_any_channel_is_an_error(dataset):
    describe(dataset, optional=["CT", "PET"])
    for path in dataset.glob("imagesTr/tumour_001_*"):
        path.unlink()
    (problem,) = [one for one in check_dataset(dataset).errors if one.kind == "pairing"]
    assert problem.case == "tumour_001"


def test_a_splits_file_that_leaks_a_patient_is_found(dataset, tmp_path_factory):
    describe(dataset, patient_pattern="tumour_{patient}")
    splits = tmp_path_factory.mktemp("preprocessed") / "splits_final.json"
    names = [f"tumour_00{number}" for number in range(1, 6)]
    folds = [{"train": [name for name in names if name != left], "val": [left]} for left in names]
    splits.write_text(json.dumps(folds))
    assert check_dataset(dataset, splits=splits).problems == []
    describe(dataset, patient_pattern="{patient}_*")  # all of one patient
    kinds = {problem.kind for problem in check_dataset(dataset, splits=splits).errors}
    assert kinds == {"splits_leak_patient"}


def test_a_patient_of_training_and_test_cases_is_a_warning(dataset):
    describe(dataset, patient_pattern="{patient}_*")
    put_case(dataset, "tumour_009", 9, part="Ts")
    problem = only_problem(dataset, "warning")
    assert problem.kind == "train_test_patient"
    assert problem.numbers["patient"] == "tumour"
    assert problem.numbers["test"] == ["tumour_009"]
    assert len(problem.numbers["training"]) == 5


def test_training_and_test_cases_may_both_be_numbered_from_one(dataset):
    put_case(dataset, "tumour_001", 9, part="Ts")
    assert check_dataset(dataset).problems == []


def test_splits_that_are_not_there_are_nothing_wrong(dataset):
    assert check_dataset(dataset, splits=dataset / "splits_final.json").problems == []


def test_a_pattern_of_patients_that_does_not_fit_is_an_error(dataset):
    describe(dataset, patient_pattern="P{patient}")
    assert only_problem(dataset, "error").kind == "patients"


def test_errors_are_raised_together_and_written_as_json(dataset):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 3)
    put(dataset / "labelsTr/tumour_002.nii.gz", mask() * 4)
    report = check_dataset(dataset)
    with pytest.raises(DatasetError, match="2 problems"):
        report.raise_for_errors()
    content = json.loads(json.dumps(report.to_json()))
    assert content["num_cases"] == 5
    assert content["problems"][0]["case"] == "tumour_001"


def test_the_hippocampus_dataset_has_one_label_stored_as_floats_and_no_other_problem(shared):
    report = check_dataset(shared / "data/hippocampus/Dataset004_Hippocampus")
    assert report.num_cases == 208
    assert [(problem.kind, problem.case) for problem in report.problems] == [
        ("label_as_float", "hippocampus_003")
    ]


def test_real_pet_ct_and_mr_on_one_grid_have_no_problem(shared, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for case in sorted((shared / "data/sts").iterdir())[:6]:
        (source / case.name).symlink_to(case)
    folder = convert_folder(
        source,
        "Dataset100_Sarcoma",
        workspace=Workspace.resolve(tmp_path),
        channels={name: f"{{case}}/{name}_image.nii.gz" for name in ("CT", "PET", "MR_T1")},
        label="{case}/PET_mask.nii.gz",
        reference="PET",
        label_names={"tumour": 1},
    )
    report = check_dataset(folder)
    assert report.num_cases == 6
    assert report.problems == []


def test_a_dataset_of_test_images_alone_is_sound_if_it_says_so(tmp_path):
    for seed in (1, 2):
        put_case(tmp_path, f"new_{seed}", seed, part="Ts")
    describe(tmp_path, numTraining=0)
    assert check_dataset(tmp_path).errors == []
    describe(tmp_path)  # five training cases, it says
    (error,) = check_dataset(tmp_path).errors
    assert "numTraining is 5" in error.message
