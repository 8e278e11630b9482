"""DICOM Segmentations (SEG, PS3.3 A.51): named segments as frames of voxels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.dicom.files import interpreting, read_dataset, show_path
from veloxseg.volumes.dicom.slices import DicomSlice, functional_value, slices_of
from veloxseg.volumes.dicom.stacking import HOLE_GAPS, MOST_LAYERS, SAME_POSITION_MM
from veloxseg.volumes.volume import Grid

LARGEST_DRIFT_VOXELS = 0.05
"""How far a frame may be shifted in its plane against the others, in voxels."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a segmentation.

    Attributes:
        number: Segment Number (0062,0004).
        name: Segment Label (0062,0005).
        meaning: Code meaning of the Segmented Property Type (0062,000F).
    """

    number: int
    name: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a SEG file holds, on a grid of its own.

    Attributes:
        path: The file.
        segments: Its segments in the order of their numbers.
        series_uids: Series that it refers to (Referenced Series Sequence).
        frame_of_reference_uid: Frame of Reference UID (0020,0052), empty if absent.
        grid: From the first frame to the last; slices without a frame are empty.
    """

    path: Path
    segments: tuple[Segment, ...]
    series_uids: tuple[str, ...]
    frame_of_reference_uid: str
    grid: Grid


def read_segmentation(path: Path) -> Segmentation:
    """Read what a segmentation holds, but not its voxels.

    Raises:
        ImageReadError: the file is damaged or no segmentation.
        GeometryError: its frames make no stack.
    """
    with interpreting(path):
        return _segmentation(_open(path), path)


def segment_mask(segmentation: Segmentation, numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Find the voxels that belong to any of several segments.

    Binary segmentations and label maps as stored; fractional ones where the fraction is a half or
    more.

    Args:
        segmentation: The segmentation.
        numbers: Segment numbers.

    Returns:
        (Z, Y, X) booleans on the segmentation's own grid.

    Raises:
        ImageReadError: the pixels cannot be read.
    """
    with interpreting(segmentation.path):
        return _mask(_open(segmentation.path), segmentation, numbers)


def _segmentation(dataset: Any, path: Path) -> Segmentation:
    segments = [
        Segment(
            number=int(item.SegmentNumber),
            name=str(item.get("SegmentLabel") or "").strip(),
            meaning=_meaning(item),
        )
        for item in dataset.SegmentSequence
    ]
    series = [
        str(item.SeriesInstanceUID)
        for item in dataset.get("ReferencedSeriesSequence") or []
        if "SeriesInstanceUID" in item
    ]
    return Segmentation(
        path=path,
        segments=tuple(sorted(segments, key=lambda one: one.number)),
        series_uids=tuple(dict.fromkeys(series)),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID") or ""),
        grid=_grid(dataset, list(slices_of(dataset, path)), show_path(path)),
    )


def _mask(
    dataset: Any, segmentation: Segmentation, numbers: Sequence[int]
) -> npt.NDArray[np.bool_]:
    kind = str(dataset.get("SegmentationType"))
    slices = list(slices_of(dataset, segmentation.path))
    frames = np.asarray(dataset.pixel_array)
    frames = frames.reshape(len(slices), *segmentation.grid.size_zyx[1:])
    half = float(dataset.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    inside = np.zeros(segmentation.grid.size_zyx, dtype=np.bool_)
    for one, groups, frame in zip(
        slices, dataset.PerFrameFunctionalGroupsSequence, frames, strict=True
    ):
        plane = inside[_layer(segmentation.grid, one)]
        if kind == "LABELMAP":
            plane |= np.isin(frame, list(numbers))
        elif _number_of_frame(dataset, groups) in numbers:
            plane |= frame >= half
    return inside


def _open(path: Path) -> Any:
    dataset = read_dataset(path)
    needed = ("SegmentSequence", "PerFrameFunctionalGroupsSequence", "SegmentationType")
    missing = [keyword for keyword in needed if keyword not in dataset]
    if missing:
        raise ImageReadError(
            f"{show_path(path)}: no readable segmentation ({', '.join(missing)} missing). "
            "Expected a DICOM SEG. Export it again."
        )
    return dataset


def _meaning(item: Any) -> str:
    codes = item.get("SegmentedPropertyTypeCodeSequence") or []
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""


def _number_of_frame(dataset: Any, groups: Any) -> int:
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    return int(functional_value([groups, *shared], "ReferencedSegmentNumber"))


def _grid(dataset: Any, slices: Sequence[DicomSlice], where: str) -> Grid:
    """Equidistant layers of the frames' own distance, of which some may have no frame."""
    axes = slices[0].axes()
    places = np.array([one.position_xyz for one in slices]) @ axes.T
    drift = np.ptp(places[:, :2], axis=0) / slices[0].spacing_yx[::-1]
    turned = [one for one in slices if not np.allclose(one.axes(), axes, rtol=0, atol=1e-3)]
    if turned or drift.max() > LARGEST_DRIFT_VOXELS:
        raise GeometryError(
            f"{where}: the frames are turned or shifted against each other. Expected a stack of "
            "parallel frames. Export the segmentation on the slices of one series."
        )
    along_normal = np.unique(places[:, 2])
    step = _step(dataset, along_normal, where)
    depth = round(float(np.ptp(along_normal)) / step) + 1
    if depth > MOST_LAYERS:
        raise GeometryError(
            f"{where}: frames over {np.ptp(along_normal):.4g} mm, {step:.4g} mm apart. Expected "
            f"{MOST_LAYERS} layers at most. Export the segmentation again."
        )
    first = places[places[:, 2].argmin()]
    origin = first @ axes
    return Grid(
        size_zyx=(
            depth,
            slices[0].size_yx[0],
            slices[0].size_yx[1],
        ),
        spacing_zyx=(step, slices[0].spacing_yx[0], slices[0].spacing_yx[1]),
        origin_xyz=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(cosine) for cosine in axes.T.flat),
    )


def _step(dataset: Any, along_normal: npt.NDArray[np.float64], where: str) -> float:
    """Distance of the layers in mm: the frames' usual one, or the header's if that is finer.

    Frames of empty slices may be left out, so gaps are often multiples of it.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    groups = [dataset.PerFrameFunctionalGroupsSequence[0], *shared]
    told = functional_value(groups, "SpacingBetweenSlices")
    gaps = np.diff(along_normal)
    gaps = gaps[gaps > SAME_POSITION_MM]
    if gaps.size == 0:
        step = abs(float(told or functional_value(groups, "SliceThickness") or 0))
        if not (np.isfinite(step) and step > 0):
            raise GeometryError(
                f"{where}: one frame without Spacing Between Slices or Slice Thickness. Expected "
                "the distance of slices. Export the segmentation with it."
            )
        return step
    usual = float(np.median(gaps[gaps <= HOLE_GAPS * gaps.min()]))
    if told and abs(float(told)) < usual / HOLE_GAPS:
        usual = abs(float(told))
    extent = float(np.ptp(along_normal))
    return extent / max(1, round(extent / usual))


def _layer(grid: Grid, one: DicomSlice) -> int:
    normal = grid.matrix()[:, 2]
    offset = float((np.array(one.position_xyz) - grid.origin_xyz) @ normal)
    return min(max(round(offset / grid.spacing_zyx[0]), 0), grid.size_zyx[0] - 1)
