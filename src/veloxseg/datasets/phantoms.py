"""Generated PET/CT cases with lesions: data to try everything on, without patients.

A case is one made-up patient (see `veloxseg.datasets.phantom_anatomy`) imaged by two scanners, so
it has what real cases have: two grids that differ in spacing, field of view and direction, CT
noise, PET blur, healthy organs as hot as lesions, and lesions that CT alone hardly shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.datasets.phantom_anatomy import Scene, random_patient
from veloxseg.datasets.phantom_shapes import Array
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Grid, Volume

_CT_NOISE_HU = 15.0
_PET_FWHM_MM = 6.0
_PET_COUNTS_PER_SUV = 12.0
_LARGEST_TILT_DEGREES = 3.0
# Which way each array axis runs, fastest first, as letters of the side it runs towards.
_CT_ORIENTATIONS = {"LPS": 0.4, "RAS": 0.35, "LAS": 0.15, "LSA": 0.1}
_PET_ORIENTATIONS = {"LPS": 0.7, "RAS": 0.3}
_SIDES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


@dataclass(frozen=True, kw_only=True)
class PhantomCase:
    """One generated case.

    Attributes:
        ct: int16 (Z, Y, X) in Hounsfield units.
        pet: float32 (Z, Y, X) as standardised uptake value (SUV), on a grid of its own.
        lesions: uint8 (Z, Y, X), 1 in a lesion, on the grid of ``ct``.
    """

    ct: Volume
    pet: Volume
    lesions: Volume


def phantom(seed: int, index: int) -> PhantomCase:
    """Generate one case: the same for the same ``seed`` and ``index``, whatever else is generated.

    The CT has 76 x 60 x 46 voxels of 3.2 x 3.2 x 3.8 mm (left-right, front-back, feet-head), the
    PET 64 x 52 x 58 voxels of 4 x 4 x 3.3 mm. Both lie a few degrees askew and their arrays run
    along different axes from case to case.

    Raises:
        ValueError: ``seed`` or ``index`` is negative.
    """
    rng = np.random.default_rng([seed, index])
    patient = random_patient(rng)
    ct_grid = _random_grid(
        rng, size_lps=(76, 60, 46), spacing_lps=(3.2, 3.2, 3.8), orientations=_CT_ORIENTATIONS
    )
    pet_grid = _random_grid(
        rng, size_lps=(64, 52, 58), spacing_lps=(4.0, 4.0, 3.3), orientations=_PET_ORIENTATIONS
    )
    mask = patient.lesion_mask(_points_xyz(ct_grid)).reshape(ct_grid.size_zyx)
    return PhantomCase(
        ct=Volume.on_grid(_scan_ct(rng, patient, ct_grid), ct_grid),
        pet=Volume.on_grid(_scan_pet(rng, patient, pet_grid), pet_grid),
        lesions=Volume.on_grid(mask.astype(np.uint8), ct_grid),
    )


def generate_phantoms(
    destination: Path,
    *,
    num_cases: int,
    seed: int,
    num_test_cases: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write generated cases as a user's own folder of cases might look.

    ``destination/train`` holds the first ``num_cases`` cases and ``destination/test`` those that
    follow, each a folder ``phantom_000`` with ``CT.nii.gz``, ``PET.nii.gz`` and ``lesions.nii.gz``.
    Files of the same name are replaced.

    Args:
        destination: The folder to write to; created where missing.
        num_cases: Cases to train on, at least 1.
        seed: Chooses the patients.
        num_test_cases: Cases to test on.
        progress: Called after each case with the number written and the number wanted.

    Returns:
        ``destination``.

    Raises:
        ValueError: a number is out of range.
    """
    if num_cases < 1 or num_test_cases < 0:
        raise ValueError(
            f"{num_cases} training and {num_test_cases} test cases asked for; "
            "expected at least 1 and 0."
        )
    total = num_cases + num_test_cases
    for index in range(total):
        part = "train" if index < num_cases else "test"
        folder = destination / part / f"phantom_{index:03d}"
        case = phantom(seed, index)
        write_volume(folder / "CT.nii.gz", case.ct)
        write_volume(folder / "PET.nii.gz", case.pet)
        write_volume(folder / "lesions.nii.gz", case.lesions)
        if progress is not None:
            progress(index + 1, total)
    return destination


def _random_grid(
    rng: np.random.Generator,
    *,
    size_lps: tuple[int, int, int],
    spacing_lps: tuple[float, float, float],
    orientations: dict[str, float],
) -> Grid:
    """Place a grid about the middle of the body, a little off and a little askew."""
    orientation = str(rng.choice(list(orientations), p=list(orientations.values())))
    axes = [_SIDES[letter][0] for letter in orientation]
    straight = np.zeros((3, 3))
    for column, letter in enumerate(orientation):
        axis, sign = _SIDES[letter]
        straight[axis, column] = sign
    direction = _small_rotation(rng) @ straight
    size_xyz, spacing_xyz = np.asarray(size_lps)[axes], np.asarray(spacing_lps)[axes]
    half_extent_xyz = spacing_xyz * (size_xyz - 1) / 2
    origin_xyz = rng.uniform(-4, 4, 3) - direction @ half_extent_xyz
    x, y, z = axes
    return Grid(
        size_zyx=(size_lps[z], size_lps[y], size_lps[x]),
        spacing_zyx=(spacing_lps[z], spacing_lps[y], spacing_lps[x]),
        origin_xyz=(float(origin_xyz[0]), float(origin_xyz[1]), float(origin_xyz[2])),
        direction=tuple(float(cosine) for cosine in direction.flat),
    )


def _points_xyz(grid: Grid) -> Array:
    """Positions (3, Z*Y*X) of the voxels in LPS mm."""
    index_zyx = np.indices(grid.size_zyx).reshape(3, -1).T
    return np.ascontiguousarray(grid.positions_xyz(index_zyx).T, np.float32)


def _small_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotate about a random axis (Rodrigues' formula)."""
    x, y, z = (axis := rng.normal(size=3)) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(rng.uniform(0, _LARGEST_TILT_DEGREES))
    rotation: NDArray[np.float64] = (
        np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    )
    return rotation


def _scan_ct(rng: np.random.Generator, patient: Scene, grid: Grid) -> NDArray[np.int16]:
    exact = patient.hu(_points_xyz(grid), edge_mm=min(grid.spacing_zyx))
    noise = ndimage.gaussian_filter(rng.normal(size=grid.size_zyx), 0.6)
    image = exact.reshape(grid.size_zyx) + noise * (_CT_NOISE_HU / noise.std())
    scan: NDArray[np.int16] = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return scan


def _scan_pet(rng: np.random.Generator, patient: Scene, grid: Grid) -> Array:
    activity = patient.suv(_points_xyz(grid), edge_mm=min(grid.spacing_zyx))
    # Half of the blur's variance comes after the noise, which is therefore correlated.
    sigma = _PET_FWHM_MM / np.sqrt(8 * np.log(2)) / np.sqrt(2) / np.asarray(grid.spacing_zyx)
    expected = ndimage.gaussian_filter(activity.reshape(grid.size_zyx), sigma)
    counts = rng.poisson(np.maximum(expected, 0) * _PET_COUNTS_PER_SUV)
    scan: Array = ndimage.gaussian_filter(counts / _PET_COUNTS_PER_SUV, sigma).astype(np.float32)
    return scan
