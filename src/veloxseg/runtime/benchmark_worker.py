"""One measurement in a process of its own, so that peaks and threads of engines do not mix.

    python -m veloxseg.runtime.benchmark_worker JOB

JOB is what :func:`job_words` makes; the last line of standard output is the result, JSON. PyTorch
is imported only to measure PyTorch.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from veloxseg.bundle.reading import open_bundle
from veloxseg.errors import VeloxSegError
from veloxseg.peak_memory import peak_memory_mb
from veloxseg.runtime.backends.backend import Backend, Execution
from veloxseg.runtime.backends.opening import open_backend
from veloxseg.runtime.model import Model
from veloxseg.runtime.speed import Choice, random_patches

MATRIX_SIZE = 2048
"""Rows and columns of the matrices of the reference product."""

_MATRIX_REPEATS = 3
_WARM_UP = 2
_MIN_RUNS, _MAX_SECONDS = 10, 60.0


def job_words(
    bundle: Path,
    execution: Execution,
    *,
    seconds: float = 0.0,
    images: Sequence[Path] = (),
    mask: Path | None = None,
) -> list[str]:
    """The command that measures patches, or a case if there are images.

    Args:
        bundle: The model.
        execution: How it is computed.
        seconds: Shortest time to run patches for.
        images: Files of a case.
        mask: Where its mask is written.
    """
    job = {
        "bundle": str(bundle),
        "execution": asdict(execution),
        "seconds": seconds,
        "images": [str(image) for image in images],
        "mask": str(mask),
    }
    return [sys.executable, "-m", "veloxseg.runtime.benchmark_worker", json.dumps(job)]


def measure_patches(bundle: Path, execution: Execution, *, seconds: float) -> dict[str, Any]:
    """Seconds of runs of a batch of noise, and the rate of a large matrix product around them.

    The peak of memory is taken before the matrices are made.
    """
    opened = open_bundle(bundle)
    engine = open_backend(opened, execution)
    patches = random_patches(opened, execution.batch)
    for _ in range(_WARM_UP):
        engine.run(patches)
    peak = peak_memory_mb()
    before = matrix_product_gflops()
    times = _time(engine, patches, seconds)
    return {
        "device": engine.device,
        "seconds": times,
        "peak_memory_mb": peak,
        "matrix_product_gflops": max(before, matrix_product_gflops()),
    }


def measure_case(
    bundle: Path, execution: Execution, *, images: Sequence[Path], mask: Path
) -> dict[str, Any]:
    """Seconds of the stages of a case, from files to a file."""
    model = Model(open_bundle(bundle), Choice(execution=execution, reason="measured"))
    found = model.predict(list(images))
    started = perf_counter()
    found.save(mask)
    return {
        "seconds": {**found.timings, "write": perf_counter() - started},
        "num_tiles": found.num_tiles,
        "size_zyx": found.grid.size_zyx,
        "peak_memory_mb": peak_memory_mb(),
    }


def matrix_product_gflops(size: int = MATRIX_SIZE) -> float:
    """Rate of a float32 matrix product by NumPy, the best of several after one to warm up."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    product = np.empty_like(a)
    times = []
    for _ in range(1 + _MATRIX_REPEATS):
        started = perf_counter()
        np.matmul(a, b, out=product)
        times.append(perf_counter() - started)
    return 2 * size**3 / min(times[1:]) / 1e9


def _time(engine: Backend, patches: np.ndarray[Any, Any], seconds: float) -> list[float]:
    engine.run(patches)  # once more: the product has filled the caches
    times: list[float] = []
    while len(times) < _MIN_RUNS or sum(times) < seconds:
        started = perf_counter()
        engine.run(patches)
        times.append(perf_counter() - started)
        if sum(times) > _MAX_SECONDS:
            break
    return times


def _main() -> None:
    job = json.loads(sys.argv[1])
    bundle, execution = Path(job["bundle"]), Execution(**job["execution"])
    try:
        if job["images"]:
            images = [Path(image) for image in job["images"]]
            result = measure_case(bundle, execution, images=images, mask=Path(job["mask"]))
        else:
            result = measure_patches(bundle, execution, seconds=job["seconds"])
    except (VeloxSegError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(result))


if __name__ == "__main__":
    _main()
