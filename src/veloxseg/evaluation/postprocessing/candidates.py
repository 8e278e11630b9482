"""Which steps are worth trying on a target: they follow from what the masks hold."""

import math
from collections.abc import Sequence

import numpy as np

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.evaluation.postprocessing.counting import CaseCounts, Target

FALSE_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Of the volumes of false positive components: a candidate removes those up to it."""

LESION_QUANTILES = (0.01, 0.05, 0.1, 0.25)
"""Of the volumes of the references' components: a candidate keeps those from it on."""

LARGEST_QUANTILE = 0.5
"""No candidate is larger than this quantile of the references' components."""


def candidate_steps(
    target: Target, place: int, cases: Sequence[CaseCounts]
) -> list[PostprocessingStep]:
    """Steps for a target, the one that removes least first.

    Args:
        target: Whose components.
        place: Of the target in the cases' counts.
        cases: All of them.
    """
    counts = [case.targets[place] for case in cases]
    false_ml = np.concatenate(
        [case.voxel_ml * one.sizes[~one.is_true] for case, one in zip(cases, counts, strict=True)]
    )
    lesions_ml = np.concatenate([one.lesions_ml for one in counts])
    volumes: set[float] = set()
    if false_ml.size and lesions_ml.size:
        volumes |= {_above(v) for v in np.quantile(false_ml, FALSE_QUANTILES)}
        volumes |= {_up_to(v) for v in np.quantile(lesions_ml, LESION_QUANTILES)}
        largest = float(np.quantile(lesions_ml, LARGEST_QUANTILE))
        volumes = {volume for volume in volumes if volume <= largest}
    smallest = [
        PostprocessingStep(kind="minimum_volume", labels=target.values, minimum_ml=volume)
        for volume in sorted(volumes)
    ]
    return [*smallest, PostprocessingStep(kind="keep_largest", labels=target.values)]


def _above(volume: float) -> float:
    """The next number of two digits that is larger."""
    unit = _unit(volume)
    return _rounded((math.floor(volume / unit + 1e-6) + 1) * unit)


def _up_to(volume: float) -> float:
    """The next number of two digits that is not larger."""
    unit = _unit(volume)
    return _rounded(math.floor(volume / unit + 1e-6) * unit)


def _unit(volume: float) -> float:
    return float(10.0 ** (math.floor(math.log10(volume)) - 1))


def _rounded(volume: float) -> float:
    return float(f"{volume:.2g}")
