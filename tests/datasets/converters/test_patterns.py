import os

import pytest

from veloxseg.datasets.converters.patterns import match_files, patient_of
from veloxseg.errors import DatasetError


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def matched(folder, pattern):
    return {
        case: [path.relative_to(folder).as_posix() for path in paths]
        for case, paths in match_files(folder, pattern).items()
    }


def test_the_case_may_be_a_folder_or_a_part_of_a_name(tmp_path):
    make(tmp_path, "b/CT.nii.gz", "a/CT.nii.gz", "images/c_1_CT.nii.gz", "images/c_1_PET.nii.gz")
    assert matched(tmp_path, "{case}/CT.nii.gz") == {"a": ["a/CT.nii.gz"], "b": ["b/CT.nii.gz"]}
    assert matched(tmp_path, "images/{case}_CT.nii.gz") == {"c_1": ["images/c_1_CT.nii.gz"]}
    assert list(matched(tmp_path, "./images//{case}_CT.nii.gz")) == ["c_1"]


def test_a_case_named_twice_in_a_pattern_must_be_the_same(tmp_path):
    make(tmp_path, "a/a_CT.nii.gz", "a/b_CT.nii.gz")
    assert matched(tmp_path, "{case}/{case}_CT.nii.gz") == {"a": ["a/a_CT.nii.gz"]}


def test_a_star_stays_within_one_folder_and_several_files_are_all_returned(tmp_path):
    make(tmp_path, "a/1/x_CT.nii", "a/2/y_CT.nii", "a/CT.nii", "a/1/2/z_CT.nii")
    assert matched(tmp_path, "{case}/*/*CT.nii") == {"a": ["a/1/x_CT.nii", "a/2/y_CT.nii"]}


def test_hidden_files_are_passed_over_and_links_followed(tmp_path):
    make(tmp_path, "data/a.nii", "data/._a.nii", "data/.hidden/a.nii")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert matched(tmp_path, "linked/{case}.nii") == {"a": ["linked/a.nii"]}
    assert matched(tmp_path, "data/*/{case}.nii") == {}


def test_signs_of_other_wildcards_are_themselves(tmp_path):
    make(tmp_path, "a[1].nii", "a1.nii", "a?b.nii", "axb.nii", "a+.nii")
    assert list(matched(tmp_path, "{case}[1].nii")) == ["a"]
    assert matched(tmp_path, "{case}?b.nii") == {"a": ["a?b.nii"]}
    assert matched(tmp_path, "{case}+.nii") == {"a": ["a+.nii"]}


@pytest.mark.parametrize("pattern", ["CT.nii.gz", "/{case}.nii", "../{case}.nii", "**/{case}.nii"])
def test_a_pattern_without_case_or_out_of_the_folder_is_refused(tmp_path, pattern):
    with pytest.raises(DatasetError, match="cannot be used"):
        match_files(tmp_path, pattern)


def test_a_patient_in_a_pattern_goes_before_the_case(tmp_path):
    make(tmp_path, "p1/first/CT.nii", "p1/second/CT.nii", "p2/first/CT.nii", "p3_b_CT.nii")
    found = matched(tmp_path, "{patient}/{case}/CT.nii")
    assert list(found) == ["p1_first", "p1_second", "p2_first"]
    path = tmp_path / "p1/second/CT.nii"
    assert patient_of(tmp_path, path, "{patient}/{case}/CT.nii") == "p1"
    assert patient_of(tmp_path, path, "{case}/*/CT.nii") is None
    assert list(matched(tmp_path, "{patient}_{case}_CT.nii")) == ["p3_b"]


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_name_that_cannot_be_read_is_refused_and_shown(tmp_path, name):
    try:
        make(tmp_path, f"{os.fsdecode(name)}/CT.nii")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        match_files(tmp_path, "{case}/CT.nii")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
