"""Made-up DICOM files: series of any geometry, structure sets, segmentations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "ENHANCED_MR": "1.2.840.10008.5.1.4.1.1.4.1",
}
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
PET_QUANTITIES = {
    "Units": "BQML",
    "DecayCorrection": "START",
    "CorrectedImage": ["ATTN", "DECY"],
    "PatientWeight": 70.0,
    "SeriesTime": "110000",
    "AcquisitionTime": "110000",
    "ActualFrameDuration": 120000,
}


def uid(*names: Any) -> str:
    """The same UID for the same names, another for others."""
    return generate_uid(entropy_srcs=[str(name) for name in names])


def oblique(*, seed: int) -> tuple[float, ...]:
    """A random right-handed pair of row and column directions."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return tuple(np.round(np.concatenate([turn[0], turn[1]]), 8))


def header(kind: str, path: Path, **changes: Any) -> FileDataset:
    """A dataset of one study; ``changes`` are attributes by keyword, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CLASSES.get(kind, kind)
    meta.MediaStorageSOPInstanceUID = uid("sop", path)
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    content = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientName": "Secret^Name",
        "PatientID": "P1",
        "StudyInstanceUID": uid("study"),
        "StudyDate": "20240229",
        "StudyTime": "103000",
        "FrameOfReferenceUID": uid("frame"),
        "Modality": kind.removeprefix("ENHANCED_") if kind in CLASSES else None,
        "SeriesInstanceUID": uid("series", kind),
        "SeriesDescription": kind,
        "SeriesDate": "20240229",
        "AcquisitionDate": "20240229",
    } | changes
    for keyword, value in content.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def put_pixels(dataset: Dataset, stored: np.ndarray) -> None:
    """Lay integers (Y, X) or (F, Y, X) into a dataset."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()


def positions(
    num_slices: int,
    *,
    origin: Sequence[float] = (-20.0, 30.0, 40.0),
    orientation: Sequence[float] = AXIAL,
    along_normal: Sequence[float] | None = None,
    step: float = 3.0,
) -> np.ndarray:
    """(N, 3) positions of the first voxel of each slice, along the normal of an orientation."""
    row, column = np.reshape(orientation, (2, 3))
    steps = np.arange(num_slices) * step if along_normal is None else np.asarray(along_normal)
    return np.asarray(origin) + steps[:, None] * np.cross(row, column)


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    kind: str = "CT",
    places: np.ndarray | None = None,
    orientation: Sequence[float] = AXIAL,
    spacing_yx: Sequence[float] = (1.5, 2.0),
    slopes: Sequence[float] | None = None,
    intercept: float = 0.0,
    injection: Mapping[str, Any] | None = None,
    per_slice: Mapping[int, Mapping[str, Any]] | None = None,
    names: Sequence[str] | None = None,
    **changes: Any,
) -> list[Path]:
    """Write (Z, Y, X) integers as single images, in an order that is not that of their names.

    Args:
        folder: Where the files go.
        stored: Values before slope and intercept.
        places: (Z, 3) position of each slice; None stacks them 3 mm apart.
        orientation: Direction cosines of rows and columns.
        spacing_yx: Pixel Spacing in mm.
        slopes: Rescale Slope of each slice; None is 1 for all.
        intercept: Rescale Intercept.
        injection: Radiopharmaceutical Information; with it, ``PET_QUANTITIES`` are added.
        per_slice: Attributes of single slices.
        names: Names of the files.
        changes: Attributes of all slices; None removes one.
    """
    if places is None:
        places = positions(len(stored), orientation=orientation)
    if injection is not None:
        changes = PET_QUANTITIES | changes
    order = np.random.default_rng(len(stored)).permutation(len(stored))
    paths = [
        folder / (f"IM{order[z]:04d}" if names is None else names[z]) for z in range(len(stored))
    ]
    for z, path in enumerate(paths):
        own = changes | dict((per_slice or {}).get(z, {}))
        dataset = header(
            kind,
            path,
            **{
                "ImagePositionPatient": [round(float(x), 8) for x in places[z]],
                "ImageOrientationPatient": [float(x) for x in orientation],
                "PixelSpacing": [float(x) for x in spacing_yx],
                "InstanceNumber": z + 1,
                "SliceThickness": 3.0,
                "RescaleSlope": 1.0 if slopes is None else float(slopes[z]),
                "RescaleIntercept": intercept,
            }
            | own,
        )
        if injection is not None:
            item = Dataset()
            for keyword, value in injection.items():
                setattr(item, keyword, value)
            dataset.RadiopharmaceuticalInformationSequence = DicomSequence([item])
        put_pixels(dataset, stored[z])
        save(dataset, path)
    return paths


def write_structures(
    path: Path,
    regions: Mapping[str, Sequence[np.ndarray]],
    *,
    frame_uid: str | None = None,
    series_uid: str | None = None,
    geometric_type: str = "CLOSED_PLANAR",
    **changes: Any,
) -> Path:
    """Write an RTSTRUCT: ROI name to its contours, each (N, 3) positions in mm."""
    changes = {"SeriesInstanceUID": uid("structures", path)} | changes
    dataset = header("RTSTRUCT", path, **changes)
    space = frame_uid or uid("frame")
    rois, contours = [], []
    for number, (name, polygons) in enumerate(regions.items(), start=1):
        roi = Dataset()
        roi.ROINumber = number
        roi.ReferencedFrameOfReferenceUID = space
        roi.ROIName = name
        rois.append(roi)
        contour = Dataset()
        contour.ReferencedROINumber = number
        contour.ContourSequence = DicomSequence([])
        for polygon in polygons:
            item = Dataset()
            item.ContourGeometricType = geometric_type
            item.NumberOfContourPoints = len(polygon)
            item.ContourData = [f"{x:.6f}" for x in np.ravel(polygon)]
            contour.ContourSequence.append(item)
        contours.append(contour)
    dataset.StructureSetROISequence = DicomSequence(rois)
    dataset.ROIContourSequence = DicomSequence(contours)
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid or uid("series", "CT")
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame.FrameOfReferenceUID = space
    frame.RTReferencedStudySequence = DicomSequence([study])
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([frame])
    return save(dataset, path)


def write_enhanced(
    path: Path,
    stored: np.ndarray,
    *,
    places: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    spacing_yx: Sequence[float] = (1.5, 2.0),
    slopes: Sequence[float],
    **changes: Any,
) -> Path:
    """Write (F, Y, X) integers as one enhanced multi-frame image."""
    dataset = header("ENHANCED_MR", path, NumberOfFrames=len(stored), **changes)
    measures, turned = Dataset(), Dataset()
    measures.PixelSpacing = [float(x) for x in spacing_yx]
    turned.ImageOrientationPatient = [float(x) for x in orientation]
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([turned])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence([])
    for place, slope in zip(places, slopes, strict=True):
        position, values, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(x), 8) for x in place]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, 0.0, "US"
        group.PlanePositionSequence = DicomSequence([position])
        group.PixelValueTransformationSequence = DicomSequence([values])
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    put_pixels(dataset, stored)
    return save(dataset, path)


def write_segmentation(
    path: Path,
    sources: Sequence[Path],
    masks: np.ndarray,
    names: Sequence[str],
    *,
    kind: str = "BINARY",
    omit_empty: bool = True,
    frame_uid: str | None = None,
) -> Path:
    """Write a DICOM SEG with highdicom: masks (Z, Y, X, segments) on the slices of ``sources``."""
    import highdicom
    from pydicom.sr.codedict import codes

    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    datasets = [pydicom.dcmread(source) for source in sources]
    for dataset in datasets:
        for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(dataset, keyword, "")
        if frame_uid is not None:
            dataset.FrameOfReferenceUID = frame_uid
    segmentation = highdicom.seg.Segmentation(
        source_images=datasets,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=uid("segmentation", path),
        series_number=9,
        sop_instance_uid=uid("segmentation instance", path),
        instance_number=1,
        manufacturer="made up",
        manufacturer_model_name="made up",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=omit_empty,
        series_description="segments",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path
