"""Figures of single cases, kept so that an evaluation that was stopped goes on where it was.

A record is a small JSON file. It is taken for what it says only while both masks have the size and
the time of their last change that it names, and the settings and the version are the same;
otherwise the case is evaluated again.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from veloxseg import __version__
from veloxseg.atomic import atomic_path
from veloxseg.evaluation.label_set import Label
from veloxseg.evaluation.measuring import METRICS
from veloxseg.evaluation.pairing import MaskPair

FOLDER_SUFFIX = "_cases"
"""Of the folder beside ``summary.json``: ``summary_cases``."""


@dataclass(frozen=True, kw_only=True)
class RecordPlace:
    """Where a case's record lies, and what it must have been made from.

    Attributes:
        file: Its file.
        key: All that its figures depend on.
    """

    file: Path
    key: Mapping[str, Any]


class CaseRecord(BaseModel):
    """A record as it is stored.

    Attributes:
        key: All that the figures depend on.
        resampled: Whether the prediction was brought onto the reference's grid first.
        metrics: For each label its metrics, None where undefined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: dict[str, Any]
    resampled: bool
    metrics: dict[str, dict[str, int | float | None]]

    @classmethod
    def read(cls, place: RecordPlace) -> "CaseRecord | None":
        """The record at a place; None if there is none, or it was made from something else."""
        try:
            found = cls.model_validate_json(place.file.read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.key == place.key and found._is_whole else None

    @property
    def _is_whole(self) -> bool:
        """Whether it has every metric of every label; its key is the place's."""
        num_labels = len(self.key["settings"]["labels"])
        rows = self.metrics.values()
        return len(rows) == num_labels and all(row.keys() == METRICS.keys() for row in rows)

    def metrics_of(self, labels: Iterable[Label]) -> dict[Label, dict[str, float]]:
        """Each label's metrics, NaN where undefined."""
        return {
            label: {
                metric: math.nan if value is None else value
                for metric, value in self.metrics[str(label)].items()
            }
            for label in labels
        }


def records_folder(output: Path) -> Path:
    """Where the records of a summary lie."""
    return output.with_name(f"{output.stem}{FOLDER_SUFFIX}")


def record_of(folder: Path, pair: MaskPair, settings: Mapping[str, Any]) -> RecordPlace:
    """The place of a case's record, for its masks as they are now.

    Raises:
        OSError: a mask is gone.
    """
    paths = [str(file.resolve()) for file in pair.files]
    tag = hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    key = {
        "version": __version__,
        "metrics": list(METRICS),
        "settings": settings,
        "files": [_state(file) for file in pair.files],
    }
    # As JSON has it, to be compared with what is read: tuples become lists.
    return RecordPlace(file=folder / f"{pair.name}.{tag}.json", key=json.loads(json.dumps(key)))


def write_record(
    place: RecordPlace, metrics: Mapping[Label, Mapping[str, float]], *, resampled: bool
) -> None:
    """Keep a case's figures, in place of older ones."""
    record = CaseRecord(
        key=dict(place.key),
        resampled=resampled,
        metrics={
            str(label): {
                metric: None if math.isnan(value) else value for metric, value in row.items()
            }
            for label, row in metrics.items()
        },
    )
    with atomic_path(place.file) as temporary:
        temporary.write_text(record.model_dump_json() + "\n")


def _state(file: Path) -> dict[str, int]:
    found = file.stat()
    return {"size": found.st_size, "changed_ns": found.st_mtime_ns}
