import pytest

from veloxseg.datasets.cases import find_cases, find_channels
from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import DatasetError

FILES = [
    "imagesTr/b_0000.nii.gz",
    "imagesTr/b_0001.nii.gz",
    "imagesTr/a_0001.nii.gz",
    "imagesTr/a_0000.nii.gz",
    "labelsTr/b.nii.gz",
    "labelsTr/a.nii.gz",
]


def description(**extra):
    return DatasetDescription.model_validate(
        {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": {"background": 0, "tumour": 1},
            "numTraining": 2,
            "file_ending": ".nii.gz",
            **extra,
        }
    )


def make(folder, files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_and_labels_are_paired_by_name_and_channel(tmp_path):
    make(tmp_path, FILES)
    first, second = find_cases(tmp_path, description())
    assert (first.name, second.name) == ("a", "b")
    assert [path.name for path in first.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert first.label == tmp_path / "labelsTr/a.nii.gz"


def test_a_case_may_be_named_like_a_channel(tmp_path):
    make(tmp_path, [name.replace("a_", "a_0003_").replace("/a.", "/a_0003.") for name in FILES])
    assert [case.name for case in find_cases(tmp_path, description())] == ["a_0003", "b"]


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    make(tmp_path, [*FILES, "imagesTr/._a_0000.nii.gz", "imagesTr/notes.txt", "labelsTr/.x.nii.gz"])
    assert len(find_cases(tmp_path, description())) == 2


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("imagesTr/a_0001.nii.gz", r"Case a: no PET image .*imagesTr/a_0001\.nii\.gz"),
        ("labelsTr/a.nii.gz", r"Case a: no label .*labelsTr/a\.nii\.gz"),
        ("imagesTr/a_000?.nii.gz", "Case a: has a label but no image"),
    ],
)
def test_a_missing_counterpart_is_an_error(tmp_path, removed, message):
    make(tmp_path, FILES)
    for path in tmp_path.glob(removed):
        path.unlink()
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path, description())


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("imagesTr/a_0002.nii.gz", "channel 0002, but dataset.json has 2"),
        ("imagesTr/c.nii.gz", "no channel number"),
    ],
)
def test_a_file_too_many_is_an_error(tmp_path, added, message):
    make(tmp_path, [*FILES, added])
    with pytest.raises(DatasetError, match=message):
        find_cases(tmp_path, description())


def test_all_problems_are_reported_at_once(tmp_path):
    make(tmp_path, [*FILES, "imagesTr/c_0000.nii.gz", "labelsTr/d.nii.gz"])
    with pytest.raises(DatasetError, match="3 problems") as caught:
        find_cases(tmp_path, description())
    for text in ("Case c: no PET image", "Case c: no label", "Case d: has a label"):
        assert text in str(caught.value)


def test_beyond_twenty_problems_are_counted(tmp_path):
    make(tmp_path, [f"labelsTr/{index:02d}.nii.gz" for index in range(25)])
    make(tmp_path, ["imagesTr/notes.txt"])
    with pytest.raises(DatasetError, match="25 problems") as caught:
        find_cases(tmp_path, description())
    assert "and 5 more" in str(caught.value)
    assert "Case 20" not in str(caught.value)


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="imagesTr: no such folder"):
        find_cases(tmp_path, description())


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(DatasetError, match="no file"):
        find_cases(tmp_path, description())


def test_files_of_another_ending_are_named(tmp_path):
    make(tmp_path, ["imagesTr/a_0000.nrrd"])
    with pytest.raises(DatasetError, match=r"files ending in \.nrrd"):
        find_cases(tmp_path, description())


def test_test_cases_need_no_label_and_take_one_that_is_there(tmp_path):
    make(tmp_path, [name.replace("Tr/", "Ts/") for name in FILES if name != "labelsTr/a.nii.gz"])
    first, second = find_cases(tmp_path, description(), part="Ts")
    assert first.label is None
    assert second.label == tmp_path / "labelsTs/b.nii.gz"


def test_files_that_dataset_json_lists_are_taken_from_there(tmp_path):
    make(tmp_path, ["x/ct.nii.gz", "x/pet.nii.gz", "x/mask.nii.gz"])
    listed = {"p": {"images": ["x/ct.nii.gz", "x/pet.nii.gz"], "label": "x/mask.nii.gz"}}
    (case,) = find_cases(tmp_path, description(dataset=listed))
    assert case.name == "p"
    assert case.label == tmp_path / "x/mask.nii.gz"
    listed["p"]["images"] = ["x/ct.nii.gz"]
    listed["p"]["label"] = "x/absent.nii.gz"
    with pytest.raises(DatasetError, match="2 problems"):
        find_cases(tmp_path, description(dataset=listed))


def test_the_file_of_an_optional_channel_may_lack(tmp_path):
    make(tmp_path, [name for name in FILES if name != "imagesTr/a_0001.nii.gz"])
    first, second = find_cases(tmp_path, description(optional=["PET"]))
    images = tmp_path / "imagesTr"
    assert first.images == (images / "a_0000.nii.gz", None)
    assert first.present == {0: images / "a_0000.nii.gz"}
    assert first.absent == (1,)
    assert first.files == (images / "a_0000.nii.gz", tmp_path / "labelsTr/a.nii.gz")
    assert None not in second.images
    assert second.absent == ()


def test_a_missing_required_channel_is_an_error_that_names_the_optional_ones(tmp_path):
    make(tmp_path, [name for name in FILES if name != "imagesTr/a_0000.nii.gz"])
    with pytest.raises(DatasetError, match=r"no CT image .* but the optional ones \(PET\)"):
        find_cases(tmp_path, description(optional=["PET"]))


def test_a_case_without_any_channel_is_an_error_even_if_all_are_optional(tmp_path):
    make(tmp_path, [name for name in FILES if "imagesTr/a" not in name])
    with pytest.raises(DatasetError, match="Case a: has a label but no image"):
        find_cases(tmp_path, description(optional=["CT", "PET"]))


def test_a_list_in_dataset_json_cannot_leave_a_channel_out(tmp_path):
    make(tmp_path, ["x/ct.nii.gz", "x/mask.nii.gz"])
    listed = {"p": {"images": ["x/ct.nii.gz", None], "label": "x/mask.nii.gz"}}
    with pytest.raises(DatasetError, match=r"Case p: dataset\.json names null"):
        find_cases(tmp_path, description(dataset=listed, optional=["PET"]))


def test_the_channels_of_a_folder_of_images_are_found_by_their_names(tmp_path):
    make(tmp_path, [*FILES, "imagesTr/c_0001.nii.gz", "imagesTr/notes.txt"])
    found = find_channels(tmp_path / "imagesTr", description())
    assert found == {"a": (0, 1), "b": (0, 1), "c": (1,)}
