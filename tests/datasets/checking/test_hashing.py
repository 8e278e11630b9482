import numpy as np
import pytest

from veloxseg.datasets.checking.hashing import hash_voxels
from veloxseg.volumes.volume import Volume

DATA = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 3


def hashed(data, spacing=(1, 1, 1)):
    return hash_voxels(Volume(data=data, spacing_zyx=spacing))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_equal_values_have_one_hash_whatever_they_are_stored_as(dtype):
    assert hashed(DATA.astype(dtype)) == hashed(DATA)


def test_the_place_in_space_does_not_enter():
    assert hashed(DATA, spacing=(2, 3, 4)) == hashed(DATA)


def test_memory_order_and_negative_zero_do_not_enter():
    assert hashed(np.asfortranarray(DATA)) == hashed(DATA)
    data = DATA.astype(np.float32)
    negative = np.where(data == 0, np.float32(-0.0), data)
    assert np.signbit(negative).sum() > np.signbit(data).sum()
    assert hashed(negative) == hashed(DATA)


def test_another_voxel_another_shape_or_a_mirrored_image_has_another_hash():
    changed = DATA.copy()
    changed[1, 2, 3] += 1
    others = [changed, DATA.reshape(2, 4, 3), DATA[::-1], DATA[:, :, ::-1]]
    assert len({hashed(data) for data in (DATA, *others)}) == 5
