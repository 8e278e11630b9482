"""From the channels of a case to the network's input, as nnU-Net's DefaultPreprocessor does it.

Source: nnU-Net (Isensee et al., 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Pipeline
from veloxseg.errors import GeometryError, VeloxSegError
from veloxseg.runtime.holes import BoolArray, fill_holes
from veloxseg.runtime.normalisation import normalise
from veloxseg.runtime.occupancy import Box, Occupancy, find_occupied, nonzero
from veloxseg.runtime.resampling import resample, resampled_shape
from veloxseg.runtime.separable import Float32Array
from veloxseg.volumes.orientation import to_ras
from veloxseg.volumes.volume import Volume

Stored = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the network's grid lies in the source image; all axes as after ``transpose``.

    Attributes:
        source_shape: Of the source image.
        box: The part of it that was kept: (from, up to but without) along each axis.
        spacing: Of the source in mm.
        network_shape: Voxels of the network's grid, which covers the box.
        network_spacing: Of the network's grid in mm, as the plan has it; rounding to whole voxels
            makes the true one differ a little.
    """

    source_shape: tuple[int, int, int]
    box: Box
    spacing: tuple[float, float, float]
    network_shape: tuple[int, int, int]
    network_spacing: tuple[float, float, float]

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Source voxels within the box."""
        (z0, z1), (y0, y1), (x0, x1) = self.box
        return z1 - z0, y1 - y0, x1 - x0

    @property
    def box_slices(self) -> tuple[slice, slice, slice]:
        """The box as slices of the transposed source image."""
        z, y, x = (slice(*limits) for limits in self.box)
        return z, y, x


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessed:
    """A case on the network's grid.

    Attributes:
        data: (C, Z, Y, X) float32, axes as after ``transpose``.
        occupancy: Where the image holds anything but zeros.
        placement: How to get back to the source image.
    """

    data: Float32Array
    occupancy: Occupancy
    placement: Placement


def preprocess_volumes(volumes: Sequence[Volume | None], pipeline: Pipeline) -> Preprocessed:
    """Turn a case's images as the pipeline turns them, and :func:`preprocess` them.

    Args:
        volumes: One for each of the pipeline's channels, on one grid; None for one that is absent.
        pipeline: What to do.

    Raises:
        GeometryError, VeloxSegError: as :func:`preprocess`.
    """
    if pipeline.orientation == "ras":
        volumes = [None if volume is None else to_ras(volume) for volume in volumes]
    channels = [None if volume is None else volume.data for volume in volumes]
    present = [volume for volume in volumes if volume is not None]
    _require_one(len(present), pipeline)
    return preprocess(channels, spacing_zyx=present[0].spacing_zyx, pipeline=pipeline)


def preprocess(
    channels: Sequence[Stored | None] | Stored, *, spacing_zyx: Sequence[float], pipeline: Pipeline
) -> Preprocessed:
    """Bring a case to the network's grid and range.

    In nnU-Net's order: transposed, cropped to what is not zero in some channel, normalised,
    resampled. Of an image of zeros nothing is cropped, and its occupancy is empty: no tile needs
    to be run. A channel that is absent is zero in the end, and counts for nothing before.

    Args:
        channels: One (Z, Y, X) image for each of the pipeline's channels, or all as (C, Z, Y, X);
            any real type. They are not modified. None for an optional channel that is absent.
        spacing_zyx: Of the images in mm along their array axes.
        pipeline: What to do.

    Returns:
        The network's input and where it lies. Beside it, memory holds at most one cropped channel
        in float32 and a mask at a time.

    Raises:
        GeometryError: the images have not three axes, or not one shape.
        VeloxSegError: there are not as many images as channels, or values do not fit a scheme.
    """
    channels = list(channels)
    present = {index: channel for index, channel in enumerate(channels) if channel is not None}
    _check(len(channels), list(present.values()), pipeline)
    blocks, box = find_occupied(list(present.values()))
    placement = _place(next(iter(present.values())).shape, box, spacing_zyx, pipeline)
    inside = {
        index: channel.transpose(pipeline.transpose)[placement.box_slices]
        for index, channel in present.items()
    }
    needs_mask = any(pipeline.normalisation[index].within_mask for index in present)
    mask = _mask(list(inside.values())) if needs_mask else None
    data = np.empty((len(channels), *placement.network_shape), np.float32)
    for index, target in enumerate(data):
        if index not in inside:
            target[:] = 0
            continue
        _fill(target, inside[index], index=index, mask=mask, placement=placement, pipeline=pipeline)
    occupancy = Occupancy(
        blocks=blocks.transpose(pipeline.transpose),
        box=placement.box,
        shape=placement.network_shape,
    )
    return Preprocessed(data=data, occupancy=occupancy, placement=placement)


def _check(number: int, present: list[Stored], pipeline: Pipeline) -> None:
    if number != len(pipeline.channels):
        raise VeloxSegError(
            f"A case has {number} images. The model needs {len(pipeline.channels)}, "
            f"in this order: {', '.join(pipeline.channels)}."
        )
    _require_one(len(present), pipeline)
    shapes = [channel.shape for channel in present]
    if len(shapes[0]) != 3 or 0 in shapes[0] or len(set(shapes)) > 1:
        raise GeometryError(
            f"The images of a case have shapes {', '.join(map(str, shapes))}. "
            "Expected one shape (Z, Y, X) for all. Resample them to one grid first."
        )


def _require_one(number: int, pipeline: Pipeline) -> None:
    if number == 0:
        raise VeloxSegError(
            f"A case has no image. Expected one at least of {', '.join(pipeline.channels)}."
        )


def _place(
    shape: Sequence[int], box: Box, spacing_zyx: Sequence[float], pipeline: Pipeline
) -> Placement:
    order = pipeline.transpose
    z, y, x = (int(shape[axis]) for axis in order)
    spacing = (
        float(spacing_zyx[order[0]]),
        float(spacing_zyx[order[1]]),
        float(spacing_zyx[order[2]]),
    )
    moved_box = (box[order[0]], box[order[1]], box[order[2]])
    box_shape = [stop - start for start, stop in moved_box]
    return Placement(
        source_shape=(z, y, x),
        box=moved_box,
        spacing=spacing,
        network_shape=resampled_shape(box_shape, spacing, pipeline.spacing),
        network_spacing=pipeline.spacing,
    )


def _mask(channels: list[Stored]) -> BoolArray:
    # Outside the box there are zeros only, all of them outside the mask: holes can be told here.
    return fill_holes(nonzero(channels, 0, len(channels[0])))


def _fill(
    target: Float32Array,
    channel: Stored,
    *,
    index: int,
    mask: BoolArray | None,
    placement: Placement,
    pipeline: Pipeline,
) -> None:
    # Normalise and resample one cropped channel into its place.
    resized = placement.network_shape != placement.box_shape
    values = np.empty(channel.shape, np.float32) if resized else target
    values[:] = channel
    try:
        normalise(values, pipeline.normalisation[index], mask)
    except VeloxSegError as error:
        raise VeloxSegError(f"Channel {pipeline.channels[index]}: {error}") from error
    if resized:
        resample(
            values,
            placement.network_shape,
            spacing=placement.spacing,
            new_spacing=pipeline.spacing,
            resampling=pipeline.image_resampling,
            out=target,
        )
