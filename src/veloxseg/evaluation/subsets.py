"""Which channels the cases of an evaluation have."""

from collections.abc import Iterable
from pathlib import Path

from veloxseg.datasets.cases import find_channels
from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import DatasetError
from veloxseg.shortening import name_cases


def find_subsets(
    images: Path, cases: Iterable[str], description: DatasetDescription
) -> dict[str, str]:
    """Find out which channels cases have, from their files: ``CASE_0000.nii.gz``, ...

    Args:
        images: Folder of the images, such as a dataset's ``imagesTs``.
        cases: Names of the cases.
        description: Names of the channels, and the files' ending.

    Returns:
        Case to its channels, as ``CT+PET``; cases with more channels first, then in the channels'
        order.

    Raises:
        DatasetError: the folder is missing, a file has another name, or a case has no image.
    """
    found = find_channels(images, description)
    names = list(cases)
    if without := [name for name in names if name not in found]:
        raise DatasetError(
            f"{images}: no image of {name_cases(without)}. Expected "
            f"CASE_0000{description.file_ending} of one channel at least "
            f"({', '.join(description.channels)}). Give the folder that was predicted from."
        )
    names.sort(key=lambda name: (-len(found[name]), found[name]))
    return {name: "+".join(description.channels[index] for index in found[name]) for name in names}
