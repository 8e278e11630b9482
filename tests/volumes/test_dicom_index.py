import os
from contextlib import suppress

import numpy as np
import pydicom
import pytest

from dicom_files import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    header,
    positions,
    save,
    uid,
    write_enhanced,
    write_series,
    write_structures,
)
from veloxseg.errors import ImageReadError, VeloxSegError
from veloxseg.volumes.dicom.index import index_dicom
from veloxseg.volumes.dicom.reading import read_series


def numbers(depth=6, *, seed=0):
    return np.random.default_rng(seed).integers(0, 1000, size=(depth, 5, 4)).astype(np.int16)


def study_of(folder, **how):
    (study,) = index_dicom(folder, **how).studies
    return study


def test_files_are_told_by_their_content_whatever_their_names_and_folders(tmp_path):
    names = ["IM1", "b.dcm", "c.txt", "x/y/z.IMA", "x/0", "ünïcode ÿ.dcm"]
    write_series(tmp_path, numbers(), names=names)
    write_series(tmp_path / "deep/er", numbers(4), kind="MR")
    study = study_of(tmp_path)
    found = {one.tags["Modality"]: len(one.slices) for one in study.series}
    assert found == {"CT": 6, "MR": 4}
    assert study.uid == uid("study")
    assert study.date == "20240229"
    assert list(study.patients) == ["P1"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no undecodable names")
def test_a_file_whose_name_is_no_text_is_read_and_can_be_shown(tmp_path):
    paths = write_series(tmp_path, numbers())
    unreadable = os.fsencode(tmp_path) + b"/\xff\xfe\x01.dcm"
    os.rename(paths[2], unreadable)  # noqa: PTH104
    (series,) = study_of(tmp_path).series
    assert len(series.slices) == 6
    image = read_series([(one.path, None) for one in series.slices], where="CT")
    np.testing.assert_array_equal(image.volume.data, numbers())
    shown = next(one.where for one in series.slices if os.fsencode(one.path) == unreadable)
    assert "\\xff\\xfe" in shown
    shown.encode("utf-8")


def test_what_is_no_dicom_image_is_passed_over_and_counted(tmp_path):
    write_series(tmp_path, numbers())
    (tmp_path / "notes.txt").write_text("not DICOM at all, but longer than the preamble " * 9)
    (tmp_path / "preview.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    (tmp_path / "empty").write_bytes(b"")
    directory = header("1.2.840.10008.1.3.10", tmp_path / "DICOMDIR", Modality=None)
    save(directory, tmp_path / "DICOMDIR")
    report = "1.2.840.10008.5.1.4.1.1.88.11"
    save(header(report, tmp_path / "report", Modality="SR"), tmp_path / "report")
    index = index_dicom(tmp_path)
    assert index.num_files == 11
    assert {path.name: reason for path, reason in index.passed_over.items()} == {
        "notes.txt": "not DICOM",
        "preview.jpg": "not DICOM",
        "empty": "empty",
        "DICOMDIR": "DICOMDIR",
        "report": "DICOM, but no image placed in the patient",
    }
    (series,) = index.studies[0].series
    assert len(series.slices) == 6


def test_a_file_without_the_preamble_is_dicom_all_the_same(tmp_path):
    paths = write_series(tmp_path, numbers())
    for path in paths[:2]:
        dataset = pydicom.dcmread(path)
        bare = pydicom.Dataset()
        bare.update(dict(dataset))
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    (series,) = study_of(tmp_path).series
    assert len(series.slices) == 6
    image = read_series([(one.path, None) for one in series.slices], where="CT")
    np.testing.assert_array_equal(image.volume.data, numbers())


def test_several_processes_find_the_same(tmp_path):
    write_series(tmp_path / "ct", numbers())
    write_series(tmp_path / "mr", numbers(4), kind="MR")
    assert index_dicom(tmp_path, num_workers=2) == index_dicom(tmp_path)


def test_a_mixed_series_is_split_by_orientation_and_told(tmp_path):
    for name, orientation in (("a", AXIAL), ("b", CORONAL), ("c", SAGITTAL)):
        write_series(tmp_path / name, numbers(), orientation=orientation)
    series = study_of(tmp_path).series
    assert len(series) == 3
    assert {one.uid for one in series} == {uid("series", "CT")}
    assert all(len(one.siblings) == 2 and not one.strays for one in series)
    assert "6 of 5 x 4 voxels (y, x) of 1.5 x 2 mm, orientation" in series[0].siblings[0]


def test_a_mixed_series_is_split_by_size_and_frame_of_reference(tmp_path):
    write_series(tmp_path / "a", numbers())
    write_series(tmp_path / "b", numbers()[:, :4])
    write_series(tmp_path / "c", numbers(), FrameOfReferenceUID=uid("another"))
    assert len(study_of(tmp_path).series) == 3


def test_one_slice_with_another_orientation_is_a_stray(tmp_path):
    write_series(
        tmp_path, numbers(), per_slice={2: {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]}}
    )
    whole = max(study_of(tmp_path).series, key=lambda one: len(one.slices))
    assert len(whole.slices) == 5
    assert len(whole.strays) == 1
    assert "orientation 1, 0, 0, 0, -1, 0" in whole.strays[0]


def test_echoes_in_one_series_are_told_apart(tmp_path):
    write_series(tmp_path / "a", numbers(), kind="MR", EchoTime=10.0)
    write_series(tmp_path / "b", numbers(seed=1), kind="MR", EchoTime=80.0)
    first, second = study_of(tmp_path).series
    assert sorted(one.tags["echo_time"] for one in (first, second)) == ["10.0", "80.0"]
    assert "echo_time" in str(first)
    values = {
        one.tags["echo_time"]: read_series(
            [(two.path, None) for two in one.slices], where="MR"
        ).volume.data
        for one in (first, second)
    }
    np.testing.assert_array_equal(values["10.0"], numbers())
    np.testing.assert_array_equal(values["80.0"], numbers(seed=1))


def test_time_points_of_an_enhanced_image_are_told_apart(tmp_path):
    places = positions(6)
    stored = np.concatenate([numbers(), numbers(seed=1)])
    path = write_enhanced(
        tmp_path / "one", stored, places=np.tile(places, (2, 1)), slopes=[1.0] * 12
    )
    dataset = pydicom.dcmread(path)
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = pydicom.Dataset()
        content.TemporalPositionIndex = 1 + index // 6
        groups.FrameContentSequence = [content]
    dataset.save_as(path)
    first, second = study_of(tmp_path).series
    assert [one.tags["time_point"] for one in (first, second)] == ["1", "2"]
    image = read_series([(one.path, one.frame) for one in second.slices], where="MR")
    np.testing.assert_array_equal(image.volume.data, numbers(seed=1))


def test_copies_of_slices_are_not_told_apart(tmp_path):
    write_series(tmp_path / "a", numbers())
    write_series(tmp_path / "b", numbers())
    (series,) = study_of(tmp_path).series
    assert len(series.slices) == 12


def test_one_repeated_slice_is_a_conflict_and_no_repetition(tmp_path):
    write_series(tmp_path / "a", numbers(), AcquisitionNumber=1)
    write_series(tmp_path / "b", numbers(1, seed=5), AcquisitionNumber=2)
    (series,) = study_of(tmp_path).series
    assert len(series.slices) == 7


def test_two_patients_in_one_study_are_both_listed(tmp_path):
    write_series(tmp_path / "a", numbers())
    write_series(tmp_path / "b", numbers(), kind="MR", PatientID="P2")
    assert list(study_of(tmp_path).patients) == ["P1", "P2"]


def test_structure_sets_belong_to_their_study(tmp_path):
    write_series(tmp_path / "a", numbers())
    write_structures(tmp_path / "rs", {"GTV": []})
    (file,) = study_of(tmp_path).label_files
    assert (file.kind, file.path.name) == ("RTSTRUCT", "rs")


def test_studies_are_kept_apart(tmp_path):
    write_series(tmp_path / "a", numbers())
    write_series(tmp_path / "b", numbers(), StudyInstanceUID=uid("other"), PatientID="P2")
    studies = index_dicom(tmp_path).studies
    assert [list(study.patients) for study in studies] == [["P1"], ["P2"]]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ImageReadError, match="no such folder"):
        index_dicom(tmp_path / "nowhere")


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_is_refused_or_read_and_never_crashes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    paths = write_series(tmp_path, numbers(), kind="PT", injection={"RadionuclideTotalDose": 3e8})
    data = bytearray(paths[1].read_bytes())
    if seed % 3 == 0:
        data = data[: rng.integers(len(data))]
    for _ in range(4):
        data[rng.integers(len(data))] = rng.integers(256)
    paths[1].write_bytes(data)
    for study in index_dicom(tmp_path).studies:
        for series in study.series:
            files = [(one.path, one.frame) for one in series.slices]
            with suppress(VeloxSegError):
                image = read_series(files, where=str(series), suv=True)
                assert image.volume.data.shape[1:] == (5, 4)
