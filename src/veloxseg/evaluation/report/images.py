"""The images that predictions were made from, in nnU-Net's naming, for the pictures of a report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from veloxseg.datasets.description import FILE_NAME, read_description
from veloxseg.errors import DatasetError

_SHOWN_UNASKED = 2


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """A folder such as ``imagesTr``.

    Attributes:
        folder: Where.
        names: Of the channels by their numbers, from a dataset.json beside it; empty without one.
        channels: Numbers of those to show, from 0; None shows each case's first two.
    """

    folder: Path
    names: Mapping[int, str]
    channels: tuple[int, ...] | None

    def find(self, case: str, ending: str) -> dict[str, Path]:
        """The files of a case to show, by their channels' names: those asked for, or found."""
        if self.channels is not None:
            numbers: Sequence[int] = self.channels
        else:
            pattern = re.compile(rf"{re.escape(case)}_(\d{{4}}){re.escape(ending)}")
            matches = (pattern.fullmatch(file.name) for file in self.folder.iterdir())
            numbers = sorted(int(match[1]) for match in matches if match)[:_SHOWN_UNASKED]
        return {
            self.names.get(number, f"channel {number}"): self.folder
            / f"{case}_{number:04d}{ending}"
            for number in numbers
        }


def open_image_folder(folder: Path, channels: Sequence[int] | None) -> ImageFolder:
    """Look at a folder of images.

    Args:
        folder: With files named ``CASE_0000.nii.gz``; a dataset.json in it or beside it names the
            channels.
        channels: Numbers of those to show, from 0; None shows each case's first two.

    Raises:
        DatasetError: there is no such folder, a channel is not one of dataset.json's, or that file
            is no legal one.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder. Expected the images, such as imagesTr.")
    names = {}
    for place in (folder, folder.absolute().parent):
        if (place / FILE_NAME).is_file():
            names = dict(enumerate(read_description(place).channels))
            break
    wrong = [number for number in channels or () if number < 0 or (names and number not in names)]
    if wrong:
        known = ", ".join(f"{number} ({name})" for number, name in names.items())
        raise DatasetError(
            f"{folder}: no channel {wrong[0]}. Expected {known or 'a number from 0'}."
        )
    return ImageFolder(
        folder=folder,
        names=_distinct(names),
        channels=None if channels is None else tuple(dict.fromkeys(channels)),
    )


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Names with their numbers where two channels share one."""
    shared = list(names.values())
    return {
        number: f"{name} ({number})" if shared.count(name) > 1 else name
        for number, name in names.items()
    }
