import gzip
import itertools
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK

from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.reading import (
    read_channels,
    read_grid,
    read_volume,
    require_itk_header,
    write_mask,
    write_volume,
)
from veloxseg.volumes.volume import Grid, Volume, same_grid

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SIZE_XYZ = (4, 5, 6)


def rotation(degrees_xyz):
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees_xyz)):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def all_orientations():
    """The 48 ways to lay three array axes along the patient's, and two oblique ones."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            yield matrix
    yield rotation((10, -25, 40))
    yield rotation((-5, 3, 170)) @ np.diag([1.0, -1.0, 1.0])


def save_nifti(path, data_xyz, affine_ras, dtype=np.float32):
    nibabel.save(nibabel.Nifti1Image(data_xyz.astype(dtype), affine_ras), path)


def numbered(size_xyz=SIZE_XYZ):
    return np.arange(np.prod(size_xyz), dtype=np.float32).reshape(size_xyz)


@pytest.mark.parametrize("matrix", list(all_orientations()))
def test_values_lie_where_nibabel_says_in_every_orientation(tmp_path, matrix):
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag([0.5, 1.0, 3.0])
    affine[:3, 3] = (-20, 35, 400)
    data_xyz = numbered()
    save_nifti(tmp_path / "a.nii.gz", data_xyz, affine)

    volume = read_volume(tmp_path / "a.nii.gz")

    assert volume.spacing_zyx == pytest.approx((3.0, 1.0, 0.5))
    for index_xyz in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (1, 2, 5)]:
        index_zyx = index_xyz[::-1]
        expected = (LPS_FROM_RAS @ affine @ (*index_xyz, 1))[:3]
        # float32 header: 400 mm has a resolution of 3e-5 mm.
        np.testing.assert_allclose(volume.grid.positions_xyz(index_zyx), expected, atol=1e-3)
        assert volume.data[index_zyx] == data_xyz[index_xyz]
    assert same_grid(read_grid(tmp_path / "a.nii.gz"), volume)


@pytest.mark.parametrize("matrix", list(all_orientations())[::7])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_volume_comes_back_from_its_file_as_it_was(tmp_path, matrix, ending):
    volume = Volume(
        data=numbered(),
        spacing_zyx=(0.7, 1.1, 2.9),
        origin_xyz=(-12.5, 250.25, -881.25),
        direction=tuple(matrix.ravel()),
    )
    write_volume(tmp_path / f"a{ending}", volume)
    again = read_volume(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(again.data, volume.data)
    assert same_grid(again, volume)
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{ending}"]


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
def test_integers_stay_integers_and_floats_become_float32(tmp_path, stored, read):
    save_nifti(tmp_path / "a.nii.gz", numbered(), np.eye(4), stored)
    assert read_volume(tmp_path / "a.nii.gz").data.dtype == read


def test_slope_and_intercept_are_applied(tmp_path):
    image = nibabel.Nifti1Image(numbered().astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "a.nii.gz")
    stored = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj.get_unscaled())
    data = read_volume(tmp_path / "a.nii.gz").data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, stored.T * 0.5 - 1024)


def test_voxels_that_are_not_finite_stay_so(tmp_path):
    data = numbered()
    data[0, 0, :3] = (np.nan, np.inf, -np.inf)
    write_volume(tmp_path / "a.nii.gz", Volume(data=data, spacing_zyx=(1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").data, data)


def test_a_boolean_mask_is_written_as_uint8(tmp_path):
    mask = numbered() > 50
    write_volume(tmp_path / "a.nii.gz", Volume(data=mask, spacing_zyx=(1.0, 1.0, 1.0)))
    assert read_volume(tmp_path / "a.nii.gz").data.dtype == np.uint8


def test_a_header_sheared_by_rounding_is_straightened_about_its_centre(tmp_path):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.02
    save_nifti(tmp_path / "a.nii.gz", numbered(), affine)
    volume = read_volume(tmp_path / "a.nii.gz")
    middle = (np.array(SIZE_XYZ) - 1) / 2
    expected = (LPS_FROM_RAS @ affine @ (*middle, 1))[:3]
    np.testing.assert_allclose(volume.grid.positions_xyz(middle[::-1]), expected, atol=1e-5)
    np.testing.assert_array_equal(volume.data, numbered().T)
    assert read_grid(tmp_path / "a.nii.gz") == volume.grid


def test_a_strongly_sheared_header_is_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.8
    save_nifti(tmp_path / "a.nii.gz", numbered(), affine)
    for read in (read_volume, read_grid):
        with pytest.raises(ImageReadError, match="not perpendicular"):
            read(tmp_path / "a.nii.gz")


def test_a_four_dimensional_image_is_split_into_channels_only_when_asked(tmp_path):
    data = np.stack([numbered(), numbered() * 2], axis=-1)
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    save_nifti(tmp_path / "a.nii.gz", data, affine)
    for read in (read_volume, read_grid):
        with pytest.raises(ImageReadError, match="4 axes"):
            read(tmp_path / "a.nii.gz")
    first, second = read_channels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(first.data, numbered().T)
    np.testing.assert_array_equal(second.data, numbered().T * 2)
    assert first.grid == second.grid
    assert first.spacing_zyx == (3.0, 2.0, 1.0)


def test_a_three_dimensional_image_is_one_channel(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", numbered(), np.eye(4))
    assert len(read_channels(tmp_path / "a.nii.gz")) == 1


def test_a_two_dimensional_image_is_refused(tmp_path):
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.ones((5, 6), np.float32)), str(tmp_path / "a.nii.gz")
    )
    for read in (read_volume, read_grid, read_channels):
        with pytest.raises(ImageReadError, match="2 axes"):
            read(tmp_path / "a.nii.gz")


def test_an_image_of_several_values_a_voxel_is_refused(tmp_path):
    vectors = SimpleITK.GetImageFromArray(np.ones((4, 5, 6, 3), np.float32), isVector=True)
    SimpleITK.WriteImage(vectors, str(tmp_path / "a.nii.gz"))
    for read in (read_volume, read_grid):
        with pytest.raises(ImageReadError, match="3 values a voxel"):
            read(tmp_path / "a.nii.gz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for read in (read_volume, read_grid):
        with pytest.raises(ImageReadError, match="found nothing"):
            read(tmp_path / "a.nii.gz")
        with pytest.raises(ImageReadError, match="found a folder"):
            read(tmp_path)


@pytest.mark.parametrize("content", [b"no image", b"", gzip.compress(b"no image either")])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.txt"])
def test_a_file_that_is_no_image_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    for read in (read_volume, read_grid):
        with pytest.raises(ImageReadError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("part", [0.5, 0.98])
def test_a_file_cut_short_is_refused_and_not_filled_with_zeros(tmp_path, ending, part):
    noise = np.random.default_rng(0).normal(size=(20, 30, 40)).astype(np.float32)
    path = tmp_path / f"a{ending}"
    write_volume(path, Volume(data=noise, spacing_zyx=(1.0, 1.0, 1.0)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ImageReadError, match="a" + ending):
        read_volume(path)


def test_a_file_damaged_in_its_middle_is_refused(tmp_path):
    noise = np.random.default_rng(0).normal(size=(20, 30, 40)).astype(np.float32)
    write_volume(tmp_path / "a.nii.gz", Volume(data=noise, spacing_zyx=(1.0, 1.0, 1.0)))
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[len(content) // 2] ^= 0x55
    (tmp_path / "a.nii.gz").write_bytes(bytes(content))
    with pytest.raises(ImageReadError, match="no whole NIfTI"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, ending):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"a{ending}"
    old = Volume(data=np.ones((3, 3, 3), np.float32), spacing_zyx=(1.0, 1.0, 1.0))
    write_volume(path, old)
    noise = np.random.default_rng(0).normal(size=(20, 30, 40)).astype(np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as a full disk: writes fail
    try:
        with pytest.raises(OSError, match="space left"):
            write_volume(path, Volume(data=noise, spacing_zyx=(1.0, 1.0, 1.0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_volume(path).data, old.data)


def test_an_unknown_ending_cannot_be_written(tmp_path):
    volume = Volume(data=np.ones((3, 3, 3), np.float32), spacing_zyx=(1.0, 1.0, 1.0))
    with pytest.raises(OSError, match="ending"):
        write_volume(tmp_path / "a.strange", volume)
    assert list(tmp_path.iterdir()) == []


def test_reading_leaves_itks_warnings_as_they_were(tmp_path):
    write_volume(tmp_path / "a.nrrd", Volume(data=numbered(), spacing_zyx=(1.0, 1.0, 1.0)))
    before = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    read_volume(tmp_path / "a.nrrd")
    assert SimpleITK.ProcessObject.GetGlobalWarningDisplay() == before


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_grid_is_read_without_voxels(tmp_path, pack):
    save_nifti(tmp_path / "a.nii", np.random.default_rng(0).random((40, 50, 60)), np.eye(4))
    packed = pack((tmp_path / "a.nii").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(packed[: 352 + len(packed) // 100])  # the voxels are gone
    assert read_grid(tmp_path / "b.nii.gz") == Grid(
        size_zyx=(60, 50, 40),
        spacing_zyx=(1.0, 1.0, 1.0),
        origin_xyz=(0.0, 0.0, 0.0),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )


def test_the_header_that_itk_refuses_is_said_to_be_so(tmp_path):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.02
    save_nifti(tmp_path / "a.nii.gz", numbered(), affine)
    with pytest.raises(ImageReadError, match="ITK, refuses the header"):
        require_itk_header(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_mask_has_its_images_place_to_the_bit(tmp_path, kind):
    affine = np.eye(4)
    affine[:3, :3] = rotation((10, -25, 40)) @ np.diag([0.7, 1.1, 3.0])
    affine[0, 1] += 0.01  # sheared a little: only a copy keeps that
    image = kind(numbered(), affine)
    image.header.set_qform(np.diag([-1.0, 2, 3, 1]), code=3)
    image.header.set_sform(affine, code=2)
    image.header["pixdim"][1:4] = (0.7, 1.1, 3.0)
    image.header["xyzt_units"] = 3
    nibabel.save(image, tmp_path / "a.nii.gz")
    mask = numbered().T.astype(np.int16) % 5
    grid = read_grid(tmp_path / "a.nii.gz")

    write_mask(tmp_path / "m.nii", mask, grid, like=tmp_path / "a.nii.gz")

    source, written = (nibabel.load(tmp_path / name) for name in ("a.nii.gz", "m.nii"))
    for name in ("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(written.header[name], source.header[name])
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"):
        assert written.header[name].tobytes() == source.header[name].tobytes()
    assert written.header["pixdim"][:4].tobytes() == source.header["pixdim"][:4].tobytes()
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, mask)
    assert read_grid(tmp_path / "m.nii") == grid


@pytest.mark.parametrize(("image", "mask"), [("a.nrrd", "m.nii.gz"), ("a.nii.gz", "m.nrrd")])
def test_a_mask_in_another_format_than_its_image_lies_on_its_grid(tmp_path, image, mask):
    volume = Volume(data=numbered(), spacing_zyx=(3.0, 2.0, 0.7), origin_xyz=(1.0, 2.0, 3.0))
    write_volume(tmp_path / image, volume)
    write_mask(tmp_path / mask, volume.data > 50, volume.grid, like=tmp_path / image)
    written = read_volume(tmp_path / mask)
    assert written.data.dtype == np.uint8
    assert same_grid(written, volume)
    np.testing.assert_array_equal(written.data, volume.data > 50)


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", numbered(), np.eye(4))
    grid = read_grid(tmp_path / "a.nii.gz")
    with pytest.raises(GeometryError, match="do not fit"):
        write_mask(tmp_path / "m.nii.gz", np.zeros((4, 5, 6), np.uint8), grid)
    other = Volume(data=np.zeros((4, 5, 6), np.uint8), spacing_zyx=(1.0, 1.0, 1.0))
    with pytest.raises(GeometryError, match=r"m\.nii\.gz: .*does not fit its image"):
        write_mask(tmp_path / "m.nii.gz", other.data, other.grid, like=tmp_path / "a.nii.gz")
    assert not (tmp_path / "m.nii.gz").exists()


_PLAIN_INSTALL = """
import sys
for name in ("SimpleITK", "scipy", "torch"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
from veloxseg.errors import ImageReadError
from veloxseg.volumes.reading import read_grid, read_volume, write_mask, write_volume
from veloxseg.volumes.orientation import to_ras
from veloxseg.volumes.volume import Volume

folder = Path(sys.argv[1])
volume = Volume(data=np.arange(24.0).reshape(2, 3, 4), spacing_zyx=(3.0, 2.0, 1.0))
write_volume(folder / "a.nii.gz", volume)
again = read_volume(folder / "a.nii.gz")
assert (again.data == volume.data).all() and again.grid == read_grid(folder / "a.nii.gz")
write_mask(folder / "m.nii", to_ras(again).data > 5, volume.grid, like=folder / "a.nii.gz")
(folder / "a.nrrd").touch()
for use in (read_volume, read_grid, lambda path: write_volume(path, volume)):
    try:
        use(folder / "a.nrrd")
    except ImageReadError as error:
        print(error)
"""


def test_nifti_needs_neither_simpleitk_nor_scipy_nor_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN_INSTALL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reading, header, writing = done.stdout.splitlines()
    assert (
        reading
        == header
        == (
            f"{tmp_path}/a.nrrd: reading .nrrd needs SimpleITK, not installed here. "
            'Install: pip install "veloxseg[images]"'
        )
    )
    assert "a.nrrd: writing .nrrd needs SimpleITK" in writing
