"""How well two images agree: mutual information over the same voxels before and after."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.volumes.itk import sitk, to_itk
from veloxseg.volumes.registration_transform import AffineMap
from veloxseg.volumes.volume import Grid, Volume

CLIPPED_PERCENTILES = (1.0, 99.0)
"""Metal, bowel gas and hot bladders would take the histogram's bins from everything else."""

NUM_BINS = 32
MIN_COMMON_VOXELS = 1000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Mutual information of two images, before and after.

    Attributes:
        before: In nats.
        after: In nats, over the same voxels.
        num_voxels: Their number N.
        chance: What independent images share on average: (bins - 1)^2 / 2 N nats, as 2 N I is
            distributed as chi squared.
    """

    before: float
    after: float
    num_voxels: int
    chance: float

    @property
    def improvement(self) -> float:
        """Gain in nats."""
        return self.after - self.before

    def unmoved(self) -> "Agreement":
        """The agreement of what stays where it was."""
        return replace(self, after=self.before)


def clip_intensities(volume: Volume) -> Volume:
    """Float32 voxels without the extreme ones; the whole range if little else is in the image."""
    data = volume.data.astype(np.float32)
    low, high = np.percentile(data, CLIPPED_PERCENTILES)
    if low < high:
        np.clip(data, low, high, out=data)
    return Volume.on_grid(data, volume.grid)


def share_inside(inner: Grid, outer: Grid, transform: AffineMap) -> float:
    """Share of the field of view of ``inner`` that ``transform`` puts into that of ``outer``."""
    steps = [np.linspace(0, size - 1, min(size, 32)) for size in inner.size_zyx]
    index_zyx = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return float(_inside(inner, outer, transform, index_zyx).mean())


def compare_agreement(
    inner: Volume, outer: Volume, *, before: AffineMap, after: AffineMap
) -> Agreement | None:
    """Measure mutual information under two maps, at every voxel that both put into ``outer``.

    Args:
        inner: (Z, Y, X) image whose voxels are the samples.
        outer: (Z, Y, X) image that is looked up at their images, linearly.
        before: From ``inner``'s space to ``outer``'s.
        after: The same.

    Returns:
        The agreement, or None if fewer than ``MIN_COMMON_VOXELS`` voxels lie inside both times.
    """
    common = np.ones(inner.data.shape, np.bool_)
    rows: npt.NDArray[np.int_] = np.moveaxis(np.indices(common.shape[1:]), 0, -1)
    for depth, plane in enumerate(common):  # plane by plane, or the indices would fill the memory
        index_zyx = np.insert(rows, 0, depth, axis=-1)
        for transform in (before, after):
            plane &= _inside(inner.grid, outer.grid, transform, index_zyx)
    if common.sum() < MIN_COMMON_VOXELS:
        return None
    mask = Volume.on_grid(common, inner.grid)
    first, second = (_information(inner, outer, mask, transform) for transform in (before, after))
    num_voxels = int(common.sum())
    return Agreement(
        before=first,
        after=second,
        num_voxels=num_voxels,
        chance=(NUM_BINS - 1) ** 2 / (2 * num_voxels),
    )


def _information(inner: Volume, outer: Volume, mask: Volume, transform: AffineMap) -> float:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(NUM_BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(to_itk(mask))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform.to_itk())
    return -float(method.MetricEvaluate(to_itk(inner), to_itk(outer)))


def _inside(
    inner: Grid, outer: Grid, transform: AffineMap, index_zyx: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    offset_xyz = transform(inner.positions_xyz(index_zyx)) - np.array(outer.origin_xyz)
    found_zyx = (offset_xyz @ outer.matrix())[..., ::-1] / outer.spacing_zyx
    # Within the outermost voxel centres, where every interpolation has its neighbours.
    inside: npt.NDArray[np.bool_] = (
        (found_zyx >= 0) & (found_zyx <= np.array(outer.size_zyx) - 1)
    ).all(-1)
    return inside
