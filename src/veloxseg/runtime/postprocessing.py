"""What a bundle's postprocessing does to a mask: components that are too small become background.

Source of keeping the largest component: nnU-Net (Isensee et al., 2021),
``remove_all_but_largest_component_from_segmentation``. As there, voxels that share a corner are
connected, and of several largest components of one size all are kept: which of them comes first
would depend on how the array lies in space.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import PostprocessingStep
from veloxseg.errors import DatasetError
from veloxseg.runtime.components import BoolArray, find_components
from veloxseg.volumes.reading import read_volume, write_mask

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


def postprocess_folder(
    masks: Path,
    output: Path,
    *,
    steps: Sequence[PostprocessingStep],
    file_ending: str = ".nii.gz",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Postprocess all masks of a folder.

    Args:
        masks: Folder of label masks.
        output: Folder for the masks of the same names; not the same one.
        steps: What to remove, as a bundle's ``pipeline.postprocessing``.
        file_ending: Of the masks' names, with its dot.
        progress: Called after each mask with the number done and that of all.

    Returns:
        The files written.

    Raises:
        DatasetError: both folders are one, or there are no masks, or a mask holds no integers.
        ImageReadError: a mask cannot be read.
    """
    if masks.resolve() == output.resolve():
        raise DatasetError(f"{output}: holds the masks to be read. Choose another folder.")
    files = sorted(file for file in masks.glob(f"*{file_ending}") if file.name[0] != ".")
    if not files:
        raise DatasetError(f"{masks}: no masks. Expected files named CASE{file_ending}.")
    written = []
    for done, file in enumerate(files, start=1):
        mask = read_volume(file)
        if mask.data.dtype.kind not in "iu":
            raise DatasetError(
                f"{file}: holds {mask.data.dtype.name}. Expected a mask of integers. Store it so."
            )
        labels = postprocess_mask(mask.data, steps, spacing_zyx=mask.spacing_zyx)
        write_mask(output / file.name, labels, mask.grid, like=file)
        written.append(output / file.name)
        if progress is not None:
            progress(done, len(files))
    return tuple(written)
