"""Whether memory grows over ten thousand tiles through one model.

    python benchmarks/leak.py -m BUNDLE [--backend openvino] [--tiles 10000] [--json FILE]

One case of two patches per axis (27 tiles at half overlap) is read from files, segmented and
dropped over and over, at least two hundred times; resident memory is noted after each. The medians
of the first and the last hundred cases must be within 5 MB. One patch of logits kept a case would
be 9 MB (16³ patches, two classes in float32, 270 cases between the medians); allocators and engines
were seen to gain up to 1 MB without any leak. The exit code is 1 if they are not. Linux only.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from veloxseg.runtime.model import Model, load
from veloxseg.volumes.reading import write_volume
from veloxseg.volumes.volume import Volume

TOLERANCE_MB = 5.0
WINDOW = 100


def main() -> int:
    """Parse the command line, run, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    model = load(options.model, backend=options.backend, threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = write_case(model, Path(folder))
        tiles, memory = run_cases(model, files, options.tiles)
    first, last = median(memory[:WINDOW]), median(memory[-WINDOW:])
    result = {
        "execution": str(model.choice.execution),
        "tiles": tiles,
        "cases": len(memory),
        "first_mb": first,
        "last_mb": last,
        "growth_mb": last - first,
        "largest_mb": max(memory),
        "tolerance_mb": TOLERANCE_MB,
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if abs(last - first) <= TOLERANCE_MB else 1


def write_case(model: Model, folder: Path) -> list[Path]:
    """Noise of two patches per axis at the model's spacing, a file for each channel."""
    pipeline = model.pipeline
    order = np.argsort(pipeline.transpose)
    shape = 2 * np.asarray(pipeline.patch_size)[order]
    z, y, x = np.asarray(pipeline.spacing)[order].tolist()
    files = []
    for channel in range(len(pipeline.channels)):
        noise = np.random.default_rng(channel).normal(0, 100, shape).astype(np.int16)
        files.append(folder / f"case_{channel:04d}.nii.gz")
        write_volume(files[-1], Volume(data=noise, spacing_zyx=(z, y, x)))
    return files


def run_cases(model: Model, files: list[Path], num_tiles: int) -> tuple[int, list[float]]:
    """Segment until enough tiles are run; the resident memory in MB after each case."""
    tiles, memory = 0, []
    while tiles < num_tiles or len(memory) < 2 * WINDOW:
        tiles += model.predict(files).num_tiles
        memory.append(resident_mb())
    return tiles, memory


def resident_mb() -> float:
    """Resident memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
