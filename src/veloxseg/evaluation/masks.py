"""Pairs of masks: brought to booleans, and cut to where they hold something."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def two_masks(
    prediction: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks of one shape; whatever is not 0 is in the mask.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, referred = _as_mask(prediction), _as_mask(reference)
    if predicted.shape != referred.shape:
        raise ValueError(
            f"Masks of one shape expected, got {predicted.shape} and {referred.shape}."
        )
    return predicted, referred


def crop_to_union(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Views of two masks within the smallest box that holds both; empty when both are."""
    union = first | second
    for axis in range(union.ndim):
        others = tuple(other for other in range(union.ndim) if other != axis)
        held = np.flatnonzero(union.any(axis=others))
        limits = slice(held[0], held[-1] + 1) if held.size else slice(0, 0)
        window = (slice(None),) * axis + (limits,)
        first, second, union = first[window], second[window], union[window]
    return first, second


def _as_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    return array if array.dtype == bool else array != 0
