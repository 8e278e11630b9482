"""How fast a bundle is on this machine, and with how much memory: every engine and precision."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from veloxseg.bundle.format import Pipeline, Precision
from veloxseg.bundle.reading import Bundle, open_bundle
from veloxseg.errors import DatasetError, VeloxSegError
from veloxseg.installation import num_cores
from veloxseg.models.finding import resolve_model
from veloxseg.runtime.backends.backend import BackendName, Execution
from veloxseg.runtime.backends.opening import (
    installed_backends,
    require_supported,
    supported_precisions,
)
from veloxseg.runtime.benchmark_worker import job_words
from veloxseg.runtime.machine import describe_machine
from veloxseg.runtime.measuring_process import MeasurementError, run_measurement
from veloxseg.runtime.speed import Speed, candidates, remember_speeds
from veloxseg.volumes.reading import read_grid, write_volume
from veloxseg.volumes.volume import Volume

RANDOM_IMAGE = "random image"
"""What stands for the files of a case when none are given."""

_STAGES = ("read", "preprocess", "load", "network", "postprocess", "write")


@dataclass(frozen=True, kw_only=True)
class PatchRate:
    """What one way of computing reaches.

    Attributes:
        execution: The engine and how it was used.
        device: Where it computed, in words.
        num_runs: Runs of a batch that were timed.
        patches_per_second: Median over the runs.
        patches_per_second_min: Of the slowest run.
        patches_per_second_max: Of the fastest run.
        peak_memory_mb: Of the whole process, with Python; None where the system does not say.
        gflops: 10^9 operations a second that the median means, two for each multiply-add.
        matrix_product_gflops: What a large float32 matrix product reached on the same threads in
            the same process, the best of several before and after.
    """

    execution: Execution
    device: str
    num_runs: int
    patches_per_second: float
    patches_per_second_min: float
    patches_per_second_max: float
    peak_memory_mb: float | None
    gflops: float
    matrix_product_gflops: float

    @property
    def ratio_to_matrix_product(self) -> float:
        """Share of the matrix product's rate."""
        return self.gflops / self.matrix_product_gflops

    def to_json(self) -> dict[str, Any]:
        """All figures in one flat object."""
        row = {**asdict(self.execution), **asdict(self)}
        del row["execution"]
        return {**row, "ratio_to_matrix_product": self.ratio_to_matrix_product}


@dataclass(frozen=True, kw_only=True)
class CaseTime:
    """What a whole case takes in a process of its own, from files to a file.

    Attributes:
        execution: The engine and how it was used.
        images: The files; or ``RANDOM_IMAGE``.
        size_zyx: Voxels of the image.
        num_tiles: Patches that the network was run on.
        total_seconds: From the start of the process to its end.
        seconds: Of the stages, which are the total together: ``start`` (Python, its imports and
            the bundle), ``read``, ``preprocess``, ``load`` (the engine), ``network``,
            ``postprocess``, ``write``.
        peak_memory_mb: Of the whole process; None where the system does not say.
    """

    execution: Execution
    images: tuple[str, ...]
    size_zyx: tuple[int, int, int]
    num_tiles: int
    total_seconds: float
    seconds: dict[str, float]
    peak_memory_mb: float | None

    def to_json(self) -> dict[str, Any]:
        """All figures in one object."""
        row = {**asdict(self.execution), **asdict(self)}
        del row["execution"]
        return row


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What was measured of a bundle.

    Attributes:
        model: Its name.
        parameters: Of the network, one fold.
        multiply_adds: Of one patch, all folds.
        patch_size: Extent of the network's input.
        machine: See :func:`~veloxseg.runtime.machine.describe_machine`.
        rates: One for each engine, precision, number of threads and batch.
        case: A whole case, by the fastest of them in float32 if there is one.
    """

    model: str
    parameters: int
    multiply_adds: int
    patch_size: tuple[int, int, int]
    machine: dict[str, Any]
    rates: tuple[PatchRate, ...]
    case: CaseTime

    def to_json(self) -> dict[str, Any]:
        """Everything; ``patches_per_second`` is that of the fastest row in float32."""
        float32 = [r.patches_per_second for r in self.rates if r.execution.precision == "float32"]
        return {
            "model": self.model,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "patch_size": self.patch_size,
            "patches_per_second": max(float32, default=None),
            "machine": self.machine,
            "rows": [rate.to_json() for rate in self.rates],
            "case": self.case.to_json(),
        }


def benchmark(
    bundle: Path | str,
    *,
    backends: Sequence[BackendName] = (),
    precisions: Sequence[Precision] = (),
    threads: Sequence[int] = (),
    case: Sequence[Path] = (),
    seconds: float = 2.0,
    progress: Callable[[float, int], None] | None = None,
) -> Benchmark:
    """Measure a bundle, and remember the speeds for the choice of an engine.

    Every combination runs in a process of its own on seeded noise, warmed up.

    Args:
        bundle: The model's folder or zip, or its name in ``veloxseg models``.
        backends: Engines; none: all that are installed.
        precisions: Of the arithmetic; none: all that the bundle has.
        threads: Numbers of threads that there are to use, of which half may be measured, too; none:
            one, and one for each core.
        case: Files of a case, one for each channel; none: a random image of eight patches.
        seconds: Shortest time to run each combination for; ten runs are the fewest.
        progress: Called with the number of measurements done and that of all.

    Raises:
        BundleError: the bundle is not what its manifest says, or has not such a precision.
        DatasetError: a case has not one file for each channel.
        ImageReadError: a file is no image.
        VeloxSegError: an engine is not installed, or a measurement failed.
    """
    opened = open_bundle(resolve_model(bundle))
    _require_case(opened.pipeline, case)
    threads = threads or sorted({1, num_cores()})
    executions = _executions(opened, backends, precisions, threads)
    rates: list[PatchRate] = []
    for done, execution in enumerate(executions):
        if progress is not None:
            progress(done, len(executions) + 1)
        rates.append(_measure_patches(opened, execution, seconds=seconds))
    _remember(opened, rates, threads)
    if progress is not None:
        progress(len(executions), len(executions) + 1)
    fastest = max(
        rates, key=lambda r: (r.execution.precision == "float32", r.patches_per_second)
    ).execution
    with _images(opened.pipeline, case) as files:
        whole = _measure_case(opened, fastest, files, is_random=not case)
    if progress is not None:
        progress(len(executions) + 1, len(executions) + 1)
    return Benchmark(
        model=opened.manifest.name,
        parameters=opened.manifest.num_parameters,
        multiply_adds=opened.manifest.multiply_adds,
        patch_size=opened.pipeline.patch_size,
        machine=describe_machine(),
        rates=tuple(rates),
        case=whole,
    )


def _require_case(pipeline: Pipeline, case: Sequence[Path]) -> None:
    """Find out before minutes of measuring, not after them."""
    if case and len(case) != len(pipeline.channels):
        raise DatasetError(
            f"--case: {len(case)} image{'' if len(case) == 1 else 's'} given. The model needs "
            f"{len(pipeline.channels)}: {', '.join(pipeline.channels)}. Give one for each, in that "
            "order."
        )
    for file in case:
        read_grid(file)


def _executions(
    bundle: Bundle,
    backends: Sequence[BackendName],
    precisions: Sequence[Precision],
    threads: Sequence[int],
) -> list[Execution]:
    """All combinations that there are; one that was asked for by name must be among them."""
    names = backends or installed_backends()
    wanted = precisions or bundle.precisions
    able = {
        (name, precision)
        for name in names
        for precision in wanted
        if name in installed_backends() and precision in supported_precisions(bundle, name)
    }
    for name in backends:
        if not any(backend == name for backend, _ in able):
            require_supported(bundle, name, wanted[0])
    for precision in precisions:
        if not any(one == precision for _, one in able):
            require_supported(bundle, next(iter(names), "openvino"), precision)
    if not able:
        require_supported(bundle, "openvino", wanted[0])
    if any(number < 1 for number in threads):
        raise VeloxSegError(f"--threads is {min(threads)}. Expected 1 or more.")
    every = [
        execution
        for name in names
        for precision in wanted
        if (name, precision) in able
        for number in threads
        for execution in candidates(name, precision, number)
    ]
    return list(dict.fromkeys(every))  # half of eight threads are four


def _measure_patches(bundle: Bundle, execution: Execution, *, seconds: float) -> PatchRate:
    found = _run(execution, job_words(bundle.path, execution, seconds=seconds))
    rates = [execution.batch / one for one in found["seconds"]]
    rate = median(rates)
    return PatchRate(
        execution=execution,
        device=found["device"],
        num_runs=len(rates),
        patches_per_second=rate,
        patches_per_second_min=min(rates),
        patches_per_second_max=max(rates),
        peak_memory_mb=found["peak_memory_mb"],
        gflops=2 * bundle.manifest.multiply_adds * rate / 1e9,
        matrix_product_gflops=found["matrix_product_gflops"],
    )


def _measure_case(
    bundle: Bundle, execution: Execution, images: Sequence[Path], *, is_random: bool
) -> CaseTime:
    with TemporaryDirectory() as folder:
        words = job_words(bundle.path, execution, images=images, mask=Path(folder) / "mask.nii.gz")
        started = perf_counter()
        found = _run(execution, words)
        total = perf_counter() - started
    stages = {name: found["seconds"][name] for name in _STAGES}
    z, y, x = found["size_zyx"]
    return CaseTime(
        execution=execution,
        images=(RANDOM_IMAGE,) if is_random else tuple(map(str, images)),
        size_zyx=(z, y, x),
        num_tiles=found["num_tiles"],
        total_seconds=total,
        seconds={"start": total - sum(stages.values()), **stages},
        peak_memory_mb=found["peak_memory_mb"],
    )


def _run(execution: Execution, words: Sequence[str]) -> dict[str, Any]:
    try:
        return run_measurement(words, threads=execution.threads)
    except MeasurementError as error:
        raise VeloxSegError(
            f"Measuring {execution} ended with code {error.code}: {error.said} "
            "Leave it out: --backend, --precision and --threads choose what is measured."
        ) from error


def _remember(bundle: Bundle, rates: Sequence[PatchRate], threads: Sequence[int]) -> None:
    """Keep, for each number of threads, what :func:`choose_execution` would compare for it."""
    for precision in {rate.execution.precision for rate in rates}:
        for number in threads:
            speeds = [
                Speed(execution=rate.execution, seconds_per_patch=1 / rate.patches_per_second)
                for rate in rates
                if rate.execution in candidates(rate.execution.backend, precision, number)
            ]
            remember_speeds(bundle, speeds, precision=precision, threads=number)


@contextmanager
def _images(pipeline: Pipeline, case: Sequence[Path]) -> Iterator[list[Path]]:
    """The files of a case, or of a random one of eight patches, which are removed afterwards."""
    if case:
        yield list(case)
        return
    size, spacing = [1, 1, 1], [1.0, 1.0, 1.0]
    for axis, source in enumerate(pipeline.transpose):
        size[source], spacing[source] = 2 * pipeline.patch_size[axis], pipeline.spacing[axis]
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        files = []
        for channel in range(len(pipeline.channels)):
            noise = rng.standard_normal(math.prod(size), dtype=np.float32).reshape(size)
            volume = Volume(
                data=(100 * noise).astype(np.int16),
                spacing_zyx=(spacing[0], spacing[1], spacing[2]),
            )
            files.append(Path(folder) / f"random_{channel:04d}.nii.gz")
            write_volume(files[-1], volume)
        yield files
