"""Reading a case from one file a channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veloxseg.datasets.converters.case_writing import LABEL
from veloxseg.datasets.converters.renumbering import renumber
from veloxseg.datasets.converters.source_case import SourceCase, tell_source
from veloxseg.datasets.problems import describe_two_grids
from veloxseg.errors import GeometryError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.volume import Volume, same_grid


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Reads cases by their names from the files that were found for them.

    Attributes:
        source: Folder that sources are told relative to.
        files: Case name to the file of each channel, and of ``label``, that the case has.
        patients: Case name to the patient; None if unknown.
        channels: Names of the channels in their order.
        label_values: Label value at the source to the value written; None keeps all as they are.
        label_on: Channel on whose grid the label must lie; None leaves that to what aligns them.
    """

    source: Path
    files: Mapping[str, Mapping[str, Path]]
    patients: Mapping[str, str | None]
    channels: Sequence[str]
    label_values: Mapping[int, int] | None = None
    label_on: str | None = None

    def __call__(self, case: str) -> SourceCase:
        """Read the images of a case, and its label if it has one.

        Raises:
            ImageReadError: a file cannot be read.
            DatasetError: the label has a value that ``label_values`` lacks.
            GeometryError: the label does not lie on the grid of ``label_on``.
        """
        paths = self.files[case]
        images = {name: read_volume(paths[name]) for name in self.channels if name in paths}
        label = read_volume(paths[LABEL]) if LABEL in paths else None
        notes: dict[str, Any] = {}
        if label is not None and self.label_on is not None:
            _require_same_grid(case, self.label_on, images[self.label_on], label)
        if label is not None and self.label_values is not None:
            label, changed = renumber(case, label, self.label_values)
            notes = {"label_values": changed} if changed else {}
        return SourceCase(
            images=[images.get(name) for name in self.channels],
            label=label,
            patient=self.patients[case],
            sources={part: tell_source(path, self.source) for part, path in paths.items()},
            notes=notes,
        )


def _require_same_grid(case: str, channel: str, image: Volume, label: Volume) -> None:
    if not same_grid(image, label):
        raise GeometryError(describe_two_grids(case, channel, image.grid, "label", label.grid))
