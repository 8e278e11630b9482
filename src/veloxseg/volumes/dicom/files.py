"""Which files are DICOM, and what their headers say."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veloxseg.errors import ImageReadError, VeloxSegError

_PREAMBLE = 128
# A file without the preamble of PS3.10 begins with its first element, (0008,00xx) or (0002,00xx).
_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00")


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, whatever its name.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(_PREAMBLE + 4)
    return start[_PREAMBLE:] == b"DICM" or (start[:2] in _FIRST_GROUPS and start[3:4] == b"\x00")


def read_header(path: Path, *, tags: Sequence[str] | None = None) -> Any:
    """Read a file's attributes without its pixels.

    Args:
        path: A DICOM file, with or without the preamble of PS3.10.
        tags: Keywords of the attributes that are wanted; None for all.

    Returns:
        The pydicom dataset, its file meta information included.

    Raises:
        ImageReadError: the file is no DICOM or is damaged.
    """
    return _read(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))


def read_dataset(path: Path) -> Any:
    """Read a whole DICOM file, its pixels still as stored.

    Raises:
        ImageReadError: the file is no DICOM or is damaged.
    """
    return _read(path)


def show_path(path: Path) -> str:
    """A path as text that every terminal and JSON file takes, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


@contextmanager
def interpreting(path: Path) -> Iterator[None]:
    """Make sense of a file's attributes: pydicom decodes them when they are asked for.

    Values that break the standard are taken without complaint: we check what we use.

    Raises:
        ImageReadError: in place of whatever a damaged file makes pydicom stumble over.
    """
    from pydicom.config import disable_value_validation

    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            yield
        except (VeloxSegError, MemoryError):
            raise
        except Exception as error:
            raise ImageReadError(
                f"{show_path(path)}: no readable DICOM file ({error}). "
                "Expected a whole one. Copy or export it again."
            ) from error


def _read(path: Path, **how: Any) -> Any:
    import pydicom

    with interpreting(path):
        dataset = pydicom.dcmread(path, force=True, **how)
        _complete_meta(dataset)
    return dataset


def _complete_meta(dataset: Any) -> None:
    """Say how the values are encoded where the file does not: pydicom decodes pixels by it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import (
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
