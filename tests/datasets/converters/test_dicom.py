import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dicom_files import uid, write_series
from dicom_studies import (
    CASES,
    RULES,
    SUV,
    contents,
    convert,
    edit,
    mask,
    numbers,
    write_studies,
    write_study,
)
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters import case_writing
from veloxseg.datasets.converters.dicom import convert_dicom
from veloxseg.datasets.converters.dicom_names import Naming
from veloxseg.datasets.converters.dicom_rules import rules_in_words
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid


@pytest.fixture
def source(tmp_path):
    return write_studies(tmp_path / "source")


def test_studies_become_a_dataset_that_check_finds_sound(source, workspace):
    steps, told = [], []
    folder = convert(
        source,
        workspace,
        progress=lambda done, total: steps.append((done, total)),
        tell=told.append,
    )
    assert folder == workspace.raw / "Dataset100_Tumour"
    assert check_dataset(folder).errors == []
    description = read_description(folder)
    assert description.channels == ("CT", "PET")
    assert description.labels == {"background": 0, "tumour": 1}
    assert description.num_training == 2
    assert steps == [(1, 2), (2, 2)]
    assert told == ["26 files: 2 studies with 4 series"]
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == sorted(
        f"{case}_000{channel}.nii.gz" for case in CASES for channel in (0, 1)
    )


def test_ct_is_in_hu_pet_is_suv_and_the_label_is_what_was_drawn(source, workspace):
    folder = convert(source, workspace)
    ct = read_volume(folder / "imagesTr/P1_20240229_0000.nii.gz")
    pet = read_volume(folder / "imagesTr/P1_20240229_0001.nii.gz")
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz")
    np.testing.assert_array_equal(ct.data, numbers() - 24.0)
    np.testing.assert_array_equal(label.data, mask())
    assert same_grid(ct, pet)
    assert same_grid(ct, label)
    np.testing.assert_allclose(ct.grid.positions_xyz((0, 0, 0)), (-20, 30, 40), atol=1e-4)
    slopes = np.arange(1.0, 7.0)[:, None, None]
    # Every second voxel of CT lies at one of PET.
    np.testing.assert_allclose(
        pet.data[:, ::2, ::2], numbers(6, 4, 5, seed=50) * slopes * SUV, rtol=1e-4
    )


def test_the_record_says_what_a_case_was_made_from(source, workspace):
    (source / "one/ct/notes.txt").write_text("no DICOM")
    write_series(source / "one/scout", numbers(3), kind="MR", StudyInstanceUID=uid("study", "P1"))
    folder = convert(source, workspace)
    record = read_records(folder)["P1_20240229"]
    assert record.patient == "P1"
    assert record.sources == {"CT": ["one/ct"], "PET": ["one/pet"], "label": "one/rs.dcm"}
    assert record.notes["CT"] == {
        "modality": "CT",
        "description": "CT",
        "slices": 6,
        "series_uid": uid("series", "CT", "P1"),
    }
    assert "SUV: factor 0.0004 (weight 70 kg, dose 350 MBq" in record.notes["PET"]["done"][0]
    assert record.notes["label"]["regions"] == {"tumour": [f"GTV ({mask().sum()} contours)"]}
    assert record.notes["not_matched"] == ["MR 'MR', 3 slices"]
    assert record.notes["passed_over"] == {"not DICOM": 1}


def test_no_output_holds_the_patients_name(source, workspace):
    folder = convert(source, workspace)
    for path, (data, _) in contents(folder).items():
        assert b"Secret" not in data, path


def test_hashed_patients_and_what_names_them_are_nowhere(source, workspace):
    folder = convert(source, workspace, naming=Naming(key="long secret"))
    records = read_records(folder)
    assert len(records) == 2
    for case, record in records.items():
        assert record.patient == case.removesuffix("_20240229")
        assert record.sources == {}
    for path, (data, _) in contents(folder).items():
        if path.endswith(".json"):
            for identity in (b"P1", b"P2", b"long secret", uid("study", "P1").encode()):
                assert identity not in data
            assert uid("series", "CT", "P1").encode() not in data


def test_a_conversion_with_another_key_is_refused(source, workspace):
    convert(source, workspace, naming=Naming(key="one"))
    with pytest.raises(DatasetError, match="begun with other settings: patients_hashed"):
        convert(source, workspace, naming=Naming(key="two"))


def test_a_second_run_changes_no_file(source, workspace):
    folder = convert(source, workspace)
    before = contents(folder)
    convert(source, workspace)
    assert contents(folder) == before


def test_several_processes_write_the_same_files(source, workspace, tmp_path):
    one = convert(source, workspace)
    two = convert(source, Workspace.resolve(tmp_path / "other"), num_workers=2)
    assert {path: data for path, (data, _) in contents(one).items()} == {
        path: data for path, (data, _) in contents(two).items()
    }


def test_an_interrupted_run_goes_on_where_it_stopped(source, workspace, monkeypatch):
    written = []
    write = case_writing.write_volume

    def interrupted(path, volume):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, volume)

    monkeypatch.setattr(case_writing, "write_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, workspace)
    monkeypatch.setattr(case_writing, "write_volume", write)
    folder = workspace.raw / "Dataset100_Tumour"
    before = contents(folder)
    assert not (folder / "dataset.json").exists()
    convert(source, workspace)
    after = contents(folder)
    assert check_dataset(folder).errors == []
    first_case = [path for path in before if "P1_" in path]
    assert len(first_case) == 4
    assert all(after[path] == before[path] for path in first_case)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path, workspace):
    source = tmp_path / "source"
    for index in range(6):
        write_study(source / str(index), f"P{index}", seed=index)
    script = (
        "import sys; from pathlib import Path\n"
        "from veloxseg.datasets.converters.dicom import convert_dicom\n"
        "from veloxseg.datasets.converters.dicom_rules import rules_in_words\n"
        "from veloxseg.datasets.workspace import Workspace\n"
        "convert_dicom(Path(sys.argv[1]), 'Dataset100_Tumour', "
        "workspace=Workspace.resolve(Path(sys.argv[2])), reference='CT', "
        f"rules=rules_in_words({RULES!r}, ['tumour=GTV']))\n"
    )
    folder = workspace.raw / "Dataset100_Tumour"
    process = subprocess.Popen([sys.executable, "-c", script, source, workspace.raw.parent])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(folder.glob("conversion_Tr/*.json"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    convert(source, workspace)
    assert check_dataset(folder).errors == []
    assert read_description(folder).num_training == 6
    assert not [path for path in contents(folder) if "partial" in path]


def test_names_that_are_no_file_names_are_made_so(source, workspace):
    edit(source / "one", "*/*", PatientID="ABC/12 \\3*")
    edit(source / "one", "rs.dcm", PatientID="ABC/12 \\3*")
    folder = convert(source, workspace)
    assert (folder / "imagesTr/ABC_12_3_20240229_0000.nii.gz").is_file()


def test_a_folder_without_dicom_is_an_error(tmp_path, workspace):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/notes.txt").write_text("nothing here")
    with pytest.raises(DatasetError, match=r"1 files, none of them a DICOM .* \(1 not DICOM\)"):
        convert(tmp_path / "source", workspace)


def test_a_reference_that_is_no_channel_is_an_error(source, workspace):
    with pytest.raises(DatasetError, match=r"The reference is 'MR'\. Expected a channel"):
        convert(source, workspace, reference="MR")


def test_four_real_mr_series_become_channels_and_the_fifth_is_left(shared, workspace):
    channels = ["T1post=modality:MR,description:^T1post", "T1pre=modality:MR,description:^T1pre"]
    channels += ["FLAIR=modality:MR,description:FLAIR", "T2=modality:MR,description:^T2"]
    folder = convert_dicom(
        shared / "data/dicom/brain_mr",
        "Dataset101_Brain",
        workspace=workspace,
        rules=rules_in_words(channels),
    )
    (record,) = read_records(folder, part="Ts").values()
    assert record.case == "PGBM-002_20200119"
    assert record.notes["not_matched"] == ["MR 'HippoCrop', 32 slices"]
    assert record.resampled == {}
    images = [read_volume(folder / file) for file in record.written.values()]
    assert [image.data.shape for image in images] == [(22, 512, 512)] * 4
    assert images[0].spacing_zyx == pytest.approx((6.5, 0.4297, 0.4297), abs=1e-4)
    for path in folder.rglob("*.json"):
        assert "Avasarala" not in path.read_text()


def test_a_real_pet_study_becomes_suv_with_its_drawn_tumour(shared, workspace):
    folder = convert_dicom(
        shared / "data/dicom/pet",
        "Dataset102_Sarcoma",
        workspace=workspace,
        rules=rules_in_words(["PET=modality:PT"], ["tumour=GTV_Mass"]),
    )
    pet = read_volume(folder / "imagesTr/STS_001_20000907_0000.nii.gz")
    label = read_volume(folder / "labelsTr/STS_001_20000907.nii.gz")
    known = read_volume(shared / "data/sts/STS_001/PET_image.nii.gz").data
    known_mask = read_volume(shared / "data/sts/STS_001/PET_mask.nii.gz").data > 0
    crop = (slice(0, 59), slice(45, 88), slice(59, 100))
    np.testing.assert_array_equal(label.data[crop] > 0, known_mask)
    assert label.data.sum() == known_mask.sum() == 5095
    assert np.corrcoef(pet.data[crop].ravel(), known.ravel())[0, 1] > 1 - 2e-6
    record = json.loads((folder / "conversion_Tr/STS_001_20000907.json").read_text())
    assert "gaps of 3.19 to 3.29 mm" in record["notes"]["PET"]["done"][0]
