import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from rich.console import Console

from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.evaluation.label_set import read_mask
from veloxseg.evaluation.summary import evaluate_folder
from veloxseg.evaluation.summary_json import summary_to_json
from veloxseg.evaluation.table import format_summary
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

SPACING = (3.0, 1.0, 0.5)
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def write_mask(path: Path, data: np.ndarray, spacing_zyx=SPACING) -> None:
    write_volume(path, Volume(data=data.astype(np.uint8), spacing_zyx=spacing_zyx))


def row(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, -1).repeat(2, axis=0)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return tmp_path / "predicted", tmp_path / "labelsTr"


@pytest.fixture
def two_cases(folders) -> tuple[Path, Path]:
    predicted, referred = folders
    write_mask(predicted / "a.nii.gz", row(1, 1, 1, 0, 0, 0))
    write_mask(referred / "a.nii.gz", row(0, 1, 1, 2, 2, 0))
    write_mask(predicted / "b.nii.gz", row(1, 0, 0, 0, 0, 0))
    write_mask(referred / "b.nii.gz", row(1, 0, 0, 0, 0, 0))
    return folders


def test_metrics_of_two_cases_done_by_hand(two_cases):
    summary = evaluate_folder(*two_cases, labels=LABELS)
    first, second = summary.cases
    assert (first.name, second.name) == ("a", "b")
    expected = {
        "Dice": pytest.approx(2 * 4 / (2 * 4 + 2)),
        "IoU": pytest.approx(4 / 6),
        "FP": 2,
        "TP": 4,
        "FN": 0,
        "TN": 6,
        "n_pred": 6,
        "n_ref": 4,
        "HD95_mm": pytest.approx(0.5 * np.interp(0.95 * 5, [0, 3, 4, 5], [0, 0, 1, 1])),
        "volume_ml": pytest.approx(6 * 1.5 / 1000),
        "reference_volume_ml": pytest.approx(4 * 1.5 / 1000),
    }
    assert first.metrics[1].items() >= expected.items()
    assert first.metrics[2]["Dice"] == 0
    assert second.metrics[1]["Dice"] == 1
    assert np.isnan(second.metrics[2]["Dice"])


def test_means_leave_undefined_values_out_and_count_them(two_cases):
    summary = evaluate_folder(*two_cases, labels=LABELS)
    assert summary.mean(1)["Dice"] == pytest.approx((0.8 + 1) / 2)
    assert summary.mean(2)["Dice"] == 0
    assert np.isnan(summary.mean(2)["HD95_mm"])
    assert summary.foreground_mean()["Dice"] == pytest.approx(0.45)
    assert summary.num_undefined(1) == {"Dice": 0, "IoU": 0, "HD95_mm": 0}
    assert summary.num_undefined(2) == {"Dice": 1, "IoU": 1, "HD95_mm": 2}


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_json_is_valid_and_undefined_is_null(two_cases, tmp_path):
    output = tmp_path / "out" / "summary.json"
    evaluate_folder(*two_cases, labels=LABELS, output=output)
    content = json.loads(output.read_text(), parse_constant=refuse_constant)
    assert content["mean"]["2"]["HD95_mm"] is None
    assert content["metric_per_case"][1]["metrics"]["2"]["Dice"] is None
    assert content["num_undefined"]["2"]["HD95_mm"] == 2
    assert content["label_names"] == {"1": "organ", "2": "lesion"}
    assert {path.name for path in output.parent.iterdir()} == {"summary.json", "summary_cases"}


@pytest.mark.parametrize("ignore_label", [None, 3])
def test_nnunet_reads_the_summary_and_finds_its_own_numbers(folders, tmp_path, ignore_label):
    predicted, referred = folders
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        write_mask(predicted / f"{case}.nii.gz", rng.integers(0, 3, (4, 5, 6)))
        highest = 3 if ignore_label is None else 4
        write_mask(referred / f"{case}.nii.gz", rng.integers(0, highest, (4, 5, 6)))
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    output = tmp_path / "summary.json"
    evaluate_folder(predicted, referred, labels=labels, ignore_label=ignore_label, output=output)
    ours = load_summary_json(str(output))
    assert set(ours["mean"]) == {(1, 2), 2}
    for case in ours["metric_per_case"]:
        theirs = compute_metrics(
            case["reference_file"],
            case["prediction_file"],
            SimpleITKIO(),
            [(1, 2), 2],
            ignore_label,
        )
        for label, metrics in theirs["metrics"].items():
            assert metrics["TP"] > 0
            for name, value in metrics.items():
                assert case["metrics"][label][name] == pytest.approx(value), name


def test_ignored_voxels_count_neither_in_surfaces_nor_in_volumes(folders):
    write_mask(folders[0] / "a.nii.gz", row(1, 1, 0, 0, 0, 1))
    write_mask(folders[1] / "a.nii.gz", row(1, 1, 0, 0, 0, 9))
    summary = evaluate_folder(*folders, labels={"organ": 1, "ignore": 9})
    metrics = summary.cases[0].metrics[1]
    assert metrics["Dice"] == 1
    assert metrics["HD95_mm"] == 0
    assert metrics["volume_ml"] == metrics["reference_volume_ml"]
    assert metrics["TN"] == 6


@pytest.mark.parametrize("place", ["predicted", "labelsTr", "."])
def test_labels_come_from_a_dataset_json_in_either_folder_or_beside_the_reference(
    two_cases, tmp_path, place
):
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "any": [1, 2], "ignore": 3},
        "regions_class_order": [1],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / place / "dataset.json").write_text(json.dumps(content))
    assert evaluate_folder(*two_cases).label_names == {(1, 2): "any"}


def test_what_lies_beside_the_working_folder_is_found_there(two_cases, tmp_path, monkeypatch):
    content = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "imagesTr").mkdir()
    for case in "ab":
        (tmp_path / "imagesTr" / f"{case}_0000.nii.gz").touch()
    monkeypatch.chdir(two_cases[1])
    assert evaluate_folder(two_cases[0], Path()).label_names == {1: "organ", 2: "lesion"}
    monkeypatch.chdir(tmp_path / "imagesTr")
    summary = evaluate_folder(*two_cases, labels=LABELS, images=Path())
    assert summary.subsets == {"a": "CT", "b": "CT"}


def test_labels_are_the_positive_values_found_without_a_dataset_json(two_cases):
    assert list(evaluate_folder(*two_cases).label_names) == [1, 2]
    assert list(evaluate_folder(*two_cases, ignore_label=2).label_names) == [1]


def test_a_negative_value_is_no_label_but_refused(folders):
    write_volume(folders[0] / "a.nii.gz", Volume(data=row(1, 0) * np.int16(1), spacing_zyx=SPACING))
    negative = row(1, 0).astype(np.int16) - 1
    write_volume(folders[1] / "a.nii.gz", Volume(data=negative, spacing_zyx=SPACING))
    with pytest.raises(DatasetError, match=r"Case a: .* holds -1\. Expected only 0, 1\."):
        evaluate_folder(*folders)


def test_progress_counts_cases(two_cases):
    seen = []
    evaluate_folder(*two_cases, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


def test_other_files_do_not_count(two_cases):
    (two_cases[0] / "summary.json").write_text("{}")
    (two_cases[0] / "a.npz").write_bytes(b"")
    (two_cases[0] / ".hidden.nii.gz").write_bytes(b"")
    assert len(evaluate_folder(*two_cases).cases) == 2


def test_a_missing_prediction_is_an_error_unless_a_subset_is_asked_for(two_cases):
    (two_cases[0] / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no prediction for case b of"):
        evaluate_folder(*two_cases, labels=LABELS)
    assert len(evaluate_folder(*two_cases, labels=LABELS, subset=True).cases) == 1


@pytest.mark.parametrize("subset", [False, True])
def test_a_missing_reference_is_always_an_error(two_cases, subset):
    (two_cases[1] / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no reference for case a,"):
        evaluate_folder(*two_cases, labels=LABELS, subset=subset)


def test_a_long_list_of_missing_cases_is_cut(two_cases):
    for number in range(8):
        write_mask(two_cases[1] / f"case_{number}.nii.gz", row(0, 1))
    with pytest.raises(DatasetError, match="case_4 and 3 more"):
        evaluate_folder(*two_cases, labels=LABELS)


def test_different_grids_are_refused_and_both_described(two_cases):
    write_mask(two_cases[0] / "b.nii.gz", row(1, 0, 0, 0, 0, 0), spacing_zyx=(3, 1, 0.75))
    with pytest.raises(GeometryError, match=r"Case b.* 0\.75 mm.* 0\.5 mm"):
        evaluate_folder(*two_cases, labels=LABELS)


@pytest.mark.parametrize("folder", [0, 1])
def test_a_value_that_is_no_label_is_refused(two_cases, folder):
    write_mask(two_cases[folder] / "b.nii.gz", row(1, 7, 0, 0, 0, 0))
    with pytest.raises(
        DatasetError, match=r"Case b: .* holds 7\. Expected only 0, 1, 2.*--labels NAME=VALUE"
    ):
        evaluate_folder(*two_cases, labels=LABELS)


def test_probabilities_are_refused(two_cases):
    fractions = Volume(data=np.full((2, 1, 6), 0.5, np.float32), spacing_zyx=SPACING)
    write_volume(two_cases[0] / "b.nii.gz", fractions)
    with pytest.raises(DatasetError, match=r"Case b: .*Expected integers"):
        evaluate_folder(*two_cases, labels=LABELS)


def test_whole_numbers_stored_as_floats_are_labels(two_cases):
    nearly = row(1, 0, 0, 0, 0, 0) * np.float32(0.99999994)
    write_volume(two_cases[0] / "b.nii.gz", Volume(data=nearly, spacing_zyx=SPACING))
    assert evaluate_folder(*two_cases, labels=LABELS).cases[1].metrics[1]["Dice"] == 1


@pytest.mark.parametrize(
    ("value", "dtype"), [(255, "uint8"), (256, "int16"), (-1, "int16"), (2**20, "int32")]
)
def test_labels_stored_as_floats_take_few_bytes(tmp_path, value, dtype):
    file = tmp_path / "a.nii.gz"
    write_volume(file, Volume(data=np.full((2, 2, 2), value, np.float64), spacing_zyx=SPACING))
    mask = read_mask("a", file).data
    assert (mask.dtype.name, int(mask.max())) == (dtype, value)


def test_an_empty_or_missing_folder_is_refused(two_cases, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no masks"), ("nowhere", "no such folder")):
        with pytest.raises(DatasetError, match=message):
            evaluate_folder(tmp_path / name, two_cases[1])


def test_masks_of_another_ending_are_told_what_names_it(tmp_path):
    for folder in ("p", "r"):
        write_mask(tmp_path / folder / "a.nrrd", row(1, 0, 0))
    with pytest.raises(DatasetError, match=r"CASE\.nii\.gz.*dataset\.json.*file_ending"):
        evaluate_folder(tmp_path / "p", tmp_path / "r")
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 1,
        "file_ending": ".nrrd",
    }
    (tmp_path / "r" / "dataset.json").write_text(json.dumps(content))
    assert evaluate_folder(tmp_path / "p", tmp_path / "r").mean(1)["Dice"] == 1


def test_masks_without_any_foreground_need_labels(folders):
    for folder in folders:
        write_mask(folder / "a.nii.gz", row(0, 0, 0))
    with pytest.raises(DatasetError, match=r"All masks are empty.*--labels NAME=VALUE"):
        evaluate_folder(*folders)
    assert evaluate_folder(*folders, labels=LABELS).num_undefined(1)["Dice"] == 1


def test_a_file_that_is_no_image_is_refused(two_cases):
    (two_cases[0] / "b.nii.gz").write_text("no image")
    with pytest.raises(ImageReadError, match=r"b\.nii\.gz"):
        evaluate_folder(*two_cases, labels=LABELS)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_dataset_json_is_refused(two_cases, text):
    (two_cases[0] / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        evaluate_folder(*two_cases)


def test_labels_without_a_foreground_are_refused(two_cases):
    with pytest.raises(DatasetError, match=r"no label but the background.*--labels NAME=VALUE"):
        evaluate_folder(*two_cases, labels={"background": 0})


@pytest.mark.parametrize("value", [1, [1, 2]])
def test_two_names_for_one_label_are_refused_instead_of_dropping_the_first(two_cases, value):
    with pytest.raises(DatasetError, match=r"labels organ and lesion are both .*dataset\.json"):
        evaluate_folder(*two_cases, labels={"organ": value, "lesion": value})


def test_nothing_is_written_when_a_case_fails(two_cases, tmp_path):
    (two_cases[0] / "b.nii.gz").write_text("no image")
    with pytest.raises(ImageReadError):
        evaluate_folder(*two_cases, labels=LABELS, output=tmp_path / "summary.json")
    assert not (tmp_path / "summary.json").exists()


def test_the_table_shows_cases_means_and_dashes_for_what_is_undefined(two_cases):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(format_summary(evaluate_folder(*two_cases, labels=LABELS)))
    lines = [line for line in capture.get().splitlines() if "lesion" in line]
    assert [line.split("│")[3].strip() for line in lines] == ["0.000", "-", "0.000"]
    assert "0.900" in capture.get()


def test_one_case_is_counted_as_one(two_cases):
    (two_cases[0] / "b.nii.gz").unlink()
    assert format_summary(evaluate_folder(*two_cases, labels=LABELS, subset=True)).title == "1 case"


@pytest.fixture
def three_cases(two_cases, tmp_path) -> tuple[Path, Path, Path]:
    """Predictions, references and images: a has CT and PET, b and c have PET alone."""
    for folder in two_cases:
        write_mask(folder / "c.nii.gz", row(1, 1, 0, 0, 0, 0))
    images = tmp_path / "imagesTr"
    images.mkdir()
    for file in ("a_0000", "a_0001", "b_0001", "c_0001"):
        (images / f"{file}.nii.gz").touch()
    description = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": LABELS,
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "optional": ["CT", "PET"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return *two_cases, images


def test_means_are_taken_over_the_cases_with_the_same_channels(three_cases, tmp_path):
    *masks, images = three_cases
    evaluate_folder(*masks, images=images, output=tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text())
    assert list(content["subsets"]) == ["CT+PET", "PET"]
    both, alone = content["subsets"]["CT+PET"], content["subsets"]["PET"]
    assert (both["num_cases"], alone["num_cases"]) == (1, 2)
    assert both["mean"]["1"]["Dice"] == pytest.approx(0.8)
    assert both["mean"]["2"]["Dice"] == 0
    assert both["foreground_mean"]["Dice"] == pytest.approx(0.4)
    assert alone["mean"]["1"]["Dice"] == 1
    assert alone["mean"]["2"]["Dice"] is None
    assert content["mean"]["1"]["Dice"] == pytest.approx((0.8 + 1 + 1) / 3)
    subsets = {case["case"]: case["subset"] for case in content["metric_per_case"]}
    assert subsets == {"a": "CT+PET", "b": "PET", "c": "PET"}


def test_without_images_there_are_no_subsets(three_cases, tmp_path):
    summary = evaluate_folder(*three_cases[:2])
    assert summary.by_subset() == {}
    assert "subsets" not in summary_to_json(summary)


def test_the_table_shows_each_subset_with_its_number_of_cases(three_cases):
    *masks, images = three_cases
    console = Console(width=120)
    with console.capture() as printed:
        console.print(format_summary(evaluate_folder(*masks, images=images)))
    lines = printed.get().splitlines()
    assert any("CT+PET (1)" in line and "organ" in line and "0.800" in line for line in lines)
    assert any("PET (2)" in line and "organ" in line and "1.000" in line for line in lines)


def test_images_that_do_not_fit_the_masks_are_refused(three_cases, tmp_path):
    *masks, images = three_cases
    with pytest.raises(DatasetError, match="images: no such folder"):
        evaluate_folder(*masks, images=tmp_path / "images")
    (images / "c_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no image of case c.*CT, PET"):
        evaluate_folder(*masks, images=images)
    (images / "x_0002.nii.gz").touch()
    with pytest.raises(DatasetError, match="channel 0002"):
        evaluate_folder(*masks, images=images)


def test_subsets_need_the_channels_names(two_cases, tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset\.json, which names the channels of in"):
        evaluate_folder(*two_cases, images=tmp_path / "elsewhere" / "in")


def test_evaluation_needs_neither_torch_nor_nnunet():
    code = (
        "import sys, veloxseg.evaluation.table, veloxseg.evaluation.overlay; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'nnunetv2', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
