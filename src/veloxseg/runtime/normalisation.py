"""nnU-Net's normalisation of intensities, one channel at a time.

Source: nnU-Net (Isensee et al., 2021), ``default_normalization_schemes``.
"""

from collections.abc import Iterator

import numpy as np

from veloxseg.bundle.format import Normalisation
from veloxseg.errors import VeloxSegError
from veloxseg.runtime.holes import BoolArray
from veloxseg.runtime.separable import Float32Array

_EPSILON = 1e-8
"""nnU-Net's smallest divisor: a constant channel becomes 0."""


def normalise(
    channel: Float32Array, normalisation: Normalisation, mask: BoolArray | None = None
) -> None:
    """Bring a channel to the network's range, in place.

    Args:
        channel: (Z, Y, X) float32 intensities, cropped to the non-zero region.
        normalisation: The scheme and its numbers.
        mask: (Z, Y, X): the non-zero region, its holes filled; needed ``within_mask``.

    Raises:
        VeloxSegError: the scheme is ``rgb_0_1`` and a value is not within 0 to 255.
        ValueError: the scheme is ``z_score`` within the mask and there is no mask.
    """
    if normalisation.scheme == "z_score":
        if normalisation.within_mask and mask is None:
            raise ValueError("z_score within the mask needs a mask.")
        _z_score(channel, mask if normalisation.within_mask else None)
    elif normalisation.scheme == "ct":
        _ct(channel, normalisation)
    elif normalisation.scheme == "rescale_0_1":
        channel -= channel.min()
        channel /= max(channel.max(), np.float32(_EPSILON))
    elif normalisation.scheme == "rgb_0_1":
        _rgb(channel)


def _z_score(channel: Float32Array, mask: BoolArray | None) -> None:
    count = channel.size if mask is None else int(np.count_nonzero(mask))
    if count == 0:
        return
    # Sums of planes are added up in double precision: float32 drifts over millions of voxels.
    total = sum(float(values.sum(dtype=np.float64)) for values in _planes(channel, mask))
    mean = np.float32(total / count)
    squares = sum(_sum_of_squares(values - mean) for values in _planes(channel, mask))
    divisor = np.float32(max((squares / count) ** 0.5, _EPSILON))
    if mask is None:
        channel -= mean
        channel /= divisor
        return
    for plane, inside in zip(channel, mask, strict=True):
        plane[inside] = (plane[inside] - mean) / divisor


def _planes(channel: Float32Array, mask: BoolArray | None) -> Iterator[Float32Array]:
    # A plane at a time, so that no temporary is as large as the volume.
    if mask is None:
        yield from channel
        return
    for plane, inside in zip(channel, mask, strict=True):
        yield plane[inside]


def _sum_of_squares(values: Float32Array) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat))


def _ct(channel: Float32Array, normalisation: Normalisation) -> None:
    # The contract has all four numbers where the scheme is ct.
    assert normalisation.mean is not None
    assert normalisation.std is not None
    np.clip(channel, normalisation.lower, normalisation.upper, out=channel)
    channel -= np.float32(normalisation.mean)
    channel /= np.float32(max(normalisation.std, _EPSILON))


def _rgb(channel: Float32Array) -> None:
    lowest, highest = float(channel.min()), float(channel.max())
    if lowest < 0 or highest > 255:
        raise VeloxSegError(
            f"Values run from {lowest:g} to {highest:g}. A channel that was trained as RGB "
            "has values from 0 to 255: give the image as it was before any rescaling."
        )
    channel /= np.float32(255)
