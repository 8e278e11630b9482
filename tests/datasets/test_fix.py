import hashlib
import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from small_datasets import (
    ct,
    describe,
    mask,
    pet,
    put,
    put_case,
    set_header,
    shear,
    sound_dataset,
)
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.manifest import CaseRecord, GridRecord, write_record
from veloxseg.datasets.fix import fix_dataset
from veloxseg.datasets.patients import patients_of_cases
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import read_grid, read_volume
from veloxseg.volumes.volume import same_grid

NEW = "Dataset101_Mended"


@pytest.fixture
def workspace(tmp_path):
    return Workspace.resolve(tmp_path)


@pytest.fixture
def dataset(workspace):
    """Five sound cases of CT and PET."""
    return sound_dataset(workspace.raw / "Dataset100_Small")


def fix(dataset, workspace, **options):
    return fix_dataset(check_dataset(dataset), NEW, workspace=workspace, **options)


def states(folder):
    """Content and time of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digests(folder):
    return {name: digest for name, (digest, _) in states(folder).items()}


def break_everything(dataset):
    """One case of each kind that can be mended."""
    shear(dataset / "labelsTr/tumour_001.nii.gz", amount=0.01)
    put(dataset / "imagesTr/tumour_002_0001.nii.gz", pet(2), origin=(0.1, 0.0, 0.0))
    put(dataset / "labelsTr/tumour_003.nii.gz", mask(3) * np.float32(0.99999997))
    put(dataset / "labelsTr/tumour_004.nii.gz", mask(4).astype(np.float32))
    set_header(dataset / "imagesTr/tumour_005_0000.nii.gz", qoffset_x=17.0)
    describe(dataset, numTraining=9)


def test_what_was_mended_passes_the_check_and_nnunets_reader(dataset, workspace):
    break_everything(dataset)
    before = check_dataset(dataset)
    assert {problem.kind for problem in before.problems} == {
        "not_orthonormal",
        "grids_nearly_equal",
        "label_inexact",
        "label_as_float",
        "forms_disagree",
        "num_training",
    }
    report = fix(dataset, workspace)
    assert report.left_out == ()
    after = check_dataset(report.folder)
    assert after.problems == []
    assert after.num_cases == 5
    for label in sorted((report.folder / "labelsTr").iterdir()):
        images = sorted((report.folder / "imagesTr").glob(label.name.replace(".", "_*.", 1)))
        data, _ = SimpleITKIO().read_images([str(path) for path in images])
        seg, _ = SimpleITKIO().read_seg(str(label))
        assert data.shape[0] == 2
        assert seg.astype(np.int8).max() == 1


def test_voxels_stay_what_they_were(dataset, workspace):
    break_everything(dataset)
    report = fix(dataset, workspace)
    for case in report.cases:
        for file in case.files:
            old, new = read_volume(file.source), read_volume(report.folder / file.name)
            if file.is_image:
                assert np.array_equal(old.data, new.data)
            else:
                assert np.array_equal(np.rint(old.data), new.data)
                assert new.data.dtype == np.uint8


def test_the_original_is_not_touched(dataset, workspace):
    break_everything(dataset)
    before = states(dataset)
    fix(dataset, workspace)
    assert states(dataset) == before


def test_a_second_run_changes_nothing(dataset, workspace):
    break_everything(dataset)
    report = fix(dataset, workspace)
    before = states(report.folder)
    assert fix(dataset, workspace) == report
    assert states(report.folder) == before


def test_several_processes_write_what_one_writes(dataset, workspace, tmp_path):
    break_everything(dataset)
    one = fix(dataset, workspace)
    two = fix_dataset(
        check_dataset(dataset), "Dataset102_Again", workspace=workspace, num_workers=2
    )
    digests = [
        {name: digest for name, (digest, _) in states(fixed.folder).items()} for fixed in (one, two)
    ]
    assert digests[0] == digests[1]


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, workspace):
    break_everything(dataset)

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fix(dataset, workspace, progress=interrupt)
    folder = workspace.raw / NEW
    assert not (folder / "dataset.json").exists()
    (folder / "labelsTr/.12345678.partial.tumour_004.nii.gz").write_bytes(b"half")  # kill -9
    written = states(folder)
    report = fix(dataset, workspace)
    assert check_dataset(report.folder).problems == []
    after = states(report.folder)
    assert not any(".partial." in name for name in after)
    for name, state in written.items():
        if ".partial." not in name:
            assert after[name] == state


def test_the_record_says_what_was_done_to_each_file(dataset, workspace):
    break_everything(dataset)
    report = fix(dataset, workspace)
    record = json.loads((report.folder / "mending.json").read_text())
    assert record["source"] == str(dataset)
    assert record["num_training"] == {"before": 9, "now": 5}
    assert record["left_out"] == []
    assert len(record["files"]) == 15
    mended = {name: file["mended"] for name, file in record["files"].items() if file["mended"]}
    assert mended == {
        "labelsTr/tumour_001.nii.gz": ["grids_nearly_equal", "not_orthonormal"],
        "imagesTr/tumour_002_0001.nii.gz": ["grids_nearly_equal"],
        "labelsTr/tumour_003.nii.gz": ["label_inexact"],
        "labelsTr/tumour_004.nii.gz": ["label_as_float"],
        "imagesTr/tumour_005_0000.nii.gz": ["forms_disagree"],
    }
    assert record["files"]["imagesTr/tumour_002_0001.nii.gz"]["done"] == [
        "header of CT taken over; a corner lay 0.1 voxels away"
    ]
    assert record["files"]["imagesTr/tumour_001_0000.nii.gz"]["done"] == ["taken over as it is"]


def test_a_header_that_nearly_fits_becomes_that_of_the_first_channel(dataset, workspace):
    put(dataset / "labelsTr/tumour_002.nii.gz", mask(2), spacing=(3.0, 1.0, 1.01))
    report = fix(dataset, workspace)
    image = read_grid(report.folder / "imagesTr/tumour_002_0000.nii.gz")
    label = read_grid(report.folder / "labelsTr/tumour_002.nii.gz")
    assert same_grid(image, label)
    assert same_grid(image, read_grid(dataset / "imagesTr/tumour_002_0000.nii.gz"))


def test_axes_become_the_nearest_rotation(dataset, workspace):
    path = dataset / "imagesTr/tumour_001_0000.nii.gz"
    for file in dataset.glob("*Tr/tumour_001*"):
        shear(file, amount=0.01)
    report = fix(dataset, workspace)
    affine = nibabel.load(report.folder / "imagesTr/tumour_001_0000.nii.gz").affine[:3, :3]
    steps = np.linalg.norm(affine, axis=0)
    rotation = affine / steps
    assert np.allclose(rotation.T @ rotation, np.eye(3), atol=1e-6)
    sheared = nibabel.load(path).affine[:3, :3]
    left, _, right = np.linalg.svd(sheared / np.linalg.norm(sheared, axis=0))
    assert np.allclose(rotation, left @ right, atol=1e-6)


def test_forms_become_alike_where_itk_puts_the_image(dataset, workspace):
    path = dataset / "imagesTr/tumour_005_0000.nii.gz"
    set_header(path, qoffset_x=17.0)
    report = fix(dataset, workspace)
    header = nibabel.load(report.folder / "imagesTr/tumour_005_0000.nii.gz").header
    assert np.allclose(header.get_sform(), nibabel.load(path).header.get_sform())
    assert np.allclose(header.get_qform(), header.get_sform())


@pytest.mark.parametrize("case", range(6))
def test_what_is_not_safe_is_left_out_and_said(dataset, workspace, case):
    label, image = (
        dataset / "labelsTr/tumour_002.nii.gz",
        dataset / "imagesTr/tumour_002_0001.nii.gz",
    )
    if case == 0:
        put(label, mask(), origin=(1.0, 0.0, 0.0))
    elif case == 1:
        put(label, mask() * 3)
    elif case == 2:
        put(label, mask() * np.float32(0.5))
    elif case == 3:
        put(image, np.where(pet() < 1, np.nan, pet()))
    elif case == 4:
        image.write_bytes(image.read_bytes()[:-40])
    else:
        image.unlink()
    expected = next(
        one.message for one in check_dataset(dataset).errors if one.case == "tumour_002"
    )
    report = fix(dataset, workspace)
    (left_out,) = report.left_out
    assert (left_out.case, left_out.reasons) == ("tumour_002", (expected,))
    assert not list(report.folder.glob("*Tr/tumour_002*"))
    after = check_dataset(report.folder)
    assert after.errors == []
    assert after.num_cases == 4
    assert json.loads((report.folder / "dataset.json").read_text())["numTraining"] == 4
    record = json.loads((report.folder / "mending.json").read_text())
    assert record["left_out"][0]["reasons"] == [expected]


def test_a_case_with_one_safe_and_one_unsafe_error_is_left_out(dataset, workspace):
    put(dataset / "labelsTr/tumour_002.nii.gz", mask() * np.float32(2.9999998))
    report = fix(dataset, workspace)
    assert [left.case for left in report.left_out] == ["tumour_002"]


def test_images_are_linked_and_labels_copied(dataset, workspace):
    report = fix(dataset, workspace)
    name = "imagesTr/tumour_001_0000.nii.gz"
    assert (dataset / name).samefile(report.folder / name)
    name = "labelsTr/tumour_001.nii.gz"
    assert not (dataset / name).samefile(report.folder / name)
    assert (dataset / name).read_bytes() == (report.folder / name).read_bytes()


def test_on_another_disk_images_are_copied(dataset, workspace, monkeypatch):
    def refuse(*_, **__):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    report = fix(dataset, workspace)
    name = "imagesTr/tumour_001_0000.nii.gz"
    assert not (dataset / name).samefile(report.folder / name)
    assert check_dataset(report.folder).problems == []


def test_test_cases_and_the_rest_of_dataset_json_come_along(dataset, workspace):
    put_case(dataset, "new", 9, part="Ts")
    put(dataset / "labelsTs/new.nii.gz", mask(9).astype(np.float32))
    describe(dataset, licence="CC0", numTraining=4)
    report = fix(dataset, workspace)
    content = json.loads((report.folder / "dataset.json").read_text())
    assert content["licence"] == "CC0"
    assert content["numTraining"] == 5
    assert read_volume(report.folder / "labelsTs/new.nii.gz").data.dtype == np.uint8
    assert check_dataset(report.folder).problems == []


def test_cases_without_an_optional_channel_come_along(dataset, workspace):
    describe(dataset, optional=["CT", "PET"])
    (dataset / "imagesTr/tumour_001_0000.nii.gz").unlink()
    put(dataset / "labelsTr/tumour_001.nii.gz", mask(1), origin=(0.1, 0.0, 0.0))
    report = fix(dataset, workspace)
    record = json.loads((report.folder / "mending.json").read_text())
    assert record["files"]["labelsTr/tumour_001.nii.gz"]["done"] == [
        "header of PET taken over; a corner lay 0.1 voxels away"
    ]
    after = check_dataset(report.folder)
    assert after.problems == []
    assert after.subsets == {"CT + PET": 4, "PET": 1}


def test_files_that_dataset_json_lists_are_put_where_nnunet_looks(dataset, workspace, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    listed = {}
    for label in sorted((dataset / "labelsTr").iterdir()):
        name = label.name.removesuffix(".nii.gz")
        files = [dataset / f"imagesTr/{name}_000{index}.nii.gz" for index in (0, 1)]
        for path in (*files, label):
            shutil.move(path, tmp_path / "elsewhere" / path.name)
        listed[name] = {
            "images": [str(tmp_path / "elsewhere" / path.name) for path in files],
            "label": str(tmp_path / "elsewhere" / label.name),
        }
    describe(dataset, dataset=listed)
    report = fix(dataset, workspace)
    assert "dataset" not in json.loads((report.folder / "dataset.json").read_text())
    assert check_dataset(report.folder).num_cases == 5


def test_the_patients_that_a_conversion_named_stay_known(dataset, workspace):
    grid = GridRecord.of(read_grid(dataset / "imagesTr/tumour_001_0000.nii.gz"))
    record = CaseRecord(
        case="tumour_001", patient="Anna", sources={}, written={}, grid=grid, resampled={}
    )
    write_record(dataset, record, part="Tr")
    (dataset / "conversion_Tr.json").write_text("{}")
    report = fix(dataset, workspace)
    assert patients_of_cases(report.folder, ["tumour_001"]) == {"tumour_001": "Anna"}
    assert (report.folder / "conversion_Tr.json").is_file()


def test_the_dataset_itself_is_never_the_target(dataset, workspace):
    with pytest.raises(DatasetError, match="Nothing is mended in place"):
        fix_dataset(check_dataset(dataset), "Dataset100_Small", workspace=workspace)


def test_a_number_that_is_taken_is_refused(dataset, workspace):
    with pytest.raises(DatasetError, match="number 100 is taken"):
        fix_dataset(check_dataset(dataset), "Dataset100_Other", workspace=workspace)


def test_a_folder_that_is_no_mended_copy_is_refused(dataset, workspace):
    sound_dataset(workspace.raw / NEW)
    before = states(workspace.raw / NEW)
    with pytest.raises(DatasetError, match="no mended copy"):
        fix(dataset, workspace)
    assert states(workspace.raw / NEW) == before


def test_a_copy_of_files_that_changed_since_is_refused(dataset, workspace):
    fix(dataset, workspace)
    put(dataset / "labelsTr/tumour_001.nii.gz", mask(7))
    with pytest.raises(DatasetError, match="before it changed"):
        fix(dataset, workspace)


def test_a_dataset_without_a_usable_case_is_refused_with_the_reasons(dataset, workspace):
    for label in (dataset / "labelsTr").iterdir():
        put(label, mask() * 7)
    with pytest.raises(DatasetError, match=r"no training case.*5 were left out(.|\n)*values \[7\]"):
        fix(dataset, workspace)
    assert not (workspace.raw / NEW).exists()


def test_a_broken_dataset_json_cannot_be_mended(dataset, workspace):
    (dataset / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        fix(dataset, workspace)


def test_formats_other_than_nifti_are_mended_too(workspace):
    dataset = workspace.raw / "Dataset100_Small"
    for number in range(1, 6):
        put(dataset / f"imagesTr/c{number}_0000.mha", ct(number))
        put(dataset / f"imagesTr/c{number}_0001.mha", pet(number), origin=(0.1, 0.0, 0.0))
        put(dataset / f"labelsTr/c{number}.mha", mask(number).astype(np.float32))
    describe(dataset, file_ending=".mha")
    report = fix(dataset, workspace)
    assert len(report.mended) == 10
    assert check_dataset(report.folder).problems == []
