"""How time and memory of a whole case grow with its size, from 64³ to 512³ voxels.

    python benchmarks/volume_growth.py BUNDLE --sizes 64 128 256 512 --overlaps 0.5 0.25

Images are noise at the model's spacing, so that nothing is resampled and no tile is empty. Each
size runs in a process of its own; its peak memory includes Python and the images.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from veloxseg.runtime.model import load
from veloxseg.volumes.volume import Volume

_STAGES = ("preprocess", "load", "network", "postprocess")


def main() -> None:
    """Print one row for each size and overlap."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--overlaps", nargs="+", type=float, default=[0.5, 0.25])
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_measure(options.bundle, int(options.only[0]), float(options.only[1]))))
        return
    print("| voxels | overlap | tiles | preprocess, s | load, s | network, s | rest, s | peak GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size, overlap in itertools.product(options.sizes, options.overlaps):
        command = [sys.executable, __file__, str(options.bundle), "--only", str(size), str(overlap)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        seconds = " | ".join(f"{row[stage]:.2f}" for stage in _STAGES)
        print(
            f"| {size}³ | {overlap:g} | {row['tiles']} | {seconds} | {row['peak_gb']:.2f} |",
            flush=True,
        )


def _measure(bundle: Path, size: int, overlap: float) -> dict[str, float]:
    model = load(bundle, backend="openvino")
    generator = np.random.default_rng(0)
    spacing = [0.0, 0.0, 0.0]
    for axis, step in zip(model.pipeline.transpose, model.pipeline.spacing, strict=True):
        spacing[axis] = step
    images = [
        Volume(
            data=generator.standard_normal((size,) * 3, dtype=np.float32),
            spacing_zyx=(spacing[0], spacing[1], spacing[2]),
        )
        for _ in model.pipeline.channels
    ]
    found = model.predict(images, overlap=overlap)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {**found.timings, "tiles": found.num_tiles, "peak_gb": peak}


if __name__ == "__main__":
    main()
