import json
from pathlib import Path

import pytest

from veloxseg.errors import DatasetError
from veloxseg.evaluation.pairing import find_predictions, pair_as, pair_masks

ENDING = ".nii.gz"


def touch(folder: Path, *cases: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / f"{case}{ENDING}").touch()
    return folder


def fold(run: Path, number: int, *cases: str, finished: bool = True) -> None:
    validation = touch(run / f"fold_{number}" / "validation", *cases)
    if finished:
        (validation / "summary.json").touch()


@pytest.fixture
def run(tmp_path) -> Path:
    """Folds 0, 1 and 3 of a run; the masks of fold 3 may be incomplete."""
    fold(tmp_path / "run", 0, "b", "d")
    fold(tmp_path / "run", 1, "a")
    fold(tmp_path / "run", 3, "c", finished=False)
    fold(tmp_path / "run", 4)
    touch(tmp_path / "run" / "fold_all" / "validation", "b")
    return tmp_path / "run"


@pytest.fixture
def references(tmp_path) -> Path:
    return touch(tmp_path / "labelsTr", "a", "b", "c", "d", "e")


def test_all_folds_of_a_cross_validation_are_taken_in_the_order_of_cases(run):
    found = find_predictions(run, ENDING)
    assert list(found.files) == ["a", "b", "c", "d"]
    assert found.files["c"] == run / "fold_3" / "validation" / "c.nii.gz"
    assert found.folds == {"a": 1, "b": 0, "c": 3, "d": 0}


def test_missing_and_unfinished_folds_are_named(run):
    folds = find_predictions(run, ENDING).cross_validation
    assert folds is not None
    assert folds.num_cases == {0: 2, 1: 1, 3: 1}
    assert (folds.missing, folds.unfinished) == ((2, 4), (3,))


def test_more_than_five_folds_are_counted_to_the_last(run):
    fold(run, 6, "f")
    folds = find_predictions(run, ENDING).cross_validation
    assert folds is not None
    assert folds.missing == (2, 4, 5)


@pytest.mark.parametrize("known_by", ["place", "variables"])
@pytest.mark.parametrize(("num_splits", "missing"), [(1, ()), (3, (1, 2))])
def test_folds_that_the_splits_do_not_have_are_not_missing(
    tmp_path, monkeypatch, known_by, num_splits, missing
):
    results = "nnUNet_results" if known_by == "place" else "copied/to"
    run = tmp_path / results / "Dataset001_Tiny" / "Trainer__Plans__3d_fullres"
    fold(run, 0, "a")
    splits = tmp_path / "nnUNet_preprocessed" / "Dataset001_Tiny" / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps([{"train": ["b"], "val": ["a"]}] * num_splits))
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        there = tmp_path if known_by == "variables" else tmp_path / "unrelated"
        monkeypatch.setenv(name, str(there / name))
    folds = find_predictions(run, ENDING).cross_validation
    assert folds is not None
    assert folds.missing == missing


def test_a_case_in_two_folds_is_refused_and_both_are_named(run):
    fold(run, 3, "d")
    with pytest.raises(DatasetError, match="case d has a mask in fold_0 and in fold_3"):
        find_predictions(run, ENDING)


def test_folds_without_any_mask_are_refused(tmp_path):
    (tmp_path / "run" / "fold_0").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no fold holds masks.*fold_N/validation/CASE\.nii\.gz"):
        find_predictions(tmp_path / "run", ENDING)


def test_masks_in_the_folder_itself_come_before_folds(run):
    touch(run, "x")
    found = find_predictions(run, ENDING)
    assert list(found.files) == ["x"]
    assert found.cross_validation is None


def test_a_cross_validation_passes_over_references_that_no_fold_has(run, references):
    pairs, missing = pair_masks(find_predictions(run, ENDING), references, ENDING, subset=False)
    assert [(pair.name, pair.fold) for pair in pairs] == [("a", 1), ("b", 0), ("c", 3), ("d", 0)]
    assert missing == ("e",)


def test_a_validated_case_without_a_reference_is_refused(run, tmp_path):
    touch(tmp_path / "labelsTr", "a", "b", "c")
    with pytest.raises(DatasetError, match="no reference for case d, predicted in"):
        pair_masks(find_predictions(run, ENDING), tmp_path / "labelsTr", ENDING, subset=True)


def test_another_method_is_taken_for_the_same_cases(run, references, tmp_path):
    pairs, _ = pair_masks(find_predictions(run, ENDING), references, ENDING, subset=False)
    other = find_predictions(touch(tmp_path / "other", "a", "b", "c", "d", "e"), ENDING)
    found = pair_as(pairs, other, method="unet")
    assert [pair.name for pair in found] == ["a", "b", "c", "d"]
    assert {pair.prediction.parent for pair in found} == {tmp_path / "other"}
    assert [pair.reference for pair in found] == [pair.reference for pair in pairs]


def test_another_method_that_lacks_a_case_is_refused(run, references, tmp_path):
    pairs, _ = pair_masks(find_predictions(run, ENDING), references, ENDING, subset=False)
    other = find_predictions(touch(tmp_path / "other", "a", "b"), ENDING)
    with pytest.raises(DatasetError, match=r"unet .*no prediction for cases c, d, which"):
        pair_as(pairs, other, method="unet")
