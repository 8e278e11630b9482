import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from small_datasets import describe, mask, put, sound_dataset
from veloxseg.cli import app
from veloxseg.commands.tables import problems_table
from veloxseg.datasets.problems import Problem


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture
def dataset(tmp_path):
    return sound_dataset(tmp_path / "nnUNet_raw/Dataset100_Small")


def test_a_sound_dataset_ends_with_success_and_an_empty_report(dataset, tmp_path):
    report = tmp_path / "report.json"
    output = run("check", "100", "--root", tmp_path, "--num-workers", 2, "-o", report)
    assert "5 cases, 0 errors, 0 warnings" in output
    content = json.loads(report.read_text())
    assert (content["num_cases"], content["problems"]) == (5, [])


def test_errors_end_with_2_and_are_written_before(dataset, tmp_path):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 3)
    report = tmp_path / "report.json"
    output = run("check", "100", "--root", tmp_path, "-o", report, code=2)
    assert "tumour_001" in output
    assert "1 error," in output
    assert json.loads(report.read_text())["problems"][0]["kind"] == "label_unknown_value"


def test_warnings_alone_end_with_success(dataset, tmp_path):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 0)
    assert run("check", "100", "--root", tmp_path).endswith("0 errors, 1 warning")


def test_splits_of_the_preprocessed_folder_are_checked(dataset, tmp_path):
    splits = tmp_path / "nnUNet_preprocessed/Dataset100_Small/splits_final.json"
    splits.parent.mkdir(parents=True)
    names = [f"tumour_00{number}" for number in range(1, 6)]
    splits.write_text(json.dumps([{"train": names, "val": names[:1]}]))
    report = tmp_path / "report.json"
    run("check", "100", "--root", tmp_path, "-o", report, code=2)
    (problem,) = json.loads(report.read_text())["problems"]
    assert f"{splits}: fold 0 has case tumour_001 in train and in val" in problem["message"]


def test_subsets_of_optional_channels_are_counted(dataset, tmp_path):
    describe(dataset, optional=["PET"])
    (dataset / "imagesTr/tumour_001_0001.nii.gz").unlink()
    assert "Channels: 4 with CT + PET, 1 with CT" in run("check", "100", "--root", tmp_path)


def test_fix_writes_a_mended_copy_that_passes(dataset, tmp_path):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask(1), origin=(0.1, 0.0, 0.0))
    words = ("check", "100", "--fix", "Dataset101_Mended", "--root", tmp_path)
    output = run(*words)
    assert "grids_nearly_equal" in output
    assert "header of CT taken over" in output
    assert "5 cases, 1 of 15 files mended, 0 cases left out" in output
    assert "Dataset101_Mended: 5 cases, 0 errors, 0 warnings" in output
    files = [path for path in (tmp_path / "nnUNet_raw").rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    assert "1 of 15 files mended" in run(*words)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before


def test_fix_names_the_cases_that_it_left_out(dataset, tmp_path):
    put(dataset / "labelsTr/tumour_001.nii.gz", mask() * 3)
    output = run("check", "100", "--fix", "101_Mended", "--root", tmp_path)
    assert "1 cases left out" in output
    assert "left out" in output
    assert "values [3]" in output
    assert (tmp_path / "nnUNet_raw/Dataset101_Mended/dataset.json").is_file()


def test_fix_ends_with_2_where_an_error_is_left_in_the_copy(dataset, tmp_path):
    describe(dataset, patient_pattern="P{patient}")
    run("check", "100", "--fix", "101_Mended", "--root", tmp_path, code=2)


def test_fix_under_the_datasets_own_name_is_refused(dataset, tmp_path):
    output = run("check", "100", "--fix", "Dataset100_Small", "--root", tmp_path, code=2)
    assert "Nothing is mended in place" in output


@pytest.mark.parametrize(("number", "rows"), [(3, 3), (6, 6), (7, 6), (500, 6)])
def test_of_many_problems_of_one_kind_the_first_are_shown_and_the_others_counted(number, rows):
    problems = [
        Problem(case=f"c{index}", severity="warning", message="text", kind="constant")
        for index in range(number)
    ]
    other = Problem(case="z", severity="error", message="another", kind="unreadable")
    table = problems_table([*problems, other])
    assert table.row_count == rows + 1
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    assert "another" in capture.get()
    assert (f"{number - 5} more of this kind" in capture.get()) == (number > 6)
