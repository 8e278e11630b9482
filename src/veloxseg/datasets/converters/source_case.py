"""One case as it is at its source, before anything is written."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veloxseg.volumes.volume import Volume


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """The images of one case as they are at the source.

    Attributes:
        images: One volume (Z, Y, X) a channel, each on a grid of its own; None where the case lacks
            the file of an optional channel.
        label: The label's volume, None for a test case.
        patient: Whom the case was taken of, so that no patient enters two folds; None if unknown.
        sources: Channel name (or ``label``) to the file or files it was read from, relative to the
            source folder.
        notes: What was done to the case while it was read, as JSON values: label values
            renumbered, registration, factors to SUV.
    """

    images: Sequence[Volume | None]
    label: Volume | None
    patient: str | None = None
    sources: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


Load = Callable[[str], SourceCase]
"""Reads a case by its name."""

Prepare = Callable[[str, SourceCase], SourceCase]
"""Changes a case, whose name it is given, before its images are put on one grid."""


def tell_source(path: Path, source: Path) -> str:
    """A file as records tell it: relative to the source folder, whatever bytes its name holds."""
    relative = Path(os.path.relpath(path, source)).as_posix()
    return os.fsencode(relative).decode("utf-8", errors="backslashreplace")
