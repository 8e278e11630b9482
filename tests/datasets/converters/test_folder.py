import json

import nibabel
import numpy as np
import pytest
import SimpleITK

from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters import case_writing
from veloxseg.datasets.converters.folder import convert_folder
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_grid, read_volume, write_volume
from veloxseg.volumes.volume import Grid, Volume, same_grid

CT_GRID = Grid(size_zyx=(8, 10, 12), spacing_zyx=(3.0, 1.0, 1.0), origin_xyz=(-5.0, 7.0, 40.0))
PET_GRID = Grid(size_zyx=(8, 5, 4), spacing_zyx=(3.0, 2.0, 2.0), origin_xyz=(-4.0, 8.0, 40.0))
CHANNELS = {"CT": "{case}/CT_image.nii.gz", "PET": "{case}/PET_image.nii.gz"}
ON_ONE_GRID = {"CT": "{case}/CT_image.nii.gz", "PET": "{case}/CT_image.nii.gz"}
LABEL = "{case}/CT_mask.nii.gz"


def noise(grid, seed):
    return np.random.default_rng(seed).normal(size=grid.size_zyx).astype(np.float32)


def mask(grid):
    data = np.zeros(grid.size_zyx, np.uint8)
    data[2:5, 2:4, 1:3] = 1
    return data


def put(path, data, grid):
    write_volume(path, Volume.on_grid(data, grid))


@pytest.fixture
def source(tmp_path):
    """Three cases: CT with its mask on one grid, PET on a coarser and smaller one."""
    folder = tmp_path / "source"
    for seed, case in enumerate(("p1", "p2", "p10")):
        put(folder / case / "CT_image.nii.gz", noise(CT_GRID, seed), CT_GRID)
        put(folder / case / "PET_image.nii.gz", noise(PET_GRID, 10 + seed), PET_GRID)
        put(folder / case / "CT_mask.nii.gz", mask(CT_GRID), CT_GRID)
    return folder


def convert(source, workspace, **change):
    arguments = {
        "channels": CHANNELS,
        "label": LABEL,
        "reference": "CT",
        "label_names": {"tumour": 1},
    }
    dataset = change.pop("dataset", "Dataset100_Tumour")
    return convert_folder(source, dataset, workspace=workspace, **(arguments | change))


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_becomes_a_dataset_that_check_finds_sound(source, workspace):
    steps = []
    folder = convert(source, workspace, progress=lambda done, total: steps.append((done, total)))
    assert folder == workspace.raw / "Dataset100_Tumour"
    assert files(folder) == sorted(
        ["dataset.json", "conversion_Tr.json"]
        + [f"conversion_Tr/{case}.json" for case in ("p1", "p10", "p2")]
        + [f"imagesTr/{case}_000{n}.nii.gz" for case in ("p1", "p10", "p2") for n in (0, 1)]
        + [f"labelsTr/{case}.nii.gz" for case in ("p1", "p10", "p2")]
    )
    assert check_dataset(folder).errors == []
    description = read_description(folder)
    assert description.channels == ("CT", "PET")
    assert description.labels == {"background": 0, "tumour": 1}
    assert description.num_training == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_the_reference_is_kept_to_the_bit_and_the_others_are_put_on_its_grid(source, workspace):
    folder = convert(source, workspace)
    ct = read_volume(folder / "imagesTr/p2_0000.nii.gz")
    pet = read_volume(folder / "imagesTr/p2_0001.nii.gz")
    label = read_volume(folder / "labelsTr/p2.nii.gz")
    np.testing.assert_array_equal(ct.data, noise(CT_GRID, 1))
    np.testing.assert_array_equal(label.data, mask(CT_GRID))
    assert (ct.data.dtype, pet.data.dtype, label.data.dtype) == (np.float32, np.float32, np.uint8)
    assert ct.grid == pet.grid == label.grid == CT_GRID
    original = noise(PET_GRID, 11)
    # PET voxel (z, y, x) has its centre at CT voxel (z, 2 y + 1, 2 x + 1).
    np.testing.assert_allclose(pet.data[:, 1::2, 1:9:2], original, atol=1e-6)
    np.testing.assert_allclose(
        pet.data[:, 1::2, 2:8:2], (original[..., :-1] + original[..., 1:]) / 2, atol=1e-6
    )
    assert (pet.data[..., 10:] == original.min()).all()


def test_a_label_on_another_grid_goes_to_the_nearest_voxel(source, workspace):
    folder = convert(source, workspace, reference="PET")
    label = read_volume(folder / "labelsTr/p1.nii.gz")
    assert label.grid == PET_GRID
    np.testing.assert_array_equal(label.data, mask(CT_GRID)[:, 1::2, 1:9:2])
    assert label.data.any()


def test_different_grids_without_a_reference_are_an_error_that_names_the_option(source, workspace):
    with pytest.raises(GeometryError, match=r"Case p1: CT has size .* --reference CT"):
        convert(source, workspace, reference=None)


def test_one_grid_needs_no_reference(source, workspace):
    folder = convert(source, workspace, channels={"CT": CHANNELS["CT"]}, reference=None)
    assert check_dataset(folder).errors == []


def test_a_label_on_another_grid_without_a_reference_is_an_error(source, workspace):
    with pytest.raises(GeometryError, match="label"):
        convert(source, workspace, channels={"PET": CHANNELS["PET"]}, reference=None)


def test_images_without_labels_become_test_cases(source, workspace):
    convert(source, workspace)
    folder = convert(source, workspace, label=None, label_names=None)
    assert len(list((folder / "imagesTs").iterdir())) == 6
    assert not (folder / "labelsTs").exists()
    assert read_description(folder).num_training == 3
    assert check_dataset(folder).num_cases == 6


def test_test_cases_may_come_first(source, workspace):
    folder = convert(source, workspace, label=None, label_names=None)
    assert read_description(folder).num_training == 0
    convert(source, workspace)
    assert read_description(folder).labels == {"background": 0, "tumour": 1}
    assert check_dataset(folder).errors == []


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("p2/PET_image.nii.gz", "Case p2: 0 files for PET"),
        ("p2/CT_mask.nii.gz", "Case p2: 0 files for label"),
        ("p2/C*.nii.gz", "Case p2: 0 files for CT"),
    ],
)
def test_a_missing_file_is_named_and_nothing_is_written(source, workspace, removed, message):
    for path in source.glob(removed):
        path.unlink()
    with pytest.raises(DatasetError, match=message):
        convert(source, workspace)
    assert not workspace.raw.exists()


def test_two_files_for_one_channel_are_an_error(source, workspace):
    channels = CHANNELS | {"PET": "{case}/*_image.nii.gz"}
    with pytest.raises(DatasetError, match=r"Case p1: 2 files for PET .*CT_image.*PET_image"):
        convert(source, workspace, channels=channels)


def test_a_pattern_without_any_file_is_an_error_that_shows_what_is_there(source, workspace):
    with pytest.raises(DatasetError, match=r"no file for MR.*Found there: p1, p10, p2"):
        convert(source, workspace, channels=CHANNELS | {"MR": "{case}/T1.nii.gz"})


def test_an_empty_folder_and_an_absent_one_are_errors(tmp_path, workspace):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="Found there: nothing"):
        convert(tmp_path / "empty", workspace)
    with pytest.raises(DatasetError, match="no such folder"):
        convert(tmp_path / "absent", workspace)


@pytest.mark.parametrize(
    "change",
    [
        {"channels": {}},
        {"channels": {"label": "{case}/CT_image.nii.gz"}},
        {"reference": "MR"},
        {"label_names": {"tumour": 2}},
        {"label_names": {"background": 1, "tumour": 0}},
        {"label_names": {"tumour": 2, "ignore": 1}},
    ],
)
def test_arguments_that_contradict_each_other_are_refused(source, workspace, change):
    with pytest.raises(DatasetError):
        convert(source, workspace, **change)
    assert not workspace.raw.exists()


def test_a_label_value_without_a_name_is_an_error(source, workspace):
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * 2, CT_GRID)
    with pytest.raises(DatasetError, match=r"Case p2: the label has values \[2\]"):
        convert(source, workspace)


def test_unnamed_values_are_named_by_number(source, workspace):
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * 2, CT_GRID)
    folder = convert(source, workspace, label_names=None)
    assert read_description(folder).labels == {"background": 0, "label_1": 1, "label_2": 2}


def test_unnamed_values_with_a_gap_are_an_error_that_asks_for_names(source, workspace):
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * 4, CT_GRID)
    with pytest.raises(DatasetError, match=r"\[0, 1, 4\].*--labels"):
        convert(source, workspace, label_names=None)
    assert not workspace.raw.exists()


def test_labels_stored_as_floats_are_rounded_when_near_and_refused_when_not(source, workspace):
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * np.float32(0.99999997), CT_GRID)
    folder = convert(source, workspace)
    np.testing.assert_array_equal(read_volume(folder / "labelsTr/p2.nii.gz").data, mask(CT_GRID))
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * np.float32(0.4), CT_GRID)
    with pytest.raises(DatasetError, match="Case p2: the label: 12 voxels"):
        convert(source, workspace, dataset="Dataset101_Other")


def test_negative_label_values_are_refused(source, workspace):
    put(source / "p2/CT_mask.nii.gz", -mask(CT_GRID).astype(np.int16), CT_GRID)
    with pytest.raises(DatasetError, match="from -1 to 0"):
        convert(source, workspace)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted(source, workspace, value):
    data = noise(PET_GRID, 0)
    data[0, 0, :3] = value
    put(source / "p2/PET_image.nii.gz", data, PET_GRID)
    with pytest.raises(DatasetError, match="Case p2: PET has 3 voxels"):
        convert(source, workspace)


@pytest.mark.parametrize("part", ["PET_image", "CT_mask"])
def test_images_of_another_place_are_an_error(source, workspace, part):
    path = source / "p2" / f"{part}.nii.gz"
    volume = read_volume(path)
    write_volume(
        path,
        Volume(data=volume.data, spacing_zyx=volume.spacing_zyx, origin_xyz=(900.0, 0.0, 0.0)),
    )
    with pytest.raises(GeometryError, match="Case p2: nothing of"):
        convert(source, workspace)


@pytest.mark.parametrize("axes", [2, 4])
def test_images_of_two_or_four_axes_are_errors(source, workspace, axes):
    image = SimpleITK.GetImageFromArray(np.ones((2, 3, 4, 5)[4 - axes :], np.float32), False)
    SimpleITK.WriteImage(image, str(source / "p2/CT_image.nii.gz"))
    with pytest.raises(ImageReadError, match=rf"p2/CT_image.nii.gz: has {axes} axes"):
        convert(source, workspace)


def test_a_file_cut_short_is_an_error(source, workspace):
    path = source / "p2/PET_image.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageReadError, match="p2/PET_image"):
        convert(source, workspace)


def test_a_number_taken_by_another_dataset_is_refused(source, workspace):
    convert(source, workspace)
    with pytest.raises(DatasetError, match="taken by Dataset100_Tumour"):
        convert(source, workspace, dataset="Dataset100_Other")


@pytest.mark.parametrize(
    "change", [{"label_names": {"lesion": 1}}, {"channels": CHANNELS | {"MR": CHANNELS["PET"]}}]
)
def test_a_finished_dataset_of_other_labels_or_channels_is_refused(source, workspace, change):
    folder = convert(source, workspace)
    (folder / "conversion_Tr.json").unlink()
    with pytest.raises(DatasetError, match=r"dataset\.json: the dataset exists with"):
        convert(source, workspace, **change)


def test_an_unfinished_dataset_is_not_resumed_with_other_settings(source, workspace):
    folder = convert(source, workspace)
    (folder / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="reference was CT, is PET"):
        convert(source, workspace, reference="PET")
    swapped = dict(reversed(CHANNELS.items()))
    with pytest.raises(DatasetError, match="channels was"):
        convert(source, workspace, channels=swapped)


def test_the_reference_that_an_error_asks_for_can_be_given_at_once(source, workspace):
    put(source / "p1/PET_image.nii.gz", noise(CT_GRID, 10), CT_GRID)  # the others come later
    with pytest.raises(GeometryError, match=r"Case p10: .* --reference CT"):
        convert(source, workspace, reference=None)
    assert not workspace.raw.exists()
    assert check_dataset(convert(source, workspace)).errors == []


def test_settings_may_be_corrected_until_a_case_is_written(source, workspace):
    put(source / "p1/CT_mask.nii.gz", mask(CT_GRID) * 2, CT_GRID)
    with pytest.raises(DatasetError, match="Case p1: the label has values"):
        convert(source, workspace)
    folder = convert(source, workspace, label_names={"lung": 1, "node": 2}, reference="PET")
    assert read_description(folder).labels == {"background": 0, "lung": 1, "node": 2}
    settings = json.loads((folder / "conversion_Tr.json").read_text())
    assert settings["reference"] == "PET"
    assert settings["labels"] == {"background": 0, "lung": 1, "node": 2}


def test_labels_may_be_added_or_renamed_while_a_conversion_is_unfinished(source, workspace):
    put(source / "p2/CT_mask.nii.gz", mask(CT_GRID) * 2, CT_GRID)
    with pytest.raises(DatasetError, match="Case p2: the label has values"):
        convert(source, workspace)
    first = workspace.raw / "Dataset100_Tumour/imagesTr/p1_0000.nii.gz"
    before = first.stat().st_mtime_ns
    folder = convert(source, workspace, label_names={"lung": 1, "node": 2})
    assert first.stat().st_mtime_ns == before
    assert check_dataset(folder).errors == []
    assert json.loads((folder / "conversion_Tr.json").read_text())["labels"]["node"] == 2


def test_a_label_that_written_cases_may_hold_is_not_taken_away(source, workspace):
    folder = convert(source, workspace, label_names={"tumour": 1, "node": 2})
    (folder / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="labels was"):
        convert(source, workspace)


def test_a_sheared_header_is_straightened_so_that_nnunet_reads_it(source, workspace):
    for name in ("CT_image", "CT_mask"):
        path = source / "p1" / f"{name}.nii.gz"
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 1] += 0.02
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
    assert check_dataset(convert(source, workspace)).errors == []


def test_what_a_person_added_to_dataset_json_is_kept(source, workspace):
    folder = convert(source, workspace)
    content = json.loads((folder / "dataset.json").read_text()) | {"licence": "CC BY 4.0"}
    (folder / "dataset.json").write_text(json.dumps(content))
    convert(source, workspace)
    assert json.loads((folder / "dataset.json").read_text()) == content


def test_a_full_disk_leaves_nothing_half_written_and_the_conversion_resumes(
    source, workspace, monkeypatch
):
    written = []

    def fill_up(path, volume):
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        written.append(path)
        write_volume(path, volume)

    monkeypatch.setattr(case_writing, "write_volume", fill_up)
    with pytest.raises(OSError, match="No space left"):
        convert(source, workspace)
    folder = workspace.raw / "Dataset100_Tumour"
    assert not (folder / "dataset.json").exists()
    assert set(folder.rglob("*.nii.gz")) == set(written)
    first = {path: path.stat().st_mtime_ns for path in written[:3]}

    monkeypatch.setattr(case_writing, "write_volume", write_volume)
    convert(source, workspace)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert check_dataset(folder).errors == []
    assert read_description(folder).num_training == 3


def test_a_finished_conversion_opens_no_image_again(source, workspace):
    folder = convert(source, workspace)
    for path in source.rglob("*.nii.gz"):
        path.write_text("gone")
    assert convert(source, workspace) == folder


def test_a_case_may_lack_the_file_of_an_optional_channel(source, workspace):
    (source / "p2/PET_image.nii.gz").unlink()
    folder = convert(source, workspace, optional=["PET"], num_workers=2)
    assert read_description(folder).optional == ("PET",)
    assert check_dataset(folder).errors == []
    assert not (folder / "imagesTr/p2_0001.nii.gz").exists()
    assert read_grid(folder / "imagesTr/p2_0000.nii.gz") == CT_GRID
    settings = json.loads((folder / "conversion_Tr.json").read_text())
    assert settings["optional"] == ["PET"]


@pytest.mark.parametrize("optional", [["MR"], ["CT"]])
def test_an_optional_channel_is_one_of_them_and_not_the_reference(source, workspace, optional):
    with pytest.raises(DatasetError, match="optional"):
        convert(source, workspace, optional=optional)


def test_a_case_without_any_file_of_a_channel_is_refused(source, workspace):
    for name in ("PET_image", "CT_image"):
        (source / f"p2/{name}.nii.gz").unlink()
    with pytest.raises(DatasetError, match="Case p2: has no channel"):
        convert(source, workspace, optional=["PET", "CT"], reference=None, channels=ON_ONE_GRID)


def test_the_patient_of_a_case_is_recorded_where_the_patterns_name_one(source, workspace):
    for case in ("p1", "p2", "p10"):
        (source / case).rename(source / f"{case[:2]}-{case}")
    patterns = {name: text.replace("{case}", "{patient}-{case}") for name, text in CHANNELS.items()}
    label = LABEL.replace("{case}", "{patient}-{case}")
    folder = convert(source, workspace, channels=patterns, label=label)
    records = read_records(folder)
    assert {name: record.patient for name, record in records.items()} == {
        "p1_p1": "p1",
        "p1_p10": "p1",
        "p2_p2": "p2",
    }
    assert records["p2_p2"].sources["CT"] == "p2-p2/CT_image.nii.gz"


def test_sarcomas_of_pet_and_ct_end_on_the_grid_of_ct(shared, tmp_path, workspace):
    source = tmp_path / "sts"
    source.mkdir()
    for case in ("STS_001", "STS_003"):
        (source / case).symlink_to(shared / "data/sts" / case)
    folder = convert(source, workspace, dataset="Dataset110_Sarcoma")
    assert check_dataset(folder).errors == []
    for case in ("STS_001", "STS_003"):
        ct_grid = read_grid(source / case / "CT_image.nii.gz")
        for name in (f"imagesTr/{case}_0000", f"imagesTr/{case}_0001", f"labelsTr/{case}"):
            assert read_grid(folder / f"{name}.nii.gz") == ct_grid
        pet = read_volume(source / case / "PET_image.nii.gz")
        assert not same_grid(pet, ct_grid)
        moved = read_volume(folder / f"imagesTr/{case}_0001.nii.gz")
        # Linear interpolation stays between the values it is given.
        assert pet.data.min() <= moved.data.min()
        assert 0.8 * pet.data.max() < moved.data.max() <= pet.data.max() * (1 + 1e-6)
        # A tumour of these two takes up more glucose than what is around it.
        tumour = read_volume(folder / f"labelsTr/{case}.nii.gz").data > 0
        assert moved.data[tumour].mean() > 2 * moved.data[~tumour].mean()
