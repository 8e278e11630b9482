"""Several images at one position: copies may be dropped, different ones may not."""

import numpy as np
import numpy.typing as npt

from veloxseg.errors import GeometryError
from veloxseg.volumes.dicom.files import interpreting, read_dataset
from veloxseg.volumes.dicom.pixels import rescaled_planes
from veloxseg.volumes.dicom.slices import REPETITIONS, DicomSlice
from veloxseg.volumes.dicom.stacking import Stack


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
                    "Keep one of them in the folder, or export them as series of their own."
                )


def _plane(one: DicomSlice) -> npt.NDArray[np.float32]:
    with interpreting(one.path):
        return rescaled_planes(read_dataset(one.path), one.path)[one.frame or 0]


def _differences(a: DicomSlice, b: DicomSlice) -> str:
    differing = [
        f"{name} {first or 'absent'} and {second or 'absent'}"
        for name, first, second in zip(REPETITIONS, a.differences, b.differences, strict=True)
        if first != second
    ]
    return "; ".join(differing) or "no attribute tells them apart"
