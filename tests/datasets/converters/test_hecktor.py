import numpy as np
import pytest

from phantom_trees import contents, nodal, put_hecktor, scan, with_data
from veloxseg.datasets.check import check_dataset
from veloxseg.datasets.converters.hecktor import convert_hecktor
from veloxseg.datasets.converters.manifest import read_records
from veloxseg.datasets.description import read_description
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_volume, write_volume
from veloxseg.volumes.volume import Volume, same_grid

COARSE = (4.0, 3.5, 3.5)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "hecktor2022"
    put_hecktor(folder, "CHUM-001")
    put_hecktor(folder, "MDA-002", factor=1.5)
    return folder


def convert(source, workspace, **change):
    arguments = {"spacing_zyx": COARSE} | change
    return convert_hecktor(source, "Dataset122_HaN", workspace=workspace, **arguments)


def inside(volume, points_xyz):
    """Whether points in mm lie in a volume's field of view, by nothing but its affine."""
    index = (points_xyz - volume.origin_xyz) @ volume.grid.matrix() / volume.spacing_zyx[::-1]
    size_xyz = np.array(volume.data.shape[::-1])
    return ((index >= -0.5 - 1e-3) & (index <= size_xyz - 0.5 + 1e-3)).all(axis=-1)


def test_images_are_1_mm_apart_on_the_ct_where_pet_is_too(tmp_path, workspace):
    put_hecktor(tmp_path / "source", "CHUM-001")
    slab = slices_of(scan().fine_pet, 30, 50)
    write_volume(tmp_path / "source/imagesTr/CHUM-001__PT.nii.gz", slab)
    folder = convert_hecktor(tmp_path / "source", "Dataset122_HaN", workspace=workspace)
    ct = read_volume(folder / "imagesTr/CHUM-001_0000.nii.gz")
    pet = read_volume(folder / "imagesTr/CHUM-001_0001.nii.gz")
    label = read_volume(folder / "labelsTr/CHUM-001.nii.gz")
    assert ct.spacing_zyx == (1.0, 1.0, 1.0)
    assert same_grid(ct, pet)
    assert same_grid(ct, label)
    np.testing.assert_allclose(ct.direction, scan().ct.direction, atol=1e-6)
    description = read_description(folder)
    assert description.channels == ("CT", "PET")
    assert description.labels == {"background": 0, "GTVp": 1, "GTVn": 2}
    record = read_records(folder)["CHUM-001"]
    assert record.patient == "CHUM-001"
    assert record.resampled["CT"].spacing_zyx == pytest.approx((3.8, 3.2, 3.2))
    assert record.resampled["PET"].size_zyx == slab.data.shape
    for before, after in record.label_volume_ml.values():
        assert after == pytest.approx(before, rel=0.05)
    # At every voxel's centre the value is that of the source, interpolated by other code; 0.02 for
    # float32 headers, which move a voxel by 0.00001 mm, and 1000 HU a mm.
    index = np.random.default_rng(0).integers(4, np.array(ct.data.shape) - 4, (500, 3))
    points = ct.grid.positions_xyz(index)
    assert inside(scan().ct, points).all()
    assert inside(slab, points).all()
    for written, original in ((pet, slab), (ct, scan().ct)):
        values = written.data[tuple(index.T)]
        assert values.std() > 0.1
        np.testing.assert_allclose(values, linear_values(original, points), atol=0.02)


def slices_of(volume, first, last):
    x, y, z = volume.grid.positions_xyz([first, 0, 0])
    return Volume(
        data=volume.data[first:last],
        spacing_zyx=volume.spacing_zyx,
        origin_xyz=(float(x), float(y), float(z)),
        direction=volume.direction,
    )


def linear_values(volume, points_xyz):
    from scipy import ndimage

    index_xyz = (points_xyz - volume.origin_xyz) @ volume.grid.matrix() / volume.spacing_zyx[::-1]
    return ndimage.map_coordinates(volume.data.astype(float), index_xyz.T[::-1], order=1)


def test_the_spacing_can_be_kept(source, workspace):
    folder = convert(source, workspace, spacing_zyx=None)
    assert check_dataset(folder).errors == []
    ct = read_volume(folder / "imagesTr/CHUM-001_0000.nii.gz")
    assert ct.spacing_zyx == pytest.approx(scan().ct.spacing_zyx)
    # The cut is of whole voxels: what is left is the original, to the bit.
    start = np.rint(
        (np.array(ct.origin_xyz) - scan().ct.origin_xyz)
        @ scan().ct.grid.matrix()
        / scan().ct.spacing_zyx[::-1]
    ).astype(int)[::-1]
    box = tuple(slice(a, a + n) for a, n in zip(start, ct.data.shape, strict=True))
    np.testing.assert_allclose(ct.data, scan().ct.data[box], atol=0.02)


def test_a_pet_of_part_of_the_body_cuts_the_ct(source, workspace):
    part = slices_of(scan().pet, 0, 20)
    write_volume(source / "imagesTr/CHUM-001__PT.nii.gz", part)
    folder = convert(source, workspace)
    cut, whole = (
        read_volume(folder / f"imagesTr/{case}_0000.nii.gz") for case in ("CHUM-001", "MDA-002")
    )
    assert cut.data.shape[0] < whole.data.shape[0]
    volumes = read_records(folder)["CHUM-001"].label_volume_ml
    assert sum(after for _, after in volumes.values()) < sum(first for first, _ in volumes.values())


def test_test_cases_go_to_images_ts_with_or_without_labels(source, workspace):
    put_hecktor(source, "USZ-003", part="Ts", label=False)
    folder = convert(source, workspace)
    assert len(list((folder / "imagesTs").iterdir())) == 2
    assert read_description(folder).num_training == 2
    assert check_dataset(folder).num_cases == 3
    assert list(read_records(folder, part="Ts")) == ["USZ-003"]


def move_to_flat(source, flat):
    flat.mkdir()
    for path in source.rglob("*.nii.gz"):
        path.rename(flat / path.name)
    return flat


def test_all_files_may_lie_in_one_folder(tmp_path, source, workspace):
    folder = convert(move_to_flat(source, tmp_path / "flat"), workspace)
    assert list(read_records(folder)) == ["CHUM-001", "MDA-002"]
    assert check_dataset(folder).errors == []


def test_each_case_may_have_a_folder(tmp_path, source, workspace):
    for path in sorted(source.rglob("*.nii.gz")):
        case = path.name.removesuffix(".nii.gz").partition("__")[0]
        target = tmp_path / "cases" / case / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    folder = convert(tmp_path / "cases", workspace)
    assert list(read_records(folder)) == ["CHUM-001", "MDA-002"]


def test_a_second_run_changes_nothing_and_an_interrupted_one_goes_on(source, workspace):
    broken = source / "imagesTr/MDA-002__PT.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-100])
    with pytest.raises(ImageReadError, match=r"Case MDA-002: .*MDA-002__PT"):
        convert(source, workspace)
    folder = workspace.raw / "Dataset122_HaN"
    first = contents(folder)
    assert "conversion_Tr/CHUM-001.json" in first
    broken.write_bytes(whole)
    convert(source, workspace)
    finished = contents(folder)
    assert {name: finished[name] for name in first} == first
    convert(source, workspace)
    assert contents(folder) == finished
    with pytest.raises(DatasetError, match=r"spacing_zyx was \[4\.0, 3\.5, 3\.5\], is None"):
        convert(source, workspace, spacing_zyx=None)


@pytest.mark.parametrize(
    "removed", ["imagesTr/MDA-002__PT", "imagesTr/MDA-002__CT", "labelsTr/MDA-002"]
)
def test_a_missing_file_is_named_and_nothing_is_written(source, workspace, removed):
    (source / f"{removed}.nii.gz").unlink()
    with pytest.raises(DatasetError, match="Case MDA-002: 0 files for"):
        convert(source, workspace)
    assert not workspace.raw.exists()


def test_two_files_for_one_channel_are_an_error(source, workspace):
    write_volume(source / "imagesTr/MDA-002__PT.nii", scan().pet)
    with pytest.raises(DatasetError, match="Case MDA-002: 2 files for PET"):
        convert(source, workspace)


def test_a_tree_of_two_namings_is_refused(source, workspace):
    write_volume(source / "USZ-003__CT.nii.gz", scan().ct)
    with pytest.raises(DatasetError, match="named in more than one way"):
        convert(source, workspace)


def test_a_file_of_no_known_name_is_named(source, workspace):
    (source / "imagesTr/MDA-002__PT.nii.gz").rename(source / "imagesTr/MDA-002_PT.nii.gz")
    with pytest.raises(DatasetError, match=r"imagesTr/MDA-002_PT\.nii\.gz: no name of HECKTOR"):
        convert(source, workspace)


def test_a_label_on_another_grid_is_refused(source, workspace):
    on_pet = scan().lesions_on_pet
    write_volume(source / "labelsTr/MDA-002.nii.gz", on_pet)
    with pytest.raises(GeometryError, match=r"Case MDA-002: CT has size .* label has"):
        convert(source, workspace)


def test_an_unexpected_label_value_is_refused(source, workspace):
    data = nodal(scan().lesions).data.copy()
    data[0, 0, 0] = 3
    write_volume(source / "labelsTr/MDA-002.nii.gz", with_data(scan().lesions, data))
    with pytest.raises(DatasetError, match=r"Case MDA-002: the label has values \[3\]"):
        convert(source, workspace)


def test_a_pet_of_another_place_is_refused(source, workspace):
    far = Volume(data=scan().pet.data, spacing_zyx=(3.0, 3.0, 3.0), origin_xyz=(5e3, 0.0, 0.0))
    write_volume(source / "imagesTr/MDA-002__PT.nii.gz", far)
    with pytest.raises(GeometryError, match="Case MDA-002: the fields of view have no voxel"):
        convert(source, workspace)
