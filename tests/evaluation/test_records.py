import json
import os
from pathlib import Path

import pytest

import veloxseg.evaluation.case_evaluation as case_evaluation
from masks import LABELS, write_mask
from veloxseg.errors import ImageReadError
from veloxseg.evaluation.summary import Summary, evaluate_folder


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    predicted, referred = tmp_path / "predicted", tmp_path / "labelsTr"
    for case in ("a", "b", "c"):
        write_mask(predicted, case, 1, 1, 1, 0, 0, 0)
        write_mask(referred, case, 0, 1, 1, 2, 2, 0)
    return predicted, referred


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of the cases that are evaluated, as they are."""
    names: list[str] = []
    evaluate = case_evaluation.evaluate_pair

    def count(pair, settings):
        names.append(pair.name)
        return evaluate(pair, settings)

    monkeypatch.setattr(case_evaluation, "evaluate_pair", count)
    return names


def evaluate(folders, tmp_path: Path, **options) -> Summary:
    options = {"labels": LABELS, "output": tmp_path / "out" / "summary.json", **options}
    return evaluate_folder(*folders, **options)


def without_time(file: Path) -> dict:
    content = json.loads(file.read_text())
    del content["provenance"]["created"]
    return content


def test_a_second_run_only_reads_and_finds_the_same(folders, tmp_path, measured):
    evaluate(folders, tmp_path)
    first = without_time(tmp_path / "out" / "summary.json")
    assert measured == ["a", "b", "c"]
    evaluate(folders, tmp_path)
    assert measured == ["a", "b", "c"]
    assert without_time(tmp_path / "out" / "summary.json") == first
    assert first["metric_per_case"][0]["metrics"]["2"]["HD95_mm"] is None


def test_a_case_whose_mask_changed_is_evaluated_again(folders, tmp_path, measured):
    evaluate(folders, tmp_path)
    write_mask(folders[0], "b", 0, 1, 1, 0, 0, 0)
    assert evaluate(folders, tmp_path).cases[1].metrics[1]["Dice"] == 1
    assert measured == ["a", "b", "c", "b"]
    mask = write_mask(folders[1], "c", 0, 1, 1, 2, 2, 0)
    os.utime(mask, ns=(1, 1))
    evaluate(folders, tmp_path)
    assert measured == ["a", "b", "c", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance_mm": 2.0},
        {"labels": {"background": 0, "any": [1, 2]}},
        {"ignore_label": 2, "labels": {"background": 0, "organ": 1}},
        {"resample": True},
    ],
)
def test_other_settings_evaluate_every_case_again(folders, tmp_path, measured, change):
    evaluate(folders, tmp_path)
    evaluate(folders, tmp_path, **change)
    assert measured == ["a", "b", "c"] * 2


def test_another_version_evaluates_every_case_again(folders, tmp_path, measured, monkeypatch):
    evaluate(folders, tmp_path)
    monkeypatch.setattr("veloxseg.evaluation.records.__version__", "999")
    evaluate(folders, tmp_path)
    assert measured == ["a", "b", "c"] * 2


def test_an_evaluation_that_failed_goes_on_where_it_was(folders, tmp_path, measured):
    write_mask(folders[0], "c", 0.5, 0, 0, 0, 0, 0)
    folders[0].joinpath("b.nii.gz").write_bytes(b"half a file")
    with pytest.raises(ImageReadError, match=r"b\.nii\.gz"):
        evaluate(folders, tmp_path)
    assert not (tmp_path / "out" / "summary.json").exists()
    write_mask(folders[0], "b", 1, 1, 1, 0, 0, 0)
    write_mask(folders[0], "c", 1, 1, 1, 0, 0, 0)
    steps: list[tuple[int, int]] = []
    evaluate(folders, tmp_path, progress=lambda *step: steps.append(step))
    assert measured == ["a", "b", "b", "c"]
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {}, "resampled": false}'])
def test_a_broken_record_is_made_again(folders, tmp_path, measured, text):
    evaluate(folders, tmp_path)
    for file in (tmp_path / "out" / "summary_cases").iterdir():
        file.write_text(text)
    evaluate(folders, tmp_path)
    assert measured == ["a", "b", "c"] * 2


@pytest.mark.parametrize("lost", [("2",), ("1", "IoU")])
def test_a_record_that_has_lost_a_figure_is_made_again(folders, tmp_path, measured, lost):
    evaluate(folders, tmp_path)
    for file in (tmp_path / "out" / "summary_cases").iterdir():
        content = json.loads(file.read_text())
        *label, name = lost
        del (content["metrics"][label[0]] if label else content["metrics"])[name]
        file.write_text(json.dumps(content))
    evaluate(folders, tmp_path)
    assert measured == ["a", "b", "c"] * 2


def test_methods_keep_their_records_apart_whatever_they_are_called(folders, tmp_path, measured):
    for case in ("a", "b", "c"):
        write_mask(tmp_path / "other", case, 0, 1, 1, 0, 0, 0)
    evaluate(folders, tmp_path)
    summary = evaluate(folders, tmp_path, name="new", others={"old": tmp_path / "other"})
    assert measured == ["a", "b", "c"] * 2
    assert summary.cases[0].metrics[1]["Dice"] == pytest.approx(0.8)
    assert summary.others["old"].cases[0].metrics[1]["Dice"] == 1
    assert len(list((tmp_path / "out" / "summary_cases").iterdir())) == 6


def test_without_an_output_nothing_is_kept(folders, tmp_path):
    evaluate(folders, tmp_path, output=None)
    assert {path.name for path in tmp_path.iterdir()} == {"predicted", "labelsTr"}
