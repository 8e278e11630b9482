"""The search for the transform under which two images share most information."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.itk import from_itk, sitk, to_itk
from veloxseg.volumes.registration_limits import (
    RegistrationLimits,
    motion_between,
    why_implausible,
)
from veloxseg.volumes.registration_metric import NUM_BINS, share_inside
from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Grid, Volume

MAX_SAMPLES = 50_000
"""Voxels a level; a fixed regular choice of them where the image has more."""

START_SAMPLES = 8000
"""The same while several places to begin are compared."""

_SEED = 1
_FEWEST_VOXELS = 3000
"""Of a coarse level; with fewer, the histogram is mostly chance."""
_NUM_LEVELS = 3
_STARTS_APART = 1 / 12  # of the field of view


def level_spacings_mm(inner: Grid, outer: Grid) -> tuple[float, ...]:
    """Spacings to search at, coarse to fine: 4, 2 and 1 times the coarser image's.

    An image's spacing is here the geometric mean of its three. Levels are left out at which the
    image with the smaller field of view would have too few voxels.
    """
    finest_mm = max(float(np.prod(grid.spacing_zyx)) ** (1 / 3) for grid in (inner, outer))
    field_mm3 = float(np.prod(np.multiply(inner.size_zyx, inner.spacing_zyx)))
    levels = [finest_mm * 2.0**level for level in reversed(range(_NUM_LEVELS))]
    return tuple(mm for mm in levels if mm == finest_mm or field_mm3 / mm**3 >= _FEWEST_VOXELS)


def match_centres(inner: Volume, outer: Volume) -> AffineMap:
    """The translation that puts one foreground's centre of mass upon the other's.

    Foreground is what is brighter than Otsu's threshold.
    """
    centres = []
    for volume in (inner, outer):
        bright = sitk.GetArrayFromImage(sitk.OtsuThreshold(to_itk(volume), 0, 1)) > 0
        index_zyx = np.argwhere(bright).mean(0) if bright.any() else np.array(bright.shape) / 2
        centres.append(volume.grid.positions_xyz(index_zyx))
    return AffineMap.of(np.eye(3), centres[1] - centres[0])


def search_rigid(
    inner: Volume,
    outer: Volume,
    *,
    initial: AffineMap,
    levels_mm: Sequence[float],
    limits: RegistrationLimits,
) -> AffineMap:
    """Find the rigid map from ``inner``'s space to ``outer``'s.

    The coarsest level is searched from ``initial`` and from six places around it; the best one is
    followed to the finest.
    """
    pairs = [_Pair(inner, outer, mm) for mm in levels_mm]
    extent_mm = float(np.multiply(inner.grid.size_zyx, inner.grid.spacing_zyx).mean())
    starts = [np.zeros(3)]
    starts += [sign * extent_mm * _STARTS_APART * axis for axis in np.eye(3) for sign in (-1, 1)]
    best, most = initial, -np.inf
    for start in starts:
        shifted = AffineMap.of(initial.array(), np.array(initial.offset_xyz) + start)
        if share_inside(inner.grid, outer.grid, shifted) < limits.overlap:
            continue
        found, information = pairs[0].improve(
            _euler(shifted, pairs[0].centre_xyz), max_samples=START_SAMPLES
        )
        overlap = share_inside(inner.grid, outer.grid, found)
        motion = motion_between(initial, found, grid=inner.grid)
        if information > most and why_implausible(motion, overlap, limits) is None:
            best, most = found, information
    for pair in pairs:
        best, _ = pair.improve(_euler(best, pair.centre_xyz))
    return best


def search_affine(
    inner: Volume, outer: Volume, *, initial: AffineMap, spacing_mm: float
) -> AffineMap:
    """Find the affine map from ``inner``'s space to ``outer``'s, near a rigid one."""
    pair = _Pair(inner, outer, spacing_mm)
    found, _ = pair.improve(_affine(initial, pair.centre_xyz))
    return found


def shrink(volume: Volume, spacing_mm: float) -> Volume:
    """Average blocks of voxels, each axis by as much as its own spacing and size allow."""
    factors_xyz = [
        max(1, min(round(spacing_mm / step), size // 4))
        for step, size in zip(volume.spacing_zyx[::-1], volume.data.shape[::-1], strict=True)
    ]
    if max(factors_xyz) == 1:
        return volume
    return from_itk(sitk.BinShrink(to_itk(volume), factors_xyz))


class _Pair:
    """Two images shrunk to one level of the search."""

    def __init__(self, inner: Volume, outer: Volume, spacing_mm: float) -> None:
        self._inner, self._outer = (to_itk(shrink(v, spacing_mm)) for v in (inner, outer))
        self._spacing_mm = spacing_mm
        grid = inner.grid
        self.centre_xyz = grid.positions_xyz((np.array(grid.size_zyx) - 1) / 2)
        # Root mean square distance from the centre: what a turn by one radian moves, in mm.
        self._arm_mm = float(
            np.linalg.norm(np.multiply(grid.size_zyx, grid.spacing_zyx)) / np.sqrt(12)
        )

    def improve(self, transform: Any, *, max_samples: int = MAX_SAMPLES) -> tuple[AffineMap, float]:
        """The nearest best map, and the mutual information there in nats.

        Where the search leaves the other image, the result is the start and minus infinity.
        """
        start = AffineMap.of_itk(transform)
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(NUM_BINS)
        num_voxels = self._inner.GetNumberOfPixels()
        if num_voxels > max_samples:
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(max_samples / num_voxels, _SEED)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsPowell(
            numberOfIterations=10,
            maximumLineIterations=20,
            stepLength=self._spacing_mm / 2,
            stepTolerance=self._spacing_mm / 100,
            valueTolerance=1e-5,
        )
        num_turns = transform.GetNumberOfParameters() - 3
        method.SetOptimizerScales([self._arm_mm] * num_turns + [1.0] * 3)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(self._inner, self._outer)
        except RuntimeError:  # too few samples lie in the other image
            return start, -np.inf
        return AffineMap.of_itk(transform), -float(method.GetMetricValue())


def _euler(start: AffineMap, centre_xyz: npt.NDArray[np.float64]) -> Any:
    return _about(sitk.Euler3DTransform(), start, centre_xyz)


def _affine(start: AffineMap, centre_xyz: npt.NDArray[np.float64]) -> Any:
    return _about(sitk.AffineTransform(3), start, centre_xyz)


def _about(transform: Any, start: AffineMap, centre_xyz: npt.NDArray[np.float64]) -> Any:
    transform.SetCenter(centre_xyz.tolist())
    transform.SetMatrix(start.matrix)
    transform.SetTranslation((start(centre_xyz) - centre_xyz).tolist())
    return transform
