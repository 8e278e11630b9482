"""Resizing arrays one axis after the other, a few planes at a time.

A spline's weights are next to nothing beyond some twenty voxels, so an axis is cut into blocks of
new voxels, each a small dense matrix product with the few old voxels that it needs: BLAS does them
at full speed, and all that is left out is below float32's resolution.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from veloxseg.runtime.splines import axis_matrix, nearest_index

Float32Array = npt.NDArray[np.float32]

_NEGLIGIBLE = 1e-8
"""Weights smaller than this are taken for 0: all of them together stay below float32's 6e-8."""

_BLOCK = 32
"""New voxels that a matrix product makes: more waste work on zeros, fewer are slow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisMap:
    """One axis resized.

    Attributes:
        num_in: Voxels before.
        num_out: Voxels after.
        matrix: (num_out, num_in) weights.
        first: (num_out,) first old voxel with a weight for a new voxel or any after it.
        last: (num_out,) last old voxel with a weight for a new voxel or any before it.
        index: With order 0: the old voxel that each new voxel takes; else None.
    """

    num_in: int
    num_out: int
    matrix: Float32Array
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    index: npt.NDArray[np.intp] | None

    @classmethod
    def of_order(cls, num_in: int, num_out: int, order: int) -> "AxisMap":
        """Resize ``num_in`` voxels to ``num_out`` by splines; equal numbers change nothing."""
        order = 0 if num_in == num_out else order
        matrix = axis_matrix(num_in, num_out, order)
        matrix[np.abs(matrix) < _NEGLIGIBLE] = 0
        weighty = matrix != 0
        first = weighty.argmax(axis=1)
        last = num_in - 1 - weighty[:, ::-1].argmax(axis=1)
        return cls(
            num_in=num_in,
            num_out=num_out,
            matrix=matrix.astype(np.float32),
            # A new voxel right on an old one needs that one alone, but later ones may reach back.
            first=np.minimum.accumulate(first[::-1])[::-1],
            last=np.maximum.accumulate(last),
            index=nearest_index(num_in, num_out) if order == 0 else None,
        )

    @property
    def is_identity(self) -> bool:
        """Whether the axis keeps its voxels."""
        return self.num_in == self.num_out

    @property
    def growth(self) -> float:
        """New voxels for each old one."""
        return self.num_out / self.num_in

    @property
    def reach(self) -> int:
        """Most old voxels that one new voxel needs."""
        return int((self.last - self.first).max()) + 1

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Old voxels, from and up to but without, that new voxels ``start`` to ``stop`` need."""
        return int(self.first[start]), int(self.last[stop - 1]) + 1

    def blocks(self) -> Iterator[tuple[slice, slice, Float32Array]]:
        """New voxels, the old ones that they need, and the weights (new, old), block by block."""
        for start in range(0, self.num_out, _BLOCK):
            stop = min(start + _BLOCK, self.num_out)
            needed = slice(*self.span(start, stop))
            yield slice(start, stop), needed, self.matrix[start:stop, needed]


@dataclass(frozen=True, kw_only=True, eq=False)
class GridMap:
    """Three axes resized, independently of one another.

    Attributes:
        axes: For z, y and x.
    """

    axes: tuple[AxisMap, AxisMap, AxisMap]

    @classmethod
    def of_orders(
        cls, shape: Sequence[int], new_shape: Sequence[int], orders: Sequence[int]
    ) -> "GridMap":
        """Resize arrays of ``shape`` (Z, Y, X) to ``new_shape`` by splines of these orders."""
        z, y, x = (
            AxisMap.of_order(num_in, num_out, order)
            for num_in, num_out, order in zip(shape, new_shape, orders, strict=True)
        )
        return cls(axes=(z, y, x))

    @property
    def is_identity(self) -> bool:
        """Whether arrays stay as they are."""
        return all(axis.is_identity for axis in self.axes)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Old planes along z that new planes ``start`` to ``stop`` need."""
        return self.axes[0].span(start, stop)

    def planes(self, source: Float32Array, start: int, stop: int) -> Float32Array:
        """Make new planes out of the old planes that they need.

        Args:
            source: (n, Y, X): exactly the old planes of ``span(start, stop)``.
            start: First new plane.
            stop: New plane after the last one.

        Returns:
            (stop - start, new Y, new X); may share memory with ``source`` if nothing changes.
        """
        # Where one new plane mixes many old ones, resizing all of those in plane is waste.
        if self.axes[0].growth <= 1 or self.axes[0].reach > 2:
            return self.in_plane(self.along_z(source, start, stop))
        return self.along_z(self.in_plane(source), start, stop)

    def along_z(self, source: Float32Array, start: int, stop: int) -> Float32Array:
        """Resize along z alone; see :meth:`planes`."""
        axis = self.axes[0]
        if axis.is_identity:
            return source
        low, high = axis.span(start, stop)
        if axis.index is not None:
            return source[axis.index[start:stop] - low]
        weights = axis.matrix[start:stop, low:high]
        planes: Float32Array = weights @ source.reshape(len(source), -1)
        return planes.reshape(stop - start, *source.shape[1:])

    def in_plane(self, source: Float32Array) -> Float32Array:
        """Resize planes (n, Y, X) along y and x."""
        _, rows, columns = self.axes
        if rows.growth <= columns.growth:
            return _resize_columns(_resize_rows(source, rows), columns)
        return _resize_rows(_resize_columns(source, columns), rows)


def _resize_rows(source: Float32Array, axis: AxisMap) -> Float32Array:
    if axis.is_identity:
        return source
    if axis.index is not None:
        return source.take(axis.index, axis=1)
    resized = np.empty((source.shape[0], axis.num_out, source.shape[2]), np.float32)
    for new, old, weights in axis.blocks():
        np.matmul(weights, source[:, old], out=resized[:, new])
    return resized


def _resize_columns(source: Float32Array, axis: AxisMap) -> Float32Array:
    if axis.is_identity:
        return source
    if axis.index is not None:
        return source.take(axis.index, axis=2)
    resized = np.empty((*source.shape[:2], axis.num_out), np.float32)
    lines, new_lines = source.reshape(-1, axis.num_in), resized.reshape(-1, axis.num_out)
    for new, old, weights in axis.blocks():
        np.matmul(lines[:, old], weights.T, out=new_lines[:, new])
    return resized
