"""How fast engines are on this machine: measured once, remembered, and chosen by."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from veloxseg.atomic import read_json, write_json
from veloxseg.bundle.format import Precision
from veloxseg.bundle.reading import Bundle
from veloxseg.errors import VeloxSegError
from veloxseg.installation import module_version
from veloxseg.runtime.backends.backend import Backend, BackendName, Execution
from veloxseg.runtime.backends.opening import (
    installed_backends,
    open_backend,
    supported_precisions,
)
from veloxseg.runtime.machine import processor
from veloxseg.runtime.user_folder import cache_folder

STARTUP_SECONDS: dict[BackendName, float] = {
    "openvino": 0.45,
    "onnxruntime": 0.12,
    "torch": 4.0,
}
"""What an engine takes until its first patch: import and compilation, as measured once."""

_UNMEASURED_GFLOPS: dict[BackendName, float] = {
    "openvino": 50.0,
    "onnxruntime": 25.0,
    "torch": 20.0,
}
"""Assumed of each thread before anything is measured; only their ratio matters."""

WORTH_MEASURING_SECONDS = 30.0
"""Work from which on it pays to measure first, which takes some seconds."""

_WARM_UP, _REPEATS = 1, 3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What an execution was measured at.

    Attributes:
        execution: The engine and how it was used.
        seconds_per_patch: Median.
    """

    execution: Execution
    seconds_per_patch: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An execution and why it was taken."""

    execution: Execution
    reason: str


def choose_execution(
    bundle: Bundle,
    *,
    backend: BackendName | None,
    precision: Precision,
    threads: int,
    num_patches: int | None,
) -> Choice:
    """Choose how to compute.

    Args:
        bundle: The model.
        backend: The engine, if it is given; else the one with which this work is done first, by
            what was measured on this machine or, before that, by what is usual.
        precision: Of the arithmetic.
        threads: Threads to use at most.
        num_patches: How many patches are to come; None: many.

    Raises:
        VeloxSegError: no engine for that precision is installed.
    """
    names = [backend] if backend is not None else _automatic(bundle, precision)
    if backend is not None and backend not in installed_backends():
        open_backend(bundle, _usual(backend, precision, threads))  # says what to install
    known = [s for s in recall_speeds(bundle, precision, threads) if s.execution.backend in names]
    seconds = _usual_seconds(bundle, names, threads)
    missing = [name for name in names if name not in {s.execution.backend for s in known}]
    if missing:
        count = num_patches or 0
        if count * min(seconds.values()) > WORTH_MEASURING_SECONDS:
            known += measure_speeds(bundle, precision=precision, threads=threads, backends=missing)
        else:
            known = []  # measured and assumed seconds cannot be compared
    if known:
        count = 10**6 if num_patches is None else num_patches
        best = min(known, key=lambda s: _total(s.execution.backend, count, s.seconds_per_patch))
        others = {s.execution.backend for s in known} - {best.execution.backend}
        rate = f"{1 / best.seconds_per_patch:.3g} patches a second here"
        against = f", against {', '.join(sorted(others))}" if others else ""
        return Choice(execution=best.execution, reason=f"measured: {rate}{against}")
    count = 10**6 if num_patches is None else num_patches
    name = min(names, key=lambda n: _total(n, count, seconds[n]))
    reason = "as asked" if backend is not None else _reason(name, num_patches)
    return Choice(execution=_usual(name, precision, threads), reason=reason)


def measure_speeds(
    bundle: Bundle,
    *,
    precision: Precision,
    threads: int,
    backends: Sequence[BackendName] | None = None,
) -> list[Speed]:
    """Measure engines on patches of noise, seeded and warmed, and remember the figures."""
    speeds = []
    for name in backends or _automatic(bundle, precision):
        for execution in candidates(name, precision, threads):
            engine = open_backend(bundle, execution)
            times = time_patches(engine, bundle, execution.batch, repeats=_REPEATS)
            speeds.append(Speed(execution=execution, seconds_per_patch=median(times)))
            del engine
    remember_speeds(bundle, speeds, precision=precision, threads=threads)
    return speeds


def time_patches(engine: Backend, bundle: Bundle, batch: int, *, repeats: int) -> list[float]:
    """Seconds per patch of each of several runs, after a run to warm up."""
    patches = random_patches(bundle, batch)
    for _ in range(_WARM_UP):
        engine.run(patches)
    times = []
    for _ in range(repeats):
        started = perf_counter()
        engine.run(patches)
        times.append((perf_counter() - started) / batch)
    return times


def random_patches(bundle: Bundle, batch: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise (B, C, *patch_size), the same each time."""
    shape = (batch, len(bundle.pipeline.channels), *bundle.pipeline.patch_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def candidates(backend: BackendName, precision: Precision, threads: int) -> list[Execution]:
    """Ways to use an engine that are worth comparing: the usual one first.

    Half of many threads may be faster than all of them: two threads of one core share its units.
    """
    executions = []
    for used in (threads, threads // 2) if threads >= 4 else (threads,):
        batches = (used, 1) if backend == "openvino" and used > 1 else (1,)
        executions += [
            Execution(backend=backend, precision=precision, threads=used, batch=batch)
            for batch in batches
        ]
    return executions


def recall_speeds(bundle: Bundle, precision: Precision, threads: int) -> list[Speed]:
    """What was measured of a model on this machine with the engines as they are installed now."""
    try:
        entries = read_json(_file())[_key(bundle, precision, threads)]["speeds"]
        return [
            Speed(
                execution=Execution(**entry["execution"]),
                seconds_per_patch=float(entry["seconds_per_patch"]),
            )
            for entry in entries
            if entry["execution"]["backend"] in installed_backends()
        ]
    except (OSError, VeloxSegError, KeyError, TypeError, ValueError, AttributeError):
        return []  # nothing measured, or nothing legible: it can be measured again


def remember_speeds(
    bundle: Bundle, speeds: Sequence[Speed], *, precision: Precision, threads: int
) -> None:
    """Keep figures for the next process; where that is impossible they are not kept.

    Args:
        bundle: The model.
        speeds: The figures; they take the place of earlier ones of the same execution.
        precision: Of the arithmetic.
        threads: How many there were to choose from.
    """
    if not speeds:
        return
    new = {speed.execution: speed for speed in speeds}
    for old in recall_speeds(bundle, precision, threads):
        new.setdefault(old.execution, old)
    try:
        content = read_json(_file()) if _file().is_file() else {}
        content[_key(bundle, precision, threads)] = {
            "model": bundle.manifest.name,
            "speeds": [asdict(speed) for speed in new.values()],
        }
        write_json(_file(), content)
    except (OSError, VeloxSegError):
        return


def remembered_choices() -> dict[str, str]:
    """For each model measured here: the engine that ``auto`` takes for much work, and why."""
    choices: dict[str, str] = {}
    try:
        for entry in read_json(_file()).values():
            speeds = [
                (float(s["seconds_per_patch"]), Execution(**s["execution"]))
                for s in entry["speeds"]
            ]
            seconds, best = min(speeds, key=lambda speed: speed[0])
            others = [f"{e.backend} {1 / t:.3g}" for t, e in sorted(speeds, key=lambda s: s[0])[1:]]
            name = f"{entry['model']}, {best.precision}, {best.threads} threads"
            against = f"; against {', '.join(others)}" if others else ""
            choices[name] = (
                f"{best.backend}, batch {best.batch}: {1 / seconds:.3g} patches a second{against}"
            )
    except (OSError, VeloxSegError, KeyError, TypeError, ValueError, AttributeError):
        return choices
    return choices


def _file() -> Path:
    return cache_folder() / "speeds.json"


def _key(bundle: Bundle, precision: Precision, threads: int) -> str:
    engines = ",".join(f"{name} {module_version(name)}" for name in installed_backends())
    return f"{bundle.model_hash()[:16]} {precision} {threads} {processor()} {engines}"


def _automatic(bundle: Bundle, precision: Precision) -> list[BackendName]:
    # PyTorch takes seconds to import: only if there is no other, or by name.
    able = [
        name for name in installed_backends() if precision in supported_precisions(bundle, name)
    ]
    names: list[BackendName] = [name for name in able if name != "torch"]
    names = names or able
    if not names:
        raise VeloxSegError(
            f"{bundle.path}: no engine for {precision} is installed, or the bundle has no such "
            f"model (it has {', '.join(bundle.precisions)}). Install one: pip install openvino"
        )
    return names


def _usual(backend: BackendName, precision: Precision, threads: int) -> Execution:
    return candidates(backend, precision, threads)[0]


def _usual_seconds(
    bundle: Bundle, names: Sequence[BackendName], threads: int
) -> dict[BackendName, float]:
    flop = 2 * bundle.manifest.multiply_adds
    return {name: flop / (_UNMEASURED_GFLOPS[name] * 1e9 * threads) for name in names}


def _total(backend: BackendName, count: int, seconds_per_patch: float) -> float:
    return STARTUP_SECONDS[backend] + count * seconds_per_patch


def _reason(name: BackendName, num_patches: int | None) -> str:
    if num_patches is None:
        return "usually the fastest; not measured here yet"
    return f"usually done first with {num_patches} patches; not measured here yet"
