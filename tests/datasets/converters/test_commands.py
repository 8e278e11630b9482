import pytest
from typer.testing import CliRunner

from phantom_trees import put_brats, put_hecktor, put_numbered
from veloxseg.cli import app
from veloxseg.commands.naming import channel_patterns, label_names, spacing_zyx
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError


def run(*words):
    return CliRunner().invoke(app, ["convert", *map(str, words)])


def test_brats_is_converted_by_one_command(tmp_path):
    names = {"FLAIR": "Flair.nii.gz", "T1c": "T1c.nii.gz", "label": "OTMultiClass.nii.gz"}
    put_brats(tmp_path / "source/pat0001", names, (1, 3, 4, 2), ("FLAIR", "T1c"))
    result = run("brats", tmp_path / "source", "Dataset013_BRATS", "--root", tmp_path)
    assert result.exit_code == 0, result.output
    assert read_description(tmp_path / "nnUNet_raw/Dataset013_BRATS").has_regions


def test_hecktor_is_converted_by_one_command(tmp_path):
    put_hecktor(tmp_path / "source", "CHUM-001")
    words = ("hecktor", tmp_path / "source", "22_HaN", "--spacing=4,4,5", "--root", tmp_path)
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "nnUNet_raw/Dataset022_HaN/dataset.json").is_file()
    again = run(*words[:3], "--root", tmp_path)
    assert again.exit_code == 2
    assert "spacing_zyx was [4.0, 4.0, 5.0], is [1.0, 1.0, 1.0]" in again.output


def test_autopet_is_converted_by_one_command(tmp_path):
    put_numbered(tmp_path / "source", "fdg_a_b", order=("PET", "CT"))
    words = ("autopet", tmp_path / "source", "21_PET", "--root", tmp_path)
    wrong = run(*words, "--order", "CT,PET")
    assert wrong.exit_code == 2
    assert "looks like" in wrong.output
    result = run(*words, "--order", "PET, CT")
    assert result.exit_code == 0, result.output
    assert read_description(tmp_path / "nnUNet_raw/Dataset021_PET").channels == ("CT", "PET")


def test_a_release_of_unknown_names_ends_with_what_was_expected(tmp_path):
    result = run("brats", tmp_path, "1_A", "--root", tmp_path)
    assert result.exit_code == 2
    assert "Found there: nothing" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "spacing"), [("1", (1, 1, 1)), ("3,1,0.5", (3, 1, 0.5)), ("keep", None)]
)
def test_a_spacing_is_one_number_or_three_or_kept(text, spacing):
    assert spacing_zyx(text) == spacing


@pytest.mark.parametrize("text", ["", "1,2", "0", "-1", "1,1,x", "nan", "inf"])
def test_another_spacing_is_refused(text):
    with pytest.raises(DatasetError, match="--spacing"):
        spacing_zyx(text)


@pytest.mark.parametrize(
    ("read", "words"),
    [(channel_patterns, ["CT"]), (channel_patterns, ["CT=a", "CT=b"]), (label_names, ["a=b"])],
)
def test_words_of_another_form_are_refused(read, words):
    with pytest.raises(DatasetError, match="expected NAME="):
        read(words)
