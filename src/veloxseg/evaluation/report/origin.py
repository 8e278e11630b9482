"""Where a report comes from: versions, command, model and files.

A report is sent to others, so it names files and folders without the folders above them: those tell
the reader nothing but the sender's user name. The summary keeps the whole paths.
"""

import hashlib
import re
import shlex
from datetime import datetime, timezone
from pathlib import Path

from veloxseg import __version__
from veloxseg.evaluation.report.reading import ProvenanceEntry, SummaryFile


def list_origins(summary: SummaryFile, path: Path, *, images: Path | None) -> list[tuple[str, str]]:
    """What to show, as terms and their descriptions.

    Args:
        summary: As it was read.
        path: Its file.
        images: Folder of the images that are shown.
    """
    made = summary.provenance
    origins = []
    if made is not None:
        if made.model is not None:
            origins += [("Model", made.model.name), ("Model SHA-256", made.model.sha256)]
        origins += [
            ("Evaluated", _date(made.created)),
            ("Command", hide_folders(made.command)),
            ("Versions", ", ".join(f"{name} {one}" for name, one in made.versions.items())),
            ("Predictions", _folders(made)),
            ("References", last_name(made.reference)),
            ("Tolerance of NSD", "" if made.tolerance_mm is None else f"{made.tolerance_mm:g} mm"),
        ]
        if made.resample:
            origins.append(("Grids", "predictions on other grids brought onto the references'"))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    origins += [
        ("Images", "" if images is None else images.resolve().name),
        ("Summary", path.name),
        ("Summary SHA-256", hashlib.sha256(path.read_bytes()).hexdigest()),
        ("This page", f"VeloxSeg {__version__}, {_date(now)}"),
    ]
    return [(term, text) for term, text in origins if text]


def hide_folders(command: str | None) -> str:
    """A command whose paths are cut to their last names: ``/home/a/masks`` becomes ``masks``."""
    if not command:
        return ""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return shlex.join("=".join(map(last_name, word.split("="))) for word in words)


def _folders(made: ProvenanceEntry) -> str:
    """Folder of each method's masks, with the method's name where it is another."""
    last = {name: last_name(folder) for name, folder in made.methods.items()}
    named = (folder if folder == name else f"{name}: {folder}" for name, folder in last.items())
    return ", ".join(named) or last_name(made.prediction)


def last_name(path: str | Path | None) -> str:
    r"""A file's or folder's own name, of a path of this system or of Windows; empty for none."""
    return "" if path is None else re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]


def _date(text: str | None) -> str:
    if not text:
        return ""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text
