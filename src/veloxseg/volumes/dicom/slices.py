"""What places one slice in the patient: the header of a single image or of one frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.dicom.files import show_path

COSINE_TOLERANCE = 1e-3
"""How far the direction cosines of a header may be from unit length and from a right angle.

Headers round them to three digits and more; a wrong tag is wrong by much more.
"""

REPETITIONS: dict[str, tuple[str, ...]] = {
    "image_type": ("FrameType", "ImageType"),
    "echo_time": ("EffectiveEchoTime", "EchoTime"),
    "b_value": ("DiffusionBValue",),
    "time_point": ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    "frame_time": ("FrameReferenceTime",),
    "trigger_time": ("TriggerTime", "NominalCardiacTriggerDelayTime"),
    "acquisition": ("AcquisitionNumber", "FrameAcquisitionNumber"),
}
"""What may differ between images at one position: our name for it, and DICOM's keywords."""

SLICE_TAGS = (
    *(keyword for keywords in REPETITIONS.values() for keyword in keywords),
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""Keywords of all attributes that :func:`slices_of` reads."""

_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "CardiacSynchronizationSequence",
    "SegmentIdentificationSequence",
)


@dataclass(frozen=True, kw_only=True)
class DicomSlice:
    """One plane of voxels in the patient.

    Attributes:
        path: Its file.
        frame: Index from 0 of the frame in a multi-frame file; None for a single image.
        size_yx: Rows and columns.
        spacing_yx: Distance in mm of neighbouring rows and of neighbouring columns
            (Pixel Spacing, PS3.3 10.7.1.3).
        position_xyz: LPS position in mm of the centre of the first voxel
            (Image Position (Patient), PS3.3 C.7.6.2.1.1).
        orientation: LPS direction cosines of a row and of a column
            (Image Orientation (Patient)): six numbers as the header has them.
        differences: Value of each of ``REPETITIONS`` as text, empty where absent.
    """

    path: Path
    frame: int | None
    size_yx: tuple[int, int]
    spacing_yx: tuple[float, float]
    position_xyz: tuple[float, float, float]
    orientation: tuple[float, ...]
    differences: tuple[str, ...] = ("",) * len(REPETITIONS)

    @property
    def where(self) -> str:
        """What to call the slice in a message."""
        frame = "" if self.frame is None else f", frame {self.frame + 1}"
        return f"{show_path(self.path)}{frame}"

    def axes(self) -> npt.NDArray[np.float64]:
        """LPS unit vectors along a row, along a column and along the normal: rows of a 3x3 matrix.

        The normal is the cross product of the others, as ITK takes it.

        Raises:
            GeometryError: the header's cosines are not of unit length or not perpendicular, by more
                than ``COSINE_TOLERANCE``.
        """
        row, column = np.reshape(np.asarray(self.orientation, dtype=np.float64), (2, 3))
        lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
        slant = float(row @ column)
        off = max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(slant))
        if not off <= COSINE_TOLERANCE:
            cosines = ", ".join(f"{cosine:g}" for cosine in self.orientation)
            raise GeometryError(
                f"{self.where}: Image Orientation (Patient) is {cosines}: vectors of lengths "
                f"{lengths[0]:.4g} and {lengths[1]:.4g}, whose product is {slant:.4g}. Expected "
                "unit vectors at a right angle. Export the series again; its orientation is wrong."
            )
        row = row / lengths[0]
        column = column - (column @ row) * row
        column = column / np.linalg.norm(column)
        return np.stack([row, column, np.cross(row, column)]) + 0.0


def slices_of(dataset: Any, path: Path) -> Iterator[DicomSlice]:
    """Read the planes that a file holds from its header: one, or one a frame.

    Args:
        dataset: The pydicom dataset, read with ``SLICE_TAGS`` at least.
        path: Its file.

    Raises:
        ImageReadError: an attribute that places the slice is missing or no number.
    """
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise ImageReadError(
                f"{show_path(path)}: {dataset.NumberOfFrames} frames without a position of each. "
                "Expected single images, or an enhanced multi-frame image with its functional "
                "groups. Export it as one of these."
            )
        yield _slice(path, None, dataset, [dataset])
        return
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        yield _slice(path, index, dataset, [groups, *shared, dataset])


def functional_value(groups: Sequence[Any], keyword: str) -> Any:
    """Look an attribute up in a frame's functional groups (PS3.3 C.7.6.16), nearest group first.

    Returns:
        The first value found, in the datasets themselves or one sequence below; None if none has
        it.
    """
    for group in groups:
        value = group.get(keyword)
        if value is not None:
            return value
        for macro in _MACROS:
            items = group.get(macro)
            value = items[0].get(keyword) if items else None
            if value is not None:
                return value
    return None


def _slice(path: Path, frame: int | None, dataset: Any, groups: Sequence[Any]) -> DicomSlice:
    where = show_path(path) if frame is None else f"{show_path(path)}, frame {frame + 1}"
    position = _numbers(where, groups, "ImagePositionPatient", count=3)
    spacing = _numbers(where, groups, "PixelSpacing", count=2)
    if not (dataset.get("Rows") and dataset.get("Columns")):
        raise ImageReadError(f"{where}: Rows or Columns is missing. Expected an image.")
    return DicomSlice(
        path=path,
        frame=frame,
        size_yx=(int(dataset.Rows), int(dataset.Columns)),
        spacing_yx=(spacing[0], spacing[1]),
        position_xyz=(position[0], position[1], position[2]),
        orientation=_numbers(where, groups, "ImageOrientationPatient", count=6),
        differences=tuple(_text(groups, keywords) for keywords in REPETITIONS.values()),
    )


def _numbers(where: str, groups: Sequence[Any], keyword: str, *, count: int) -> tuple[float, ...]:
    try:
        value = functional_value(groups, keyword)
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ImageReadError(
            f"{where}: {keyword} is missing or has not {count} numbers. Expected an image placed "
            "in the patient. Leave the series out, or export it again from the original."
        )
    return numbers


def _text(groups: Sequence[Any], keywords: Sequence[str]) -> str:
    """The first attribute that is there; values of several parts joined by a backslash."""
    for keyword in keywords:
        try:
            value = functional_value(groups, keyword)
        except ValueError:  # no number, though it must be one
            continue
        if value is not None and not isinstance(value, str) and hasattr(value, "__iter__"):
            return "\\".join(str(part) for part in value)
        if value is not None:
            return str(value)
    return ""
