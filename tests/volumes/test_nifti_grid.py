"""A header puts an image where ITK, by which nnU-Net reads, puts it."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from veloxseg.errors import ImageReadError
from veloxseg.volumes.itk import grid_of_itk
from veloxseg.volumes.nifti import write_nifti
from veloxseg.volumes.nifti_grid import nifti_geometry
from veloxseg.volumes.reading import read_grid
from veloxseg.volumes.volume import Grid

_SIZE_XYZ = (4, 5, 6)
_CODES = (0, 1, 2, 4)
_TOLERANCE = 1e-5  # ITK's own single precision: cosines to 1e-7, 100 mm to 1e-5


@pytest.fixture(autouse=True)
def _silent_itk():
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    yield
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(True)


def _turned(seed: int) -> np.ndarray:
    """A rotation, every other one followed by a reflection: left-handed axes."""
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return matrix * (np.sign(np.linalg.det(matrix)), 1, 1 if seed % 2 else -1)


def _affine(matrix: np.ndarray, spacing_xyz=(0.7, 1.3, 3.0), offset=(-61.5, 33.25, 20.0)):
    affine = np.eye(4)
    affine[:3, :3] = matrix * spacing_xyz
    affine[:3, 3] = offset
    return affine


def _write(path: Path, *, qform=None, sform=None, **fields) -> Path:
    header = nibabel.Nifti1Header()
    header.set_data_shape(_SIZE_XYZ)
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+1", 352
    for matrix, set_form in ((qform, header.set_qform), (sform, header.set_sform)):
        if matrix is not None:
            set_form(matrix, code=1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + bytes(4 + np.prod(_SIZE_XYZ)))
    return path


def _by_itk(path: Path) -> Grid:
    return grid_of_itk(SimpleITK.ReadImage(str(path)))


def _assert_same(found: Grid, expected: Grid) -> None:
    assert found.size_zyx == expected.size_zyx
    np.testing.assert_allclose(found.spacing_zyx, expected.spacing_zyx, rtol=_TOLERANCE)
    np.testing.assert_allclose(found.direction, expected.direction, atol=_TOLERANCE)
    scale = max(1.0, np.abs(expected.origin_xyz).max() / 100)
    np.testing.assert_allclose(found.origin_xyz, expected.origin_xyz, atol=_TOLERANCE * scale)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("qform_code", "sform_code"), list(itertools.product(_CODES, _CODES)))
def test_of_two_forms_in_two_places_the_one_that_itk_takes_is_taken(
    tmp_path, seed, qform_code, sform_code
):
    path = _write(
        tmp_path / "a.nii",
        qform=_affine(_turned(seed)),
        sform=_affine(_turned(seed + 100), offset=(5.0, -6.0, 7.0)),
        qform_code=qform_code,
        sform_code=sform_code,
    )
    _assert_same(read_grid(path), _by_itk(path))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("qform_code", "sform_code"), list(itertools.product(_CODES, _CODES)))
def test_two_forms_of_one_place_give_it_as_itk_does(tmp_path, seed, qform_code, sform_code):
    affine = _affine(_turned(seed))
    path = _write(
        tmp_path / "a.nii", qform=affine, sform=affine, qform_code=qform_code, sform_code=sform_code
    )
    _assert_same(read_grid(path), _by_itk(path))


@pytest.mark.parametrize("unit", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("form", ["qform", "sform"])
def test_metres_and_microns_become_millimetres(tmp_path, unit, form):
    path = _write(tmp_path / "a.nii", **{form: _affine(_turned(1))}, xyzt_units=unit)
    _assert_same(read_grid(path), _by_itk(path))


def test_voxel_sizes_are_pixdims_even_where_the_sforms_columns_differ(tmp_path):
    path = _write(tmp_path / "a.nii", sform=_affine(_turned(2)), pixdim=[1, 2, 2, 5, 1, 1, 1, 1])
    assert read_grid(path).spacing_zyx == (5, 2, 2)
    _assert_same(read_grid(path), _by_itk(path))


def test_a_sheared_sform_beside_a_qform_is_passed_over(tmp_path):
    sheared = _affine(_turned(3))
    sheared[0, 1] += 0.3
    path = _write(tmp_path / "a.nii", qform=_affine(_turned(1)), sform=sheared)
    _assert_same(read_grid(path), _by_itk(path))


def test_forms_that_differ_in_the_sense_of_one_axis_give_the_sform(tmp_path):
    affine = _affine(np.eye(3))
    path = _write(
        tmp_path / "a.nii", qform=affine, sform=affine @ np.diag([1, 1, -1, 1.0]), sform_code=2
    )
    assert read_grid(path).direction[8] == -1
    _assert_same(read_grid(path), _by_itk(path))


@pytest.mark.parametrize(
    "fields",
    [
        {"pixdim": [0, 1, 2, 3, 1, 1, 1, 1]},  # no handedness: right
        {"pixdim": [-0.5, 1, 2, 3, 1, 1, 1, 1]},
        {"quatern_b": 0.8, "quatern_c": 0.8, "quatern_d": 0.8},  # longer than 1
        {"quatern_b": 1.0, "quatern_c": 0.0, "quatern_d": 0.0},  # half a turn
        {"qoffset_x": np.nan},
        {"sform_code": 9},
        {"sform_code": -1, "qform_code": -3},
        {"dim": [4, 4, 5, 6, 1, 1, 1, 1]},
        {"dim": [4, 4, 5, 6, 0, 1, 1, 1]},
    ],
)
def test_an_odd_header_is_read_as_itk_reads_it(tmp_path, fields):
    path = _write(tmp_path / "a.nii", qform=_affine(_turned(1)), **fields)
    _assert_same(read_grid(path), _by_itk(path))


@pytest.mark.parametrize("step", [0, -1.5, np.nan, np.inf])
@pytest.mark.parametrize("form", ["qform", "sform"])
def test_a_spacing_that_is_not_positive_is_refused(tmp_path, step, form):
    path = _write(tmp_path / "a.nii", **{form: _affine(np.eye(3))})
    _write(path, **{form: _affine(np.eye(3))}, pixdim=[1, 1, step, 1, 1, 1, 1, 1])
    with pytest.raises(ImageReadError, match=r"a\.nii: the header's spacing is .*Correct"):
        read_grid(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_sform_that_is_not_finite_is_refused(tmp_path, bad):
    path = _write(tmp_path / "a.nii", sform=_affine(np.eye(3)), srow_y=[0, 1, 0, bad])
    with pytest.raises(ImageReadError, match="no grid"):
        read_grid(path)


def test_a_copy_as_nifti_2_which_itk_cannot_read_lies_in_the_same_place(tmp_path):
    affine = _affine(_turned(5))
    data = np.zeros(_SIZE_XYZ, np.uint8)
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "one.nii")
    nibabel.save(nibabel.Nifti2Image(data, affine), tmp_path / "two.nii")
    _assert_same(read_grid(tmp_path / "two.nii"), read_grid(tmp_path / "one.nii"))


def test_a_big_endian_header_is_read_as_itk_reads_it(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(np.zeros(_SIZE_XYZ, ">i2"), _affine(_turned(7)), header)
    nibabel.save(image, tmp_path / "a.nii")
    _assert_same(read_grid(tmp_path / "a.nii"), _by_itk(tmp_path / "a.nii"))


@pytest.mark.parametrize("seed", range(6))
def test_what_we_write_nibabel_and_itk_read_alike(tmp_path, seed):
    x, y, z = _SIZE_XYZ
    grid = Grid(
        size_zyx=(z, y, x),
        spacing_zyx=(3.3, 0.9, 0.7),
        origin_xyz=(-12.5, 250.3, -881.1),
        direction=tuple(_turned(seed).flat),
    )
    write_nifti(tmp_path / "a.nii.gz", np.zeros(grid.size_zyx, np.int16), nifti_geometry(grid))
    _assert_same(_by_itk(tmp_path / "a.nii.gz"), grid)
    image = nibabel.load(tmp_path / "a.nii.gz")
    (sform, sform_code), (qform, qform_code) = image.get_sform(True), image.get_qform(True)
    assert (sform_code, qform_code) == (1, 1)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(sform, qform, atol=1e-4)  # 881 mm in float32
    np.testing.assert_allclose(image.header.get_zooms(), (0.7, 0.9, 3.3), rtol=1e-7)
