import numpy as np
import pydicom
import pytest

from dicom_files import uid, write_segmentation, write_structures
from dicom_studies import RULES, box, convert, mask, outline, write_studies, write_study
from veloxseg.datasets.converters.dicom_rules import DicomRules, rules_in_words
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.reading import read_volume


@pytest.fixture
def source(tmp_path):
    return write_studies(tmp_path / "source")


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


def test_a_label_drawn_on_a_channel_that_moves_is_an_error(source, workspace):
    with pytest.raises(DatasetError, match="is drawn on CT, which is to be registered"):
        convert(source, workspace, register=["CT"], reference="PET")


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
