"""Putting the images of one case on one grid, their voxels checked."""

from collections.abc import Sequence

import numpy as np

from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import describe_two_grids
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Volume, same_grid


def align_images(
    case: str, channels: Sequence[str], images: Sequence[Volume], *, reference: str | None
) -> list[Volume]:
    """Put all channels of a case on the grid of the reference channel.

    Args:
        case: The case's name, for errors.
        channels: Names of the channels.
        images: One volume (Z, Y, X) a channel.
        reference: Name of the channel whose grid is taken; None: all must share one already.

    Returns:
        One float32 volume a channel, exactly on the reference's grid. Values of a channel that lay
        there already are untouched; others are interpolated linearly, and outside their field of
        view they are their minimum.

    Raises:
        DatasetError: a voxel is NaN or infinite.
        GeometryError: the grids differ without a reference, or a channel does not overlap with it.
    """
    for channel, image in zip(channels, images, strict=True):
        _require_finite(case, channel, image)
    anchor = 0 if reference is None else channels.index(reference)
    grid = images[anchor].grid
    aligned = []
    for channel, image in zip(channels, images, strict=True):
        if reference is None and not same_grid(image, grid):
            raise GeometryError(
                describe_two_grids(case, channels[anchor], grid, channel, image.grid)
            )
        lowest = float(image.data.min())
        moved = resample(image, grid, interpolation="linear", fill=lowest)
        if moved.data.max() == lowest < image.data.max():
            raise GeometryError(
                f"Case {case}: nothing of {channel} lies in the field of view of "
                f"{channels[anchor]}. Expected images of one place. "
                "Look whether the files belong together and their origins are right."
            )
        aligned.append(moved)
    return aligned


def align_label(
    case: str, label: Volume, image: Volume, *, image_name: str, resampled: bool
) -> Volume:
    """Put the label of a case on the grid of its images.

    Args:
        case: The case's name, for errors.
        label: (Z, Y, X) label values as stored, perhaps as floats.
        image: A channel, on the grid that is wanted.
        image_name: Name of that channel.
        resampled: Whether the label may lie on another grid: it is then looked up at the nearest
            voxel, and is 0 outside its field of view.

    Returns:
        The uint8 label, exactly on the image's grid.

    Raises:
        DatasetError: a value is no integer from 0 to 255.
        GeometryError: the grids differ though they must not, or all foreground was lost.
    """
    values = integer_labels(label.data, where=f"Case {case}: the label")
    if values.min() < 0 or values.max() > 255:
        raise DatasetError(
            f"Case {case}: the label has values from {values.min()} to {values.max()}. "
            "Expected 0 to 255. Renumber them."
        )
    whole = Volume.on_grid(values.astype(np.uint8), label.grid)
    if not resampled and not same_grid(whole, image):
        raise GeometryError(describe_two_grids(case, image_name, image.grid, "label", whole.grid))
    moved = resample(whole, image.grid, interpolation="nearest", fill=0)
    if whole.data.any() and not moved.data.any():
        raise GeometryError(
            f"Case {case}: nothing of the label lies in the field of view of {image_name}, or all "
            "of it is smaller than a voxel there. Expected some foreground. "
            "Look whether the files belong together, or choose a finer reference."
        )
    return moved


def _require_finite(case: str, channel: str, image: Volume) -> None:
    count = image.data.size - int(np.isfinite(image.data).sum())
    if count:
        raise DatasetError(
            f"Case {case}: {channel} has {count} voxels that are NaN or infinite. "
            "Expected finite values. Replace them in the file, as by the background's value."
        )
