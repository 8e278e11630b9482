"""The images of one case, read and checked."""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veloxseg.bundle.format import Pipeline
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.runtime.channels import describe_channels, describe_missing, order_by_channel
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Grid, Volume, describe_difference, same_grid

FAR_SPACING = 2.5
"""Factor between an image's spacing and the training's from which on the user is warned."""


Image = Path | str | Volume
"""A file, or an image in memory."""


class PredictionWarning(UserWarning):
    """An image is such that its mask should be looked at with care."""


@dataclass(frozen=True, kw_only=True)
class CaseImages:
    """What a model segments.

    Attributes:
        channels: One volume for each of the model's channels, all on one grid; None for an
            optional channel that the case lacks.
        name: What messages call the case.
        source: File of the first channel that is there; None for arrays.
        grid: The grid of all channels.
    """

    channels: tuple[Volume | None, ...]
    name: str
    source: Path | None
    grid: Grid


def read_case(
    images: Image | Sequence[Image | None] | Mapping[str, Image | None], pipeline: Pipeline
) -> CaseImages:
    """Read a case's images and make sure that the model can work on them.

    Args:
        images: A file or volume; or one for each channel in the model's order, or by the channel's
            name. An optional channel may be None, and by name also left out.
        pipeline: The channels and the spacing that the model expects.

    Raises:
        DatasetError: there are more or fewer images than channels, a channel is unknown, a
            required one or all are missing, or voxels are NaN or infinite.
        ImageReadError: a file cannot be read.
        GeometryError: the channels lie on different grids.

    Warns:
        PredictionWarning: the spacing is far from the training's, or a channel is constant.
    """
    in_order = _in_order(images, pipeline)
    present = {
        channel: image
        for channel, image in zip(pipeline.channels, in_order, strict=True)
        if image is not None
    }
    first, name = next(iter(present.values())), _name(in_order)
    with ThreadPoolExecutor(max_workers=len(present)) as pool:  # decompressing is most of it
        volumes = dict(zip(present, pool.map(_read, present.values(), present), strict=True))
    _require_one_grid(name, volumes)
    for channel, volume in volumes.items():
        _check_values(volume, f"{name}, {channel}")
    case = CaseImages(
        channels=tuple(volumes.get(channel) for channel in pipeline.channels),
        name=name,
        source=None if isinstance(first, Volume) else Path(first),
        grid=next(iter(volumes.values())).grid,
    )
    _warn_of_spacing(case, pipeline)
    return case


def _in_order(
    images: Image | Sequence[Image | None] | Mapping[str, Image | None], pipeline: Pipeline
) -> list[Image | None]:
    """An image or None for each channel; all required ones are there, and one at least."""
    known = describe_channels(pipeline.channels, pipeline.optional)
    if isinstance(images, (Path, str, Volume)):
        images = [images]
    if isinstance(images, Mapping):
        images = order_by_channel(images, pipeline.channels, pipeline.optional)
    if len(images) != len(pipeline.channels):
        raise DatasetError(
            f"{_name(images)}: {len(images)} image{'' if len(images) == 1 else 's'} given. The "
            f"model needs {len(pipeline.channels)}: {known}. Give one for each, in that order"
            + (", or by name those that there are." if pipeline.optional else ".")
        )
    missing = describe_missing(images, pipeline.channels, pipeline.optional)
    if missing is not None:
        raise DatasetError(
            f"{_name(images)}: {missing} given. The model needs {known}. Give one for each"
            + (" that is not optional, and one at least." if pipeline.optional else ".")
        )
    return list(images)


def _name(images: Sequence[Image | None]) -> str:
    first = next((image for image in images if image is not None), None)
    return "image" if first is None or isinstance(first, Volume) else Path(first).name


def _read(image: Path | str | Volume, channel: str) -> Volume:
    if isinstance(image, Volume):
        return image
    try:
        return read_volume(Path(image))
    except ImageReadError as error:
        raise ImageReadError(f"{channel}: {error}") from error


def _require_one_grid(name: str, volumes: Mapping[str, Volume]) -> None:
    first, *others = volumes.items()
    for channel, volume in others:
        if not same_grid(first[1], volume):
            raise GeometryError(
                f"{name}: {describe_difference(first[0], first[1], channel, volume)}. All "
                "channels of a case must share one grid. Resample them to one first: "
                f"veloxseg convert folder ... --reference {first[0]}"
            )


def _check_values(volume: Volume, where: str) -> None:
    lowest, highest = volume.data.min(), volume.data.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):  # NaN spreads to both
        raise DatasetError(
            f"{where}: has voxels that are NaN or infinite. Expected finite values. Replace them, "
            "as by the background's value."
        )
    if lowest == highest:
        warnings.warn(
            f"{where}: every voxel is {lowest:g}. Expected an image; is it the right file?",
            PredictionWarning,
            stacklevel=4,
        )


def _warn_of_spacing(case: CaseImages, pipeline: Pipeline) -> None:
    found = tuple(case.grid.spacing_zyx[axis] for axis in pipeline.transpose)
    ratios = np.divide(found, pipeline.spacing)
    if ratios.max() > FAR_SPACING or ratios.min() < 1 / FAR_SPACING:
        axes = " x ".join(f"{step:.4g}" for step in found)
        expected = " x ".join(f"{step:.4g}" for step in pipeline.spacing)
        warnings.warn(
            f"{case.name}: spacing {axes} mm, the model was trained at {expected} mm (its axes). "
            "It is resampled, but details may be missing that the model relies on.",
            PredictionWarning,
            stacklevel=4,
        )
