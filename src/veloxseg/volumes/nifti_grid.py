"""Where a NIfTI header puts an image: ITK's reading of it, and headers for grids of ours.

NIfTI states the place up to twice, as a quaternion (qform) and as a matrix (sform), each with a
code that says what it means. ITK, by which nnU-Net reads, takes voxel sizes from ``pixdim`` always
and directions and origin from

1. neither, if both codes are 0: identity in LPS, origin 0;
2. the sform, if its axes are perpendicular and its code is 1 (scanner), or the qform's code is 0,
   or both forms say the same but for the signs of axes;
3. else the qform, if its code is not 0. Failing that, ITK refuses the file.

Of two forms that contradict each other in nothing but the sense of axes, ITK compares singular
vectors of equal values, so that rounding decides; here it is always the sform, as in nibabel.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from veloxseg.errors import GeometryError, ImageReadError
from veloxseg.volumes.volume import Grid

SHEAR_TOLERANCE_VOXELS = 0.5
"""How far a sheared header may put a corner from the nearest unsheared grid, in voxels.

Less is the rounding of whoever wrote the header; more would misplace the image.
"""

_ORTHONORMAL_TOLERANCE = 1e-4  # ITK's, of R R^T from the identity
_SIMILAR_TOLERANCE = 1e-4  # ITK's, of two matrices in mm
_SCANNER = 1
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
_MM_OF_UNIT = {1: 1e3, 3: 1e-3}  # metre and micron; all else is mm

_Matrix = npt.NDArray[np.float64]


def grid_of_nifti(path: Path, header: Any, size_xyz: tuple[int, int, int]) -> Grid:
    """Grid of a header, where ITK puts it; sheared axes are straightened.

    Args:
        path: The file, for messages.
        header: Nibabel's header, as stored.
        size_xyz: Number of voxels along x, y and z.

    Raises:
        ImageReadError: a spacing is not positive, a number not finite, or the axes too far from
            perpendicular.
    """
    spacing_xyz = np.float64(header["pixdim"][1:4])
    if not (np.isfinite(spacing_xyz) & (spacing_xyz > 0)).all():
        raise ImageReadError(
            f"{path}: the header's spacing is {spacing_xyz.tolist()} mm (x, y, z). "
            "Expected positive numbers. Correct the header, or export the image again."
        )
    affine, is_straight = _choose_affine(header, spacing_xyz)
    scale = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = affine * scale
    spacing_xyz = spacing_xyz * scale
    if not is_straight:
        return nearest_grid(path, affine, size_xyz)
    columns = _LPS_FROM_RAS @ affine[:, :3]
    try:
        return _grid(
            size_xyz,
            spacing_xyz,
            _LPS_FROM_RAS @ affine[:, 3],
            columns / np.linalg.norm(columns, axis=0),
        )
    except GeometryError as error:
        raise ImageReadError(f"{path}: {error}") from error


def nifti_geometry(grid: Grid) -> Any:
    """A header that puts an image on ``grid`` by sform and qform alike, as ITK writes it."""
    header = Nifti1Header()
    affine = np.eye(4)
    affine[:3, :3] = _LPS_FROM_RAS @ grid.matrix() * grid.spacing_zyx[::-1]
    affine[:3, 3] = _LPS_FROM_RAS @ grid.origin_xyz
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    header["pixdim"][1:4] = grid.spacing_zyx[::-1]
    header.set_xyzt_units("mm", "sec")
    return header


def nearest_grid(path: Path, affine_ras: _Matrix, size_xyz: tuple[int, int, int]) -> Grid:
    """Grid with perpendicular axes nearest to a NIfTI affine (3, 4), sharing its centre.

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
    return _grid(size_xyz, spacing_xyz, origin_xyz, rotation)


def _choose_affine(header: Any, spacing_xyz: _Matrix) -> tuple[_Matrix, bool]:
    """The affine (3, 4), in RAS and the header's unit, that ITK chooses; whether it is straight."""
    has_qform, has_sform = int(header["qform_code"]) > 0, int(header["sform_code"]) > 0
    if not has_qform and not has_sform:
        return np.hstack([_LPS_FROM_RAS, np.zeros((3, 1))]), True
    qform = _qform(header, spacing_xyz)
    if not has_sform:
        return qform, True
    sform = np.asarray([header[f"srow_{axis}"] for axis in "xyz"], dtype=np.float64)
    is_straight = _is_straight(sform)
    if not has_qform:
        return sform, is_straight
    is_scanner = int(header["sform_code"]) == _SCANNER
    if is_straight and (is_scanner or _same_lines(sform, qform)):
        return sform, True
    return qform, True


def _qform(header: Any, spacing_xyz: _Matrix) -> _Matrix:
    """The affine (3, 4) of the quaternion, by NIfTI's definition; not finite is 0, as for ITK."""
    b, c, d = (_finite(header[f"quatern_{axis}"]) for axis in "bcd")
    offset = [[_finite(header[f"qoffset_{axis}"])] for axis in "xyz"]
    a_squared = 1 - (b * b + c * c + d * d)
    if a_squared < 1e-7:  # half a turn, up to rounding
        a, length = 0.0, np.sqrt(b * b + c * c + d * d)
        b, c, d = b / length, c / length, d / length
    else:
        a = np.sqrt(a_squared)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sign_z = -1 if header["pixdim"][0] < 0 else 1
    return np.hstack([rotation * spacing_xyz * (1, 1, sign_z), offset])


def _finite(number: Any) -> float:
    return float(number) if np.isfinite(number) else 0.0


def _is_straight(affine: _Matrix) -> bool:
    lengths = np.linalg.norm(affine[:, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        return False
    rotation = affine[:, :3] / lengths
    products = np.stack([rotation @ rotation.T, rotation.T @ rotation])
    return bool(np.abs(products - np.eye(3)).max() <= _ORTHONORMAL_TOLERANCE)


def _same_lines(sform: _Matrix, qform: _Matrix) -> bool:
    """Whether origins agree and axes up to their sign, which ITK's singular vectors do not show."""
    signs = np.sign((sform[:, :3] * qform[:, :3]).sum(axis=0))
    apart = sform - qform * np.append(signs, 1)
    return bool(np.abs(apart).max() <= _SIMILAR_TOLERANCE)


def _grid(
    size_xyz: tuple[int, int, int], spacing_xyz: _Matrix, origin_xyz: _Matrix, direction: _Matrix
) -> Grid:
    width, height, depth = size_xyz
    sx, sy, sz = (float(step) for step in spacing_xyz)
    x, y, z = (float(place) + 0.0 for place in origin_xyz)  # no -0.0
    return Grid(
        size_zyx=(depth, height, width),
        spacing_zyx=(sz, sy, sx),
        origin_xyz=(x, y, z),
        direction=tuple(float(cosine) + 0.0 for cosine in direction.flat),
    )
