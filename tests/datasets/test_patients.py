import json

import pytest

from veloxseg.datasets.converters.manifest import CaseRecord, GridRecord, write_record
from veloxseg.datasets.patients import patients_of_cases
from veloxseg.errors import DatasetError
from veloxseg.volumes.volume import Grid


@pytest.fixture
def folder(tmp_path):
    describe(tmp_path)
    return tmp_path


def describe(folder, **change):
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content | change))


def record(folder, patients, part="Tr"):
    grid = GridRecord.of(Grid(size_zyx=(1, 1, 1), spacing_zyx=(1, 1, 1), origin_xyz=(0, 0, 0)))
    for case, patient in patients.items():
        content = CaseRecord(
            case=case, patient=patient, sources={}, written={}, grid=grid, resampled={}
        )
        write_record(folder, content, part=part)


def test_without_further_knowledge_each_case_is_a_patient_of_its_own(folder):
    assert patients_of_cases(folder, ["a_1", "a_2"]) == {"a_1": "a_1", "a_2": "a_2"}


def test_the_conversion_says_whose_case_it_is(folder):
    record(folder, {"a_1": "A", "a_2": "A", "b": None})
    record(folder, {"t": "T"}, part="Ts")
    assert patients_of_cases(folder, ["a_1", "a_2", "b", "t"]) == {
        "a_1": "A",
        "a_2": "A",
        "b": "b",
        "t": "T",
    }


@pytest.mark.parametrize(
    ("pattern", "case", "patient"),
    [
        ("{patient}_*", "P1_2020_01", "P1"),
        ("BraTS-GLI-{patient}-*", "BraTS-GLI-00001-000", "00001"),
        ("*_{patient}", "fdg_x_7", "x_7"),
        ("{patient}", "whole", "whole"),
        ("a.b[{patient}]*", "a.b[7]c", "7"),
    ],
)
def test_a_pattern_reads_the_patient_from_the_name(folder, pattern, case, patient):
    describe(folder, patient_pattern=pattern)
    assert patients_of_cases(folder, [case]) == {case: patient}


def test_the_pattern_serves_the_cases_that_the_conversion_names_no_patient_of(folder):
    describe(folder, patient_pattern="{patient}_*")
    record(folder, {"a_1": "Anna", "b_1": None})
    assert patients_of_cases(folder, ["a_1", "b_1", "b_2"]) == {
        "a_1": "Anna",
        "b_1": "b",
        "b_2": "b",
    }


def test_a_name_that_does_not_match_is_an_error(folder):
    describe(folder, patient_pattern="{patient}_*")
    with pytest.raises(DatasetError, match="the case whole does not match"):
        patients_of_cases(folder, ["a_1", "whole"])


@pytest.mark.parametrize("pattern", ["case_*", "{patient}_{patient}", 3])
def test_a_pattern_without_exactly_one_patient_is_an_error(folder, pattern):
    describe(folder, patient_pattern=pattern)
    with pytest.raises(DatasetError, match="patient_pattern is"):
        patients_of_cases(folder, ["a_1"])


def test_a_broken_record_of_the_conversion_is_an_error(folder):
    record(folder, {"a_1": "A"})
    (folder / "conversion_Tr/a_1.json").write_text("{")
    with pytest.raises(DatasetError, match=r"a_1\.json: no record"):
        patients_of_cases(folder, ["a_1"])


def test_training_and_test_cases_of_one_name_may_be_of_two_patients(folder):
    record(folder, {"1": "Anna"}, part="Tr")
    record(folder, {"1": "Bert"}, part="Ts")
    assert patients_of_cases(folder, ["1"], part="Tr") == {"1": "Anna"}
    assert patients_of_cases(folder, ["1"], part="Ts") == {"1": "Bert"}
    assert patients_of_cases(folder, ["1"]) == {"1": "Anna"}
