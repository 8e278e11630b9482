import pytest

from veloxseg.datasets.workspace import Workspace, parse_dataset_name
from veloxseg.errors import DatasetError


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace.resolve(tmp_path)
    (workspace.raw / "Dataset004_Hippocampus").mkdir(parents=True)
    (workspace.raw / "Dataset100_Tumour").mkdir()
    return workspace


@pytest.mark.parametrize(
    "dataset", ["4", "004", "4_Hippocampus", "004_Hippocampus", "Dataset004_Hippocampus"]
)
def test_a_dataset_is_found_by_number_and_by_name(workspace, dataset):
    assert workspace.dataset_name(dataset) == "Dataset004_Hippocampus"


def test_an_unknown_dataset_is_refused_and_the_known_ones_are_named(workspace):
    with pytest.raises(DatasetError, match="Dataset100_Tumour"):
        workspace.dataset_name("7")


def test_a_number_taken_twice_is_refused_and_both_names_are_given(workspace):
    (workspace.results / "Dataset100_Lesion").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"taken twice.*Dataset100_Lesion.*Dataset100_Tumour"):
        workspace.dataset_name("100")


def test_a_name_that_contradicts_its_number_is_refused(workspace):
    with pytest.raises(DatasetError, match="Dataset100_Tumour"):
        workspace.dataset_name("Dataset100_Lesion")
    with pytest.raises(DatasetError, match="Dataset100_Tumour"):
        workspace.dataset_name("100_Lesion")


def test_a_new_dataset_needs_a_free_number(workspace):
    assert workspace.new_dataset_name("101_Tumour") == "Dataset101_Tumour"
    assert workspace.new_dataset_name("Dataset100_Tumour") == "Dataset100_Tumour"
    with pytest.raises(DatasetError, match="taken by Dataset100_Tumour"):
        workspace.new_dataset_name("100_Lesion")


@pytest.mark.parametrize(
    "text", ["", "Tumour", "100", "Dataset100", "Dataset1_A", "../100_x", "100_Tumör"]
)
def test_a_text_without_number_and_name_is_no_dataset_name(text):
    with pytest.raises(DatasetError, match="no dataset name"):
        parse_dataset_name(text)


def test_without_root_and_variables_the_folders_are_asked_for(monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DatasetError, match="--root"):
        Workspace.resolve()


def test_the_root_sets_nnunets_three_variables(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "elsewhere")
    Workspace.resolve(tmp_path).export()
    import os

    assert os.environ["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert (tmp_path / "nnUNet_results").is_dir()
