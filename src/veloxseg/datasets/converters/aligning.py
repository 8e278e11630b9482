"""Putting the images of one case on one grid, their voxels checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from veloxseg.datasets.converters.target_grid import common_view, with_spacing
from veloxseg.datasets.labels import integer_labels
from veloxseg.datasets.problems import describe_two_grids
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Grid, Volume, same_grid


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """On which grid the images of a case are put.

    Attributes:
        reference: Name of the channel whose grid is taken; None: all images share one already.
        spacing_zyx: In mm along each array axis of the reference; None keeps its spacing.
        common_view: Whether the grid is cut to where all channels have voxels.
    """

    reference: str | None = None
    spacing_zyx: tuple[float, float, float] | None = None
    common_view: bool = False

    @property
    def resamples(self) -> bool:
        """Whether an image may lie on another grid than that it is put on."""
        return self.reference is not None or self.spacing_zyx is not None or self.common_view


def align_images(
    case: str,
    channels: Sequence[str],
    images: Sequence[Volume | None],
    *,
    alignment: Alignment,
) -> list[Volume | None]:
    """Put all channels of a case on one grid.

    Args:
        case: The case's name, for errors.
        channels: Names of the channels.
        images: One volume (Z, Y, X) a channel; None where it is absent.
        alignment: The grid to put them on.

    Returns:
        One float32 volume a channel, exactly on the grid, and None for those that are absent.
        Values of a channel that lay there already are untouched; others are interpolated linearly,
        and outside their field of view they are their minimum.

    Raises:
        DatasetError: a voxel is NaN or infinite, or no channel or not the reference is there.
        GeometryError: the grids differ without a reference, or a channel does not overlap with it.
    """
    present = {
        channel: image for channel, image in zip(channels, images, strict=True) if image is not None
    }
    for channel, image in present.items():
        _require_finite(case, channel, image)
    anchor = anchor_channel(case, list(present), reference=alignment.reference)
    if alignment.reference is None:
        _require_one_grid(case, anchor, present)
    grid = _target(case, anchor, present, alignment)
    aligned: list[Volume | None] = []
    for channel in channels:
        volume = present.get(channel)
        aligned.append(None if volume is None else _move(case, channel, volume, anchor, grid))
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


def anchor_channel(case: str, present: Sequence[str], *, reference: str | None) -> str:
    """Name of the channel whose grid the others share or are put on.

    Args:
        case: The case's name, for errors.
        present: Names of the channels that the case has, in their order.
        reference: The channel asked for; None takes the first.

    Raises:
        DatasetError: the case has no channel, or not the reference.
    """
    if not present:
        raise DatasetError(f"Case {case}: has no channel. Expected one image or more. Remove it.")
    if reference is not None and reference not in present:
        raise DatasetError(
            f"Case {case}: has {', '.join(present)}, but not {reference}, whose grid is to be "
            "taken. Expected it in every case. Choose another reference, or remove the case."
        )
    return reference or present[0]


def _target(case: str, anchor: str, present: dict[str, Volume], alignment: Alignment) -> Grid:
    grid = present[anchor].grid
    if alignment.common_view:
        try:
            grid = common_view(grid, [image.grid for image in present.values()])
        except GeometryError as error:
            raise GeometryError(
                f"Case {case}: {error}: {', '.join(present)}. Expected images of one place. "
                "Look whether the files belong together and their origins are right."
            ) from error
    if alignment.spacing_zyx is not None:
        grid = with_spacing(grid, alignment.spacing_zyx)
    return grid


def _move(case: str, channel: str, image: Volume, anchor: str, grid: Grid) -> Volume:
    lowest = float(image.data.min())
    moved = resample(image, grid, interpolation="linear", fill=lowest)
    if moved.data.max() == lowest < image.data.max():
        raise GeometryError(
            f"Case {case}: nothing of {channel} lies in the field of view of "
            f"{anchor}. Expected images of one place. "
            "Look whether the files belong together and their origins are right."
        )
    return moved


def _require_one_grid(case: str, anchor: str, present: dict[str, Volume]) -> None:
    grid = present[anchor].grid
    for channel, image in present.items():
        if not same_grid(image, grid):
            raise GeometryError(describe_two_grids(case, anchor, grid, channel, image.grid))


def _require_finite(case: str, channel: str, image: Volume) -> None:
    count = image.data.size - int(np.isfinite(image.data).sum())
    if count:
        raise DatasetError(
            f"Case {case}: {channel} has {count} voxels that are NaN or infinite. "
            "Expected finite values. Replace them in the file, as by the background's value."
        )
