"""How well one mask agrees with another: overlap, surface distance, volume, lesions.

What an empty mask means is decided here, once, for everything that evaluates:

===================  ==========  ===============  ================  ==========
metric               both hold   prediction only  reference only    both empty
                     something   is empty         is empty
===================  ==========  ===============  ================  ==========
Dice, IoU            a number    0                0                 undefined
precision            a number    undefined        0                 undefined
recall               a number    0                undefined         undefined
HD95, ASSD           mm          undefined        undefined         undefined
NSD                  a number    0                0                 undefined
volumes, error       ml          ml, 0 if empty   ml, 0 if empty    0 ml
lesions              counts      counts           counts            0
lesion precision     a number    undefined        0                 undefined
lesion recall        a number    0                undefined         undefined
lesion F1            a number    0                0                 undefined
false positive ml    ml          0 ml             all of it         0 ml
false negative ml    ml          all of it        0 ml              0 ml
===================  ==========  ===============  ================  ==========

A ratio is undefined when nothing was there to be counted, a distance when there is nothing to
measure to. Undefined is NaN in memory and ``null`` in JSON, which knows no NaN. Means leave
undefined values out and say how many there were: a mean HD95 over few cases may hide that the
others were missed altogether, which their Dice of 0 shows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from veloxseg.evaluation.masks import two_masks


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
    def precision(self) -> float:
        """Share of the predicted voxels that are right; NaN when none is predicted."""
        predicted = self.true_positives + self.false_positives
        return self.true_positives / predicted if predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of the reference's voxels that are predicted; NaN when it has none."""
        referred = self.true_positives + self.false_negatives
        return self.true_positives / referred if referred else float("nan")

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
    predicted, referred = two_masks(prediction, reference)
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
