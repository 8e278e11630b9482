"""How well registration finds a known displacement, on real images of soft-tissue sarcomas.

    python benchmarks/registration.py SHARED/data/sts [--cases 24] [--moving MR_T1 PET]

For every case the image is displaced rigidly by its header (no voxel is interpolated) and
registered to the CT; so is the image as distributed. Errors are means over points of the tumour's
mask.

`distributed` is how far registration moves the image from where it was distributed, `error` how far
the displaced image ends from there, `recovered` how far the two registrations are from each other
with the displacement taken off: the known transform's error, free of what the distributed position
itself may be off. In voxels, the worst axis of the moving image's own voxel counts. `skin` is the
share of the moving image's field of view on which the two images disagree about what is body, by a
threshold of each (CT -300 HU; MR by Otsu), before and after: a check that mutual information is no
part of. Prints a table in Markdown.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from veloxseg.errors import GeometryError
from veloxseg.volumes.itk import sitk
from veloxseg.volumes.reading import read_volume
from veloxseg.volumes.registration import register
from veloxseg.volumes.registration_transform import AffineMap, move_header, resample_through
from veloxseg.volumes.volume import Volume

TRANSLATION_MM = 10.0
ROTATION_DEGREES = 5.0
CT_SKIN_HU = -300.0


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


def measure(folder: Path, moving: str, seed: int) -> dict[str, Any]:
    """One case's row."""
    ct = read_volume(folder / "CT_image.nii.gz")
    image = read_volume(folder / f"{moving}_image.nii.gz")
    mask = read_volume(folder / f"{moving}_mask.nii.gz")
    points = mask.grid.positions_xyz(np.argwhere(mask.data > 0.5)[::20])
    centre_xyz = image.grid.positions_xyz((np.array(image.data.shape) - 1) / 2)
    known = random_rigid(seed, centre_xyz)
    row: dict[str, Any] = {
        "case": folder.name,
        "moving": moving,
        "displaced": mean_mm(known(points) - points),
    }
    begin = time.perf_counter()
    try:
        plain = register(image, ct)
        displaced = register(move_header(image, known.inverse()), ct)
    except GeometryError as error:
        return row | {"refused": str(error)}
    row["seconds"] = (time.perf_counter() - begin) / 2
    # A point of the body is `points` in the CT's space where the image as distributed puts it.
    moved = known(plain.transform(points)) - displaced.transform(points)
    error = known(points) - displaced.transform(points)
    row |= {
        "distributed": mean_mm(plain.transform(points) - points),
        "error": mean_mm(error),
        "recovered": mean_mm(moved),
        "error_voxels": voxels(error, image, known),
        "recovered_voxels": voxels(moved, image, known),
        "metric": [displaced.metric_before, displaced.metric_after],
    }
    if moving != "PET":
        row["skin"] = [
            skin(image, ct, AffineMap.identity()),
            skin(image, ct, plain.transform),
        ]
    return row


def mean_mm(apart: np.ndarray) -> float:
    """Mean length of vectors (N, 3)."""
    return float(np.linalg.norm(apart, axis=1).mean())


def voxels(apart: np.ndarray, image: Volume, known: AffineMap) -> float:
    """Mean over points of the largest of the three components in the displaced image's voxels."""
    direction = known.array() @ image.grid.matrix()
    along = np.abs(apart @ direction) / np.array(image.spacing_zyx[::-1])
    return float(along.max(1).mean())


def skin(image: Volume, ct: Volume, transform: AffineMap) -> float:
    """Share of the image's field of view that one image calls body and the other air."""
    looked_up = resample_through(
        ct, image.grid, transform=transform.inverse(), interpolation="linear", fill=-2000
    ).data
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.log1p(np.maximum(image.data, 0)).astype(np.float32)))
    body = np.log1p(np.maximum(image.data, 0)) > otsu.GetThreshold()
    inside = looked_up > -1500
    return float(((looked_up > CT_SKIN_HU) != body)[inside].mean())


def print_table(rows: list[dict[str, Any]]) -> None:
    """All rows, and how many are below a voxel."""
    print(
        "| case | displaced mm | distributed mm | error mm | recovered mm | recovered voxels "
        "| skin % | nats | s |\n|" + " --- |" * 9
    )
    for row in rows:
        if "refused" in row:
            print(f"| {row['case']} | {row['displaced']:.1f} | refused: {row['refused'][:70]} |")
            continue
        disagreement = " → ".join(f"{100 * share:.1f}" for share in row.get("skin", []))
        metric = " → ".join(f"{value:.3f}" for value in row["metric"])
        print(
            f"| {row['case']} | {row['displaced']:.1f} | {row['distributed']:.2f} "
            f"| {row['error']:.2f} | {row['recovered']:.2f} | {row['recovered_voxels']:.2f} "
            f"| {disagreement} | {metric} | {row['seconds']:.1f} |"
        )
    done = [row for row in rows if "refused" not in row]
    for what in ("recovered", "error"):
        below = sum(row[f"{what}_voxels"] < 1 for row in done)
        middle = np.median([row[what] for row in done])
        print(f"{what}: below a voxel in {below} of {len(rows)}, median {middle:.2f} mm")
    print(f"refused: {len(rows) - len(done)} of {len(rows)}")


def main() -> None:
    """Parse the command line, register, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--moving", nargs="+", default=["MR_T1", "PET"])
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for moving in options.moving:
        folders = sorted(options.folder.iterdir())[: options.cases]
        found = [measure(folder, moving, seed) for seed, folder in enumerate(folders)]
        print(f"\n{moving} to CT\n")
        print_table(found)
        rows += found
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
