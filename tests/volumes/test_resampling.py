import numpy as np
import pytest

from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Grid, Volume


def turned(degrees):
    c, s = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


def indices(grid):
    return np.stack(np.meshgrid(*map(np.arange, grid.size_zyx), indexing="ij"), axis=-1)


def ramp(grid):
    """2 x - 3 y + 0.5 z + 7 of the physical position in mm: linear interpolation is exact on it."""
    values = grid.positions_xyz(indices(grid)) @ np.array([2.0, -3.0, 0.5]) + 7
    return Volume.on_grid(values.astype(np.float32), grid)


SOURCES = {
    "plain": Grid(size_zyx=(20, 30, 30), spacing_zyx=(3.0, 2.0, 2.0), origin_xyz=(-30, -30, -30)),
    "flipped": Grid(
        size_zyx=(20, 30, 30),
        spacing_zyx=(3.0, 2.0, 2.0),
        origin_xyz=(30.0, 30.0, -30.0),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    ),
    "axes swapped": Grid(
        size_zyx=(30, 20, 30),
        spacing_zyx=(2.0, 3.0, 2.5),
        origin_xyz=(-30.0, -30.0, -30.0),
        direction=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    ),
    "oblique": Grid(
        size_zyx=(25, 40, 40),
        spacing_zyx=(3.0, 2.0, 2.0),
        origin_xyz=(-25.0, -50.0, -35.0),
        direction=turned(20),
    ),
}
TARGETS = {
    "fine": Grid(size_zyx=(9, 8, 7), spacing_zyx=(1.3, 0.9, 0.7), origin_xyz=(1.13, 2.21, 3.37)),
    "oblique": Grid(
        size_zyx=(5, 6, 7),
        spacing_zyx=(2.0, 1.0, 1.5),
        origin_xyz=(3.0, 1.0, -2.0),
        direction=turned(-33),
    ),
    "flipped": Grid(
        size_zyx=(5, 6, 7),
        spacing_zyx=(2.0, 1.0, 1.5),
        origin_xyz=(3.0, 1.0, -2.0),
        direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    ),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_physical_ramp_keeps_its_values_on_any_grid(source, target):
    moved = resample(ramp(source), target, interpolation="linear", fill=-999)
    assert moved.grid == target
    # float32 of values near 200 has a resolution of 2e-5.
    np.testing.assert_allclose(moved.data, ramp(target).data, atol=1e-3)
    assert np.ptp(moved.data) > 10


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_nearest_takes_the_value_of_the_nearest_voxel(source):
    target = TARGETS["fine"]
    labels = np.arange(np.prod(source.size_zyx), dtype=np.int32).reshape(source.size_zyx)
    moved = resample(Volume.on_grid(labels, source), target, interpolation="nearest", fill=0)
    offset_xyz = (
        target.positions_xyz(indices(target)) - source.origin_xyz
    ) @ source.matrix()  # its inverse's transpose
    index_zyx = np.rint(offset_xyz[..., ::-1] / source.spacing_zyx).astype(int)
    np.testing.assert_array_equal(moved.data, labels[tuple(np.moveaxis(index_zyx, -1, 0))])
    assert moved.data.dtype == np.int32


def test_outside_the_field_of_view_is_the_fill_value():
    volume = ramp(SOURCES["plain"])
    far = Grid(size_zyx=(3, 3, 3), spacing_zyx=(1.0, 1.0, 1.0), origin_xyz=(500.0, 0.0, 0.0))
    assert (resample(volume, far, interpolation="linear", fill=-1000).data == -1000).all()


def test_the_field_of_view_ends_half_a_voxel_beyond_the_outermost_centres():
    line = Volume(data=np.array([[[5.0, 6.0]]], np.float32), spacing_zyx=(1.0, 1.0, 2.0))
    fine = Grid(size_zyx=(1, 1, 8), spacing_zyx=(1.0, 1.0, 0.8), origin_xyz=(-1.6, 0.0, 0.0))
    moved = resample(line, fine, interpolation="nearest", fill=-1).data.ravel()
    # Centres at -1.6, -0.8, 0, 0.8, 1.6, 2.4, 3.2, 4.0 mm; voxels from -1 to 1 and from 1 to 3 mm.
    assert moved.tolist() == [-1, 5, 5, 5, 6, 6, -1, -1]


def test_on_its_own_grid_an_image_keeps_every_bit():
    noise = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    volume = Volume(data=noise, spacing_zyx=(3.0, 1.0, 1.0), direction=turned(20))
    nearly = Grid(
        size_zyx=(4, 5, 6),
        spacing_zyx=(3.0, 1.0, 1.0),
        origin_xyz=(1e-4, 0.0, 0.0),
        direction=turned(20),
    )
    moved = resample(volume, nearly, interpolation="linear", fill=0)
    np.testing.assert_array_equal(moved.data, noise)
    assert moved.grid == nearly


def test_linear_gives_float32_and_nearest_keeps_the_type():
    labels = Volume(data=np.ones((4, 5, 6), np.uint8), spacing_zyx=(1.0, 1.0, 1.0))
    target = TARGETS["fine"]
    assert resample(labels, target, interpolation="linear", fill=0).data.dtype == np.float32
    assert resample(labels, target, interpolation="nearest", fill=0).data.dtype == np.uint8
    mask = Volume(data=labels.data > 0, spacing_zyx=(1.0, 1.0, 1.0))
    assert resample(mask, target, interpolation="nearest", fill=0).data.dtype == np.bool_
