"""Several images at one position: copies may be dropped, different ones may not."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError
from veloxseg.volumes.dicom.files import read_dataset, read_header
from veloxseg.volumes.dicom.pixels import rescaled_planes
from veloxseg.volumes.dicom.slices import DicomSlice, functional_value
from veloxseg.volumes.dicom.stacking import Stack

_TELLING_TAGS = (
    "EchoTime",
    "ImageType",
    "FrameType",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "AcquisitionNumber",
    "FrameReferenceTime",
    "TriggerTime",
    "AcquisitionTime",
    "InstanceNumber",
)
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def require_identical(stack: Stack, *, where: str) -> None:
    """Compare the voxels of slices that share a position.

    Raises:
        GeometryError: two differ; the attributes in which they do are named.
        ImageReadError: one cannot be decoded.
    """
    for layer in stack.layers:
        first, *others = layer
        for other in others:
            if not np.array_equal(_plane(first), _plane(other)):
                raise GeometryError(
                    f"{where}: {first.where} and {other.where} lie at one position, but their "
                    f"voxels differ ({_differences(first, other)}). Expected one image a position. "
                    "Several time points, echoes or copies are in one series: keep one of them in "
                    "the folder, or export them as series of their own."
                )


def _plane(one: DicomSlice) -> npt.NDArray[np.float32]:
    return rescaled_planes(read_dataset(one.path), one.path)[one.frame or 0]


def _differences(a: DicomSlice, b: DicomSlice) -> str:
    texts = [_tell(one) for one in (a, b)]
    differing = [
        f"{keyword} {first or 'absent'} and {second or 'absent'}"
        for keyword, first, second in zip(_TELLING_TAGS, *texts, strict=True)
        if first != second
    ]
    return "; ".join(differing) or "no attribute tells them apart"


def _tell(one: DicomSlice) -> Sequence[str]:
    dataset = read_header(one.path, tags=(*_TELLING_TAGS, *_GROUPS))
    groups = [dataset]
    if one.frame is not None:
        shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        groups = [dataset.PerFrameFunctionalGroupsSequence[one.frame], *shared, dataset]
    values = (functional_value(groups, keyword) for keyword in _TELLING_TAGS)
    return ["" if value is None else str(value) for value in values]
