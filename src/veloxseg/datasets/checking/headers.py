"""What the header of one file says of its place, before our reader straightens it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from veloxseg.datasets.problems import Problem
from veloxseg.errors import ImageReadError
from veloxseg.volumes.nifti import is_nifti, read_nifti_header
from veloxseg.volumes.reading import require_itk_header
from veloxseg.volumes.volume import ORTHONORMAL_TOLERANCE, Grid

FORMS_TOLERANCE_VOXELS = 0.5
"""How far apart, in voxels, qform and sform may put a corner.

The float32 quaternion of half a turn is off by up to 6e-4 rad, 0.3 voxels in 512.
"""

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
_MM_OF_UNIT = {1: 1e3, 3: 1e-3}  # metre and micron; all else is mm

_Matrix = npt.NDArray[np.float64]


def check_header(
    case: str, part: str, path: Path, grid: Grid, *, read_by_itk: bool
) -> Iterator[Problem]:
    """Say what is wrong with the header of a file that our reader opens.

    An error: ITK, by which nnU-Net reads, refuses it. Warnings: its axes are not perpendicular, its
    qform and sform contradict each other. All of it is mended by writing ``grid`` as the header.

    Args:
        case: The case's name.
        part: The channel's name or ``label``.
        path: The file.
        grid: Where our reader puts it.
        read_by_itk: Whether nnU-Net reads the dataset with ITK.
    """
    forms = _forms(path)
    departure = max((_departure(affine) for affine in forms.values()), default=0.0)
    refusal = _refusal(path) if read_by_itk else None
    sheared = departure > ORTHONORMAL_TOLERANCE
    if refusal is not None:
        yield Problem(
            case=case,
            severity="error",
            message=f"Case {case}, {part}: {refusal} Or mend it: veloxseg check --fix",
            kind="not_orthonormal" if sheared else "refused_by_itk",
            part=part,
            numbers={"departure": departure},
        )
    elif sheared:
        yield Problem(
            case=case,
            severity="warning",
            message=f"Case {case}, {part}: {path}: the axes in the header are not perpendicular, "
            f"by {departure:.2g}. Expected {ORTHONORMAL_TOLERANCE:g} or less; programs place such "
            "an image differently. Mend it: veloxseg check --fix",
            kind="not_orthonormal",
            part=part,
            numbers={"departure": departure},
        )
    for name, affine in forms.items():
        apart = _corners_apart_voxels(affine, grid)
        if _departure(affine) <= ORTHONORMAL_TOLERANCE and apart > FORMS_TOLERANCE_VOXELS:
            yield Problem(
                case=case,
                severity="warning",
                message=f"Case {case}, {part}: {path}: the header states the image's place more "
                f"than once, and its {name} puts a corner {apart:.3g} voxels from where ITK and "
                f"nnU-Net do. Expected {FORMS_TOLERANCE_VOXELS:g} or less; other programs show it "
                "there. Look which is right; veloxseg check --fix keeps ITK's.",
                kind="forms_disagree",
                part=part,
                numbers={"form": name, "corner_voxels": apart},
            )
            return


def has_place(path: Path) -> bool:
    """Whether the header says where the image lies: not so a NIfTI whose codes are both 0."""
    if not is_nifti(path):
        return True
    header = read_nifti_header(path)
    return int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0


def _refusal(path: Path) -> str | None:
    try:
        require_itk_header(path)
    except ImageReadError as error:
        return str(error)
    return None


def _forms(path: Path) -> dict[str, _Matrix]:
    """The affines (3, 4) that a NIfTI header states, voxel x, y, z to RAS mm, by form."""
    if not is_nifti(path):
        return {}
    header = read_nifti_header(path).copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 means 1, which nibabel refuses
    scale = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    forms = {}
    for name, read in (("qform", header.get_qform), ("sform", header.get_sform)):
        affine = _read_form(read)
        if affine is not None:
            forms[name] = affine[:3] * scale
    return forms


def _read_form(read: Any) -> _Matrix | None:
    try:
        affine, code = read(coded=True)
    except (ValueError, HeaderDataError):  # a quaternion longer than 1
        return None
    if affine is None or code <= 0 or not np.isfinite(affine).all():
        return None
    if not (np.linalg.norm(affine[:3, :3], axis=0) > 0).all():
        return None
    return np.asarray(affine, dtype=np.float64)


def _departure(affine: _Matrix) -> float:
    """Largest element of R^T R - I, R being the directions of the axes."""
    rotation = affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
    return float(np.abs(rotation.T @ rotation - np.eye(3)).max())


def _corners_apart_voxels(affine: _Matrix, grid: Grid) -> float:
    corners_zyx = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    corners_zyx = corners_zyx * (np.array(grid.size_zyx) - 1)
    places = (corners_zyx[:, ::-1] @ affine[:, :3].T + affine[:, 3]) @ _LPS_FROM_RAS
    apart = np.linalg.norm(places - grid.positions_xyz(corners_zyx), axis=1).max()
    return float(apart / min(grid.spacing_zyx))
