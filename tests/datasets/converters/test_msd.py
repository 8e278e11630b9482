import json

import nibabel
import numpy as np
import pytest

from phantom_trees import contents
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.converters.msd import convert_msd
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid

AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])
SIZE_XYZ = (6, 5, 4)


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def noise(*channels):
    return np.random.default_rng(0).normal(size=(*SIZE_XYZ, *channels)).astype(np.float32)


def mask():
    data = np.zeros(SIZE_XYZ, np.uint8)
    data[1:4, 2:4, 1:3] = 1
    data[1, 2, 1] = 2
    return data


def make_task(folder, *channels, modality=("MRI",), **change):
    for name in ("brain_1", "brain_2"):
        save(folder / f"imagesTr/{name}.nii.gz", noise(*channels))
        save(folder / f"labelsTr/{name}.nii.gz", mask())
    save(folder / "imagesTs/brain_3.nii.gz", noise(*channels))
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "._brain_1.nii.gz").write_bytes(b"macOS")
    content = {
        "name": "Brain",
        "licence": "CC-BY-SA 4.0",
        "modality": {str(index): name for index, name in enumerate(modality)},
        "labels": {"0": "Background", "1": "oedema", "2": "core"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in ("brain_1", "brain_2")
        ],
        "test": ["./imagesTs/brain_3.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content | change))
    return folder


@pytest.fixture
def task(tmp_path):
    return tmp_path / "Task07_Brain"


def test_a_task_of_one_channel_becomes_a_sound_dataset(task, workspace):
    steps = []
    folder = convert_msd(
        make_task(task), workspace=workspace, progress=lambda *step: steps.append(step)
    )
    assert folder == workspace.raw / "Dataset007_Brain"
    assert check_dataset(folder).errors == []
    assert check_dataset(folder).num_cases == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]
    description = read_description(folder)
    assert description.channels == ("MRI",)
    assert description.labels == {"background": 0, "oedema": 1, "core": 2}
    assert description.num_training == 2
    assert description.to_json()["licence"] == "CC-BY-SA 4.0"
    image = read_volume(folder / "imagesTr/brain_1_0000.nii.gz")
    np.testing.assert_array_equal(image.data, noise().T)
    assert image.spacing_zyx == (3.0, 2.0, 1.0)
    np.testing.assert_array_equal(read_volume(folder / "labelsTr/brain_1.nii.gz").data, mask().T)


def test_the_fourth_axis_becomes_channels_in_their_order(task, workspace):
    make_task(task, 3, modality=("FLAIR", "T1w", "T2w"))
    folder = convert_msd(task, "Dataset020_Other", workspace=workspace)
    assert folder.name == "Dataset020_Other"
    assert read_description(folder).channels == ("FLAIR", "T1w", "T2w")
    for channel in range(3):
        data = read_volume(folder / f"imagesTr/brain_2_{channel:04d}.nii.gz").data
        np.testing.assert_array_equal(data, noise(3)[..., channel].T)
    assert len(list((folder / "imagesTs").iterdir())) == 3
    assert check_dataset(folder).errors == []


def test_a_channel_number_that_dataset_json_contradicts_is_an_error(task, workspace):
    make_task(task, 2, modality=("FLAIR", "T1w", "T2w"))
    with pytest.raises(DatasetError, match=r"has 2 channels. Expected 3: FLAIR, T1w, T2w"):
        convert_msd(task, workspace=workspace)


def test_a_two_dimensional_image_is_an_error(task, workspace):
    make_task(task)
    save(task / "imagesTr/brain_2.nii.gz", np.ones((6, 5), np.float32))
    with pytest.raises(ImageReadError, match="2 axes"):
        convert_msd(task, workspace=workspace)


def test_a_label_on_another_grid_is_an_error(task, workspace):
    make_task(task)
    save(task / "labelsTr/brain_2.nii.gz", mask(), np.diag([-1.0, 2.0, 2.0, 1.0]))
    with pytest.raises(GeometryError, match="Case brain_2: MRI has spacing"):
        convert_msd(task, workspace=workspace)


def test_missing_files_are_reported_together(task, workspace):
    make_task(task)
    (task / "imagesTr/brain_1.nii.gz").unlink()
    (task / "labelsTr/brain_2.nii.gz").unlink()
    with pytest.raises(DatasetError, match="2 problems") as caught:
        convert_msd(task, workspace=workspace)
    assert "Case brain_1: no file" in str(caught.value)
    assert not workspace.raw.exists()


def test_the_test_images_may_be_left_out(task, workspace):
    make_task(task)
    (task / "imagesTs/brain_3.nii.gz").unlink()
    folder = convert_msd(task, workspace=workspace)
    assert not (folder / "imagesTs").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"modality": ()},
        {"labels": {"background": 0}},
        {"training": []},
        {"training": [{"image": "./imagesTr/brain_1.nii.gz"}]},
        {"training": [{"image": 1, "label": 1}]},
        {"test": [1]},
        {"modality": (["MRI"],)},
        {
            "training": [{"image": "imagesTr/brain_1.nii.gz", "label": "labelsTr/brain_1.nii.gz"}]
            * 2
        },
        {"labels": {"0": "background", "2": "core"}},
    ],
)
def test_a_dataset_json_of_another_form_is_refused(task, workspace, change):
    make_task(task, **change)
    with pytest.raises(DatasetError):
        convert_msd(task, workspace=workspace)


def test_a_folder_without_dataset_json_or_a_telling_name_is_refused(tmp_path, task, workspace):
    with pytest.raises(DatasetError, match="Medical Segmentation Decathlon"):
        convert_msd(tmp_path, workspace=workspace)
    renamed = make_task(task).rename(tmp_path / "brain")
    with pytest.raises(DatasetError, match="DatasetNNN_Name"):
        convert_msd(renamed, workspace=workspace)
    (renamed / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        convert_msd(renamed, workspace=workspace)


def test_a_conversion_resumes_where_it_stopped(task, workspace):
    make_task(task)
    whole = (task / "imagesTr/brain_2.nii.gz").read_bytes()
    (task / "imagesTr/brain_2.nii.gz").write_bytes(whole[:-20])
    with pytest.raises(ImageReadError):
        convert_msd(task, workspace=workspace)
    folder = workspace.raw / "Dataset007_Brain"
    assert not (folder / "dataset.json").exists()
    before = (folder / "imagesTr/brain_1_0000.nii.gz").stat().st_mtime_ns
    (task / "imagesTr/brain_2.nii.gz").write_bytes(whole)
    convert_msd(task, workspace=workspace)
    assert (folder / "imagesTr/brain_1_0000.nii.gz").stat().st_mtime_ns == before
    assert check_dataset(folder).errors == []


def test_a_label_value_that_dataset_json_does_not_name_is_an_error(task, workspace):
    make_task(task)
    save(task / "labelsTr/brain_2.nii.gz", mask() * 2)
    with pytest.raises(DatasetError, match=r"Case brain_2: the label has values \[4\]"):
        convert_msd(task, workspace=workspace)


def test_the_record_of_a_case_names_its_one_file_for_every_channel(task, workspace):
    make_task(task, 2, modality=("FLAIR", "T1w"))
    folder = convert_msd(task, workspace=workspace, num_workers=2)
    record = read_records(folder)["brain_1"]
    assert record.sources == {
        "FLAIR": "imagesTr/brain_1.nii.gz",
        "T1w": "imagesTr/brain_1.nii.gz",
        "label": "labelsTr/brain_1.nii.gz",
    }
    assert record.patient is None
    assert list(read_records(folder, part="Ts")) == ["brain_3"]


def test_a_second_run_changes_nothing(task, workspace):
    make_task(task)
    folder = convert_msd(task, workspace=workspace)
    before = contents(folder)
    convert_msd(task, workspace=workspace)
    assert contents(folder) == before


def test_hippocampi_of_the_decathlon_in_its_form_are_those_of_nnunet(shared, task, workspace):
    """The shared data are in nnU-Net's form already; a few are put back into the Decathlon's."""
    source = shared / "data/hippocampus/Dataset004_Hippocampus"
    names = sorted(path.name for path in (source / "labelsTr").iterdir())[:3]
    for name in names:
        for part, file in (("imagesTr", name.replace(".nii", "_0000.nii")), ("labelsTr", name)):
            (task / part).mkdir(parents=True, exist_ok=True)
            (task / part / name).symlink_to(source / part / file)
    training = [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names]
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": training,
    }
    (task / "dataset.json").write_text(json.dumps(content))
    folder = convert_msd(task, workspace=workspace)
    assert check_dataset(folder).errors == []
    for name in names:
        for file in (f"labelsTr/{name}", f"imagesTr/{name.replace('.nii', '_0000.nii')}"):
            ours, theirs = read_volume(folder / file), read_volume(source / file)
            np.testing.assert_array_equal(ours.data, theirs.data)
            assert same_grid(ours, theirs)
