import numpy as np
import pytest

from veloxseg.errors import ImageReadError
from veloxseg.volumes.itk import sitk
from veloxseg.volumes.registration_limits import (
    RegistrationLimits,
    motion_between,
    why_implausible,
)
from veloxseg.volumes.registration_transform import (
    AffineMap,
    move_header,
    read_transform,
    resample_through,
    write_transform,
)
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Grid, Volume

QUARTER_TURN = AffineMap.of([[0, -1, 0], [1, 0, 0], [0, 0, 1]], (10.0, 0.0, 0.0))
SHEAR = AffineMap.of([[1.1, 0.2, 0], [0, 0.9, 0.1], [0, 0, 1.05]], (1.0, -2.0, 3.3))
GRID = Grid(size_zyx=(6, 8, 10), spacing_zyx=(3.0, 2.0, 1.0), origin_xyz=(-5.0, -8.0, -9.0))


def ramp(grid):
    index = np.moveaxis(np.indices(grid.size_zyx), 0, -1)
    values = grid.positions_xyz(index) @ np.array([2.0, -3.0, 0.5]) + 7
    return Volume.on_grid(values.astype(np.float32), grid)


def test_a_quarter_turn_and_a_shift_map_a_point_as_by_hand():
    np.testing.assert_allclose(QUARTER_TURN([1, 2, 3]), [8, 1, 3])
    np.testing.assert_allclose(QUARTER_TURN.inverse()([8, 1, 3]), [1, 2, 3])
    np.testing.assert_allclose(SHEAR.after(QUARTER_TURN)([1, 2, 3]), SHEAR([8, 1, 3]))
    assert QUARTER_TURN.is_rigid
    assert not SHEAR.is_rigid
    assert not AffineMap.of(np.diag([1, 1, -1]), np.zeros(3)).is_rigid  # a mirror


@pytest.mark.parametrize("transform", [QUARTER_TURN, SHEAR], ids=["rigid", "affine"])
def test_a_written_transform_is_read_back_and_is_what_itk_applies(transform, tmp_path):
    path = tmp_path / "a.tfm"
    write_transform(path, transform)
    back = read_transform(path)
    # ITK's Euler angles round the last bits of a rotation.
    np.testing.assert_allclose(back.matrix, transform.matrix, rtol=0, atol=1e-14)
    np.testing.assert_allclose(back.offset_xyz, transform.offset_xyz, rtol=0, atol=1e-12)
    point = (1.5, -2.5, 3.0)
    by_itk = sitk.ReadTransform(str(path)).TransformPoint(point)
    np.testing.assert_allclose(by_itk, transform(point), atol=1e-12)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tfm"]


def test_a_file_that_is_no_transform_is_refused(tmp_path):
    path = tmp_path / "a.tfm"
    path.write_text("nonsense")
    with pytest.raises(ImageReadError, match="no rigid or affine transform"):
        read_transform(path)
    with pytest.raises(ImageReadError, match="no rigid or affine transform"):
        read_transform(tmp_path / "missing.tfm")


def test_a_ramp_seen_through_an_affine_map_is_the_ramp_of_the_mapped_positions():
    inside = Grid(size_zyx=(3, 3, 3), spacing_zyx=(1.0, 1.0, 1.0), origin_xyz=(-2.0, 1.0, -5.0))
    moved = resample_through(ramp(GRID), inside, transform=SHEAR, interpolation="linear", fill=-1e3)
    index = np.moveaxis(np.indices(inside.size_zyx), 0, -1)
    expected = SHEAR(inside.positions_xyz(index)) @ np.array([2.0, -3.0, 0.5]) + 7
    np.testing.assert_allclose(moved.data, expected, atol=1e-4)
    assert moved.grid == inside
    assert np.ptp(moved.data) > 5


def test_a_moved_header_gives_the_same_image_as_resampling_through_the_transform():
    noise = np.random.default_rng(0).normal(size=GRID.size_zyx).astype(np.float32)
    volume = Volume.on_grid(noise, GRID)
    transform = QUARTER_TURN
    target = Grid(size_zyx=(7, 9, 9), spacing_zyx=(1.9, 1.3, 1.7), origin_xyz=(-8.0, 5.0, -8.0))
    header = move_header(volume, transform)
    assert header.data is volume.data
    by_header = resample(header, target, interpolation="linear", fill=0)
    through = resample_through(volume, target, transform=transform, interpolation="linear", fill=0)
    np.testing.assert_allclose(by_header.data, through.data, atol=1e-5)
    assert (through.data != 0).mean() > 0.1


def test_a_header_cannot_hold_a_shear():
    with pytest.raises(ValueError, match="Expected a rigid transform"):
        move_header(ramp(GRID), SHEAR)


def test_nearest_keeps_the_type_of_labels():
    labels = Volume.on_grid(np.ones(GRID.size_zyx, np.uint8), GRID)
    moved = resample_through(
        labels, GRID, transform=AffineMap.identity(), interpolation="nearest", fill=0
    )
    assert moved.data.dtype == np.uint8
    assert moved.data.all()


def test_a_motion_is_measured_at_the_centre_of_the_field_of_view():
    centre = np.array([-0.5, -1.0, -1.5])
    motion = motion_between(AffineMap.identity(), QUARTER_TURN, grid=GRID)
    assert motion.rotation_degrees == pytest.approx(90)
    assert motion.translation_mm == pytest.approx(np.linalg.norm([10 + 1 + 0.5, -0.5 + 1, 0]))
    assert motion.stretches == pytest.approx((1, 1, 1))
    doubled = AffineMap.of(np.diag([2.0, 1, 0.5]), -np.diag([1.0, 0, -0.5]) @ centre)
    stretched = motion_between(AffineMap.identity(), doubled, grid=GRID)
    assert stretched.stretches == pytest.approx((2, 1, 0.5))
    assert stretched.translation_mm == pytest.approx(0, abs=1e-12)
    assert stretched.rotation_degrees == pytest.approx(0, abs=1e-5)


def test_every_limit_is_named_when_it_is_exceeded():
    limits = RegistrationLimits(translation_mm=5, rotation_degrees=45, stretch=1.2, overlap=0.5)
    still = motion_between(SHEAR, SHEAR, grid=GRID)
    assert why_implausible(still, 0.9, limits) is None
    assert "of the smaller image" in (why_implausible(still, 0.4, limits) or "")
    for matrix, offset, word in (
        (np.eye(3), (6.0, 0, 0), "translation"),
        (QUARTER_TURN.array(), (0, 0, 0), "rotation"),
        (np.diag([1.0, 1.3, 1.0]), (0, 0, 0), "stretch"),
        (np.diag([1.0, 1.0, 0.8]), (0, 0, 0), "stretch"),
    ):
        motion = motion_between(AffineMap.identity(), AffineMap.of(matrix, offset), grid=GRID)
        assert word in (why_implausible(motion, 0.9, limits) or "")
