import os
import sys

import numpy as np
import pytest

from phantom_trees import contents, parts_of_tumour, put_brats, scaled, scan, with_data
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.brats import convert_brats
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.datasets.workspace import Workspace
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_grid, read_volume, write_volume
from veloxseg.volumes.volume import Volume, same_grid

FOUR = ("FLAIR", "T1", "T1c", "T2")
# Of each release: channels, file names, label values, and what BraTS calls TC and ET.
RELEASES = {
    "2013": (
        ("FLAIR", "T1c"),
        {
            "FLAIR": "Flair_subtrMeanDivStd.nii.gz",
            "T1c": "T1c_subtrMeanDivStd.nii.gz",
            "label": "OTMultiClass.nii.gz",
        },
        (1, 3, 4, 2),
        {"tumour_core": {1, 3, 4}, "enhancing_tumour": {4}},
    ),
    "2021": (
        FOUR,
        {
            "FLAIR": "{case}_flair.nii.gz",
            "T1": "{case}_t1.nii.gz",
            "T1c": "{case}_t1ce.nii.gz",
            "T2": "{case}_t2.nii.gz",
            "label": "{case}_seg.nii.gz",
        },
        (1, 4, 2),
        {"tumour_core": {1, 4}, "enhancing_tumour": {4}},
    ),
    "2023": (
        FOUR,
        {
            "FLAIR": "{case}-t2f.nii.gz",
            "T1": "{case}-t1n.nii.gz",
            "T1c": "{case}-t1c.nii.gz",
            "T2": "{case}-t2w.nii.gz",
            "label": "{case}-seg.nii.gz",
        },
        (1, 3, 2),
        {"tumour_core": {1, 3}, "enhancing_tumour": {3}},
    ),
}
CASES = {
    "2013": ("pat0003", "pat0004"),
    "2021": ("BraTS2021_00000", "BraTS2021_00002"),
    "2023": ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001"),
}


def make_tree(source, release, *, label=True):
    channels, names, values, _ = RELEASES[release]
    for case in CASES[release]:
        files = {what: name.format(case=case) for what, name in names.items()}
        if not label:
            del files["label"]
        put_brats(source / case, files, values, channels)
    return source


@pytest.fixture
def source(tmp_path):
    return make_tree(tmp_path / "source", "2021")


def convert(source, workspace, **change):
    return convert_brats(source, "Dataset137_BraTS", workspace=workspace, **change)


@pytest.mark.parametrize("release", RELEASES)
def test_whole_tumour_core_and_enhancing_tumour_are_those_of_the_release(
    tmp_path, workspace, release
):
    folder = convert(make_tree(tmp_path / "source", release), workspace)
    channels, _, values, regions = RELEASES[release]
    description = read_description(folder)
    assert description.channels == channels
    assert check_dataset(folder).errors == []
    original = parts_of_tumour(values).data
    assert set(np.unique(original)) == {0, *values}
    written = read_volume(folder / f"labelsTr/{CASES[release][1]}.nii.gz").data
    assert set(np.unique(written)) == {0, 1, 2, 3}
    named = [name for name in description.labels if name != "background"]
    assert named == ["whole_tumour", "tumour_core", "enhancing_tumour"]
    for name in named:
        wanted = np.isin(original, list(regions.get(name, values)))
        np.testing.assert_array_equal(np.isin(written, description.labels[name]), wanted)
    np.testing.assert_array_equal(written == 2, original == 2)


@pytest.mark.parametrize("release", RELEASES)
def test_nnunet_makes_the_written_label_of_its_regions(tmp_path, workspace, release):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    folder = convert(make_tree(tmp_path / "source", release), workspace)
    description = read_description(folder).to_json()
    manager = LabelManager(description["labels"], description["regions_class_order"])
    assert manager.has_regions
    label = read_volume(folder / f"labelsTr/{CASES[release][0]}.nii.gz").data
    regions = np.stack([np.isin(label, region) for region in manager.foreground_regions]).astype(
        np.float32
    )
    np.testing.assert_array_equal(manager.convert_probabilities_to_segmentation(regions), label)


@pytest.mark.parametrize("release", RELEASES)
def test_images_keep_their_voxels_and_the_record_tells_patient_and_renumbering(
    tmp_path, workspace, release
):
    source = make_tree(tmp_path / "source", release)
    folder = convert(source, workspace, num_workers=1)
    channels, names, _, _ = RELEASES[release]
    case = CASES[release][1]
    record = read_records(folder)[case]
    for number, channel in enumerate(channels):
        path = f"{case}/{names[channel].format(case=case)}"
        assert record.sources[channel] == path
        written = read_volume(folder / f"imagesTr/{case}_{number:04d}.nii.gz")
        np.testing.assert_array_equal(written.data, read_volume(source / path).data)
        assert same_grid(written, read_grid(source / path))  # a header is float32
    patients = {"2013": "pat0004", "2021": "BraTS2021_00002", "2023": "BraTS-GLI-00000"}
    assert record.patient == patients[release]
    changed = {"2013": {"3": 1, "4": 3}, "2021": {"4": 3}, "2023": None}
    assert record.notes.get("label_values") == changed[release]
    assert record.resampled == {}


def test_cases_without_labels_become_test_cases(tmp_path, workspace):
    folder = convert(make_tree(tmp_path / "validation", "2023", label=False), workspace)
    assert len(list((folder / "imagesTs").iterdir())) == 8
    assert not (folder / "imagesTr").exists()
    convert(make_tree(tmp_path / "source", "2023"), workspace)
    assert read_description(folder).num_training == 2
    assert check_dataset(folder).num_cases == 4


def test_files_may_be_uncompressed(source, workspace):
    for path in source.rglob("*_t2.nii.gz"):
        write_volume(path.with_name(path.name.removesuffix(".gz")), read_volume(path))
        path.unlink()
    assert check_dataset(convert(source, workspace)).errors == []


def test_a_second_run_changes_nothing_and_an_interrupted_one_goes_on(source, workspace):
    broken = source / "BraTS2021_00002/BraTS2021_00002_t1ce.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-100])
    with pytest.raises(ImageReadError, match=r"Case BraTS2021_00002: .*t1ce"):
        convert(source, workspace)
    folder = workspace.raw / "Dataset137_BraTS"
    assert not (folder / "dataset.json").exists()
    first = contents(folder)
    broken.write_bytes(whole)
    convert(source, workspace)
    finished = contents(folder)
    assert {name: finished[name] for name in first} == first
    convert(source, workspace)
    assert contents(folder) == finished


@pytest.mark.parametrize("part", ["flair", "t1", "seg"])
def test_a_missing_file_is_named_and_nothing_is_written(source, workspace, part):
    (source / f"BraTS2021_00002/BraTS2021_00002_{part}.nii.gz").unlink()
    with pytest.raises(DatasetError, match="Case BraTS2021_00002: 0 files for"):
        convert(source, workspace)
    assert not workspace.raw.exists()


def test_two_files_for_one_channel_are_an_error(source, workspace):
    path = source / "BraTS2021_00000/BraTS2021_00000_t1.nii"
    write_volume(path, scan().pet)
    with pytest.raises(DatasetError, match=r"Case BraTS2021_00000: 2 files for T1 match"):
        convert(source, workspace)


def test_a_tree_of_two_namings_is_refused(source, workspace):
    make_tree(source, "2023")
    with pytest.raises(DatasetError, match=r"more than one way: BraTS 2017 to 2021: .*BraTS 2023"):
        convert(source, workspace)


def test_a_file_of_no_known_name_is_named(source, workspace):
    segmentation = source / "BraTS2021_00002/BraTS2021_00002_seg.nii.gz"
    segmentation.rename(segmentation.with_name("W39_1998.09.19_Segm.nii.gz"))
    with pytest.raises(DatasetError, match=r"W39_1998\.09\.19_Segm\.nii\.gz: no name of BraTS"):
        convert(source, workspace)


def test_a_folder_without_known_names_is_refused_with_what_is_there(tmp_path, source, workspace):
    with pytest.raises(DatasetError, match=r"known way.*Found there: source.*BraTS 2023"):
        convert(tmp_path, workspace)
    with pytest.raises(DatasetError, match="no such folder"):
        convert(tmp_path / "absent", workspace)


@pytest.mark.parametrize(("release", "value"), [("2013", 5), ("2021", 3), ("2023", 4)])
def test_a_label_value_that_the_release_has_not_is_refused(tmp_path, workspace, release, value):
    source = make_tree(tmp_path / "source", release)
    case = CASES[release][1]
    label = source / case / RELEASES[release][1]["label"].format(case=case)
    data = read_volume(label).data.copy()
    data[0, 0, 0] = value
    write_volume(label, with_data(scan().pet, data))
    with pytest.raises(DatasetError, match=rf"Case {case}: the label has values \[{value}\]"):
        convert(source, workspace)


def test_a_label_of_fractions_is_refused(source, workspace):
    label = source / "BraTS2021_00002/BraTS2021_00002_seg.nii.gz"
    write_volume(label, scaled(parts_of_tumour((1,)), 0.5))
    with pytest.raises(DatasetError, match=r"Case BraTS2021_00002: the label: .*such as 0\.5"):
        convert(source, workspace)


@pytest.mark.parametrize(("part", "anchor"), [("t2", "FLAIR"), ("seg", "T1c")])
def test_a_file_on_another_grid_is_refused(source, workspace, part, anchor):
    path = source / f"BraTS2021_00002/BraTS2021_00002_{part}.nii.gz"
    volume = read_volume(path)
    write_volume(path, Volume(data=volume.data, spacing_zyx=(1.0, 1.0, 1.0)))
    with pytest.raises(GeometryError, match=f"Case BraTS2021_00002: {anchor} has spacing"):
        convert(source, workspace)


def test_a_folder_that_is_blank_or_umlaut_becomes_a_safe_name(source, workspace):
    old = source / "BraTS2021_00002"
    for path in list(old.iterdir()):
        path.rename(path.with_name(path.name.replace("BraTS2021_00002", "Fall 2 ü")))
    old.rename(source / "Fall 2 ü")
    folder = convert(source, workspace)
    assert list(read_records(folder)) == ["BraTS2021_00000", "Fall_2"]
    assert check_dataset(folder).errors == []


def test_what_was_written_below_the_source_is_not_taken_for_a_part_of_it(source):
    workspace = Workspace.resolve(source)
    folder = convert(source, workspace)
    before = contents(folder)
    convert(source, workspace)
    assert contents(folder) == before


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such name")
def test_a_file_name_that_cannot_be_decoded_is_recorded_readably(tmp_path, workspace):
    source = make_tree(tmp_path / "source", "2013")
    flair = source / "pat0003/Flair_subtrMeanDivStd.nii.gz"
    flair.rename(flair.with_name(os.fsdecode(b"Flair\xff.nii.gz")))
    folder = convert(source, workspace)
    assert read_records(folder)["pat0003"].sources["FLAIR"] == "pat0003/Flair\\xff.nii.gz"
    before = contents(folder)
    convert(source, workspace)
    assert contents(folder) == before


def test_brain_tumours_of_2013_become_regions(shared, tmp_path, workspace):
    source = tmp_path / "brats2013"
    source.mkdir()
    (source / "pat0003").symlink_to(shared / "data/brats2013/pat0003")
    folder = convert(source, workspace)
    assert check_dataset(folder).errors == []
    assert read_description(folder).channels == ("FLAIR", "T1c")
    original = np.rint(read_volume(source / "pat0003/OTMultiClass.nii.gz").data)
    written = read_volume(folder / "labelsTr/pat0003.nii.gz").data
    assert read_records(folder)["pat0003"].notes["label_values"] == {"3": 1, "4": 3}
    np.testing.assert_array_equal(written > 0, np.isin(original, (1, 2, 3, 4)))
    np.testing.assert_array_equal(written % 2 > 0, np.isin(original, (1, 3, 4)))
    np.testing.assert_array_equal(written == 3, original == 4)
    assert (written == 3).any()
