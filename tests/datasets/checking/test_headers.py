import nibabel
import numpy as np
import pytest
import SimpleITK

from small_datasets import ct, put, set_header, shear
from veloxseg.datasets.checking.headers import check_header, has_place
from veloxseg.volumes.reading import read_grid

ORIENTATIONS = [
    (1, 0, 0, 0, 1, 0, 0, 0, 1),
    (-1, 0, 0, 0, -1, 0, 0, 0, 1),  # half a turn, whose quaternion is the least exact
    (0, 1, 0, 0, 0, 1, 1, 0, 0),
    (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1),
    (-0.6, -0.8, 0, 0.8, -0.6, 0, 0, 0, 1),
    (1, 0, 0, 0, 0, -1, 0, -1, 0),  # left-handed: qfac is -1
]


def check(path, read_by_itk=True):
    return list(check_header("case", "CT", path, read_grid(path), read_by_itk=read_by_itk))


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "ct.nii.gz"
    put(file, ct(), spacing=(3.0, 0.8, 0.7), origin=(-120.5, 33.25, -900.0))
    return file


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_headers_that_we_write_have_nothing_wrong_in_any_orientation(tmp_path, direction):
    path = tmp_path / "ct.nii.gz"
    put(path, ct(shape=(3, 400, 500)), origin=(200.0, -300.0, 900.0), direction=direction)
    assert check(path) == []
    assert has_place(path)


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_headers_that_itk_writes_have_nothing_wrong(tmp_path, direction):
    path = tmp_path / "ct.nii.gz"
    image = SimpleITK.GetImageFromArray(ct())
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((200.0, -300.0, 900.0))
    image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))
    assert check(path) == []


def test_a_format_other_than_nifti_has_one_header_alone(tmp_path):
    path = tmp_path / "ct.mha"
    put(path, ct())
    assert check(path) == []
    assert has_place(path)


def test_a_sheared_header_that_itk_refuses_is_an_error(path):
    shear(path)
    (problem,) = check(path)
    assert (problem.kind, problem.severity) == ("not_orthonormal", "error")
    assert problem.numbers["departure"] == pytest.approx(0.02 / 0.8, rel=0.05)


def test_a_sheared_header_is_a_warning_where_nibabel_reads(path):
    shear(path)
    (problem,) = check(path, read_by_itk=False)
    assert (problem.kind, problem.severity) == ("not_orthonormal", "warning")


def test_a_shear_below_the_tolerance_is_rounding(path):
    shear(path, amount=2e-5)
    assert check(path) == []


def test_a_sheared_sform_beside_a_sound_qform_is_a_warning(path):
    image = nibabel.load(path)
    sform = image.get_sform()
    sform[0, 1] += 0.02
    image.header["srow_x"] = sform[0]
    set_header(path, srow_x=sform[0], sform_code=2)
    (problem,) = check(path)
    assert (problem.kind, problem.severity) == ("not_orthonormal", "warning")


@pytest.mark.parametrize(
    ("fields", "form", "voxels"),
    [
        ({"qoffset_x": 125.5}, "qform", 5 / 0.7),  # RAS: +120.5 as written
        ({"srow_z": (0, 0, 3.0, -894.0), "sform_code": 2}, "sform", 6 / 0.7),
        ({"srow_x": (-0.7, 0, 0, 120.5 + 0.7), "sform_code": 2}, "sform", 1.0),
    ],
)
def test_forms_that_contradict_each_other_are_a_warning(path, fields, form, voxels):
    set_header(path, **fields)
    (problem,) = check(path)
    assert (problem.kind, problem.severity) == ("forms_disagree", "warning")
    assert problem.numbers["form"] == form
    assert problem.numbers["corner_voxels"] == pytest.approx(voxels, rel=1e-3)


def test_forms_that_differ_by_rounding_are_sound(path):
    set_header(path, qoffset_x=120.5 + 0.3)
    assert check(path) == []


def test_a_spacing_unlike_that_of_the_sform_is_a_warning(path):
    image = nibabel.load(path)
    pixdim = image.header["pixdim"].copy()
    pixdim[3] = 1.5  # of 3: ITK takes this one, nibabel the sform
    set_header(path, pixdim=pixdim, qform_code=0)
    assert read_grid(path).spacing_zyx[0] == 1.5
    (problem,) = check(path)
    assert problem.kind == "forms_disagree"
    assert problem.numbers["form"] == "sform"


def test_an_sform_in_metres_is_compared_in_mm(path):
    image = nibabel.load(path)
    header = image.header
    scaled = {f"srow_{axis}": np.asarray(header[f"srow_{axis}"]) / 1000 for axis in "xyz"}
    offsets = {f"qoffset_{axis}": float(header[f"qoffset_{axis}"]) / 1000 for axis in "xyz"}
    pixdim = header["pixdim"].copy()
    pixdim[1:4] /= 1000
    set_header(path, **scaled, **offsets, pixdim=pixdim, xyzt_units=1)
    assert read_grid(path).spacing_zyx == pytest.approx((3.0, 0.8, 0.7))
    assert check(path) == []


def test_a_header_without_codes_has_no_place(path):
    set_header(path, qform_code=0, sform_code=0)
    assert not has_place(path)
    assert check(path) == []


def test_a_quaternion_longer_than_one_is_passed_over(path):
    set_header(path, quatern_b=0.9, quatern_c=0.9, quatern_d=0.9)
    assert all(problem.kind in ("forms_disagree", "refused_by_itk") for problem in check(path))
