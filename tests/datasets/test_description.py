import json

import pytest

from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError

PLAIN = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "tumour": 1, "node": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
REGIONS = PLAIN | {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    "regions_class_order": [1, 2, 3],
}


def read(tmp_path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "dataset.json").write_text(text)
    return read_description(tmp_path)


def test_channels_and_labels_are_read(tmp_path):
    description = read(tmp_path, PLAIN)
    assert description.channels == ("CT", "PET")
    assert description.label_values == (0, 1, 2)
    assert description.num_training == 3
    assert not description.has_regions


def test_channels_come_in_the_order_of_their_numbers(tmp_path):
    names = {str(index): f"c{index}" for index in reversed(range(12))}
    description = read(tmp_path, PLAIN | {"channel_names": names})
    assert description.channels == tuple(f"c{index}" for index in range(12))


def test_unknown_keys_are_kept(tmp_path):
    content = PLAIN | {"licence": "CC BY 4.0", "overwrite_image_reader_writer": "NibabelIO"}
    assert read(tmp_path, content).to_json() == content


def test_regions_are_read_and_written_as_lists(tmp_path):
    description = read(tmp_path, REGIONS)
    assert description.has_regions
    assert description.label_values == (0, 1, 2, 3)
    assert description.to_json() == REGIONS


def test_optional_channels_are_read_by_name_and_written_only_where_there_are_some(tmp_path):
    content = PLAIN | {"optional": ["PET"]}
    description = read(tmp_path, content)
    assert description.optional_channels == (1,)
    assert description.to_json() == content
    assert read(tmp_path, PLAIN).optional_channels == ()
    assert "optional" not in read(tmp_path, PLAIN).to_json()


def test_all_channels_may_be_optional(tmp_path):
    assert read(tmp_path, PLAIN | {"optional": ["PET", "CT"]}).optional_channels == (0, 1)


def test_the_ignore_label_is_among_the_values_and_named(tmp_path):
    labels = {"background": 0, "tumour": 1, "ignore": 2}
    description = read(tmp_path, PLAIN | {"labels": labels})
    assert description.ignore_label == 2
    assert description.label_values == (0, 1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"tumour": 1}}, "background missing"),
        ({"labels": {"background": 1, "tumour": 0}}, "background 1"),
        ({"labels": {"background": 0, "tumour": 2}}, "consecutive"),
        ({"labels": {"0": "background", "1": "tumour"}}, "from value to name"),
        ({"labels": {"background": 0, "ignore": 1, "tumour": 2}}, "'ignore' is 1"),
        ({"labels": {"background": 0, "tumour": 1, "ignore": [2]}}, "'ignore' is a list"),
        ({"labels": {"background": 0, "tumour": "one"}}, "labels.tumour"),
        ({"labels": REGIONS["labels"]}, "regions_class_order is None"),
        (REGIONS | {"regions_class_order": [1, 2]}, "one value for each of the regions"),
        (REGIONS | {"regions_class_order": [1, 2, 4]}, "values that labels has"),
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": {"1": "CT"}}, "without a gap"),
        ({"channel_names": {"CT": "0"}}, "without a gap"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"numTraining": -1}, "numTraining"),
        ({"optional": ["PET", "MR"]}, "optional names MR. Expected some of the channels CT, PET"),
        ({"optional": "PET"}, "optional"),
        ({"channel_names": {"0": "MR", "1": "MR"}, "optional": ["MR"]}, "a name twice"),
    ],
)
def test_what_breaks_nnunets_rules_is_refused(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(tmp_path, PLAIN | change)
    assert "dataset.json" in str(caught.value)


def test_the_decathlons_form_is_recognised(tmp_path):
    content = {key: value for key, value in PLAIN.items() if key != "channel_names"}
    with pytest.raises(DatasetError, match="convert msd"):
        read(tmp_path, content | {"modality": {"0": "CT"}})


@pytest.mark.parametrize("content", ["{not json", "[1, 2]", '"text"'])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        read(tmp_path, content)


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(DatasetError, match="numTraining"):
        read(tmp_path, {key: value for key, value in PLAIN.items() if key != "numTraining"})


def test_a_missing_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_description(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        read_description(tmp_path)
