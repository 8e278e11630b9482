"""Lesions: how many were found, how many were made up, and how much volume that is.

A lesion is a connected component of a mask. Voxels that share a face or an edge are connected, not
those that only share a corner (18 neighbours), as in the evaluation of the AutoPET challenge, so
that false positive and false negative volumes are those of that challenge. The lesion-wise scores
of BraTS are others: 26 neighbours, and reference lesions joined that meet when dilated.

A reference lesion is found when at least one of its voxels is predicted; a predicted lesion is true
when at least one of its voxels is in the reference. Lying side by side is not enough. Both sides
are counted by themselves: one prediction over two reference lesions is one true lesion that finds
two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from veloxseg.evaluation.masks import two_masks

_FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Lesions counted by whether they touch the other mask.

    Attributes:
        predicted: Lesions of the prediction.
        true: Of these, those with a voxel in the reference.
        referred: Lesions of the reference.
        found: Of these, those with a predicted voxel.
        false_positive_voxels: Of predicted lesions without a voxel in the reference.
        false_negative_voxels: Of reference lesions without a predicted voxel.
    """

    predicted: int
    true: int
    referred: int
    found: int
    false_positive_voxels: int
    false_negative_voxels: int

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are true; NaN when there are none."""
        return self.true / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of the reference's lesions that are found; NaN when there are none."""
        return self.found / self.referred if self.referred else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall.

        0 when no lesion is true, also because only one mask has any; NaN when neither has.
        """
        if not self.predicted and not self.referred:
            return float("nan")
        if not self.true:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def count_lesions(prediction: ArrayLike, reference: ArrayLike) -> Lesions:
    """Count the lesions of two masks (Z, Y, X) of one shape; whatever is not 0 is in the mask.

    Raises:
        ValueError: the shapes differ.
    """
    predicted, referred = two_masks(prediction, reference)
    num_predicted, num_true, false_positive_voxels = _count(predicted, referred)
    num_referred, num_found, false_negative_voxels = _count(referred, predicted)
    return Lesions(
        predicted=num_predicted,
        true=num_true,
        referred=num_referred,
        found=num_found,
        false_positive_voxels=false_positive_voxels,
        false_negative_voxels=false_negative_voxels,
    )


def _count(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Number of lesions, of those that touch the other mask, and voxels of those that do not."""
    components, num_components = ndimage.label(mask, _FACES_AND_EDGES)
    touching = np.zeros(num_components + 1, bool)
    touching[components[mask & other]] = True
    sizes = np.bincount(components[mask], minlength=num_components + 1)
    return num_components, int(touching.sum()), int(sizes[~touching].sum())
