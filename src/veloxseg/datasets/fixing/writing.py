"""Writing the files of a mended case."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.atomic import atomic_path
from veloxseg.datasets.fixing.choosing import MENDED_BY_RECASTING, CaseToWrite, FileToWrite
from veloxseg.datasets.labels import integer_labels
from veloxseg.volumes.reading import read_grid, read_volume, write_volume
from veloxseg.volumes.volume import Volume


@dataclass(frozen=True, kw_only=True)
class WriteCase:
    """Writes the files of a case that are not there yet; processes can be sent it."""

    folder: Path

    def __call__(self, case: CaseToWrite) -> None:
        """Write what is missing, each file whole or not at all."""
        for file in case.files:
            path = self.folder / file.name
            if not path.is_file():
                _write_file(path, file)


def take_over(path: Path, source: Path, *, as_link: bool) -> None:
    """Put a file in a second place: as a copy, or, on one disk, as a link to the same bytes.

    An image as a link takes no space. A label is copied, since people correct labels, and some
    programs would write the correction into the original as well.
    """
    with atomic_path(path) as temporary:
        if not (as_link and _link(temporary, source)):
            shutil.copy2(source, temporary)


def _link(path: Path, source: Path) -> bool:
    """Make a hard link; whether the disk could."""
    try:
        os.link(source.resolve(), path)
    except OSError:
        return False
    return True


def _write_file(path: Path, file: FileToWrite) -> None:
    if not file.mends:
        take_over(path, file.source, as_link=file.is_image)
        return
    volume = read_volume(file.source)
    grid = volume.grid if file.reference is None else read_grid(file.reference)
    data = volume.data
    if MENDED_BY_RECASTING & set(file.mends):
        data = _recast(data, where=str(file.source))
    write_volume(path, Volume.on_grid(data, grid))


def _recast(data: npt.NDArray[Any], *, where: str) -> npt.NDArray[Any]:
    """Label values (Z, Y, X) as uint8, or as uint16 if there are more than 256."""
    kind = np.uint8 if round(float(data.max())) <= np.iinfo(np.uint8).max else np.uint16
    recast = np.empty(data.shape, kind)
    for plane, values in zip(recast, data, strict=True):  # as int64 the whole would be eightfold
        plane[...] = integer_labels(values, where=where)
    return recast
