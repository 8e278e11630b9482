"""How far apart the surfaces of two masks are.

A surface is the set of a mask's voxels with a face neighbour outside it, and a distance is that
between voxel centres. One set of distances serves all three metrics, which are those of MONAI
(``compute_hausdorff_distance`` at 95 %, symmetric ``compute_average_surface_distance`` and
``compute_surface_dice`` without subvoxels). Surface elements weighted by their area (Nikolov et
al. 2018, arXiv:1809.04430) are another choice; their values differ a little from these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from veloxseg.evaluation.masks import crop_to_union, two_masks
from veloxseg.volumes.volume import Volume

ROUNDING = 1e-6
"""Relative: NIfTI stores spacing in float32, so ten steps of 0.1 mm are a little more than 1 mm."""

_LEAF_SIZE = 32
"""Fewer, fuller leaves than scipy's default are faster for a tree that is asked once."""

_NEAR_STEPS = 8
"""Up to so many voxels away a tree of surface voxels answers in microseconds, exactly."""

_VOXELS_PER_FAR_QUERY = 1000
"""Farther away a query takes about 50 us, and a distance field about 50 ns a voxel of the box."""

_FEW_FAR_QUERIES = 10_000
"""So many take half a second; the field is in float32, so a tree that is fast enough is better."""


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances in mm between the surface voxels of two masks, in both directions.

    Attributes:
        from_prediction: For each surface voxel of the prediction, in the array's order, the
            distance to the nearest one of the reference; infinite when the reference is empty.
        from_reference: The reverse.
    """

    from_prediction: NDArray[np.float64]
    from_reference: NDArray[np.float64]

    @property
    def hausdorff_95_mm(self) -> float:
        """The larger of the two directions' 95th percentiles; NaN when either mask is empty.

        It is not the percentile of both directions pooled. Percentiles are interpolated linearly.
        """
        if not self._both_exist:
            return float("nan")
        directions = (self.from_prediction, self.from_reference)
        return max(float(np.percentile(distances, 95)) for distances in directions)

    @property
    def average_mm(self) -> float:
        """Average symmetric surface distance (ASSD); NaN when either mask is empty.

        The mean over the distances of both directions pooled, so that the larger surface weighs
        more. MedPy's ``assd`` is the mean of the two directions' means instead.
        """
        if not self._both_exist:
            return float("nan")
        total = self.from_prediction.sum() + self.from_reference.sum()
        return float(total / self._num_voxels)

    def share_within(self, tolerance_mm: float) -> float:
        """Normalised surface Dice (NSD): the share of both surfaces within the tolerance.

        A distance equal to the tolerance is within it. 0 when one mask is empty, NaN when both are.
        """
        if not self._num_voxels:
            return float("nan")
        limit = tolerance_mm * (1 + ROUNDING)
        directions = (self.from_prediction, self.from_reference)
        within = sum(int(np.count_nonzero(distances <= limit)) for distances in directions)
        return within / self._num_voxels

    @property
    def _num_voxels(self) -> int:
        return self.from_prediction.size + self.from_reference.size

    @property
    def _both_exist(self) -> bool:
        return self.from_prediction.size > 0 and self.from_reference.size > 0


def measure_surfaces(
    prediction: ArrayLike, reference: ArrayLike, spacing_zyx: Sequence[float]
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks of one shape.

    Beyond the array nothing belongs to a mask, so a mask cut off by the array's edge has a surface
    there.

    Args:
        prediction: A mask (Z, Y, X); whatever is not 0 is in it.
        reference: A mask of the same shape.
        spacing_zyx: Distance between voxel centres in mm along each axis.

    Raises:
        ValueError: the shapes differ.
    """
    first, second = (_surface(mask) for mask in crop_to_union(*two_masks(prediction, reference)))
    return SurfaceDistances(
        from_prediction=_distances_mm(first, second, spacing_zyx),
        from_reference=_distances_mm(second, first, spacing_zyx),
    )


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside = mask.copy()
    for axis in range(mask.ndim):
        whole, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= whole[:-1]
        kept[:-1] &= whole[1:]
        kept[:1] = False
        kept[-1:] = False
    surface: NDArray[np.bool_] = mask & ~inside
    return surface


def _distances_mm(
    start: NDArray[np.bool_], target: NDArray[np.bool_], spacing_zyx: Sequence[float]
) -> NDArray[np.float64]:
    """Distance of each voxel of one surface to the other, in the array's order."""
    distances = np.zeros(np.count_nonzero(start))
    if not target.any():
        distances[:] = np.inf
        return distances
    # Voxels on both surfaces, which are many of a good prediction's, need not be looked up.
    elsewhere = np.flatnonzero(~target[start])
    if not elsewhere.size:
        return distances
    steps = np.asarray(spacing_zyx, float)
    tree = cKDTree(np.argwhere(target) * steps, leafsize=_LEAF_SIZE)
    points = np.argwhere(start & ~target)
    near_mm = _NEAR_STEPS * max(spacing_zyx)
    found, _ = tree.query(points * steps, distance_upper_bound=near_mm)
    far = np.isinf(found)
    if _is_field_cheaper(int(far.sum()), target.size):
        found[far] = _distance_field_mm(target, spacing_zyx)[tuple(points[far].T)]
    else:
        found[far], _ = tree.query(points[far] * steps)
    distances[elsewhere] = found
    return distances


def _is_field_cheaper(num_far: int, num_voxels: int) -> bool:
    return num_far > max(_FEW_FAR_QUERIES, num_voxels / _VOXELS_PER_FAR_QUERY)


def _distance_field_mm(
    target: NDArray[np.bool_], spacing_zyx: Sequence[float]
) -> NDArray[np.float32]:
    """Distance of every voxel outside a mask to the mask."""
    from veloxseg.volumes.itk import sitk, to_itk  # slow to import and seldom needed

    spacing_z, spacing_y, spacing_x = map(float, spacing_zyx)
    image = to_itk(Volume(data=target, spacing_zyx=(spacing_z, spacing_y, spacing_x)))
    field = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    array: NDArray[np.float32] = sitk.GetArrayFromImage(field)
    return array
