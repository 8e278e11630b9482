"""Where an image holds anything but zeros: its bounding box, and which tiles are worth running."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.runtime.holes import BoolArray

_BLOCK = 8
"""Voxels along the edge of the blocks that occupancy is noted for."""

_MARGIN = 4
"""Voxels around a tile that count as its own: a cubic spline gives farther ones less than 1 %."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Occupancy:
    """Which blocks of an image hold a voxel that is not zero, asked for on the network's grid.

    Attributes:
        blocks: Whether a block holds any, (Z, Y, X) in transposed axes.
        box: Bounding box of all such voxels in transposed source axes: (from, up to but without)
            along each axis. Of an image of zeros: the whole image.
        shape: Of the network's grid, which covers the box.
    """

    blocks: BoolArray
    box: Box
    shape: tuple[int, int, int]

    def touches(self, start: Sequence[int], stop: Sequence[int]) -> bool:
        """Whether network voxels ``start`` to ``stop`` (z, y, x) may see anything but zeros.

        Errs to the side of yes, by a block. Indices may lie outside the grid.
        """
        window = []
        for axis, (low, high) in enumerate(self.box):
            scale = (high - low) / self.shape[axis]
            first = int(np.floor((start[axis] + 0.5) * scale - 0.5)) - _MARGIN
            last = int(np.ceil((stop[axis] - 0.5) * scale - 0.5)) + _MARGIN
            first, last = max(low, low + first), min(high - 1, low + last)
            window.append(slice(first // _BLOCK, last // _BLOCK + 1))
        return bool(self.blocks[tuple(window)].any())


def find_occupied(
    channels: Sequence[npt.NDArray[Any]],
) -> tuple[BoolArray, Box]:
    """Find where any channel is not zero.

    Args:
        channels: (Z, Y, X) images of one shape.

    Returns:
        Whether each block of 8 x 8 x 8 voxels holds any, and the bounding box: (from, up to but
        without) along each axis; of zeros alone: the whole image, as nnU-Net has it.
    """
    depth, height, width = channels[0].shape
    blocks = np.zeros([-(-size // _BLOCK) for size in channels[0].shape], dtype=np.bool_)
    along = [np.zeros(size, dtype=np.bool_) for size in (depth, height, width)]
    for index, start in enumerate(range(0, depth, _BLOCK)):
        slab = nonzero(channels, start, start + _BLOCK)
        along[0][start : start + _BLOCK] = slab.any(axis=(1, 2))
        plane: BoolArray = np.any(slab, axis=0)
        along[1] |= plane.any(axis=1)
        along[2] |= plane.any(axis=0)
        rows = np.logical_or.reduceat(plane, np.arange(0, height, _BLOCK), axis=0)
        blocks[index] = np.logical_or.reduceat(rows, np.arange(0, width, _BLOCK), axis=1)
    z, y, x = (_extent(line) for line in along)
    return blocks, (z, y, x)


def nonzero(channels: Sequence[npt.NDArray[Any]], start: int, stop: int) -> BoolArray:
    """Whether any channel is not zero, (stop - start, Y, X), for a few planes."""
    found: BoolArray = np.not_equal(channels[0][start:stop], 0)
    for channel in channels[1:]:
        found |= np.not_equal(channel[start:stop], 0)
    return found


def _extent(line: BoolArray) -> tuple[int, int]:
    if not line.any():
        return 0, len(line)
    return int(line.argmax()), len(line) - int(line[::-1].argmax())
