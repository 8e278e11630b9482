"""Volumes per case and label, as JSON for programs and CSV for people."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from veloxseg.atomic import atomic_path, read_json, write_json
from veloxseg.errors import VeloxSegError


class VolumeTable:
    """Volumes in ml, kept in two files that are written together.

    Args:
        path: Of both files, without their endings.
        labels: Their names are the columns.
        resume: Take over what an earlier call wrote; what is not legible is made anew.
    """

    def __init__(
        self, path: Path, *, labels: Mapping[str, int | tuple[int, ...]], resume: bool
    ) -> None:
        self._json = path.with_name(f"{path.name}.json")
        self._csv = path.with_name(f"{path.name}.csv")
        self._labels = list(labels)
        self._rows: dict[str, dict[str, float]] = {}
        self._written = self._json.stat().st_mtime if self._json.is_file() else 0.0
        if not resume:  # or masks of two models would share a table after an interruption
            self._json.unlink(missing_ok=True)
            self._csv.unlink(missing_ok=True)
        elif self._json.is_file():
            try:
                cases = read_json(self._json)["volumes_ml"]
                self._rows = {
                    str(name): {label: float(row[label]) for label in self._labels}
                    for name, row in cases.items()
                }
            except (VeloxSegError, KeyError, TypeError, ValueError, AttributeError):
                self._rows = {}

    def has(self, case: str, *, newer_than: Path) -> bool:
        """Whether a case's volumes are known, and its mask has not changed since."""
        return case in self._rows and newer_than.stat().st_mtime <= self._written

    def add(self, case: str, volumes_ml: Mapping[str, float]) -> None:
        """Put a case's volumes in, in place of earlier ones."""
        self._rows[case] = dict(volumes_ml)

    def write(self) -> tuple[Path, Path]:
        """Write both files, whole or not at all; gives their paths."""
        rows = dict(sorted(self._rows.items()))
        write_json(self._json, {"unit": "ml", "volumes_ml": rows})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", *(f"{label} (ml)" for label in self._labels)])
        for case, volumes in rows.items():
            writer.writerow([case, *(f"{volumes[label]:.4f}" for label in self._labels)])
        with atomic_path(self._csv) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        return self._json, self._csv
