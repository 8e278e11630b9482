"""Shapes in space that phantoms are made of, each known by how deep a point lies inside.

Coordinates are millimetres in patient space (LPS). Points are arrays (3, N), their results (N,).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Shape(Protocol):
    """A region of space."""

    def depth_mm(self, points_xyz: Array) -> Array:
        """How deep points (3, N) lie inside, about, in mm; negative outside. Returns (N,)."""


@dataclass(frozen=True)
class Waves:
    """A smooth random field: plane waves of one wavelength in random directions.

    Attributes:
        vectors: Wave vectors (K, 3) in radians per mm.
        phases: Phases (K,) in radians.
    """

    vectors: Array
    phases: Array

    @classmethod
    def random(cls, rng: np.random.Generator, wavelength_mm: float, count: int = 5) -> "Waves":
        """Draw ``count`` waves."""
        directions = rng.normal(size=(count, 3))
        directions *= 2 * np.pi / wavelength_mm / np.linalg.norm(directions, axis=1, keepdims=True)
        return cls(
            directions.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        )

    def at(self, points_xyz: Array) -> Array:
        """Values of unit variance at points (3, N); returns (N,)."""
        angles = self.vectors @ points_xyz + self.phases[:, None]
        values: Array = np.cos(angles).sum(0) * np.float32(np.sqrt(2 / len(self.phases)))
        return values


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """An ellipsoid, or with ``exponent`` above 2 a fuller superellipsoid.

    Attributes:
        centre: x, y, z in mm.
        semi_axes: Along the columns of ``axes``, in mm; infinity makes a cylinder.
        axes: A rotation; the identity keeps the axes along x, y, z.
        exponent: 2 for an ellipsoid.
        border: Makes the border irregular.
        irregularity: Standard deviation of the border's radius, as a share of it.
    """

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    axes: Array = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    exponent: float = 2.0
    border: Waves | None = None
    irregularity: float = 0.0

    def depth_mm(self, points_xyz: Array) -> Array:
        """See `Shape`."""
        semi_axes = np.asarray(self.semi_axes, np.float32)
        local = self.axes.T @ (points_xyz - np.asarray(self.centre, np.float32)[:, None])
        local /= semi_axes[:, None]
        if self.exponent == 2:
            radius = np.sqrt(np.einsum("ij,ij->j", local, local))
        else:
            radius = (np.abs(local) ** self.exponent).sum(0) ** (1 / self.exponent)
        size = np.float32(np.mean(semi_axes[np.isfinite(semi_axes)]))
        edge = 1.0 if self.border is None else 1 + self.irregularity * self.border.at(points_xyz)
        depth: Array = (edge - radius) * size
        return depth


@dataclass(frozen=True, kw_only=True)
class Slabs:
    """Parallel slabs one above the other, tilted towards the front: ribs, vertebrae.

    Attributes:
        period_mm: From one slab to the next along z.
        thickness_mm: Of one slab.
        phase_mm: Height of a slab's middle at y = 0.
        slope: Millimetres that a slab rises for each towards the back.
    """

    period_mm: float
    thickness_mm: float
    phase_mm: float = 0.0
    slope: float = 0.0

    def depth_mm(self, points_xyz: Array) -> Array:
        """See `Shape`."""
        height = points_xyz[2] - self.slope * points_xyz[1] - self.phase_mm
        from_middle = np.abs((height + self.period_mm / 2) % self.period_mm - self.period_mm / 2)
        depth: Array = self.thickness_mm / 2 - from_middle
        return depth


@dataclass(frozen=True)
class Wall:
    """The outermost layer of a shape, ``thickness_mm`` thick."""

    shape: Shape
    thickness_mm: float

    def depth_mm(self, points_xyz: Array) -> Array:
        """See `Shape`."""
        depth = self.shape.depth_mm(points_xyz)
        layer: Array = np.minimum(depth, self.thickness_mm - depth)
        return layer


@dataclass(frozen=True)
class Common:
    """What several shapes have in common."""

    shapes: Sequence[Shape]

    def depth_mm(self, points_xyz: Array) -> Array:
        """See `Shape`."""
        depth = self.shapes[0].depth_mm(points_xyz)
        for shape in self.shapes[1:]:
            depth = np.minimum(depth, shape.depth_mm(points_xyz))
        return depth
