import numpy as np
import pydicom
import pytest

from dicom_files import SAGITTAL, positions, uid, write_series
from dicom_studies import RULES, convert, edit, numbers, write_studies
from veloxseg.datasets.converters.dicom_rules import DicomRules, rules_in_words
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_volume


@pytest.fixture
def source(tmp_path):
    return write_studies(tmp_path / "source")


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


def test_different_grids_without_a_reference_are_an_error_that_names_the_option(source, workspace):
    with pytest.raises(DatasetError, match=r"CT has size 6 x 8 x 10 .* PET .*--reference CT"):
        convert(source, workspace, reference=None)


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


def test_a_file_that_was_damaged_after_the_index_names_its_case(source, workspace):
    path = next((source / "two/ct").iterdir())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Exception, match=rf"Case P2_20240229: .*{path.name}") as error:
        convert(source, workspace)
    assert not isinstance(error.value, GeometryError)
    assert (workspace.raw / "Dataset100_Tumour/imagesTr/P1_20240229_0000.nii.gz").exists()


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
