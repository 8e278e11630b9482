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
    box = smallest_box(first | second)
    return first[box], second[box]


def smallest_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Where a mask holds something, along each axis; from 0 to 0 when it is empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        held = np.flatnonzero(mask.any(axis=others))
        limits = slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 0)
        box.append(limits)
        mask = mask[(slice(None),) * axis + (limits,)]  # the next axis has less to look at
    return tuple(box)


def _as_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    return array if array.dtype == bool else array != 0
