"""Regions of structure sets and segmentations to the label of a case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.datasets.converters.dicom_rules import DicomRules
from veloxseg.errors import DatasetError, GeometryError
from veloxseg.volumes.dicom.files import show_path
from veloxseg.volumes.dicom.index import DicomSeries, DicomStudy, LabelFile
from veloxseg.volumes.dicom.rtstruct import Roi, read_structure_set, roi_mask
from veloxseg.volumes.dicom.segmentation import Segment, read_segmentation, segment_mask
from veloxseg.volumes.resampling import resample
from veloxseg.volumes.volume import Grid, Volume


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Where the label of a case is read from.

    Attributes:
        path: A structure set or a segmentation.
        kind: ``RTSTRUCT`` or ``SEG``.
        drawn_on: The channel that it refers to, or else the reference.
        channel: The channel whose grid it is put on: a structure set on that it was drawn on, whose
            slices its contours are parallel to, a segmentation on the reference at once.
        frame_of_reference_uid: Of the series of ``drawn_on``.
    """

    path: Path
    kind: str
    drawn_on: str
    channel: str
    frame_of_reference_uid: str


@dataclass(frozen=True, kw_only=True)
class _Regions:
    """What a file offers: its regions, each with its names and frame of reference."""

    items: Sequence[Roi | Segment]
    names: Sequence[tuple[str, ...]]
    frames: Sequence[str]
    series_uids: Sequence[str]

    def of(self, rules: DicomRules) -> dict[str, list[Roi | Segment]]:
        """Label name to the regions that match it."""
        return {
            label: [
                item
                for names, item in zip(self.names, self.items, strict=True)
                if rule.matches(*names)
            ]
            for label, rule in rules.labels.items()
        }


def find_label(
    study: DicomStudy,
    matched: Mapping[str, DicomSeries],
    rules: DicomRules,
    *,
    reference: str | None,
) -> LabelSource:
    """Choose the structure set or segmentation of a study that holds the wanted regions.

    Args:
        study: The study.
        matched: Channel name to its series.
        rules: Which files and which regions.
        reference: Channel whose grid images are put on; None if they share one.

    Raises:
        DatasetError: none or several files hold a wanted region, or one that is not optional is
            missing.
        GeometryError: a region refers to another frame of reference than its images.
        ImageReadError: a file is damaged.
    """
    candidates = [one for one in study.label_files if rules.label_files.matches(one.tags)]
    offers = [(one, _regions(one.path, one.kind)) for one in candidates]
    wanted = [(one, offer) for one, offer in offers if any(offer.of(rules).values())]
    if len(wanted) != 1:
        raise DatasetError(_describe_choice(rules, study.label_files, offers, wanted))
    file, offer = wanted[0]
    for label, regions in offer.of(rules).items():
        if not regions and not rules.labels[label].optional:
            raise DatasetError(
                f"label {label}: no region of {file} matches '{rules.labels[label].name}'. It has "
                f"{_names(offer)}. Correct the rule, or make the label optional."
            )
    by_uid = {series.uid: channel for channel, series in matched.items()}
    referred = [by_uid[uid] for uid in offer.series_uids if uid in by_uid]
    drawn_on = referred[0] if referred else reference or next(iter(matched))
    source = LabelSource(
        path=file.path,
        kind=file.kind,
        drawn_on=drawn_on,
        channel=(reference or drawn_on) if file.kind == "SEG" else drawn_on,
        frame_of_reference_uid=matched[drawn_on].frame_of_reference_uid,
    )
    chosen = [region for regions in offer.of(rules).values() for region in regions]
    for region, names, frame in zip(offer.items, offer.names, offer.frames, strict=True):
        if any(region is one for one in chosen):
            _require_frame(source, f"'{names[0]}'", frame)
    return source


def read_label(source: LabelSource, rules: DicomRules, grid: Grid) -> tuple[Volume, dict[str, Any]]:
    """Read the label of a case.

    Args:
        source: The file, as :func:`find_label` has chosen it.
        rules: Which regions make which label.
        grid: Grid of ``source.channel``.

    Returns:
        The uint8 label on ``grid``, a segmentation's by the nearest voxel; and what was done, for
        the record.

    Raises:
        GeometryError: a region lies in other planes or another frame of reference, or nothing of
            the regions lies on the grid.
        ImageReadError: the file is damaged.
    """
    regions = _regions(source.path, source.kind).of(rules)
    draw, own_grid = _drawer(source, grid)
    data = np.zeros(own_grid.size_zyx, dtype=np.uint8)
    notes: dict[str, Any] = {"from": source.kind, "regions": {}}
    for label, value in rules.label_values.items():
        here = regions[label]
        if here:
            data[draw(here)] = value
        notes["regions"][label] = [_describe_region(region) for region in here]
    drawn = Volume.on_grid(data, own_grid)
    moved = resample(drawn, grid, interpolation="nearest", fill=0)
    if not moved.data.any() and (drawn.data.any() or _has_contours(regions)):
        raise GeometryError(
            f"{show_path(source.path)}: nothing of the regions lies in the field of view of "
            f"{source.channel}, or all of them are smaller than a voxel there. Expected some "
            "foreground. Look whether they were drawn on these images."
        )
    if source.kind == "SEG":
        notes["volume_ml"] = [_foreground_ml(drawn), _foreground_ml(moved)]
    lost = [
        label
        for label, value in rules.label_values.items()
        if regions[label] and not (moved.data == value).any()
    ]
    if lost:
        notes["without_voxels"] = lost
    return moved, notes


def _has_contours(regions: Mapping[str, Sequence[Roi | Segment]]) -> bool:
    every = (one for some in regions.values() for one in some)
    return any(isinstance(one, Roi) and one.contours for one in every)


def _foreground_ml(label: Volume) -> float:
    voxel_ml = float(np.prod(label.spacing_zyx)) / 1000
    return round(int(np.count_nonzero(label.data)) * voxel_ml, 4)


def _drawer(
    source: LabelSource, grid: Grid
) -> tuple[Callable[[Sequence[Any]], npt.NDArray[np.bool_]], Grid]:
    """What turns regions to voxels, and the grid of these."""
    if source.kind == "SEG":
        segmentation = read_segmentation(source.path)

        def draw_segments(segments: Sequence[Segment]) -> npt.NDArray[np.bool_]:
            return segment_mask(segmentation, [one.number for one in segments])

        return draw_segments, segmentation.grid

    def draw_rois(rois: Sequence[Roi]) -> npt.NDArray[np.bool_]:
        inside = np.zeros(grid.size_zyx, dtype=np.bool_)
        for roi in rois:
            inside |= roi_mask(
                roi,
                grid,
                frame_of_reference_uid=source.frame_of_reference_uid,
                where=show_path(source.path),
            )
        return inside

    return draw_rois, grid


def _regions(path: Path, kind: str) -> _Regions:
    if kind == "SEG":
        segmentation = read_segmentation(path)
        return _Regions(
            items=segmentation.segments,
            names=[(one.name, one.meaning) for one in segmentation.segments],
            frames=[segmentation.frame_of_reference_uid] * len(segmentation.segments),
            series_uids=segmentation.series_uids,
        )
    structures = read_structure_set(path)
    return _Regions(
        items=structures.rois,
        names=[(one.name,) for one in structures.rois],
        frames=[one.frame_of_reference_uid for one in structures.rois],
        series_uids=structures.series_uids,
    )


def _require_frame(source: LabelSource, what: str, uid: str) -> None:
    if uid and source.frame_of_reference_uid and uid != source.frame_of_reference_uid:
        raise GeometryError(
            f"{show_path(source.path)}: {what} refers to frame of reference {uid}, "
            f"{source.drawn_on} has {source.frame_of_reference_uid}. Expected one: in another, "
            "positions mean other places. Take the one that was drawn on these images, or the "
            "images it was drawn on."
        )


def _describe_region(region: Roi | Segment) -> str:
    if isinstance(region, Segment):
        return f"{region.number}: {region.name}"
    others = f", {region.num_others} points or open lines left out" if region.num_others else ""
    return f"{region.name} ({len(region.contours)} contours{others})"


def _names(offer: _Regions) -> str:
    return ", ".join(f"'{' / '.join(filter(None, names))}'" for names in offer.names) or "none"


def _describe_choice(
    rules: DicomRules,
    label_files: Sequence[LabelFile],
    offers: Sequence[tuple[LabelFile, _Regions]],
    wanted: Sequence[tuple[LabelFile, _Regions]],
) -> str:
    patterns = ", ".join(f"{label} '{rule.name}'" for label, rule in rules.labels.items())
    if wanted:
        listed = "; ".join(f"{file} with {_names(offer)}" for file, offer in wanted)
        return (
            f"label: {len(wanted)} files hold regions for {patterns}: {listed}. Expected one. "
            "Narrow the rules: 'label_files' by a description, or a label's pattern."
        )
    if not label_files:
        return (
            f"label: no structure set or segmentation. Expected one with regions for {patterns}. "
            "Add it, or leave out 'labels' to convert test images."
        )
    listed = "; ".join(f"{file} with {_names(offer)}" for file, offer in offers) or "; ".join(
        f"{file} (left out by 'label_files')" for file in label_files
    )
    return (
        f"label: no region matches {patterns}. Found: {listed}. Expected one. Correct the patterns "
        "of 'labels', or 'label_files'."
    )
