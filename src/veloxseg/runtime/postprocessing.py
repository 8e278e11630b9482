"""What a bundle's postprocessing does to a mask: components that are too small become background.

Source of keeping the largest component: nnU-Net (Isensee et al., 2021),
``remove_all_but_largest_component_from_segmentation``. As there, voxels that share a corner are
connected, and of several largest components of one size all are kept: which of them comes first
would depend on how the array lies in space.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.runtime.components import BoolArray, find_components

VOLUME_TOLERANCE = 1e-6
"""Share of the smallest volume by which a component may miss it: rounding of voxels' volumes."""

_Label = TypeVar("_Label", bound=np.integer)


def postprocess_mask(
    mask: npt.NDArray[_Label],
    steps: Sequence[PostprocessingStep],
    *,
    spacing_zyx: Sequence[float],
) -> npt.NDArray[_Label]:
    """Take the steps one after the other.

    Args:
        mask: (Z, Y, X) labels; it stays as it is.
        steps: What to remove.
        spacing_zyx: Of the mask in mm.

    Returns:
        (Z, Y, X) labels: a new array, or the same if there are no steps.
    """
    if not steps:
        return mask
    done: npt.NDArray[_Label] = mask.copy()
    voxel_ml = voxel_volume_ml(spacing_zyx)
    for step in steps:
        components = find_components(done, step.labels)
        kept = components_kept(components.sizes, step, voxel_ml=voxel_ml)
        if not kept.all():
            components.fill(done, chosen=~kept, value=0)
    return done


def components_kept(
    sizes: npt.NDArray[np.integer], step: PostprocessingStep, *, voxel_ml: float
) -> BoolArray:
    """Which components a step keeps, by their voxels."""
    kept: BoolArray
    if step.kind == "keep_largest":
        kept = sizes == sizes.max(initial=0)
    else:
        kept = sizes * voxel_ml >= step.minimum_ml * (1 - VOLUME_TOLERANCE)
    return kept


def voxel_volume_ml(spacing_zyx: Sequence[float]) -> float:
    """Volume of a voxel in ml; the spacing is in mm."""
    return float(np.prod(spacing_zyx)) / 1000
