"""NIfTI files as nibabel reads them, where ITK would go wrong without a word.

ITK puts 0 for NaN and for whatever is missing in a file cut short, and refuses sheared headers.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from veloxseg.errors import ImageReadError
from veloxseg.volumes.volume import Grid

SHEAR_TOLERANCE_VOXELS = 0.5
"""How far a sheared header may put a corner from the nearest unsheared grid, in voxels.

Less is the rounding of whoever wrote the header; more would misplace the image.
"""

_READ_ERRORS = (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error)
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])


def is_nifti(path: Path) -> bool:
    """Whether a file calls itself NIfTI."""
    return path.name.endswith((".nii", ".nii.gz"))


def load_nifti_header(path: Path) -> Any:
    """Nibabel's image of a file, no voxel read.

    Raises:
        ImageReadError: the file is no NIfTI.
    """
    try:
        return nibabel.load(path)
    except _READ_ERRORS as error:
        raise _not_readable(path, error) from error


def load_whole_nifti(path: Path) -> Any:
    """Nibabel's image of a file, its voxels in memory.

    Raises:
        ImageReadError: the file is no NIfTI, cut short or damaged.
    """
    header = load_nifti_header(path)
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)  # verifies the checksum
    except _READ_ERRORS as error:
        raise _not_readable(path, error) from error
    num_bytes = math.prod(header.shape) * header.get_data_dtype().itemsize
    expected = int(header.dataobj.offset) + num_bytes
    if len(content) < expected:
        raise ImageReadError(
            f"{path}: cut short, {len(content)} bytes of {expected}. Copy or export it again."
        )
    return type(header).from_bytes(content)


def nifti_voxels(image: Any) -> npt.NDArray[Any]:
    """Voxels (..., Z, Y, X) as stored, or float32 if they have a slope or intercept, applied."""
    voxels = image.dataobj
    is_scaled = (voxels.slope, voxels.inter) != (1, 0)
    data = np.asarray(voxels, dtype=np.float32 if is_scaled else None)  # (X, Y, Z, ...)
    reversed_axes: npt.NDArray[Any] = data.T
    return reversed_axes


def nifti_axes(image: Any) -> tuple[tuple[int, ...], int]:
    """Shape, x first, and number of values a voxel: NIfTI keeps vectors on its fifth axis."""
    num_colours = len(image.get_data_dtype().fields or (0,))
    if len(image.shape) == 5:
        return image.shape[:4], num_colours * image.shape[4]
    return image.shape, num_colours


def nearest_grid(
    path: Path, affine_ras: npt.NDArray[np.float64], size_xyz: tuple[int, int, int]
) -> Grid:
    """Grid with perpendicular axes nearest to a NIfTI affine (4, 4), sharing its centre.

    Raises:
        ImageReadError: it is too far from perpendicular, or has a spacing of zero.
    """
    columns = _LPS_FROM_RAS @ affine_ras[:3, :3]
    spacing_xyz = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine_ras).all() or not (spacing_xyz > 0).all():
        raise ImageReadError(
            f"{path}: the header's affine is {affine_ras[:3].tolist()}, which is no grid. "
            "Expected three axes of positive spacing. Export the image again."
        )
    left, _, right = np.linalg.svd(columns / spacing_xyz)
    rotation = left @ right
    middle = (np.array(size_xyz) - 1) / 2
    centre = columns @ middle + _LPS_FROM_RAS @ affine_ras[:3, 3]
    origin_xyz = centre - rotation @ (spacing_xyz * middle)
    off_voxels = (np.abs(columns - rotation * spacing_xyz) @ middle).max() / spacing_xyz.min()
    if off_voxels > SHEAR_TOLERANCE_VOXELS:
        raise ImageReadError(
            f"{path}: the header's axes are not perpendicular; straightened, a corner would move "
            f"by {off_voxels:.2g} voxels. Expected {SHEAR_TOLERANCE_VOXELS} or less. "
            "Resample the image to a grid with perpendicular axes first."
        )
    return Grid(
        size_zyx=(size_xyz[2], size_xyz[1], size_xyz[0]),
        spacing_zyx=(float(spacing_xyz[2]), float(spacing_xyz[1]), float(spacing_xyz[0])),
        origin_xyz=(float(origin_xyz[0]), float(origin_xyz[1]), float(origin_xyz[2])),
        direction=tuple(float(cosine) for cosine in rotation.flat),
    )


def _not_readable(path: Path, error: BaseException) -> ImageReadError:
    return ImageReadError(
        f"{path}: no whole NIfTI image ({error}). Expected one, as its name says. "
        "Copy or export it again."
    )
