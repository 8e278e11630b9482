import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest

from dicom_files import SAGITTAL, positions, uid, write_segmentation, write_series, write_structures
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters import case_writing
from veloxseg.datasets.converters.dicom import convert_dicom
from veloxseg.datasets.converters.dicom_names import Naming
from veloxseg.datasets.converters.dicom_rules import DicomRules, rules_in_words
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import same_grid

INJECTION = {
    "RadionuclideTotalDose": 350e6,
    "RadionuclideHalfLife": 3600.0,
    "RadiopharmaceuticalStartTime": "100000",
}
SUV = 70_000 / 175e6
RULES = ["CT=modality:CT", "PET=modality:PT"]
CASES = ("P1_20240229", "P2_20240229")


def numbers(depth=6, height=8, width=10, *, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 1000, size=(depth, height, width)).astype(np.int16)


def mask():
    drawn = np.zeros((6, 8, 10), np.uint8)
    drawn[1:4, 2:6, 3:5] = 1
    drawn[2, 3, 3] = 0
    return drawn


def write_study(folder, patient="P1", *, seed=0, label="RTSTRUCT"):
    """CT, and PET of half as many voxels in the plane, with a lesion drawn on CT."""
    who = {"PatientID": patient, "StudyInstanceUID": uid("study", patient)}
    ct = write_series(
        folder / "ct",
        numbers(seed=seed),
        intercept=-24.0,
        SeriesInstanceUID=uid("series", "CT", patient),
        **who,
    )
    write_series(
        folder / "pet",
        numbers(6, 4, 5, seed=50 + seed),
        kind="PT",
        spacing_yx=(3.0, 4.0),
        slopes=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        injection=INJECTION,
        SeriesInstanceUID=uid("series", "PT", patient),
        **who,
    )
    if label == "SEG":
        write_segmentation(folder / "seg.dcm", ct, mask(), ["Tumour"])
    if label == "RTSTRUCT":
        write_structures(
            folder / "rs.dcm",
            {"GTV": outline(mask()), "Body": [box(0, 9, 0, 7, 1)]},
            series_uid=uid("series", "CT", patient),
            **who,
        )
    return folder


def box(x0, x1, y0, y1, z):
    """Corners in mm, on the grid of CT: spacing 2, 1.5, 3 mm (x, y, z), first voxel at P."""
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return np.array([(-20 + 2 * x, 30 + 1.5 * y, 40 + 3 * z) for x, y in corners])


def outline(drawn):
    """One square contour for each voxel: their exclusive or is the mask."""
    return [box(x - 0.5, x + 0.5, y - 0.5, y + 0.5, z) for z, y, x in np.argwhere(drawn)]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    write_study(folder / "one")
    write_study(folder / "two", "P2", seed=1)
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace.resolve(tmp_path / "work")


def convert(source, workspace, *, channels=RULES, labels=("tumour=GTV",), **change):
    arguments = {"rules": rules_in_words(channels, labels), "reference": "CT"} | change
    return convert_dicom(source, "Dataset100_Tumour", workspace=workspace, **arguments)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(folder, pattern, **changes):
    """Change attributes of files; None removes one."""
    for path in folder.glob(pattern):
        dataset = pydicom.dcmread(path)
        for keyword, value in changes.items():
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)
        dataset.save_as(path)


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


def test_a_segmentation_gives_the_same_label_as_a_structure_set(tmp_path, workspace):
    write_study(tmp_path / "source", label="SEG")
    folder = convert(tmp_path / "source", workspace, labels=["tumour=tumour"])
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz")
    np.testing.assert_array_equal(label.data, mask())


def test_a_segmentation_of_few_slices_needs_no_reference(tmp_path, workspace):
    write_study(tmp_path / "source", label="SEG")
    folder = convert(
        tmp_path / "source",
        workspace,
        channels=["CT=modality:CT"],
        labels=["tumour=tumour"],
        reference=None,
    )
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz")
    np.testing.assert_array_equal(label.data, mask())
    notes = read_records(folder)["P1_20240229"].notes["label"]
    assert notes["regions"] == {"tumour": ["1: Tumour"]}
    assert notes["volume_ml"] == [pytest.approx(mask().sum() * 0.009)] * 2


def test_a_segmentation_goes_to_the_reference_at_once(tmp_path, workspace):
    write_study(tmp_path / "source", label="SEG")
    folder = convert(tmp_path / "source", workspace, labels=["tumour=tumour"], reference="PET")
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz")
    np.testing.assert_array_equal(label.data, mask()[:, ::2, ::2])


def test_a_segmentation_beside_the_images_is_an_error(tmp_path, workspace):
    folder = write_study(tmp_path / "source", label="SEG")
    dataset = pydicom.dcmread(folder / "seg.dcm")
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        groups.PlanePositionSequence[0].ImagePositionPatient[0] += 500
    dataset.save_as(folder / "seg.dcm")
    with pytest.raises(GeometryError, match=r"Case P1_20240229: .*nothing of the regions lies"):
        convert(tmp_path / "source", workspace, labels=["tumour=tumour"])


def test_contours_beside_the_images_are_an_error(source, workspace):
    far_away = [contour + np.array([500.0, 0.0, 0.0]) for contour in outline(mask())]
    write_structures(
        source / "one/rs.dcm",
        {"GTV": far_away},
        series_uid=uid("series", "CT", "P1"),
        StudyInstanceUID=uid("study", "P1"),
    )
    with pytest.raises(GeometryError, match=r"Case P1_20240229: .*nothing of the regions lies"):
        convert(source, workspace)


def test_a_region_too_small_for_any_voxel_is_told(source, workspace):
    write_structures(
        source / "one/rs.dcm",
        {"GTV": outline(mask()), "Node": [box(7.1, 7.2, 6.1, 6.2, 4)]},
        series_uid=uid("series", "CT", "P1"),
        StudyInstanceUID=uid("study", "P1"),
    )
    (source / "two/rs.dcm").unlink()
    folder = convert(source / "one", workspace, labels=["tumour=GTV", "node=node"])
    notes = read_records(folder)["P1_20240229"].notes["label"]
    assert notes["without_voxels"] == ["node"]


def test_a_segment_is_found_by_its_type_too(tmp_path, workspace):
    write_study(tmp_path / "source", label="SEG")
    folder = convert(tmp_path / "source", workspace, labels=["tumour=neoplasm"])
    assert read_volume(folder / "labelsTr/P1_20240229.nii.gz").data.any()


def test_a_label_on_another_grid_goes_to_the_reference(source, workspace):
    folder = convert(source, workspace, reference="PET")
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz")
    assert label.data.shape == (6, 4, 5)
    np.testing.assert_array_equal(label.data, mask()[:, ::2, ::2])
    assert label.data.any()


def test_where_regions_overlap_the_later_label_holds(source, workspace):
    folder = convert(source, workspace, labels=["body=body", "tumour=gtv"])
    label = read_volume(folder / "labelsTr/P1_20240229.nii.gz").data
    assert read_description(folder).labels == {"background": 0, "body": 1, "tumour": 2}
    np.testing.assert_array_equal(label == 2, mask() > 0)
    # The body's edges, from centre to centre, own the lower side.
    assert (label[1] == 1).sum() == 9 * 7 - (label[1] == 2).sum()


def test_without_labels_test_images_are_written(source, workspace):
    folder = convert(source, workspace, labels=[])
    assert len(list((folder / "imagesTs").iterdir())) == 4
    assert not (folder / "labelsTs").exists()


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


def test_an_optional_channel_may_be_missing(source, workspace):
    for path in (source / "two/pet").iterdir():
        path.unlink()
    rules = DicomRules.model_validate(
        {
            "channels": {"CT": {"modality": "CT"}, "PET": {"modality": "PT", "optional": True}},
            "labels": {"tumour": "GTV"},
        }
    )
    folder = convert(source, workspace, rules=rules)
    assert read_description(folder).optional == ("PET",)
    assert not (folder / "imagesTr/P2_20240229_0001.nii.gz").exists()
    assert (folder / "imagesTr/P1_20240229_0001.nii.gz").exists()


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


def test_a_missing_series_is_an_error_that_lists_what_is_there(source, workspace):
    for path in (source / "two/pet").iterdir():
        path.unlink()
    with pytest.raises(
        DatasetError,
        match=r"1 problem found.\n  Case P2_20240229: PET: no series matches \(modality 'PT'\)\. "
        r"The study has series 'CT' \(CT, 6 slices, UID .*optional",
    ):
        convert(source, workspace)
    assert not (workspace.raw / "Dataset100_Tumour").exists()


def test_two_series_that_match_one_channel_are_named_with_how_to_narrow(source, workspace):
    write_series(
        source / "one/lung",
        numbers(seed=9),
        StudyInstanceUID=uid("study", "P1"),
        SeriesInstanceUID=uid("lung"),
        SeriesDescription="CT lung kernel",
    )
    with pytest.raises(DatasetError, match="2 series match") as error:
        convert(source, workspace)
    for word in (uid("series", "CT", "P1"), uid("lung"), "'CT lung kernel'", "exclude", "prefer"):
        assert word in str(error.value)
    narrowed = convert(source, workspace, channels=["CT=modality:CT,!description:lung", RULES[1]])
    ct = read_volume(narrowed / "imagesTr/P1_20240229_0000.nii.gz")
    np.testing.assert_array_equal(ct.data, numbers() - 24.0)


def test_of_several_series_the_one_of_most_slices_may_be_preferred(source, workspace):
    write_series(
        source / "one/part",
        numbers(5, seed=9),
        StudyInstanceUID=uid("study", "P1"),
        SeriesInstanceUID=uid("part"),
    )
    channels = ["CT=modality:CT,prefer:most_slices", RULES[1]]
    folder = convert(source, workspace, channels=channels)
    assert read_records(folder)["P1_20240229"].notes["CT"]["slices"] == 6


def test_one_series_for_two_channels_is_an_error(source, workspace):
    with pytest.raises(DatasetError, match="A and B: both match series 'CT'"):
        convert(source, workspace, channels=["A=modality:CT", "B=modality:CT"], reference="A")


def test_a_mixed_study_is_an_error_with_both_patients(source, workspace):
    edit(source / "one", "pet/*", PatientID="P9")
    with pytest.raises(DatasetError, match=r"is mixed: it has 2 Patient IDs: 'P1' in .*'P9' in"):
        convert(source, workspace)


def test_missing_slices_are_an_error_before_anything_is_written(source, workspace):
    edit_one = sorted((source / "two/ct").iterdir())
    heights = {pydicom.dcmread(path).ImagePositionPatient[2]: path for path in edit_one}
    heights[46.0].unlink()
    with pytest.raises(
        DatasetError, match=r"Case P2_20240229: CT, series 'CT'.*about 1 slices are missing"
    ):
        convert(source, workspace)
    assert not (workspace.raw / "Dataset100_Tumour").exists()
    folder = convert(source, workspace, interpolate_gaps=True)
    done = read_records(folder)["P2_20240229"].notes["CT"]["done"]
    assert "1 missing slices interpolated" in done[0]


@pytest.mark.parametrize("num_bytes", [0, 400])
def test_a_last_slice_that_was_cut_short_is_not_merely_left_out(source, workspace, num_bytes):
    paths = sorted(
        (source / "two/ct").iterdir(),
        key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2],
    )
    whole = paths[-1].read_bytes()
    paths[-1].write_bytes(whole[:num_bytes])
    with pytest.raises(
        DatasetError, match=rf"Case P2_20240229: .*{paths[-1].name}: .*among the slices of CT"
    ):
        convert(source, workspace)
    assert not (workspace.raw / "Dataset100_Tumour").exists()
    paths[-1].write_bytes(whole)
    (source / "two/ct/.marker").touch()
    convert(source, workspace)


def test_doubled_slices_are_dropped_if_they_are_copies_and_an_error_if_not(source, workspace):
    path = next((source / "one/ct").iterdir())
    (path.parent / "copy").write_bytes(path.read_bytes())
    folder = convert(source, workspace)
    done = read_records(folder)["P1_20240229"].notes["CT"]["done"]
    assert done == ["1 doubled slices, identical, left out"]
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.SOPInstanceUID = uid("changed")
    dataset.save_as(path.parent / "copy")
    other = Workspace.resolve(workspace.raw.parent.parent / "again")
    with pytest.raises(DatasetError, match="at one position, but their voxels differ"):
        convert(source, other)


def test_a_wrong_orientation_tag_is_an_error(source, workspace):
    edit(source / "one", "ct/*", ImageOrientationPatient=[1, 0, 0, 0, 0.5, 0])
    with pytest.raises(DatasetError, match="unit vectors at a right angle"):
        convert(source, workspace)


def test_an_orientation_against_the_positions_is_an_error(source, workspace):
    edit(source / "one", "ct/*", ImageOrientationPatient=list(SAGITTAL))
    with pytest.raises(DatasetError, match="contradicts the positions"):
        convert(source, workspace)


def test_one_slice_with_a_wrong_orientation_tag_is_an_error(source, workspace):
    path = sorted((source / "one/ct").iterdir())[2]
    edit(path.parent, path.name, ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    with pytest.raises(
        DatasetError, match=rf"some slices have another Image Orientation .*{path.name}"
    ):
        convert(source, workspace)


def test_a_structure_set_in_another_frame_of_reference_is_an_error_with_both(source, workspace):
    write_structures(
        source / "one/rs.dcm",
        {"GTV": outline(mask())},
        frame_uid=uid("elsewhere"),
        series_uid=uid("series", "CT", "P1"),
        PatientID="P1",
        StudyInstanceUID=uid("study", "P1"),
    )
    with pytest.raises(DatasetError, match="refers to frame of reference") as error:
        convert(source, workspace)
    assert uid("elsewhere") in str(error.value)
    assert uid("frame") in str(error.value)


def test_a_segmentation_in_another_frame_of_reference_is_an_error(tmp_path, workspace):
    folder = write_study(tmp_path / "source", label=None)
    paths = sorted((folder / "ct").iterdir())
    write_segmentation(folder / "seg", paths, mask(), ["Tumour"], frame_uid=uid("elsewhere"))
    with pytest.raises(DatasetError, match="'Tumour' refers to frame of reference"):
        convert(tmp_path / "source", workspace, labels=["tumour=tumour"])


def test_channels_in_different_frames_of_reference_are_an_error_unless_allowed(source, workspace):
    edit(source / "one", "pet/*", FrameOfReferenceUID=uid("elsewhere"))
    with pytest.raises(DatasetError, match="CT and PET: frames of reference"):
        convert(source, workspace)
    rules = rules_in_words(RULES, ["tumour=GTV"]).model_copy(update={"frames_of_reference": "any"})
    convert(source, workspace, rules=rules)


def test_a_displaced_series_in_a_frame_of_its_own_is_registered(tmp_path, workspace):
    folder = tmp_path / "source"
    z, y, x = np.indices((16, 32, 32)) - np.array([8, 16, 15])[:, None, None, None]
    head = (z / 6) ** 2 + (y / 12) ** 2 + (x / 10) ** 2 < 1
    eye = (z / 2) ** 2 + ((y + 6) / 3) ** 2 + ((x - 4) / 3) ** 2 < 1
    stored = (300 * head + 500 * eye).astype(np.int16)
    shifted = positions(16) + np.array([2.0, -3.0, 3.0])
    write_series(folder / "ct", stored)
    write_series(
        folder / "mr",
        (900 - stored // 2).astype(np.int16) * head,
        kind="MR",
        places=shifted,
        FrameOfReferenceUID=uid("elsewhere"),
    )
    channels = ["CT=modality:CT", "MR=modality:MR"]
    with pytest.raises(DatasetError, match="--register MR --reference CT"):
        convert(folder, workspace, channels=channels, labels=[])
    result = convert(folder, workspace, channels=channels, labels=[], register=["MR"])
    record = read_records(result, part="Ts")["P1_20240229"]
    assert "MR" in record.notes["registration"]
    moved = read_volume(result / "imagesTs/P1_20240229_0001.nii.gz").data
    assert 2 * ((moved > 200) & head).sum() / ((moved > 200).sum() + head.sum()) > 0.95


def test_a_label_drawn_on_a_channel_that_moves_is_an_error(source, workspace):
    with pytest.raises(DatasetError, match="is drawn on CT, which is to be registered"):
        convert(source, workspace, register=["CT"], reference="PET")


def test_different_grids_without_a_reference_are_an_error_that_names_the_option(source, workspace):
    with pytest.raises(DatasetError, match=r"CT has size 6 x 8 x 10 .* PET .*--reference CT"):
        convert(source, workspace, reference=None)


def test_no_regions_or_regions_in_two_files_are_errors_that_list_them(source, workspace):
    with pytest.raises(DatasetError, match=r"no region matches tumour 'lesion'.*'GTV', 'Body'"):
        convert(source, workspace, labels=["tumour=lesion"])
    write_structures(
        source / "one/again.dcm",
        {"GTV": outline(mask())},
        PatientID="P1",
        StudyInstanceUID=uid("study", "P1"),
        SeriesDescription="second reader",
    )
    with pytest.raises(DatasetError, match=r"2 files hold regions .*second reader.*label_files"):
        convert(source, workspace)
    rules = DicomRules.model_validate(
        rules_in_words(RULES, ["tumour=GTV"]).model_dump()
        | {"label_files": {"description": "RTSTRUCT"}}
    )
    convert(source, workspace, rules=rules)


def test_a_study_without_labels_is_an_error(source, workspace):
    (source / "two/rs.dcm").unlink()
    with pytest.raises(DatasetError, match="P2_20240229: label: no structure set or segmentation"):
        convert(source, workspace)


def test_one_missing_label_of_several_is_an_error_unless_optional(source, workspace):
    with pytest.raises(DatasetError, match=r"label node: no region of RTSTRUCT .* matches 'node'"):
        convert(source, workspace, labels=["tumour=GTV", "node=node"])
    rules = DicomRules.model_validate(
        rules_in_words(RULES, ["tumour=GTV"]).model_dump()
        | {"labels": {"tumour": "GTV", "node": {"name": "node", "optional": True}}}
    )
    folder = convert(source, workspace, rules=rules)
    assert read_description(folder).labels == {"background": 0, "tumour": 1, "node": 2}


def test_a_header_without_weight_is_an_error_unless_suv_is_not_wanted(source, workspace):
    edit(source / "two", "pet/*", PatientWeight=None)
    with pytest.raises(DatasetError, match=r"Case P2_20240229: PET, .* no SUV: Patient's Weight"):
        convert(source, workspace)
    folder = convert(source, workspace, channels=["CT=modality:CT", "PET=modality:PT,suv:false"])
    pet = read_volume(folder / "imagesTr/P2_20240229_0001.nii.gz")
    slopes = np.arange(1.0, 7.0)[:, None, None]
    np.testing.assert_allclose(pet.data[:, ::2, ::2], numbers(6, 4, 5, seed=51) * slopes, rtol=1e-4)


def test_a_case_that_lacks_what_others_have_is_told_with_all_others(source, workspace):
    for folder in ("one/pet", "two/ct"):
        for path in (source / folder).iterdir():
            path.unlink()
    with pytest.raises(DatasetError, match=r"2 problems found\.\n  Case P1.*\n  Case P2"):
        convert(source, workspace)


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


def test_a_file_that_was_damaged_after_the_index_names_its_case(source, workspace):
    path = next((source / "two/ct").iterdir())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Exception, match=rf"Case P2_20240229: .*{path.name}") as error:
        convert(source, workspace)
    assert not isinstance(error.value, GeometryError)
    assert (workspace.raw / "Dataset100_Tumour/imagesTr/P1_20240229_0000.nii.gz").exists()


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


def test_a_series_that_stands_still_in_one_place_is_no_stack(source, workspace):
    write_series(
        source / "one/dynamic",
        numbers(seed=9),
        kind="MR",
        places=np.repeat(positions(1), 6, axis=0),
        StudyInstanceUID=uid("study", "P1"),
    )
    folder = convert(source, workspace)  # it is not asked for
    assert folder.is_dir()
    other = Workspace.resolve(workspace.raw.parent.parent / "again")
    with pytest.raises(DatasetError, match=r"MR, series 'MR'.*6 slices at one position"):
        convert(source / "one", other, channels=["MR=modality:MR"], reference=None)
