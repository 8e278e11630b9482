from pathlib import Path

import numpy as np
import pytest

from veloxseg.datasets.cases import Case
from veloxseg.datasets.checking.label_values import check_label, unseen_values
from veloxseg.datasets.description import validate_description
from veloxseg.volumes.volume import Volume

CASE = Case(name="case", images=(Path("case_0000.nii.gz"),), label=Path("case.nii.gz"))


def description(labels=None):
    content = {
        "channel_names": {"0": "CT"},
        "labels": labels or {"background": 0, "tumour": 1, "node": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return validate_description(content, where="test")


def check(values, labels=None):
    volume = Volume(data=np.asarray(values), spacing_zyx=(1, 1, 1))
    return check_label(CASE, volume, description(labels))


def label(dtype=np.uint8):
    data = np.zeros((3, 4, 5), dtype)
    data[0, 0] = 1
    data[1:, 1] = 2
    return data


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_the_values_of_a_sound_label_are_counted(dtype):
    counts, problems = check(label(dtype))
    assert counts == {0: 45, 1: 5, 2: 10}
    assert problems == []


def test_counts_agree_with_numpys_for_negative_and_large_values():
    data = np.random.default_rng(0).choice([-7, 0, 3, 70000], size=(3, 4, 5)).astype(np.int32)
    counts, (problem, *_) = check(data)
    values, times = np.unique(data, return_counts=True)
    assert counts == dict(zip(values.tolist(), times.tolist(), strict=True))
    assert (problem.kind, problem.severity) == ("label_unknown_value", "error")
    assert set(problem.numbers["num_voxels"]) == {"-7", "3", "70000"}


def test_an_unknown_value_is_named_with_those_expected():
    data = label()
    data[2, 3] = 4
    _, (problem,) = check(data)
    assert "values [4]" in problem.message
    assert "[0, 1, 2]" in problem.message


def test_floats_that_are_integers_are_a_warning_and_counted():
    counts, (problem,) = check(label(np.float32))
    assert counts == {0: 45, 1: 5, 2: 10}
    assert (problem.kind, problem.severity) == ("label_as_float", "warning")


def test_floats_that_are_nearly_integers_are_an_error_with_their_departure():
    counts, (problem,) = check(label(np.float64) * 0.9999)
    assert counts == {0: 45, 1: 5, 2: 10}
    assert (problem.kind, problem.severity) == ("label_inexact", "error")
    assert problem.numbers["departure"] == pytest.approx(2e-4)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_other_floats_are_an_error_that_counts_the_voxels_of_the_whole(value):
    data = label(np.float32)
    data[:, 3, 4] = value
    counts, (problem,) = check(data)
    assert not counts
    assert (problem.kind, problem.severity) == ("label_not_integer", "error")
    assert "3 voxels" in problem.message


def test_a_label_without_foreground_is_a_warning():
    _, (problem,) = check(np.zeros((3, 4, 5), np.uint8))
    assert (problem.kind, problem.severity) == ("label_empty", "warning")
    assert "tumour = 1, node = 2" in problem.message


def test_a_label_of_nothing_but_unannotated_voxels_has_no_foreground():
    labels = {"background": 0, "tumour": 1, "ignore": 2}
    data = np.zeros((3, 4, 5), np.uint8)
    data[0] = 2
    assert [problem.kind for problem in check(data, labels)[1]] == ["label_empty"]


def test_a_region_allows_all_its_values():
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3]}
    content = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "regions_class_order": [1, 2],
    }
    data = label()
    data[2, 3] = 3
    volume = Volume(data=data, spacing_zyx=(1, 1, 1))
    _, problems = check_label(CASE, volume, validate_description(content, where="test"))
    assert problems == []


@pytest.mark.parametrize(
    ("num_voxels", "kinds"), [(1, ["label_speck"]), (3, ["label_speck"]), (4, [])]
)
def test_a_few_voxels_of_a_value_are_a_warning(num_voxels, kinds):
    data = label()
    data[data == 2] = 0
    data.reshape(-1)[-num_voxels:] = 2
    _, problems = check(data)
    assert [problem.kind for problem in problems] == kinds


def test_values_that_no_case_has_are_named():
    (problem,) = unseen_values({0, 1}, description())
    assert (problem.kind, problem.numbers) == ("label_value_never_seen", {"values": [2]})
    assert list(unseen_values({0, 1, 2}, description())) == []
