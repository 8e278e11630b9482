"""Structure sets (RTSTRUCT, PS3.3 A.19): named regions as contours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError
from veloxseg.volumes.dicom.contours import rasterise
from veloxseg.volumes.dicom.files import interpreting, read_dataset
from veloxseg.volumes.volume import Grid

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True, kw_only=True)
class Roi:
    """One region of a structure set.

    Attributes:
        name: ROI Name (3006,0026).
        frame_of_reference_uid: Referenced Frame of Reference UID (3006,0024), empty if absent.
        contours: (N, 3) LPS positions in mm of the corners of each closed planar contour
            (Contour Data (3006,0050)).
        num_others: Contours that enclose nothing: points and open lines.
    """

    name: str
    frame_of_reference_uid: str
    contours: tuple[npt.NDArray[np.float64], ...]
    num_others: int


@dataclass(frozen=True, kw_only=True)
class StructureSet:
    """What an RTSTRUCT file holds.

    Attributes:
        path: The file.
        rois: Its regions in their order.
        series_uids: Series that it refers to (RT Referenced Series Sequence).
    """

    path: Path
    rois: tuple[Roi, ...]
    series_uids: tuple[str, ...]


def read_structure_set(path: Path) -> StructureSet:
    """Read all regions of a structure set.

    Raises:
        ImageReadError: the file is damaged, no structure set, or a contour has not three numbers a
            point.
    """
    with interpreting(path):
        return _structure_set(read_dataset(path), path)


def roi_mask(
    roi: Roi, grid: Grid, *, frame_of_reference_uid: str, where: str
) -> npt.NDArray[np.bool_]:
    """Find the voxels of a grid within a region.

    Args:
        roi: The region.
        grid: Grid of the series that it is put on, whose slices its contours are parallel to.
        frame_of_reference_uid: That series' frame of reference; empty if its header has none.
        where: What to call the structure set in errors.

    Returns:
        (Z, Y, X) booleans, as :func:`veloxseg.volumes.dicom.contours.rasterise` finds them.

    Raises:
        GeometryError: the region refers to another frame of reference, or to other planes.
    """
    where = f"{where}: ROI '{roi.name}'"
    known = roi.frame_of_reference_uid and frame_of_reference_uid
    if known and roi.frame_of_reference_uid != frame_of_reference_uid:
        raise GeometryError(
            f"{where} refers to frame of reference {roi.frame_of_reference_uid}, the images have "
            f"{frame_of_reference_uid}. Expected one: in another, positions mean other places. "
            "Take the structure set that was drawn on these images, or the images it was drawn on."
        )
    return rasterise(roi.contours, grid, where=where)


def _structure_set(dataset: Any, path: Path) -> StructureSet:
    contours_by_number = {
        int(item.ReferencedROINumber): list(item.get("ContourSequence") or [])
        for item in dataset.get("ROIContourSequence") or []
    }
    rois = []
    for item in dataset.StructureSetROISequence:
        contours = contours_by_number.get(int(item.ROINumber), [])
        closed = [one for one in contours if one.ContourGeometricType in _CLOSED]
        rois.append(
            Roi(
                name=str(item.get("ROIName") or "").strip(),
                frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
                contours=tuple(
                    np.asarray(one.ContourData, dtype=np.float64).reshape(-1, 3) for one in closed
                ),
                num_others=len(contours) - len(closed),
            )
        )
    series = [
        str(series.SeriesInstanceUID)
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    ]
    return StructureSet(path=path, rois=tuple(rois), series_uids=tuple(dict.fromkeys(series)))
