import json

import pytest

from veloxseg.datasets.checking.folds import check_splits
from veloxseg.datasets.splits import make_folds, make_ratio_split, write_splits

PATIENTS = {"a_1": "a", "a_2": "a", "b_1": "b", "c_1": "c", "d_1": "d"}


def check(tmp_path, folds, same_images=()):
    path = tmp_path / "splits_final.json"
    path.write_text(folds if isinstance(folds, str) else json.dumps(folds))
    return list(check_splits(path, PATIENTS, same_images=same_images))


def only(problems):
    (problem,) = problems
    return problem


def test_folds_that_keep_patients_together_are_sound(tmp_path):
    folds = [
        {"train": ["a_1", "a_2", "b_1"], "val": ["c_1", "d_1"]},
        {"train": ["c_1", "d_1"], "val": ["a_1", "a_2", "b_1"]},
    ]
    assert check(tmp_path, folds) == []


def test_a_patient_on_two_sides_of_a_fold_is_an_error_with_the_fold_and_the_cases(tmp_path):
    folds = [{"train": ["a_1", "b_1"], "val": ["a_2", "c_1", "d_1"]}]
    problem = only(check(tmp_path, folds))
    assert (problem.kind, problem.severity) == ("splits_leak_patient", "error")
    assert problem.numbers == {
        "fold": 0,
        "patients": {"a": {"train": ["a_1"], "val": ["a_2"]}},
    }
    assert "fold 0 has the patient a on two sides: a_1 in train; a_2 in val" in problem.message


def test_a_patient_of_the_test_side_may_not_be_trained_on_either(tmp_path):
    folds = [{"train": ["a_1", "b_1"], "val": ["c_1", "d_1"], "test": ["a_2"]}]
    assert only(check(tmp_path, folds)).kind == "splits_leak_patient"


def test_a_case_on_two_sides_is_an_error(tmp_path):
    folds = [{"train": ["a_1", "a_2", "b_1", "c_1"], "val": ["c_1", "d_1"]}]
    problem = only(check(tmp_path, folds))
    assert (problem.kind, problem.numbers["cases"]) == ("splits_case_twice", ["c_1"])


def test_the_same_image_on_two_sides_is_an_error(tmp_path):
    folds = [{"train": ["a_1", "a_2", "b_1"], "val": ["c_1", "d_1"]}]
    problem = only(check(tmp_path, folds, same_images=[["b_1", "d_1"]]))
    assert (problem.kind, problem.severity) == ("splits_leak_duplicate", "error")
    assert check(tmp_path, folds, same_images=[["c_1", "d_1"]]) == []


def test_a_case_that_is_not_there_is_an_error(tmp_path):
    folds = [{"train": ["a_1", "a_2", "x"], "val": ["b_1", "c_1", "d_1"]}]
    problem = only(check(tmp_path, folds))
    assert (problem.kind, problem.numbers["cases"]) == ("splits_unknown_case", ["x"])


@pytest.mark.parametrize("side", ["train", "val"])
def test_an_empty_side_is_an_error(tmp_path, side):
    folds = [{"train": list(PATIENTS), "val": list(PATIENTS)} | {side: []}]
    problem = only(check(tmp_path, folds))
    assert (problem.kind, problem.numbers) == ("splits_empty", {"fold": 0, "side": side})


def test_cases_that_no_fold_judges_are_a_warning(tmp_path):
    folds = [
        {"train": ["a_1", "a_2", "b_1"], "val": ["c_1"]},
        {"train": ["c_1"], "val": ["a_1", "a_2", "b_1"]},
    ]
    problem = only(check(tmp_path, folds))
    assert (problem.kind, problem.severity) == ("splits_forget_case", "warning")
    assert problem.numbers["cases"] == ["d_1"]


@pytest.mark.parametrize(
    "content", ["{", "{}", '[{"train": ["a_1"]}]', '[{"train": "a_1", "val": ["b_1"]}]', "[1]"]
)
def test_a_file_that_is_no_list_of_folds_is_an_error(tmp_path, content):
    problem = only(check(tmp_path, content))
    assert problem.kind == "splits_unreadable"
    assert "splits_final.json" in problem.message


@pytest.mark.parametrize("seed", range(5))
def test_the_splits_that_we_make_are_sound(tmp_path, seed):
    patients = {f"case_{index:02d}": f"patient_{index // 3}" for index in range(30)}
    path = tmp_path / "splits_final.json"
    for splits in (
        make_folds(list(patients), patients, seed=seed),
        [make_ratio_split(list(patients), patients, seed=seed)],
    ):
        write_splits(path, splits, overwrite=True)
        assert list(check_splits(path, patients)) == []
