"""PET and CT of one made-up patient have two contrasts, two grids, and one known transform."""

import numpy as np
import pytest
from scipy import ndimage

from veloxseg.datasets.phantom_anatomy import random_patient
from veloxseg.datasets.phantoms import phantom
from veloxseg.errors import GeometryError
from veloxseg.volumes.itk import sitk
from veloxseg.volumes.registration import register
from veloxseg.volumes.registration_limits import RegistrationLimits
from veloxseg.volumes.registration_transform import AffineMap, move_header
from veloxseg.volumes.volume import Grid, Volume

BODY_CORNERS = np.stack(np.meshgrid((-90, 90), (-70, 70), (-80, 80)), axis=-1).reshape(-1, 3)


def turn(axis, degrees):
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def random_rigid(seed, *, degrees=6.0, shift_mm=12.0):
    rng = np.random.default_rng(seed)
    shift = rng.normal(size=3)
    return AffineMap.of(turn(rng.normal(size=3), degrees), shift * shift_mm / np.linalg.norm(shift))


def errors_in_voxels(found, true, moving):
    """Along the moving image's own axes, in its voxels, the largest over the body's corners."""
    apart = found(BODY_CORNERS) - true(BODY_CORNERS)
    return np.abs(apart @ moving.grid.matrix() / moving.spacing_zyx[::-1]).max()


def centred_grid(spacing_zyx, extent_zyx=(190.0, 190.0, 250.0)):
    size = tuple(int(e / s) for e, s in zip(extent_zyx, spacing_zyx, strict=True))
    half = [(n - 1) / 2 * s for n, s in zip(size, spacing_zyx, strict=True)]
    return Grid(size_zyx=size, spacing_zyx=spacing_zyx, origin_xyz=(-half[2], -half[1], -half[0]))


def scan(patient, grid, what, *, transform=None, seed=0):
    """Image the patient, moved so that ``transform`` leads from its space to the image's."""
    index = np.moveaxis(np.indices(grid.size_zyx), 0, -1).reshape(-1, 3)
    points = grid.positions_xyz(index)
    if transform is not None:
        points = transform.inverse()(points)
    points = np.ascontiguousarray(points.T, np.float32)
    rng = np.random.default_rng(seed)
    if what == "CT":
        data = patient.hu(points, edge_mm=3.0) + rng.normal(0, 15, points.shape[1])
        return Volume.on_grid(data.reshape(grid.size_zyx).astype(np.float32), grid)
    data = patient.suv(points, edge_mm=3.0).reshape(grid.size_zyx)
    data = ndimage.gaussian_filter(data, 2.5 / np.asarray(grid.spacing_zyx))
    data = rng.poisson(np.maximum(data, 0) * 12) / 12
    return Volume.on_grid(data.astype(np.float32), grid)


@pytest.mark.parametrize("seed", range(2))
def test_a_rigidly_displaced_pet_is_found_to_less_than_one_of_its_voxels(seed):
    case, true = phantom(5, seed), random_rigid(seed)
    pet = move_header(case.pet, true.inverse())
    assert errors_in_voxels(AffineMap.identity(), true, pet) > 2
    found = register(pet, case.ct)
    assert found.improved
    assert found.model == "rigid"
    assert found.transform.is_rigid
    assert found.metric_after > found.metric_before + 0.1
    assert errors_in_voxels(found.transform, true, pet) < 1
    assert 3 < found.motion.rotation_degrees < 9


def test_an_affinely_displaced_pet_is_found_to_less_than_one_voxel():
    patient = random_patient(np.random.default_rng(2))
    stretch = np.array([[1.06, 0.02, 0.0], [0.0, 0.95, 0.02], [0.01, 0.0, 1.05]])
    true = AffineMap.of(turn((1, 2, 3), 3) @ stretch, (6.0, -5.0, 4.0))
    ct = scan(patient, centred_grid((4.0, 3.5, 3.5)), "CT")
    pet = scan(patient, centred_grid((4.0, 4.0, 4.0)), "PET", transform=true)
    rigid = register(pet, ct)
    found = register(pet, ct, affine=True)
    assert found.model == "affine"
    assert found.metric_after > rigid.metric_after
    assert errors_in_voxels(rigid.transform, true, pet) > 1
    assert errors_in_voxels(found.transform, true, pet) < 1


def test_thick_slices_and_an_image_that_moves_the_other_way_are_no_hindrance():
    patient = random_patient(np.random.default_rng(3))
    true = random_rigid(3, degrees=4, shift_mm=10)
    pet = scan(patient, centred_grid((4.0, 4.0, 4.0)), "PET")
    ct = scan(patient, centred_grid((8.0, 2.5, 2.5)), "CT", transform=true)
    found = register(ct, pet)  # CT to PET: a voxel of the coarser image is 8 x 4 x 4 mm
    apart = found.transform(BODY_CORNERS) - true(BODY_CORNERS)
    assert (np.abs(apart).max(0) < (4, 4, 8)).all()
    back = register(pet, ct)
    there_and_back = back.transform(found.transform(BODY_CORNERS))
    assert np.linalg.norm(there_and_back - BODY_CORNERS, axis=1).max() < 4


def small_pair():
    patient = random_patient(np.random.default_rng(4))
    ct = scan(patient, centred_grid((8.0, 6.0, 6.0)), "CT")
    pet = scan(patient, centred_grid((7.0, 7.0, 7.0)), "PET")
    return move_header(pet, random_rigid(4).inverse()), ct


def test_two_runs_agree_to_the_bit_whatever_the_number_of_threads():
    pet, ct = small_pair()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(register(pet, ct, affine=True))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert found[0].improved
    assert found[0] == found[1]


def test_aligned_images_stay_exactly_where_they_are():
    case = phantom(5, 1)
    found = register(case.pet, case.ct)
    assert not found.improved
    assert found.transform == AffineMap.identity()
    assert found.metric_after == found.metric_before > 0.5


def test_images_without_overlap_begin_with_their_centres_upon_each_other():
    pet, ct = small_pair()
    far = AffineMap.of(np.eye(3), (900.0, 0.0, -400.0))
    found = register(move_header(pet, far), ct)
    assert found.start == "centres"
    assert found.overlap_before > 0.5
    near = register(pet, ct)
    apart = found.transform(BODY_CORNERS) - (near.transform(BODY_CORNERS) - (900, 0, -400))
    assert np.linalg.norm(apart, axis=1).max() < 7


@pytest.mark.parametrize("smooth_mm", [0, 20])
def test_noise_is_refused(smooth_mm):
    _, ct = small_pair()
    noise = np.random.default_rng(0).normal(size=(28, 28, 36))
    if smooth_mm:
        noise = ndimage.gaussian_filter(noise, smooth_mm / 7)
    grid = centred_grid((7.0, 7.0, 7.0))
    data = np.resize(noise, grid.size_zyx).astype(np.float32)
    with pytest.raises(GeometryError, match=r"refused: .*Look whether the files belong together"):
        register(Volume.on_grid(data, grid), ct)


def test_a_motion_beyond_the_limits_is_refused():
    pet, ct = small_pair()
    with pytest.raises(GeometryError, match=r"translation is .* mm, the limit 3 mm|not improve"):
        register(pet, ct, limits=RegistrationLimits(translation_mm=3.0))


@pytest.mark.parametrize("which", ["moving", "fixed"])
def test_a_constant_image_a_nan_and_a_single_slice_are_refused_by_name(which):
    _, ct = small_pair()
    nan = ct.data.copy()
    nan[3, 4, 5] = np.nan
    for data, message in (
        (np.full_like(ct.data, 7), "is constant"),
        (nan, "1 voxels that are NaN"),
        (ct.data[:1], "at least 4 voxels"),
    ):
        bad = Volume(data=data, spacing_zyx=ct.spacing_zyx, origin_xyz=ct.origin_xyz)
        with pytest.raises(GeometryError, match=f"the {which} image .*{message}"):
            register(bad, ct) if which == "moving" else register(ct, bad)


def test_limits_must_be_limits():
    with pytest.raises(ValueError, match="expected positive limits"):
        RegistrationLimits(stretch=0.9)
