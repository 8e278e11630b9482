"""nnU-Net's resampling of images and logits to another spacing, on numpy alone.

``resample`` does what nnU-Net's ``resample_data_or_seg_to_shape`` does, up to float32's rounding.

Source: nnU-Net (Isensee et al., 2021).
"""

from collections.abc import Sequence

import numpy as np

from veloxseg.bundle.format import Resampling
from veloxseg.runtime.separable import Float32Array, GridMap

_PLANES = 16
"""New planes made at a time: few, for the cache, and to bound memory beside input and output."""


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Number of voxels that cover the same extent at another spacing.

    Args:
        shape: Voxels along each of three axes.
        spacing: Of those voxels in mm.
        new_spacing: In mm.

    Returns:
        ``shape spacing / new_spacing``, rounded, halves to even; at least 1 along each axis.
    """
    z, y, x = (
        max(1, round(float(old) / float(new) * int(size)))
        for size, old, new in zip(shape, spacing, new_spacing, strict=True)
    )
    return z, y, x


def separate_axis(
    spacing: Sequence[float], new_spacing: Sequence[float], resampling: Resampling
) -> int | None:
    """Find the axis of low resolution that nnU-Net resamples apart from the other two.

    Args:
        spacing: Before, in mm along each of three axes.
        new_spacing: After, likewise.
        resampling: When an axis is treated apart.

    Returns:
        The axis; None if all three are treated alike, as they are, too, where two of them or all
        three share the largest spacing.
    """
    if resampling.force_separate_z is False:
        return None
    deciding = spacing
    if resampling.force_separate_z is None:
        threshold = resampling.anisotropy_threshold
        anisotropic = [s for s in (spacing, new_spacing) if max(s) / min(s) > threshold]
        if not anisotropic:
            return None
        deciding = anisotropic[0]
    lowest = [axis for axis, step in enumerate(deciding) if max(deciding) / step == 1]
    return lowest[0] if len(lowest) == 1 else None


def axis_orders(axis_apart: int | None, resampling: Resampling) -> tuple[int, int, int]:
    """Spline order along each axis, given the one that is treated apart."""
    z, y, x = (resampling.order_z if a == axis_apart else resampling.order for a in range(3))
    return z, y, x


def resample(
    channel: Float32Array,
    new_shape: Sequence[int],
    *,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    resampling: Resampling,
    out: Float32Array | None = None,
) -> Float32Array:
    """Bring one channel to another shape.

    Splines of order 2 and 3 may overshoot: as in nnU-Net, results are clipped to the channel's
    range, or, where an axis is treated apart, every plane across it to that plane's range.

    Args:
        channel: (Z, Y, X) values, finite.
        new_shape: Voxels along each axis of the result.
        spacing: Of ``channel`` in mm; it and ``new_spacing`` decide whether an axis is treated
            apart, nothing else.
        new_spacing: Of the result in mm.
        resampling: Orders of the splines.
        out: Array of ``new_shape`` to write to; made if None.

    Returns:
        ``out``, float32. Equal shapes copy the values whatever the spacings are.
    """
    if out is None:
        z, y, x = new_shape
        out = np.empty((z, y, x), np.float32)
    if channel.shape == out.shape:
        out[:] = channel
        return out
    apart = separate_axis(spacing, new_spacing, resampling)
    if apart is None:
        _resample_together(channel, out, resampling)
    else:
        # The axis apart goes first; both are views, so planes are gathered and scattered.
        _resample_apart(np.moveaxis(channel, apart, 0), np.moveaxis(out, apart, 0), resampling)
    return out


def _resample_together(channel: Float32Array, out: Float32Array, resampling: Resampling) -> None:
    grid = GridMap.of_orders(channel.shape, out.shape, axis_orders(None, resampling))
    lowest, highest = channel.min(), channel.max()
    for start in range(0, len(out), _PLANES):
        stop = min(start + _PLANES, len(out))
        low, high = grid.span(start, stop)
        planes = grid.planes(np.ascontiguousarray(channel[low:high]), start, stop)
        np.clip(planes, lowest, highest, out=out[start:stop])


def _resample_apart(channel: Float32Array, out: Float32Array, resampling: Resampling) -> None:
    grid = GridMap.of_orders(channel.shape, out.shape, axis_orders(0, resampling))
    for start in range(0, len(out), _PLANES):
        stop = min(start + _PLANES, len(out))
        low, high = grid.span(start, stop)
        source = np.ascontiguousarray(channel[low:high])
        planes = grid.in_plane(source)
        if planes is not source:
            lowest, highest = (
                limit(source, axis=(1, 2), keepdims=True) for limit in (np.min, np.max)
            )
            np.clip(planes, lowest, highest, out=planes)
        out[start:stop] = grid.along_z(planes, start, stop)
