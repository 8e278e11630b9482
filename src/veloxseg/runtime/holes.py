"""Filling the holes of a mask without scipy.

The outside is flooded from the border of the array by sweeps: along each axis, forth and back, a
plane takes over what the plane before it has reached. One sweep carries the flood along a whole
axis, so that the shapes of bodies need a few rounds of sweeps, where growth by a voxel a step needs
hundreds. Voxels are bits, 64 along x to a word, which makes a round cheap.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
_Words = npt.NDArray[np.uint64]

_BITS = 64
_TOP = np.uint64(_BITS - 1)


def fill_holes(mask: BoolArray) -> BoolArray:
    """Add to a mask what it encloses.

    A voxel outside the mask is in a hole if no path over face neighbours outside the mask leads
    from it to the border of the array. Same as scipy's ``binary_fill_holes``.

    Args:
        mask: (Z, Y, X) booleans.

    Returns:
        (Z, Y, X) booleans, a new array.
    """
    outside = ~mask
    reached = np.zeros_like(outside)
    for axis in range(3):
        near, far = np.moveaxis(reached, axis, 0), np.moveaxis(outside, axis, 0)
        near[0], near[-1] = far[0], far[-1]
    flooded = _flood(_pack(reached), _pack(outside))
    filled: BoolArray = ~_unpack(flooded, mask.shape[2])
    return filled


def _flood(reached: _Words, outside: _Words) -> _Words:
    # In place, until a round of sweeps reaches nothing new.
    before = None
    while before is None or not np.array_equal(before, reached):
        before = reached.copy()
        for axis in (1, 2):
            _sweep_planes(np.moveaxis(reached, axis, 0), np.moveaxis(outside, axis, 0))
        _sweep_bits(reached, outside)
    return reached


def _sweep_planes(reached: _Words, outside: _Words) -> None:
    for step in (1, -1):
        planes, allowed = reached[::step], outside[::step]
        for index in range(1, len(planes)):
            planes[index] |= planes[index - 1] & allowed[index]


def _sweep_bits(reached: _Words, outside: _Words) -> None:
    # Along x: words in turn, each taking over its neighbour's outermost bit.
    for step, onwards, outermost in (
        (1, np.left_shift, np.right_shift),
        (-1, np.right_shift, np.left_shift),
    ):
        words, allowed = reached[::step], outside[::step]
        for index in range(len(words)):
            if index:
                words[index] |= outermost(words[index - 1], _TOP) & allowed[index]
            _spread(words[index], allowed[index], onwards)


def _spread(reached: _Words, outside: _Words, shift: Callable[[_Words, np.uint64], _Words]) -> None:
    # Within words, by doubling: after distance d, `open_path` says where the 2d voxels on the way
    # are all outside. In place.
    open_path = outside
    for distance in (1, 2, 4, 8, 16, 32):
        reached |= shift(reached, np.uint64(distance)) & open_path
        open_path = open_path & shift(open_path, np.uint64(distance))


def _pack(voxels: BoolArray) -> _Words:
    # (Z, Y, X) booleans -> (words, Z, Y); x grows from the lowest bit of the first word.
    depth, height, width = voxels.shape
    octets = np.zeros((depth, height, -(-width // _BITS) * 8), np.uint8)
    octets[..., : -(-width // 8)] = np.packbits(voxels, axis=2, bitorder="little")
    words = np.moveaxis(octets.view("<u8"), 2, 0)
    return np.ascontiguousarray(words, dtype=np.uint64)


def _unpack(words: _Words, width: int) -> BoolArray:
    octets = np.ascontiguousarray(np.moveaxis(words, 0, 2), dtype="<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=2, count=width, bitorder="little")
    voxels: BoolArray = bits.view(np.bool_)
    return voxels
