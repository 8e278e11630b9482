"""Time and memory of all metrics on a large case.

    python benchmarks/metrics.py [--size-zyx 400 512 512] [--seed 0] [--json FILE]

Makes masks of a whole body and measures each kind in a process of its own:

- lesions: 40 balls of 3 to 30 mm, some of them missed and some made up;
- organ: one organ that takes a tenth of the volume, and the lesions;
- body: all of the body, whose surface is the largest that anatomy has;
- speckle: the organ's prediction with one voxel in a hundred of the whole volume turned over, as
  a network's that was hardly trained.

Surfaces of predictions are noisy. Peak memory is that of the process, the two masks included.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from veloxseg.evaluation.measuring import METRICS, measure

SPACING_ZYX = (2.0, 0.9765625, 0.9765625)
KINDS = ("lesions", "organ", "body", "speckle")
_ROUGHNESS = 0.04
_NUM_LESIONS = 40

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one case cost.

    Attributes:
        kind: Of mask.
        size_zyx: Of the masks, in voxels.
        seconds: Wall clock.
        cpu_seconds: Of the processor, which other work does not lengthen as much.
        peak_gb: Largest resident memory, in 1e9 bytes.
        metrics: What was measured.
    """

    kind: str
    size_zyx: Sequence[int]
    seconds: float
    cpu_seconds: float
    peak_gb: float
    metrics: dict[str, float]


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-zyx", nargs=3, type=int, default=[400, 512, 512])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    costs = []
    print(f"| masks | s | CPU s | peak GB | {' | '.join(_SHOWN)} |")
    print("| --- |" + " ---: |" * (3 + len(_SHOWN)), flush=True)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            for work in (_make, _measure):
                with context.Pool(1) as pool:
                    cost = pool.apply(work, (kind, arguments.size_zyx, arguments.seed, folder))
        costs.append(cost)
        print(_row(cost), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")


_SHOWN = ("Dice", "HD95_mm", "ASSD_mm", "NSD", "lesions", "lesion_F1")


def _row(cost: Cost) -> str:
    values = [f"{cost.metrics[key]:.{METRICS[key].places}f}" for key in _SHOWN]
    figures = [f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", f"{cost.peak_gb:.2f}", *values]
    return f"| {cost.kind} | {' | '.join(figures)} |"


def _measure(kind: str, size_zyx: Sequence[int], seed: int, folder: str) -> Cost:
    prediction, reference = (
        np.load(Path(folder) / name) for name in ("prediction.npy", "reference.npy")
    )
    wall, cpu = time.perf_counter(), time.process_time()
    metrics = measure(prediction, reference, SPACING_ZYX)
    return Cost(
        kind=kind,
        size_zyx=size_zyx,
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        metrics=metrics,
    )


def _make(kind: str, size_zyx: Sequence[int], seed: int, folder: str) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = np.zeros(size_zyx, bool), np.zeros(size_zyx, bool)
    if kind == "body":
        _add_ellipsoid(reference, prediction, (0.5, 0.5, 0.5), (0.49, 0.32, 0.46), rng)
    if kind in ("organ", "speckle"):
        _add_ellipsoid(reference, prediction, (0.55, 0.5, 0.35), (0.25, 0.27, 0.33), rng)
    if kind != "body":
        _add_lesions(reference, prediction, rng)
    if kind == "speckle":
        prediction ^= rng.random(size_zyx, np.float32) < 0.01
    np.save(Path(folder) / "reference.npy", reference)
    np.save(Path(folder) / "prediction.npy", prediction)


def _add_lesions(reference: Mask, prediction: Mask, rng: np.random.Generator) -> None:
    nowhere = np.zeros((0, 0, 0), bool)
    for number in range(_NUM_LESIONS):
        radii_mm = rng.uniform(1.5, 15)
        radii = radii_mm / np.array(SPACING_ZYX) / reference.shape
        centre = rng.uniform((0.05, 0.25, 0.15), (0.95, 0.75, 0.85))
        missed, made_up = number % 8 == 6, number % 8 == 7
        _add_ellipsoid(
            nowhere if made_up else reference,
            nowhere if missed else prediction,
            centre,
            radii,
            rng,
        )


def _add_ellipsoid(
    reference: Mask,
    prediction: Mask,
    centre: Sequence[float],
    radii: Sequence[float],
    rng: np.random.Generator,
) -> None:
    """Add an ellipsoid to both masks, its surface rough in the prediction.

    Centre and radii are shares of the volume's size.
    """
    size = np.array(max(reference.shape, prediction.shape))
    middle, reach = np.array(centre) * size, np.array(radii) * size
    lows = np.maximum(0, middle - 1.3 * reach - 2).astype(int)
    highs = np.minimum(size, middle + 1.3 * reach + 3).astype(int)
    window = tuple(map(slice, lows, highs))
    away = sum(
        ((axis - middle[i]) / reach[i]).astype(np.float32) ** 2
        for i, axis in enumerate(np.ogrid[window])
    )
    if reference.size:
        reference[window] |= away <= 1
    if prediction.size:
        rough = rng.standard_normal(away.shape, np.float32)
        rough = ndimage.gaussian_filter(rough, 1.5, output=np.float32)
        rough *= _ROUGHNESS / rough.std()
        prediction[window] |= away + rough <= 1


if __name__ == "__main__":
    main()
