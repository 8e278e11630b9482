r"""How well registration finds a known displacement of a real image.

    python benchmarks/registration.py SHARED/data/sts
    python benchmarks/registration.py SHARED/data/sts --moving PET_image --points PET_mask
    python benchmarks/registration.py SHARED/data/brats2013 --fixed T1c_subtrMeanDivStd \
        --moving Flair_subtrMeanDivStd --points brainmask

Every case's moving image is displaced rigidly by its header (no voxel is interpolated) and
registered; so is the image as distributed. Errors are means over the points of a mask.

`distributed` is how far registration moves the image from where it was distributed, `error` how far
the displaced image ends from there, and `recovered` how far the two registrations are from each
other with the displacement taken off: what is left of the known displacement, whether or not the
distributed position is the right one. In voxels, the worst of the moving image's own axes counts.
Prints a table in Markdown; seconds are of the processor.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from veloxseg.errors import GeometryError
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.registration import register
from veloxseg.volumes.registration_transform import AffineMap, move_header
from veloxseg.volumes.volume import Volume

TRANSLATION_MM = 10.0
ROTATION_DEGREES = 5.0


def random_rigid(seed: int, centre_xyz: np.ndarray) -> AffineMap:
    """A turn about a random axis through the centre, and a shift in a random direction."""
    rng = np.random.default_rng(seed)
    x, y, z = (axis := rng.normal(size=3)) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(ROTATION_DEGREES)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    shift = rng.normal(size=3)
    shift *= TRANSLATION_MM / np.linalg.norm(shift)
    return AffineMap.of(turn, centre_xyz + shift - turn @ centre_xyz)


def measure(folder: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One case's row."""
    fixed, image, mask = (
        read_volume(folder / f"{name}.nii.gz")
        for name in (options.fixed, options.moving, options.points)
    )
    points = mask.grid.positions_xyz(np.argwhere(mask.data > 0.5)[::20])
    centre_xyz = image.grid.positions_xyz((np.array(image.data.shape) - 1) / 2)
    known = random_rigid(seed, centre_xyz)
    row: dict[str, Any] = {"case": folder.name, "displaced": mean_mm(known(points) - points)}
    begin = time.process_time()
    try:
        plain = register(image, fixed)
        displaced = register(move_header(image, known.inverse()), fixed)
    except GeometryError as error:
        return row | {"refused": str(error)}
    # The place in the displaced image of what lies at `points` in the fixed one.
    left = known(plain.transform(points)) - displaced.transform(points)
    error = known(points) - displaced.transform(points)
    return row | {
        "seconds": (time.process_time() - begin) / 2,
        "distributed": mean_mm(plain.transform(points) - points),
        "error": mean_mm(error),
        "error_voxels": voxels(error, image, known),
        "recovered": mean_mm(left),
        "recovered_voxels": voxels(left, image, known),
        "metric": [displaced.metric_before, displaced.metric_after],
    }


def mean_mm(apart: np.ndarray) -> float:
    """Mean length of vectors (N, 3)."""
    return float(np.linalg.norm(apart, axis=1).mean())


def voxels(apart: np.ndarray, image: Volume, known: AffineMap) -> float:
    """Mean over points of the largest of the three components in the displaced image's voxels."""
    direction = known.array() @ image.grid.matrix()
    along = np.abs(apart @ direction) / np.array(image.spacing_zyx[::-1])
    return float(along.max(1).mean())


HEAD = (
    "case",
    "displaced mm",
    "distributed mm",
    "error mm",
    "error voxels",
    "recovered mm",
    "recovered voxels",
    "nats",
    "s",
)


def table_line(row: dict[str, Any]) -> str:
    """A case in Markdown."""
    cells = [row["case"], f"{row['displaced']:.1f}"]
    if "refused" in row:
        return f"| {' | '.join(cells)} | {row['refused']} |"
    names = ("distributed", "error", "error_voxels", "recovered", "recovered_voxels")
    cells += [f"{row[name]:.2f}" for name in names]
    cells += [" → ".join(f"{value:.3f}" for value in row["metric"]), f"{row['seconds']:.1f}"]
    return f"| {' | '.join(cells)} |"


def print_summary(rows: list[dict[str, Any]]) -> None:
    """How many are below a voxel; a refused one is not."""
    done = [row for row in rows if "refused" not in row]
    for what in ("error", "recovered"):
        below = sum(row[f"{what}_voxels"] < 1 for row in done)
        middle = np.median([row[what] for row in done]) if done else np.nan
        print(f"{what}: below a voxel in {below} of {len(rows)}, median {middle:.2f} mm")
    print(f"refused: {len(rows) - len(done)} of {len(rows)}")


def main() -> None:
    """Parse the command line, register, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fixed", default="CT_image")
    parser.add_argument("--moving", default="MR_T1_image")
    parser.add_argument("--points", default="MR_T1_mask")
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    rows = []
    for seed, folder in enumerate(sorted(options.folder.iterdir())):
        rows.append(measure(folder, options, seed))
        print(table_line(rows[-1]), flush=True)
    print()
    print_summary(rows)


if __name__ == "__main__":
    main()
