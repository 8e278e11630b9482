"""Telling CT from PET by their voxels, so that an order of channels is never merely assumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.datasets.converters.source_case import Load, SourceCase
from veloxseg.errors import DatasetError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Volume

HIGHEST_LOWEST_HU = -200.0
"""CT in Hounsfield units reaches below this: air is -1000 HU, and every scan of a body has some."""

LOWEST_SUV = -1.0
"""PET in SUV stays above this: it is positive, but for ringing where it was interpolated."""


def modality_of(volume: Volume) -> str | None:
    """Tell by its lowest value whether an image is ``CT`` (HU) or ``PET`` (SUV).

    Args:
        volume: (Z, Y, X) image.

    Returns:
        None where it is neither, such as a normalised image.
    """
    lowest = float(volume.data.min())
    if lowest < HIGHEST_LOWEST_HU:
        return "CT"
    return "PET" if lowest >= LOWEST_SUV else None


def order_of(paths: Mapping[str, Path]) -> dict[str, str]:
    """Tell which of the files of a case is CT and which PET.

    Args:
        paths: What a file is called, such as its channel number, to the file.

    Returns:
        ``CT`` and ``PET`` to what their files are called.

    Raises:
        DatasetError: they are not one CT and one PET.
        ImageReadError: a file cannot be read.
    """
    kinds = {name: modality_of(read_volume(path)) for name, path in paths.items()}
    order = {kind: name for name, kind in kinds.items() if kind is not None}
    if set(order) != {"CT", "PET"}:
        told = ", ".join(
            f"{paths[name].name} looks like {kind or 'neither'}" for name, kind in kinds.items()
        )
        raise DatasetError(
            f"{told}. Expected one CT (values below {HIGHEST_LOWEST_HU:g} HU) and one PET in SUV "
            f"(none below {LOWEST_SUV:g}). Name their order (--order), and see that they are not "
            "normalised."
        )
    return order


@dataclass(frozen=True, kw_only=True)
class CheckedIntensities:
    """Reads a case and refuses it if a CT or a PET does not look like one.

    Attributes:
        load: Reads the case.
        channels: Names of its channels, of which ``CT`` and ``PET`` are looked at.
    """

    load: Load
    channels: Sequence[str]

    def __call__(self, case: str) -> SourceCase:
        """Read a case.

        Raises:
            DatasetError: CT has no value below ``HIGHEST_LOWEST_HU``, or PET one below
                ``LOWEST_SUV``.
        """
        read = self.load(case)
        for channel, image in zip(self.channels, read.images, strict=True):
            if image is None or channel not in ("CT", "PET"):
                continue
            found = modality_of(image)
            if found != channel:
                raise DatasetError(
                    f"Case {case}: {read.sources.get(channel, channel)} is to be {channel}, but "
                    f"looks like {found or 'neither CT nor PET'}: its lowest value is "
                    f"{float(image.data.min()):g}. Expected CT below {HIGHEST_LOWEST_HU:g} HU, PET "
                    f"in SUV not below {LOWEST_SUV:g}. Correct the order of the channels (--order) "
                    "or the files."
                )
        return read
