"""What a tree of DICOM files holds: studies, their series, structure sets and segmentations.

Only headers are read; files are told by their content, whatever they are called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from veloxseg.errors import ImageReadError
from veloxseg.volumes.dicom.files import interpreting, looks_like_dicom, read_header, show_path
from veloxseg.volumes.dicom.repetitions import split_repetitions
from veloxseg.volumes.dicom.slices import (
    COSINE_TOLERANCE,
    REPETITIONS,
    SLICE_TAGS,
    DicomSlice,
    slices_of,
)
from veloxseg.workers import results_of

SERIES_TAGS = (
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ImageType",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "SeriesNumber",
    "SeriesInstanceUID",
    "StudyDescription",
    "Manufacturer",
)
"""Attributes by which series are told apart."""

_IDENTITY_TAGS = (
    "SOPClassUID",
    "PatientID",
    "StudyInstanceUID",
    "StudyDate",
    "FrameOfReferenceUID",
)
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DICOMDIR = "1.2.840.10008.1.3.10"
BROKEN = ("damaged", "empty", "DICOM of no study or series")
"""Why a file may be passed over that was meant to be a slice: its copying was cut short."""

_SPACING_TOLERANCE_RELATIVE = 1e-3
_BATCH = 64
"""Files that a process reads at a time: one is read faster than it is handed over."""
_STRAYS_AT_MOST = 4
"""A localizer's three planes are alike in number; one of four with another tag is an accident."""


@dataclass(frozen=True, kw_only=True)
class DicomSeries:
    """Images of one series that can make one stack.

    Attributes:
        uid: Series Instance UID (0020,000E).
        frame_of_reference_uid: Frame of Reference UID (0020,0052), empty if absent.
        tags: ``SERIES_TAGS`` as text, several values joined by a backslash; empty where absent. And
            what tells repetitions apart in a series that has several, by
            ``veloxseg.volumes.dicom.slices.REPETITIONS``' name of it.
        slices: Its images, of one size, spacing and orientation, in the order of their paths.
        siblings: In words, the other images of the series, which differ in one of these or in their
            frame of reference; empty if it is not mixed.
        strays: In words, those of them that are few and differ in nothing but the orientation, so
            that their tag is wrong rather than the series mixed.
    """

    uid: str
    frame_of_reference_uid: str
    tags: Mapping[str, str]
    slices: tuple[DicomSlice, ...]
    siblings: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What to call the series in a message."""
        number = self.tags.get("SeriesNumber")
        told_by = "".join(
            f"{name} {self.tags[name]}, " for name in REPETITIONS if name in self.tags
        )
        return (
            f"series '{self.tags.get('SeriesDescription') or 'without description'}' "
            f"({self.tags.get('Modality') or 'no modality'}, {len(self.slices)} slices, {told_by}"
            f"{f'number {number}, ' if number else ''}UID {self.uid})"
        )


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A structure set or a segmentation.

    Attributes:
        path: Its file.
        kind: ``RTSTRUCT`` or ``SEG``.
        tags: ``SERIES_TAGS`` of its series as text.
    """

    path: Path
    kind: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        """What to call it in a message."""
        return f"{self.kind} '{self.tags.get('SeriesDescription', '')}' {show_path(self.path)}"


@dataclass(frozen=True, kw_only=True)
class DicomStudy:
    """One study.

    Attributes:
        uid: Study Instance UID (0020,000D).
        patients: Patient ID (0010,0020) of each patient to one of its files; a sound study has one.
        date: Study Date (0008,0020), YYYYMMDD; empty if absent.
        description: Study Description (0008,1030).
        series: Its image series, ordered by number and UID; a mixed one as several.
        label_files: Its structure sets and segmentations in the order of their paths.
    """

    uid: str
    patients: Mapping[str, Path]
    date: str
    description: str
    series: tuple[DicomSeries, ...]
    label_files: tuple[LabelFile, ...]


@dataclass(frozen=True, kw_only=True)
class DicomIndex:
    """What a tree holds.

    Attributes:
        studies: In the order of their first files' paths.
        passed_over: Each file that holds no series or label, to what it is instead.
        num_files: Number of all files.
    """

    studies: tuple[DicomStudy, ...]
    passed_over: Mapping[Path, str]
    num_files: int


def index_dicom(
    folder: Path, *, num_workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> DicomIndex:
    """Read the headers of all files below a folder and sort them by study and series.

    Files that are no DICOM (text, previews, DICOMDIR) or hold no placed image are counted and
    passed over.

    Args:
        folder: A study or a tree of studies.
        num_workers: Processes that read headers.
        progress: Called now and then with the number of files read and the number of all.

    Raises:
        ImageReadError: there is no such folder.
        DatasetError: a process was killed.
    """
    if not folder.is_dir():
        raise ImageReadError(
            f"{show_path(folder)}: no such folder. Expected a tree of DICOM files. Check the path."
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file())

    def report(done: int, _: int) -> None:
        if progress is not None:
            progress(min(done * _BATCH, len(paths)), len(paths))

    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    builder = _Builder()
    for entries in results_of(_read_entries, batches, num_workers=num_workers, progress=report):
        for entry in entries:
            builder.add(entry)
    return DicomIndex(
        studies=tuple(study.finish() for study in builder.studies.values()),
        passed_over=builder.passed_over,
        num_files=len(paths),
    )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What one file holds; ``reason`` says why it is passed over."""

    path: Path
    reason: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    slices: tuple[DicomSlice, ...] = ()


def _read_entries(paths: Sequence[Path]) -> list[_Entry]:
    return [_read_entry(path) for path in paths]


def _read_entry(path: Path) -> _Entry:
    try:
        if path.stat().st_size == 0:
            return _Entry(path=path, reason="empty")
        if not looks_like_dicom(path):
            return _Entry(path=path, reason="not DICOM")
        with interpreting(path):
            header = read_header(path, tags=(*SERIES_TAGS, *_IDENTITY_TAGS, *SLICE_TAGS))
            return _interpret(header, path)
    except (ImageReadError, OSError):
        return _Entry(path=path, reason="damaged")


def _interpret(header: Any, path: Path) -> _Entry:
    identity = {keyword: _text(header, keyword) for keyword in _IDENTITY_TAGS}
    tags = {keyword: _text(header, keyword) for keyword in SERIES_TAGS}
    sop_class = identity["SOPClassUID"]
    if _DICOMDIR in (sop_class, header.file_meta.get("MediaStorageSOPClassUID")):
        return _Entry(path=path, reason="DICOMDIR")
    if not (identity["StudyInstanceUID"] and tags["SeriesInstanceUID"]):
        return _Entry(path=path, reason="DICOM of no study or series")
    if sop_class == RTSTRUCT or sop_class in SEGMENTATIONS:
        return _Entry(path=path, identity=identity, tags=tags)
    try:
        slices = tuple(slices_of(header, path))
    except ImageReadError:
        return _Entry(path=path, reason="DICOM, but no image placed in the patient")
    return _Entry(path=path, identity=identity, tags=tags, slices=slices)


def _text(header: Any, keyword: str) -> str:
    value = header.get(keyword)
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value).strip()
    return "\\".join(str(part) for part in value)


@dataclass
class _Kind:
    """Images of one series that agree in what a stack needs."""

    frame_of_reference_uid: str
    slices: list[DicomSlice]

    def takes(self, one: DicomSlice, frame_of_reference_uid: str) -> bool:
        own = self.slices[0].orientation
        return self._same_planes(one, frame_of_reference_uid) and np.allclose(
            one.orientation, own, rtol=0, atol=COSINE_TOLERANCE
        )

    def has_stray(self, other: "_Kind") -> bool:
        few = len(other.slices) * _STRAYS_AT_MOST < len(self.slices)
        return few and self._same_planes(other.slices[0], other.frame_of_reference_uid)

    def _same_planes(self, one: DicomSlice, frame_of_reference_uid: str) -> bool:
        own = self.slices[0]
        return (
            frame_of_reference_uid == self.frame_of_reference_uid
            and one.size_yx == own.size_yx
            and np.allclose(
                one.spacing_yx, own.spacing_yx, rtol=_SPACING_TOLERANCE_RELATIVE, atol=0
            )
        )

    def __str__(self) -> str:
        first = self.slices[0]
        cosines = ", ".join(f"{cosine:.3g}" for cosine in first.orientation)
        return (
            f"{len(self.slices)} of {first.size_yx[0]} x {first.size_yx[1]} voxels (y, x) of "
            f"{first.spacing_yx[0]:.4g} x {first.spacing_yx[1]:.4g} mm, orientation {cosines}, "
            f"such as {first.where}"
        )


@dataclass
class _Study:
    uid: str
    date: str
    description: str
    patients: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, Mapping[str, str]] = field(default_factory=dict)
    kinds: dict[str, list[_Kind]] = field(default_factory=dict)
    label_files: list[LabelFile] = field(default_factory=list)

    def add(self, entry: _Entry) -> None:
        identity = entry.identity
        self.patients.setdefault(identity["PatientID"], entry.path)
        if not entry.slices:
            kind = "RTSTRUCT" if identity["SOPClassUID"] == RTSTRUCT else "SEG"
            self.label_files.append(LabelFile(path=entry.path, kind=kind, tags=entry.tags))
            return
        uid = entry.tags["SeriesInstanceUID"]
        self.tags.setdefault(uid, entry.tags)
        kinds = self.kinds.setdefault(uid, [])
        space = identity["FrameOfReferenceUID"]
        for one in entry.slices:
            kind_found = next((kind for kind in kinds if kind.takes(one, space)), None)
            if kind_found is None:
                kinds.append(_Kind(frame_of_reference_uid=space, slices=[one]))
            else:
                kind_found.slices.append(one)

    def finish(self) -> DicomStudy:
        series = [
            DicomSeries(
                uid=uid,
                frame_of_reference_uid=kind.frame_of_reference_uid,
                tags={**self.tags[uid], **({one.told_by: one.value} if one.told_by else {})},
                slices=one.slices,
                siblings=tuple(str(other) for other in kinds if other is not kind),
                strays=tuple(str(other) for other in kinds if kind.has_stray(other)),
            )
            for uid, kinds in self.kinds.items()
            for kind in kinds
            for one in split_repetitions(kind.slices)
        ]
        series.sort(key=lambda one: (_as_number(one.tags["SeriesNumber"]), one.uid))
        return DicomStudy(
            uid=self.uid,
            patients=self.patients,
            date=self.date,
            description=self.description,
            series=tuple(series),
            label_files=tuple(self.label_files),
        )


@dataclass
class _Builder:
    studies: dict[str, _Study] = field(default_factory=dict)
    passed_over: dict[Path, str] = field(default_factory=dict)

    def add(self, entry: _Entry) -> None:
        if entry.reason:
            self.passed_over[entry.path] = entry.reason
            return
        uid = entry.identity["StudyInstanceUID"]
        if uid not in self.studies:
            self.studies[uid] = _Study(
                uid=uid,
                date=entry.identity["StudyDate"],
                description=entry.tags["StudyDescription"],
            )
        self.studies[uid].add(entry)


def _as_number(text: str) -> int:
    return int(text) if text.isdigit() else -1
