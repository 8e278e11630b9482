"""The voxels of one image: decompressed, and rescaled by its own slope and intercept."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import ImageReadError
from veloxseg.volumes.dicom.files import show_path
from veloxseg.volumes.dicom.slices import functional_value


def rescaled_planes(dataset: Any, path: Path) -> list[npt.NDArray[np.float32]]:
    """Decode all planes of one file and apply each one's own slope and intercept.

    The Modality LUT module (PS3.3 C.11.1): value = stored x Rescale Slope + Rescale Intercept; in
    multi-frame images the frame's Pixel Value Transformation macro.

    Args:
        dataset: The whole pydicom dataset.
        path: Its file, for messages.

    Returns:
        One (Y, X) float32 array a frame: HU for CT, the Units for PET.

    Raises:
        ImageReadError: the pixels are missing, cut short, in colour, or compressed in a way that
            cannot be decoded here.
    """
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise ImageReadError(
            f"{show_path(path)}: a colour image. Expected one value a voxel. "
            "Leave the series out by a rule."
        )
    if "ModalityLUTSequence" in dataset:
        raise ImageReadError(
            f"{show_path(path)}: values go through a lookup table (Modality LUT Sequence). "
            "Expected Rescale Slope and Intercept. Export the series again with them."
        )
    stored = _stored_values(dataset, path)
    frames = stored.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    groups = [[dataset]] if per_frame is None else [[one, *shared, dataset] for one in per_frame]
    if len(groups) != len(frames):
        raise ImageReadError(
            f"{show_path(path)}: {len(frames)} images, but functional groups of {len(groups)}. "
            "Expected one for each. Export the file again."
        )
    return [_rescale(frame, group, path) for frame, group in zip(frames, groups, strict=True)]


def _rescale(stored: npt.NDArray[Any], groups: list[Any], path: Path) -> npt.NDArray[np.float32]:
    try:
        found = (
            functional_value(groups, "RescaleSlope"),
            functional_value(groups, "RescaleIntercept"),
        )
        slope, intercept = (
            default if value is None else float(value)
            for value, default in zip(found, (1.0, 0.0), strict=True)
        )
    except (TypeError, ValueError) as error:
        raise ImageReadError(
            f"{show_path(path)}: Rescale Slope or Intercept is no number ({error}). "
            "Export the file again."
        ) from error
    if slope == 0 or not np.isfinite((slope, intercept)).all():
        raise ImageReadError(
            f"{show_path(path)}: Rescale Slope is {slope:g}, Intercept {intercept:g}. "
            "Expected finite numbers, the slope not 0. Export the file again."
        )
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _stored_values(dataset: Any, path: Path) -> npt.NDArray[Any]:
    if "PixelData" not in dataset:
        raise ImageReadError(
            f"{show_path(path)}: no pixel data. Expected an image of integers. "
            "Copy or export it again."
        )
    try:
        pixels: npt.NDArray[Any] = dataset.pixel_array
    except Exception as error:  # pydicom and its decoders raise many kinds
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is None or not syntax.is_compressed:
            raise _not_decoded(path, f"{error}", "Copy or export it again.") from error
        return _decode_by_itk(dataset, path)
    return pixels


def _decode_by_itk(dataset: Any, path: Path) -> npt.NDArray[Any]:
    """Decode by ITK's own codecs (JPEG lossless, JPEG-LS, JPEG 2000) what pydicom has none for.

    ITK would rescale some kinds of images and not others: it is given a copy without slopes.
    """
    from veloxseg.volumes.itk import last_line, sitk

    syntax = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="veloxseg-") as folder:
        copy = Path(folder) / "image.dcm"
        _without_slopes(dataset).save_as(copy, enforce_file_format=True)
        try:
            image = sitk.ReadImage(str(copy), imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise _not_decoded(
                path,
                f"transfer syntax {syntax.name}: {last_line(error)}",
                "Install a decoder (pip install python-gdcm, or pylibjpeg with its plugins), or "
                "export the series uncompressed.",
            ) from error
    pixels: npt.NDArray[Any] = sitk.GetArrayFromImage(image)
    return pixels


def _without_slopes(dataset: Any) -> Any:
    import pydicom

    # Only what describes the pixels: nothing else must trouble ITK, or lie in a temporary file.
    keep = (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelData",
    )
    copy = pydicom.Dataset()
    for keyword in keep:
        if keyword in dataset:
            copy[keyword] = dataset[keyword]
    copy.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture
    copy.SOPInstanceUID = dataset.SOPInstanceUID
    copy.file_meta = pydicom.dataset.FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    return copy


def _not_decoded(path: Path, reason: str, remedy: str) -> ImageReadError:
    return ImageReadError(
        f"{show_path(path)}: the pixels cannot be decoded ({reason}). Expected a whole image. "
        f"{remedy}"
    )
