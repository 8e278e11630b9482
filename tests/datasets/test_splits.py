"""Splits: no patient in two parts, even sizes, nnU-Net's own folds where nothing forbids them."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from veloxseg.datasets.splits import (
    FoldRule,
    RatioRule,
    Split,
    make_folds,
    make_ratio_split,
    make_splits,
    write_splits,
)
from veloxseg.errors import DatasetError

group_sizes = st.lists(st.integers(1, 9), min_size=5, max_size=40)


def cases_of(sizes):
    """Names with each patient's cases scattered: two patients' names begin alike."""
    patients = {
        f"case_{(31 * case + 7 * patient) % 97:02d}_{patient:02d}_{case}": f"p{patient}"
        for patient, size in enumerate(sizes)
        for case in range(size)
    }
    return list(patients), patients


def alone(cases):
    return {case: case for case in cases}


def parts(split):
    return [set(split.train), set(split.val), set(split.test)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(group_sizes, st.integers(2, 5), st.integers(0, 2**31))
@example([9, 1, 1, 1, 1], 5, 0)
@example([9] * 5, 5, 0)
def test_no_patient_is_in_two_folds_and_the_folds_are_even(sizes, num_folds, seed):
    cases, patients = cases_of(sizes)
    splits = make_folds(cases, patients, num_folds=num_folds, seed=seed)
    assert len(splits) == num_folds
    for split in splits:
        assert sorted(split.train + split.val) == sorted(cases)
        assert not {patients[c] for c in split.train} & {patients[c] for c in split.val}
        assert split.test == ()
    assert sorted(case for split in splits for case in split.val) == sorted(cases)
    counts = [len(split.val) for split in splits]
    assert min(counts) > 0
    assert max(counts) - min(counts) <= max(sizes)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    group_sizes,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)),
    st.integers(0, 2**31),
)
@example([1, 1, 1, 1, 1], (9, 1, 1), 0)
@example([9, 9, 1, 1, 1], (1, 1, 1), 0)
def test_no_patient_is_in_two_parts_and_no_part_is_empty(sizes, ratios, seed):
    cases, patients = cases_of(sizes)
    split = make_ratio_split(cases, patients, ratios=ratios, seed=seed)
    assert sorted(split.train + split.val + split.test) == sorted(cases)
    owners = [{patients[case] for case in part} for part in parts(split)]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    for part, ratio in zip(parts(split), ratios, strict=True):
        assert bool(part) == bool(ratio)
        # no part outgrows its share by more than one patient, but for the one that none may lack
        assert len(part) < len(cases) * ratio / sum(ratios) + max(sizes) + (ratio > 0)


@pytest.mark.parametrize("num_cases", [5, 9, 24, 260])
def test_cases_that_are_patients_of_their_own_get_the_folds_of_nnunet(num_cases):
    crossval = pytest.importorskip("nnunetv2.utilities.crossval_split")
    cases = [f"case_{(17 * index) % 1000:03d}" for index in range(num_cases)]
    expected = crossval.generate_crossval_split(sorted(cases), seed=12345, n_splits=5)
    assert [split.to_json() for split in make_folds(cases, alone(cases))] == expected


def test_patients_of_other_names_than_their_cases_do_not_change_the_folds_of_nnunet():
    cases = [f"case_{index:02d}" for index in range(20)]
    renamed = {case: f"patient_{99 - index}" for index, case in enumerate(cases)}
    assert make_folds(cases, renamed) == make_folds(cases, alone(cases))


def test_ten_cases_are_split_six_two_two_and_always_in_the_same_way():
    cases = [f"c{index}" for index in range(10)]
    split = make_ratio_split(cases, alone(cases))
    assert [len(part) for part in parts(split)] == [6, 2, 2]
    assert make_ratio_split(cases[::-1], alone(cases)) == split
    assert make_ratio_split(cases, alone(cases), seed=1) != split
    assert make_ratio_split(cases, alone(cases), ratios=(0.6, 0.2, 0.2)) == split


def test_a_patient_with_half_of_all_cases_is_trained_on_whole():
    cases, patients = cases_of([5, 1, 1, 1, 1, 1])
    split = make_ratio_split(cases, patients)
    assert {case for case in cases if patients[case] == "p0"} <= set(split.train)
    assert [len(part) for part in parts(split)] == [6, 2, 2]


def test_without_a_test_share_there_is_no_test_part():
    cases = [f"c{index}" for index in range(10)]
    split = make_ratio_split(cases, alone(cases), ratios=(0.8, 0.2, 0))
    assert [len(part) for part in parts(split)] == [8, 2, 0]
    assert list(split.to_json()) == ["train", "val"]


def test_too_few_patients_are_refused_with_their_number():
    cases, patients = cases_of([9, 9, 9, 9])
    with pytest.raises(DatasetError, match="4 patients cannot be split into 5 parts"):
        make_folds(cases, patients)
    with pytest.raises(DatasetError, match="2 patients cannot be split into 3 parts"):
        make_ratio_split(cases[:18], patients)


def test_a_case_without_patient_and_a_doubled_case_are_named():
    with pytest.raises(DatasetError, match="no patient for c5"):
        make_folds(["c5", *"abcde"], alone("abcde"))
    with pytest.raises(DatasetError, match="a named twice"):
        make_folds(["a", *"abcde"], alone("abcde"))


@pytest.mark.parametrize("ratios", [(0, 1, 1), (1, 0, 1), (1, 1, -1), (float("nan"), 1, 1)])
def test_ratios_that_are_none_are_refused(ratios):
    with pytest.raises(ValidationError, match="ratios"):
        RatioRule(ratios=ratios)


def test_a_rule_makes_one_split_or_one_a_fold():
    cases = [f"c{index}" for index in range(12)]
    assert make_splits(cases, alone(cases), FoldRule(num_folds=3)) == make_folds(
        cases, alone(cases), num_folds=3
    )
    assert make_splits(cases, alone(cases), RatioRule()) == (make_ratio_split(cases, alone(cases)),)


def test_written_splits_are_left_as_they_are_by_the_same_ones(tmp_path):
    path = tmp_path / "splits_final.json"
    splits = make_folds(list("abcde"), alone("abcde"))
    write_splits(path, splits)
    before = path.stat()
    write_splits(path, splits)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(tmp_path.iterdir()) == [path]


def test_splits_of_another_making_are_kept_unless_told_otherwise(tmp_path):
    path = tmp_path / "splits_final.json"
    cases = [f"c{index}" for index in range(10)]
    write_splits(path, make_folds(cases, alone(cases)))
    other = make_ratio_split(cases, alone(cases))
    before = path.read_bytes()
    with pytest.raises(
        DatasetError, match=r"5 of 8\+2 cases \(train\+val\).*1 of 6\+2\+2 cases"
    ) as caught:
        write_splits(path, [other])
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    write_splits(path, [other], overwrite=True)
    assert json.loads(path.read_text()) == [other.to_json()]


@pytest.mark.parametrize(
    ("content", "words"), [("{}", "no list of splits"), ("[3]", "no list of"), ("[{", "cut short")]
)
def test_a_file_that_holds_no_splits_is_not_overwritten(tmp_path, content, words):
    path = tmp_path / "splits_final.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=words):
        write_splits(path, [Split(train=("a",), val=("b",))])
    assert path.read_text() == content


def test_the_trainer_of_nnunet_takes_the_folds_and_passes_the_test_part_by(tmp_path):
    trainer = pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer
    cases = [f"c{index}" for index in range(10)]
    split = make_ratio_split(cases, alone(cases))
    write_splits(tmp_path / "splits_final.json", [split])
    said = []
    run = SimpleNamespace(
        fold=0,
        dataset_class=lambda *_, **__: SimpleNamespace(identifiers=cases),
        preprocessed_dataset_folder=str(tmp_path),
        preprocessed_dataset_folder_base=str(tmp_path),
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=lambda *words: said.append(" ".join(map(str, words))),
    )
    train, val = trainer.do_split(run)
    assert (tuple(train), tuple(val)) == (split.train, split.val)
    assert not set(split.test) & {*train, *val}
    assert not any("WARNING" in line for line in said)
