"""Connected components of a mask without scipy.

Rows of voxels along x are cut into runs, of which a mask has far fewer than voxels. Runs that touch
are found by two binary searches for all runs of a mask at once, and joined until nothing changes.
Voxels that share a face, an edge or a corner touch (26 neighbours), as nnU-Net's postprocessing
has it. Memory beside the mask is that of its runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
_Integers = npt.NDArray[np.int64]

_ROWS_BEFORE = ((0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Neighbouring rows (z, y) that come earlier; the later ones find this one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """The components of some values of a mask.

    Positions are those of voxels in a flat mask with one column and one row more than there are,
    which are empty, so that the last voxel of a row does not touch the first of the next.

    Attributes:
        shape: Of the mask: (Z, Y, X).
        starts: Position of the first voxel of each run, rising.
        stops: One after that of the last.
        of_run: Component of each run, from 0, in the order of their first voxels.
        sizes: Voxels of each component.
    """

    shape: tuple[int, int, int]
    starts: _Integers
    stops: _Integers
    of_run: _Integers
    sizes: _Integers

    def __len__(self) -> int:
        return len(self.sizes)

    def fill(self, mask: npt.NDArray[Any], *, chosen: BoolArray, value: int) -> None:
        """Write ``value`` where the chosen components are, in place.

        Args:
            mask: (Z, Y, X), of which they are the components.
            chosen: One for each component.
            value: To write.
        """
        runs = chosen[self.of_run]
        for plane, starts, stops in self._by_plane(runs):
            mask[plane][self._paint(starts, stops)] = value

    def numbers(self) -> npt.NDArray[np.int32]:
        """(Z, Y, X): the component of each voxel, from 1; 0 outside of them."""
        numbers = np.zeros(self.shape, np.int32)
        pitch, width = _pitch(self.shape), self.shape[2] + 1
        row, column = np.divmod(self.starts % pitch, width)
        lengths = self.stops - self.starts
        along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        numbers[
            np.repeat(self.starts // pitch, lengths),
            np.repeat(row, lengths),
            np.repeat(column, lengths) + along,
        ] = np.repeat(self.of_run + 1, lengths)
        return numbers

    def _by_plane(self, runs: BoolArray) -> list[tuple[int, _Integers, _Integers]]:
        """Planes that hold some of the runs, and where these lie in them."""
        pitch = _pitch(self.shape)
        planes, starts = np.divmod(self.starts[runs], pitch)
        stops = self.stops[runs] - planes * pitch
        limits = np.searchsorted(planes, np.arange(self.shape[0] + 1))
        return [
            (plane, starts[first:last], stops[first:last])
            for plane, (first, last) in enumerate(pairwise(limits))
            if last > first
        ]

    def _paint(self, starts: _Integers, stops: _Integers) -> BoolArray:
        """(Y, X) booleans of one plane: where its runs are."""
        _, height, width = self.shape
        steps = np.zeros(_pitch(self.shape), np.int8)
        steps[starts], steps[stops] = 1, -1  # between two runs there is a voxel of neither
        painted = np.cumsum(steps, dtype=np.int8).view(np.bool_)
        plane: BoolArray = painted.reshape(height + 1, width + 1)[:height, :width]
        return plane


def find_components(mask: npt.NDArray[Any], values: Sequence[int]) -> Components:
    """Find the components of the voxels that hold one of some values, whichever of them.

    Args:
        mask: (Z, Y, X) integers from 0.
        values: What a component is made of.
    """
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    starts, stops = _find_runs(mask, values)
    parents = np.arange(len(starts))
    width = shape[2] + 1
    for planes, rows in _ROWS_BEFORE:
        shift = planes * _pitch(shape) + rows * width
        parents = _join(parents, *_touching(starts, stops, shift))
    is_first = parents == np.arange(len(parents))
    of_run = (np.cumsum(is_first) - 1)[parents]
    sizes = np.bincount(of_run, weights=stops - starts).astype(np.int64)  # exact below 2 ** 53
    return Components(shape=shape, starts=starts, stops=stops, of_run=of_run, sizes=sizes)


def _pitch(shape: Sequence[int]) -> int:
    """Positions of a plane, the empty row and column included."""
    return (shape[1] + 1) * (shape[2] + 1)


def _find_runs(mask: npt.NDArray[Any], values: Sequence[int]) -> tuple[_Integers, _Integers]:
    """Positions where runs start and stop."""
    depth, height, width = mask.shape
    pitch = _pitch(mask.shape)
    found: list[_Integers] = []
    plane = np.zeros((height + 1, width + 1), np.bool_)
    before = np.zeros(pitch, np.bool_)
    for index in range(depth):
        inside = plane[:height, :width]
        np.equal(mask[index], values[0], out=inside)
        for value in values[1:]:
            inside |= mask[index] == value
        flat = plane.reshape(-1)
        before[1:] = flat[:-1]
        found.append(np.flatnonzero(before != flat) + index * pitch)
    changes = np.concatenate(found) if found else np.zeros(0, np.int64)
    return changes[0::2], changes[1::2]


def _touching(starts: _Integers, stops: _Integers, shift: int) -> tuple[_Integers, _Integers]:
    """Pairs of runs: each one, and those in the row ``shift`` positions away that it touches."""
    first = np.searchsorted(stops, starts + (shift - 1), side="right")
    last = np.searchsorted(starts, stops + (shift + 1), side="left")
    counts = np.maximum(last - first, 0)
    runs = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts, counts)
    return runs, np.repeat(first, counts) + offsets


def _join(parents: _Integers, one: _Integers, other: _Integers) -> _Integers:
    """Join pairs; of every run that belongs together, ``parents`` names the first in the end."""
    while True:
        roots, other_roots = parents[one], parents[other]
        apart = roots != other_roots
        if not apart.any():
            return parents
        one, other, roots, other_roots = (
            pairs[apart] for pairs in (one, other, roots, other_roots)
        )
        np.minimum.at(parents, np.maximum(roots, other_roots), np.minimum(roots, other_roots))
        while not np.array_equal(further := parents[parents], parents):
            parents = further
