"""NIfTI files, whole, damaged and made to do harm."""

import gzip
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from veloxseg.errors import ImageReadError
from veloxseg.volumes.nifti import read_nifti, write_nifti
from veloxseg.volumes.nifti_grid import nifti_geometry
from veloxseg.volumes.reading import read_channels, read_grid, read_volume
from veloxseg.volumes.volume import Grid

_SHAPE = (6, 5, 4)


@pytest.fixture
def geometry():
    return nifti_geometry(Grid(size_zyx=_SHAPE, spacing_zyx=(3.0, 2.0, 1.0), origin_xyz=(0, 0, 0)))


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(-1000, 1000, _SHAPE).astype(np.int16)


def _with_header(content: bytes, **fields) -> bytes:
    header = nibabel.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


@pytest.mark.parametrize(
    "kind", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8", "<f4", ">f4"]
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxels_come_back_and_itk_and_nibabel_read_them_alike(
    tmp_path, geometry, data, kind, ending
):
    path = tmp_path / f"a{ending}"
    write_nifti(path, data.astype(kind), geometry)
    expected = data.astype(kind)
    np.testing.assert_array_equal(read_nifti(path)[1], expected)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)), expected)
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj).T, expected)


def test_an_array_that_is_a_turned_view_is_written_in_its_own_order(tmp_path, geometry, data):
    turned = data.transpose(2, 1, 0)[::-1]
    write_nifti(tmp_path / "a.nii.gz", turned, geometry)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz")[1], turned)


def test_the_same_image_is_the_same_file(tmp_path, geometry, data):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, data, geometry)
        time.sleep(1.1 if name[0] == "a" else 0)  # gzip can keep the time in seconds
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_slope_is_applied_as_itk_applies_it(tmp_path, geometry, data):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(_with_header(content, scl_slope=0.1, scl_inter=-3.7))
    found = read_volume(tmp_path / "a.nii").data
    assert found.dtype == np.float32
    by_itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(tmp_path / "a.nii"))
    np.testing.assert_array_equal(found, by_itk)


@pytest.mark.parametrize("slope", [0, np.nan])
def test_no_slope_leaves_the_voxels_as_stored(tmp_path, geometry, data, slope):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(_with_header(content, scl_slope=slope, scl_inter=np.nan))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, data)


def test_bytes_between_header_and_voxels_are_passed_over(tmp_path, geometry, data):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = _with_header((tmp_path / "a.nii").read_bytes(), vox_offset=352 + 32)
    (tmp_path / "a.nii").write_bytes(content[:352] + b"extension".ljust(32) + content[352:])
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, data)


@pytest.mark.parametrize("trailer", [b"\0" * 8, b"\n", b"garbage"])
def test_a_little_more_after_the_voxels_does_no_harm(tmp_path, geometry, data, trailer):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = (tmp_path / "a.nii").read_bytes() + trailer
    (tmp_path / "a.nii").write_bytes(content)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    for name in ("a.nii", "a.nii.gz"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)


def test_garbage_after_the_compressed_stream_is_refused_but_padding_is_not(
    tmp_path, geometry, data
):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, data, geometry)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(512))
    np.testing.assert_array_equal(read_volume(path).data, data)
    path.write_bytes(whole + b"garbage")
    with pytest.raises(ImageReadError, match=r"a\.nii\.gz: no whole NIfTI"):
        read_volume(path)


def test_a_file_of_several_compressed_streams_is_read_as_one(tmp_path, geometry, data):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = (tmp_path / "a.nii").read_bytes()
    parts = [content[:300], content[300:400], content[400:]]
    (tmp_path / "a.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").data, data)
    assert read_grid(tmp_path / "a.nii.gz").size_zyx == _SHAPE


@pytest.mark.parametrize("name", ["packed.nii", "plain.nii.gz"])
def test_the_content_and_not_the_name_says_whether_a_file_is_compressed(
    tmp_path, geometry, data, name
):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if "packed" in name else content)
    np.testing.assert_array_equal(read_volume(tmp_path / name).data, data)


@pytest.mark.parametrize("size", [1000, 30000])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_of_an_image_that_the_file_cannot_hold_costs_no_memory(
    tmp_path, geometry, data, size, pack
):
    write_nifti(tmp_path / "a.nii", data, geometry)
    content = _with_header((tmp_path / "a.nii").read_bytes(), dim=[3, size, size, size, 1, 1, 1, 1])
    path = tmp_path / "b.nii.gz"
    path.write_bytes(pack(content))
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, limits[1]))
    try:
        with pytest.raises(ImageReadError, match="cut short"):
            read_volume(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_more_packed_zeros_than_the_header_says_are_not_unpacked(tmp_path, geometry, data):
    write_nifti(tmp_path / "a.nii", data, geometry)
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes() + bytes(50_000_000)))
    with pytest.raises(ImageReadError, match="more than the 592 bytes that the header says"):
        read_volume(path)


@pytest.mark.parametrize("left", [0, 1, 2, 18, 100, -200, -9, -8, -1])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_cut_anywhere_is_refused(tmp_path, geometry, data, left, ending):
    path = tmp_path / f"a{ending}"
    write_nifti(path, data, geometry)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ImageReadError, match="no whole NIfTI"):
        read_volume(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [0, 4, 5, 6, 1, 1, 1, 1]},
        {"dim": [3, 4, 0, 6, 1, 1, 1, 1]},
        {"dim": [3, -4, 5, 6, 1, 1, 1, 1]},
        {"datatype": 1},
        {"datatype": 999},
        {"magic": b"ni1"},
        {"magic": b""},
        {"vox_offset": 16},
        {"vox_offset": -352},
        {"vox_offset": np.nan},
        {"vox_offset": 1e30},
        {"scl_slope": 2, "scl_inter": np.inf},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, geometry, data, fields):
    path = tmp_path / "a.nii"
    write_nifti(path, data, geometry)
    path.write_bytes(_with_header(path.read_bytes(), **fields))
    with pytest.raises(ImageReadError, match=r"a\.nii: no whole NIfTI"):
        read_volume(path)


@pytest.mark.parametrize(
    ("datatype", "said"),
    [
        (128, "3 values a voxel"),
        (2304, "4 values a voxel"),
        (32, "complex64 voxels"),
    ],
)
def test_colours_and_complex_numbers_are_refused(tmp_path, datatype, said):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    content = _with_header(image.to_bytes(), datatype=datatype)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content + bytes(1000)))
    for read in (read_volume, read_grid, read_channels):
        with pytest.raises(ImageReadError, match=said):
            read(tmp_path / "a.nii.gz")


def test_a_fifth_axis_of_one_value_is_none(tmp_path):
    data = np.arange(120, dtype=np.float32).reshape(4, 5, 6, 1, 1)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").data, data[..., 0, 0].T)


def test_voxels_that_nifti_does_not_know_are_not_written(tmp_path, geometry):
    with pytest.raises(OSError, match="NIfTI cannot hold the image"):
        write_nifti(tmp_path / "a.nii", np.zeros(_SHAPE, "U3"), geometry)
    with pytest.raises(OSError, match="NIfTI cannot hold the image"):
        write_nifti(tmp_path / "a.nii", np.zeros((1, 1, 40_000), np.uint8), geometry)
    assert list(tmp_path.iterdir()) == []
