import shutil

import pytest

from small_datasets import ct, mask, pet, put, put_case, sound_dataset
from veloxseg.datasets.check import check_dataset


@pytest.fixture
def dataset(tmp_path):
    return sound_dataset(tmp_path)


def only_problem(folder):
    (problem,) = check_dataset(folder).problems
    assert problem.severity == "warning"
    return problem


def test_a_case_twice_is_found_even_under_another_header(dataset):
    for channel, data in (("0000", ct(2)), ("0001", pet(2))):
        put(dataset / f"imagesTr/tumour_004_{channel}.nii.gz", data, origin=(9.0, 0.0, 0.0))
    put(dataset / "labelsTr/tumour_004.nii.gz", mask(2), origin=(9.0, 0.0, 0.0))
    problem = only_problem(dataset)
    assert problem.kind == "duplicate_images"
    assert problem.numbers == {
        "cases": ["tumour_002", "tumour_004"],
        "channels": ["CT", "PET"],
        "same_label": True,
    }


def test_one_image_with_two_labels_is_said_to_have_a_wrong_one(dataset):
    put(dataset / "imagesTr/tumour_004_0000.nii.gz", ct(2))
    problem = only_problem(dataset)
    assert problem.numbers["channels"] == ["CT"]
    assert problem.numbers["same_label"] is False
    assert "labels differ" in problem.message


def test_a_training_case_among_the_test_cases_is_a_leak(dataset):
    put_case(dataset, "new", 3, part="Ts")
    problem = only_problem(dataset)
    assert problem.kind == "train_test_duplicate"
    assert problem.numbers["cases"] == ["tumour_003", "new (imagesTs)"]
    assert "shows nothing" in problem.message


def test_a_training_image_without_label_among_the_test_cases_is_a_leak(dataset):
    for channel in ("0000", "0001"):
        (dataset / "imagesTs").mkdir(exist_ok=True)
        shutil.copy(
            dataset / f"imagesTr/tumour_003_{channel}.nii.gz",
            dataset / f"imagesTs/new_{channel}.nii.gz",
        )
    assert only_problem(dataset).kind == "train_test_duplicate"


def test_three_copies_are_one_problem(dataset):
    for number in (3, 5):
        put_case(dataset, f"tumour_00{number}", 1)
    assert only_problem(dataset).numbers["cases"] == ["tumour_001", "tumour_003", "tumour_005"]


def test_one_label_on_two_images_is_found(dataset):
    put(dataset / "labelsTr/tumour_002.nii.gz", mask(1))
    problem = only_problem(dataset)
    assert (problem.kind, problem.part) == ("duplicate_labels", "label")
    assert problem.numbers["cases"] == ["tumour_001", "tumour_002"]


def test_labels_without_foreground_and_constant_images_are_alike_everywhere(dataset):
    for number in (1, 2):
        put(dataset / f"labelsTr/tumour_00{number}.nii.gz", mask() * 0)
        put(dataset / f"imagesTr/tumour_00{number}_0000.nii.gz", ct() * 0)
    kinds = {problem.kind for problem in check_dataset(dataset).problems}
    assert kinds == {"label_empty", "constant"}


def test_a_channel_that_is_a_copy_of_another_is_found(dataset):
    put(dataset / "imagesTr/tumour_002_0001.nii.gz", ct(2))
    looks_like_ct, copied = check_dataset(dataset).problems
    assert looks_like_ct.kind == "pet_looks_like_ct"
    assert (copied.kind, copied.case, copied.part) == ("channel_copied", "tumour_002", "PET")
    assert "PET is a copy of CT" in copied.message


def test_files_of_two_channels_that_were_exchanged_are_seen_by_their_values(dataset):
    put(dataset / "imagesTr/tumour_002_0000.nii.gz", pet(2))
    put(dataset / "imagesTr/tumour_002_0001.nii.gz", ct(2))
    kinds = [problem.kind for problem in check_dataset(dataset).problems]
    assert kinds == ["ct_rescaled", "pet_looks_like_ct"]
