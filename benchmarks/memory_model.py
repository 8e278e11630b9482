"""Peak memory of training steps of many networks, and the fit of the planner's memory model to it.

    python benchmarks/memory_model.py [--json FILE]      measure what FILE lacks, fit, print

All of it takes about eight minutes of one core. FILE is benchmarks/memory_model.json by default.

Each configuration runs in a process of its own on one thread: three steps of forward, objective,
backward, clipped AdamW on random data, float32. Its peak is the highest resident set of the whole
process (Linux's ru_maxrss), to 0.01 GB; two runs differ by up to 4 %. The baseline is the same
before the network is built, when PyTorch and nnU-Net are imported. Data loading is not part of it.

Every third configuration of the list, which was drawn up first, is held out. The two constants are
the non-negative least squares of the relative error on the others; what is printed last goes into
veloxseg/planning/memory.py.
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from veloxseg.network.config import Axes, NetworkConfig, divide
from veloxseg.planning.memory import GIB, HOLES, PROCESS_GB, MemoryTerms, memory_terms

STEPS = 3
HELD_OUT_EVERY = 3
LARGEST_BAR, MEDIAN_BAR = 0.15, 0.07


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training step to be measured."""

    network: NetworkConfig
    batch_size: int
    teachers: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial's process held, GB of 2³⁰ bytes."""

    trial: Trial
    peak_gb: float
    baseline_gb: float


def main() -> None:
    """Measure or read, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_here(trial_from(json.loads(options.measure)))))
        return
    measured = read(options.json) if options.json.is_file() else []
    known = [entry.trial for entry in measured]
    for trial in trials():
        if trial not in known:
            measured.append(measure(trial))
            write(measured, options.json)
    process_gb, holes = fit([entry for entry in measured if not is_held_out(entry.trial)])
    print_table(measured, process_gb=process_gb, holes=holes)
    print(f"In the module: PROCESS_GB {PROCESS_GB}, HOLES {HOLES}")
    print(f"Fitted now:    PROCESS_GB {process_gb}, HOLES {holes}")


# What is measured


def trials() -> list[Trial]:
    """The list, in its order."""
    plain = [
        # patch, stem, channels of each modality, classes, first width, batch, teachers
        ((16, 16, 16), (1, 1, 1), (1,), 2, 16, 2, True),
        ((16, 16, 16), (1, 1, 1), (1, 1), 3, 8, 4, False),
        ((16, 16, 16), (2, 2, 2), (1,), 2, 16, 4, True),
        ((24, 24, 24), (1, 1, 1), (2, 1), 5, 8, 2, True),
        ((32, 32, 32), (1, 1, 1), (1,), 2, 16, 1, True),
        ((32, 32, 32), (1, 1, 1), (1,), 2, 16, 2, False),
        ((32, 32, 32), (2, 2, 2), (1, 1), 3, 16, 2, True),
        ((32, 32, 32), (2, 2, 2), (4,), 4, 24, 4, True),
        ((40, 56, 40), (2, 2, 2), (1,), 3, 16, 2, True),
        ((40, 56, 40), (2, 2, 2), (1,), 3, 16, 2, False),
        ((40, 56, 40), (2, 2, 2), (1,), 3, 8, 4, True),
        ((40, 56, 40), (2, 2, 2), (1,), 3, 24, 2, True),
        ((40, 56, 40), (1, 1, 1), (1,), 3, 16, 2, True),
        ((40, 56, 40), (1, 1, 1), (1,), 3, 8, 2, False),
        ((48, 48, 48), (4, 4, 4), (1, 1), 2, 16, 4, True),
        ((48, 48, 48), (2, 2, 2), (1, 1, 1), 2, 16, 2, True),
        ((48, 48, 48), (2, 2, 2), (1,), 5, 24, 1, False),
        ((64, 64, 64), (4, 4, 4), (1, 1), 3, 16, 2, True),
        ((64, 64, 64), (2, 2, 2), (1,), 2, 16, 2, True),
        ((64, 64, 64), (2, 2, 2), (1, 1), 5, 8, 2, True),
        ((64, 64, 64), (4, 4, 4), (1, 1, 1), 5, 24, 2, True),
        ((64, 64, 64), (4, 4, 4), (1, 1, 1), 5, 24, 2, False),
        ((64, 64, 64), (1, 1, 1), (1,), 2, 8, 1, True),
        ((80, 80, 80), (4, 4, 4), (1, 1), 2, 16, 2, False),
        ((96, 96, 96), (4, 4, 4), (1, 1), 2, 16, 1, True),
        ((96, 96, 96), (4, 4, 4), (1, 1), 2, 16, 2, True),
        ((96, 96, 96), (4, 4, 4), (1, 1), 2, 16, 2, False),
        ((96, 96, 96), (4, 4, 4), (1, 1), 2, 16, 4, True),
        ((96, 96, 96), (4, 4, 4), (1,), 5, 24, 2, True),
        ((96, 96, 96), (4, 4, 4), (4,), 4, 8, 2, True),
        ((96, 96, 96), (2, 2, 2), (1,), 3, 16, 1, True),
        ((96, 96, 96), (2, 2, 2), (1, 1), 2, 8, 2, False),
        ((96, 96, 96), (4, 4, 4), (1, 1, 1), 3, 16, 2, True),
        ((128, 128, 128), (4, 4, 4), (1, 1), 2, 16, 1, True),
        ((128, 128, 128), (4, 4, 4), (1, 1), 2, 16, 2, False),
        ((128, 128, 128), (4, 4, 4), (1,), 3, 8, 2, True),
        ((128, 128, 128), (4, 4, 4), (4,), 4, 24, 1, True),
        ((160, 160, 160), (4, 4, 4), (1,), 2, 16, 1, True),
        ((160, 160, 160), (4, 4, 4), (1, 1), 2, 8, 1, False),
        ((48, 160, 128), (4, 4, 4), (1, 1), 2, 16, 2, True),
        ((48, 160, 128), (4, 4, 4), (1, 1), 2, 16, 2, False),
        ((48, 160, 128), (4, 4, 4), (1,), 4, 24, 1, True),
        ((48, 160, 128), (2, 4, 4), (1, 1), 3, 16, 1, True),
        ((16, 128, 128), (1, 4, 4), (1,), 2, 16, 2, True),
        ((16, 128, 128), (1, 2, 2), (1, 1), 3, 8, 1, False),
        ((24, 96, 96), (1, 2, 2), (1,), 2, 16, 1, True),
        ((12, 192, 192), (1, 4, 4), (1, 1), 5, 16, 2, True),
        ((32, 96, 64), (2, 2, 2), (2,), 3, 16, 2, True),
        ((96, 96, 96), (2, 2, 2), (1,), 3, 16, 4, True),
        ((160, 160, 160), (4, 4, 4), (1, 1), 3, 16, 2, True),
        ((128, 128, 128), (2, 2, 2), (1, 1), 2, 8, 1, True),
        ((16, 16, 16), (1, 1, 1), (1, 1), 2, 64, 1, True),
        ((32, 32, 32), (2, 2, 2), (1,), 2, 48, 2, True),
    ]
    listed = [
        Trial(
            network=make_network(patch, stem, channels, classes, width),
            batch_size=batch,
            teachers=teachers,
        )
        for patch, stem, channels, classes, width, batch, teachers in plain
    ]
    rates = ("attention_dropout", "projection_dropout", "conv_dropout")
    published: dict[str, Any] = dict.fromkeys(rates, 0.1)
    dropped = [
        make_network((96, 96, 96), (4, 4, 4), channels, classes, 16, **published)
        for channels, classes in (((1, 1), 2), ((4,), 4))
    ]
    deep = make_network(
        (48, 48, 48), (2, 2, 2), (1,), 3, 16, conv_depths=(2,) * 4, attention_depths=(2,) * 4
    )
    others = [Trial(network=n, batch_size=2, teachers=True) for n in (*dropped, deep)]
    return listed + others


def make_network(
    patch: Axes,
    stem: Axes,
    in_channels: tuple[int, ...],
    num_classes: int,
    width: int,
    **others: Any,
) -> NetworkConfig:
    """Four stages that halve what is even, with windows near the published ones."""
    grids, strides = [divide(patch, stem)], []
    for _ in range(3):
        z, y, x = (2 if extent % 2 == 0 and extent >= 4 else 1 for extent in grids[-1])
        strides.append((z, y, x))
        grids.append(divide(grids[-1], (z, y, x)))
    channels = tuple(width * 2**stage for stage in range(4))
    return NetworkConfig(
        patch_size=patch,
        stem_stride=stem,
        strides=tuple(strides),
        in_channels=in_channels,
        num_classes=num_classes,
        conv_channels=channels,
        attention_channels=channels,
        big_windows=tuple(
            window(grid, wanted) for grid, wanted in zip(grids, (3, 6, 3, 3), strict=True)
        ),
        **{"attention_dropout": 0.0, "projection_dropout": 0.0, "conv_dropout": 0.0, **others},
    )


def window(grid: Axes, wanted: int) -> Axes:
    """Per axis the grid divided by the power of two that comes nearest to what is wanted."""
    z, y, x = (
        min(
            (extent >> k for k in range(8) if extent % (1 << k) == 0),
            key=lambda choice: abs(math.log(choice / wanted)),
        )
        for extent in grid
    )
    return (z, y, x)


# Measuring


def measure(trial: Trial) -> Measured:
    """Measure a trial in a process of its own."""
    words = [sys.executable, __file__, "--measure", json.dumps(trial_to(trial))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    entry = Measured(trial=trial, **json.loads(printed.stdout.splitlines()[-1]))
    print(f"{name_of(trial):<60} {entry.peak_gb:6.2f} GB", flush=True)
    return entry


def measure_here(trial: Trial) -> dict[str, float]:
    """Train some steps and return this process's peak."""
    import torch

    from veloxseg.network import DistillationModel, VeloxSeg
    from veloxseg.training.objective import Objective

    baseline = resident_gb()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, batch = trial.network, trial.batch_size
    model = DistillationModel(VeloxSeg(network), teachers=trial.teachers).train()
    objective = Objective(in_channels=network.in_channels, num_heads=network.num_stages)
    optimizer = torch.optim.AdamW(model.parameters())
    image = torch.randn(batch, sum(network.in_channels), *network.patch_size)
    targets = [
        torch.randint(0, network.num_classes, (batch, 1, *grid)).float()
        for grid in (network.patch_size, *network.grids[1:])
    ]
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = objective(model(image), targets, image).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12)
        optimizer.step()
    return {"peak_gb": round(resident_gb(), 2), "baseline_gb": round(baseline, 2)}


def resident_gb() -> float:
    """Highest resident set of this process so far, GB of 2³⁰ bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


# Fitting


def is_held_out(trial: Trial) -> bool:
    """Whether the fit does not see this trial."""
    return trials().index(trial) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def fit(measured: list[Measured]) -> tuple[float, float]:
    """Process and holes: non-negative least squares of the relative error."""
    terms = [terms_of(entry.trial) for entry in measured]
    rows = np.array([(1.0, term.kept) for term in terms])
    peaks = np.array([entry.peak_gb for entry in measured])
    counted = np.array([term.counted for term in terms])
    (process_gb, holes), _ = nnls(rows / peaks[:, None], (peaks - counted) / peaks)
    return round(float(process_gb), 2), round(float(holes), 2)


def terms_of(trial: Trial) -> MemoryTerms:
    """The model's terms of a trial."""
    return memory_terms(trial.network, batch_size=trial.batch_size, teachers=trial.teachers)


def print_table(measured: list[Measured], *, process_gb: float, holes: float) -> None:
    """Measured beside predicted, and the errors on what was fitted and held out."""
    print(f"{'':<60} measured predicted   error   above baseline")
    errors: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for entry in measured:
        terms = terms_of(entry.trial)
        predicted = process_gb + terms.counted + holes * terms.kept
        error = predicted / entry.peak_gb - 1
        above = (predicted - entry.peak_gb) / (entry.peak_gb - entry.baseline_gb)
        held_out = is_held_out(entry.trial)
        errors[held_out].append((abs(error), abs(above)))
        print(
            f"{name_of(entry.trial):<60} {entry.peak_gb:8.2f} {predicted:9.2f} {error:+7.1%} "
            f"{above:+7.1%} {'held out' if held_out else ''}"
        )
    for held_out, pairs in errors.items():
        whole, above_baseline = zip(*pairs, strict=True)
        print(
            f"{'held out' if held_out else 'fitted'}, {len(pairs)}: "
            f"largest {max(whole):.1%}, median {np.median(whole):.1%}; "
            f"above the baseline: largest {max(above_baseline):.1%}, "
            f"median {np.median(above_baseline):.1%}"
        )
    print(f"expected of the held out: largest {LARGEST_BAR:.0%}, median {MEDIAN_BAR:.0%}")


# Files


def name_of(trial: Trial) -> str:
    """A trial in a line."""
    network = trial.network
    extents = ["x".join(map(str, axes)) for axes in (network.patch_size, network.stem_stride)]
    words = [f"{extents[0]}/{extents[1]}", f"in {'+'.join(map(str, network.in_channels))}"]
    words += [f"out {network.num_classes}", f"width {network.conv_channels[0]}"]
    words += [f"batch {trial.batch_size}"]
    words += ["dropout"] * (network.conv_dropout > 0)
    words += [f"depth {network.conv_depths[0]}"] * (network.conv_depths[0] > 1)
    words += [] if trial.teachers else ["no teachers"]
    return " ".join(words)


def trial_to(trial: Trial) -> dict[str, Any]:
    """A trial as JSON values, without what NetworkConfig has by default."""
    default = NetworkConfig(patch_size=(96, 96, 96), in_channels=(1,), num_classes=2).to_json()
    always = ("patch_size", "in_channels", "num_classes")
    network = {
        key: value
        for key, value in trial.network.to_json().items()
        if key in always or value != default[key]
    }
    return {"network": network, "batch_size": trial.batch_size, "teachers": trial.teachers}


def trial_from(entry: dict[str, Any]) -> Trial:
    """The inverse of ``trial_to``."""
    return Trial(**{**entry, "network": NetworkConfig(**entry["network"])})


def write(measured: list[Measured], path: Path) -> None:
    """What was measured, an entry a line."""
    import torch

    lines = []
    for entry in measured:
        figures = {"peak_gb": entry.peak_gb, "baseline_gb": entry.baseline_gb}
        line = {**trial_to(entry.trial), **figures, "held_out": is_held_out(entry.trial)}
        lines.append("  " + json.dumps(line))
    machine = {"machine": platform.machine(), "system": platform.system(), "threads": 1}
    head = json.dumps({**machine, "torch": torch.__version__, "steps": STEPS, "gb": "2^30 bytes"})
    text = ",\n".join(lines)
    path.write_text(f'{{"measured_on": {head},\n"steps": [\n{text}\n]}}\n', encoding="utf-8")


def read(path: Path) -> list[Measured]:
    """The inverse of ``write``."""
    entries = json.loads(path.read_text(encoding="utf-8"))["steps"]
    return [
        Measured(
            trial=trial_from({k: e[k] for k in ("network", "batch_size", "teachers")}),
            peak_gb=e["peak_gb"],
            baseline_gb=e["baseline_gb"],
        )
        for e in entries
    ]


if __name__ == "__main__":
    main()
