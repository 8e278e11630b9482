"""Writing one case: its images and label in nnU-Net's naming, then its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veloxseg.datasets.cases import Part
from veloxseg.datasets.converters.aligning import (
    Alignment,
    align_images,
    align_label,
    anchor_channel,
)
from veloxseg.datasets.converters.manifest import (
    CaseRecord,
    GridRecord,
    read_record,
    record_path,
    write_record,
)
from veloxseg.datasets.converters.source_case import Load, Prepare, SourceCase
from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume, same_grid

FILE_ENDING = ".nii.gz"
LABEL = "label"
"""What records and error messages call the label, so that no channel may be named so."""


@dataclass(frozen=True, kw_only=True)
class CaseWriter:
    """Reads, aligns and writes one case after another; it may be sent to another process.

    Attributes:
        folder: The dataset's folder.
        description: Channels and labels that the cases must have.
        part: ``Tr`` or ``Ts``.
        load: Reads a case by its name.
        prepare: Changes a case before its images are put on one grid, as by registration.
        alignment: The grid to put them on.
    """

    folder: Path
    description: DatasetDescription
    part: Part
    load: Load
    prepare: Prepare | None
    alignment: Alignment

    def __call__(self, name: str) -> None:
        """Write a case, its record last.

        Raises:
            ImageReadError, GeometryError, DatasetError: the case cannot be used; it is named.
            OSError: a file cannot be written.
        """
        try:
            self._write(name)
        except VeloxSegError as error:
            if str(error).startswith(f"Case {name}"):
                raise
            raise type(error)(f"Case {name}: {error}") from error

    def _write(self, name: str) -> None:
        case = self.load(name)
        if self.prepare is not None:
            case = self.prepare(name, case)
        self._require_channels(name, case)
        channels = self.description.channels
        images = align_images(name, channels, case.images, alignment=self.alignment)
        aligned = {c: image for c, image in zip(channels, images, strict=True) if image is not None}
        anchor = anchor_channel(name, list(aligned), reference=self.alignment.reference)
        before = {
            c: image for c, image in zip(channels, case.images, strict=True) if image is not None
        }
        if case.label is not None:
            before[LABEL] = case.label
            aligned[LABEL] = align_label(
                name,
                case.label,
                aligned[anchor],
                image_name=anchor,
                resampled=self.alignment.resamples,
            )
            _require_named_values(name, aligned[LABEL], self.description)
        files = _relative_files(name, self.description, self.part)
        written = {what: files[what] for what in aligned}
        for stale in files.keys() - written.keys():  # of a run when the source still had it
            (self.folder / files[stale]).unlink(missing_ok=True)
        for what, volume in aligned.items():
            write_volume(self.folder / written[what], volume)
        record = _record(name, case, before=before, after=aligned, written=written)
        write_record(self.folder, record, part=self.part)

    def _require_channels(self, name: str, case: SourceCase) -> None:
        for channel, image in zip(self.description.channels, case.images, strict=True):
            if image is None and channel not in self.description.optional:
                raise DatasetError(
                    f"Case {name}: has no {channel}. Expected all channels but the optional ones "
                    f"({', '.join(self.description.optional) or 'none'}). Add its file, declare "
                    f"the channel optional, or remove the case."
                )


def is_written(folder: Path, name: str, description: DatasetDescription, *, part: Part) -> bool:
    """Whether a case is whole: its record is there, and every file that it names.

    Raises:
        DatasetError: the record is damaged.
    """
    path = record_path(folder, name, part=part)
    if not path.is_file():
        return False
    files = set(read_record(path).written.values())
    wanted = _relative_files(name, description, part)
    optional = {wanted[channel] for channel in description.optional}
    needed = set(wanted.values()) - optional - ({wanted[LABEL]} if part == "Ts" else set())
    return needed <= files and all((folder / file).is_file() for file in files)


def _relative_files(name: str, description: DatasetDescription, part: Part) -> dict[str, str]:
    """Channel name, or ``label``, to its file, relative to the dataset's folder."""
    images = {
        channel: f"images{part}/{name}_{index:04d}{FILE_ENDING}"
        for index, channel in enumerate(description.channels)
    }
    return images | {LABEL: f"labels{part}/{name}{FILE_ENDING}"}


def _record(
    name: str,
    case: SourceCase,
    *,
    before: Mapping[str, Volume],
    after: Mapping[str, Volume],
    written: Mapping[str, str],
) -> CaseRecord:
    moved = [what for what in after if not same_grid(before[what], after[what])]
    volumes = {}
    if LABEL in moved:
        first, last = _volumes_ml(before[LABEL]), _volumes_ml(after[LABEL])
        volumes = {key: (value, last.get(key, 0.0)) for key, value in first.items()}
    return CaseRecord(
        case=name,
        patient=case.patient,
        sources={
            what: file if isinstance(file, str) else list(file)
            for what, file in case.sources.items()
        },
        written=dict(written),
        grid=GridRecord.of(next(iter(after.values())).grid),
        resampled={what: GridRecord.of(before[what].grid) for what in moved},
        label_volume_ml=volumes,
        notes=dict(case.notes),
    )


def _volumes_ml(label: Volume) -> dict[str, float]:
    """Label value, but for 0, to its volume in ml."""
    values, counts = np.unique(np.rint(label.data).astype(np.int64), return_counts=True)
    voxel_ml = float(np.prod(label.spacing_zyx)) / 1000
    return {
        str(value): round(int(count) * voxel_ml, 4)
        for value, count in zip(values, counts, strict=True)
        if value != 0
    }


def _require_named_values(case: str, label: Volume, description: DatasetDescription) -> None:
    found = [int(value) for value in np.unique(label.data)]
    unknown = sorted(set(found) - set(description.label_values))
    if unknown:
        raise DatasetError(
            f"Case {case}: the label has values {unknown}, which have no name. "
            f"Expected {description.labels}. Name them (--labels) or correct the label file."
        )
