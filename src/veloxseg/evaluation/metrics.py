"""How well one mask agrees with another: overlap, surface distance, volume.

What an empty mask means is decided here, once, for everything that evaluates:

=====================  =========  ==============  ==================
masks                  Dice, IoU  HD95            volume
=====================  =========  ==============  ==================
both hold something    a number   a number, mm    a number, ml
only one is empty      0          undefined       0 ml for the empty
both are empty         undefined  undefined       0 ml
=====================  =========  ==============  ==================

Undefined is NaN in memory and ``null`` in JSON, which knows no NaN. Means leave undefined values
out and say how many there were: a mean HD95 over few cases may hide that the others were missed
altogether, which their Dice of 0 shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Voxels counted by what two masks say about them.

    Attributes:
        true_positives: In both masks.
        false_positives: In the prediction only.
        false_negatives: In the reference only.
        true_negatives: In neither.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def dice(self) -> float:
        """Twice the overlap over the sum of both sizes; NaN when both masks are empty."""
        sizes = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / sizes if sizes else float("nan")

    @property
    def iou(self) -> float:
        """The overlap over the union; NaN when both masks are empty."""
        union = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / union if union else float("nan")


def confusion(prediction: ArrayLike, reference: ArrayLike) -> Confusion:
    """Count the voxels of two masks of one shape; whatever is not 0 is in the mask.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, referred = _two_masks(prediction, reference)
    true_positives = int(np.count_nonzero(predicted & referred))
    false_positives = int(np.count_nonzero(predicted)) - true_positives
    false_negatives = int(np.count_nonzero(referred)) - true_positives
    return Confusion(
        true_positives=true_positives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_negatives=predicted.size - true_positives - false_positives - false_negatives,
    )


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Dice coefficient of two masks of one shape, 0 to 1; NaN when both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    return confusion(prediction, reference).dice


def volume_ml(mask: ArrayLike, spacing_zyx: Sequence[float]) -> float:
    """Volume in millilitres of the voxels that are not 0, spacing in mm."""
    return float(np.count_nonzero(np.asarray(mask)) * np.prod(spacing_zyx)) / 1000


def hausdorff_95_mm(
    prediction: ArrayLike, reference: ArrayLike, spacing_zyx: Sequence[float]
) -> float:
    """95th percentile Hausdorff distance between two surfaces, as MONAI defines it.

    The distances from one mask's surface voxels to the nearest surface voxel of the other are taken
    in both directions; the result is the larger of the two directions' 95th percentiles
    (interpolated linearly). It is not the percentile of both directions pooled.

    Args:
        prediction: A mask (Z, Y, X).
        reference: A mask of the same shape.
        spacing_zyx: Distance between voxel centres in mm along each axis.

    Returns:
        The distance in mm; NaN when either mask is empty.

    Raises:
        ValueError: the shapes differ.
    """
    directions = surface_distances_mm(prediction, reference, spacing_zyx)
    if any(distances.size == 0 for distances in directions):
        return float("nan")
    return max(float(np.percentile(distances, 95)) for distances in directions)


def surface_distances_mm(
    prediction: ArrayLike, reference: ArrayLike, spacing_zyx: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances between surface voxels: prediction to reference, and reference to prediction.

    A surface voxel belongs to the mask and has a face neighbour that does not; beyond the array
    nothing belongs. Distances are between voxel centres.

    Returns:
        For every surface voxel the distance in mm to the nearest one of the other mask, in either
        direction; both arrays are empty when either mask is.

    Raises:
        ValueError: the shapes differ.
    """
    masks = _two_masks(prediction, reference)
    if not all(mask.any() for mask in masks):
        return np.empty(0), np.empty(0)
    window = _bounding_box(masks[0] | masks[1])
    first, second = (_surface(mask[window]) for mask in masks)
    return _distances(first, second, spacing_zyx), _distances(second, first, spacing_zyx)


def _two_masks(
    prediction: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    predicted, referred = np.asarray(prediction) != 0, np.asarray(reference) != 0
    if predicted.shape != referred.shape:
        raise ValueError(
            f"Masks of one shape expected, got {predicted.shape} and {referred.shape}."
        )
    return predicted, referred


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    # No margin is needed: erosion takes what lies beyond the array for background.
    box: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return box


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    surface: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return surface


def _distances(
    start: NDArray[np.bool_], target: NDArray[np.bool_], spacing_zyx: Sequence[float]
) -> NDArray[np.float64]:
    field: NDArray[np.float64] = ndimage.distance_transform_edt(~target, sampling=spacing_zyx)
    return field[start]
