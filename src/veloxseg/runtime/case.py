"""The images of one case, read and checked."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veloxseg.bundle.format import Pipeline
from veloxseg.errors import DatasetError, GeometryError, ImageReadError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Grid, Volume, describe_difference, same_grid

FAR_SPACING = 2.5
"""Factor between an image's spacing and the training's from which on the user is warned."""


class PredictionWarning(UserWarning):
    """An image is such that its mask should be looked at with care."""


@dataclass(frozen=True, kw_only=True)
class CaseImages:
    """What a model segments.

    Attributes:
        channels: One volume for each of the model's channels, all on one grid.
        name: What messages call the case.
        source: File of the first channel; None for arrays.
    """

    channels: tuple[Volume, ...]
    name: str
    source: Path | None

    @property
    def grid(self) -> Grid:
        """The grid of all channels."""
        return self.channels[0].grid


def read_case(
    images: Path | str | Volume | Sequence[Path | str | Volume], pipeline: Pipeline
) -> CaseImages:
    """Read a case's images and make sure that the model can work on them.

    Args:
        images: A file or volume, or one for each channel in the model's order.
        pipeline: The channels and the spacing that the model expects.

    Raises:
        DatasetError: there are more or fewer images than channels, or voxels are NaN or infinite.
        ImageReadError: a file cannot be read.
        GeometryError: the channels lie on different grids.

    Warns:
        PredictionWarning: the spacing is far from the training's, or a channel is constant.
    """
    if isinstance(images, (Path, str, Volume)):
        images = [images]
    files = [None if isinstance(image, Volume) else Path(image) for image in images]
    name = files[0].name if files and files[0] is not None else "image"
    _require_channels(name, len(images), pipeline)
    with ThreadPoolExecutor(max_workers=len(images)) as pool:  # decompressing is most of it
        volumes = list(pool.map(_read, images, pipeline.channels))
    case = CaseImages(channels=tuple(volumes), name=name, source=files[0])
    _require_one_grid(case, pipeline)
    for volume, channel in zip(volumes, pipeline.channels, strict=True):
        _check_values(volume, f"{name}, {channel}")
    _warn_of_spacing(case, pipeline)
    return case


def _read(image: Path | str | Volume, channel: str) -> Volume:
    if isinstance(image, Volume):
        return image
    try:
        return read_volume(Path(image))
    except ImageReadError as error:
        raise ImageReadError(f"{channel}: {error}") from error


def _require_channels(name: str, found: int, pipeline: Pipeline) -> None:
    if found != len(pipeline.channels):
        raise DatasetError(
            f"{name}: {found} image{'' if found == 1 else 's'} given. The model needs "
            f"{len(pipeline.channels)}: {', '.join(pipeline.channels)}. Give one for each, in that "
            "order."
        )


def _require_one_grid(case: CaseImages, pipeline: Pipeline) -> None:
    first, *others = zip(pipeline.channels, case.channels, strict=True)
    for channel, volume in others:
        if not same_grid(first[1], volume):
            raise GeometryError(
                f"{case.name}: {describe_difference(first[0], first[1], channel, volume)}. All "
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
