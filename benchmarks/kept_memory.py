"""A training step with freed memory kept by the process, and given back to the system as usual.

    python benchmarks/kept_memory.py DATASET_FOLDER [--network swinunetr] [--steps 4] [--rounds 3]

DATASET_FOLDER is a planned dataset in nnUNet_preprocessed. Forward, backward and an optimiser's
step on random patches, on one thread, in processes that take turns; CPU seconds hold the system's
time too.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veloxseg.atomic import read_json
from veloxseg.peak_memory import peak_memory_mb
from veloxseg.planning.files import CONFIGURATION
from veloxseg.planning.peer_plans import VELOXSEG, network_plans_name

WAYS = ("left", "kept")


def main() -> None:
    """Take turns and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--network", default=VELOXSEG)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, *sys.argv, "--way", way]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            said = subprocess.run(command, check=True, capture_output=True, env=environment)
            found[way].append(json.loads(said.stdout.splitlines()[-1]))
    print("| freed memory | CPU s a step | of them in the system | page faults a step | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, runs in found.items():
        seconds, system, faults, peak = (
            statistics.median(run[key] for run in runs)
            for key in ("cpu_seconds", "system_seconds", "page_faults", "peak_mb")
        )
        print(f"| {way} | {seconds:.2f} | {system:.2f} | {faults:,.0f} | {peak:.0f} |")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Steps of one process."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    from veloxseg.training.allocator import keep_freed_memory

    torch.set_num_threads(1)
    if options.way == "kept" and not keep_freed_memory():
        sys.exit("No glibc here: nothing to measure.")
    plans = read_json(options.dataset / f"{network_plans_name(options.network)}.json")
    description = read_json(options.dataset / "dataset.json")
    configuration = plans["configurations"][CONFIGURATION]
    architecture = configuration["architecture"]
    channels, classes = len(description["channel_names"]), len(description["labels"])
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        classes,
        deep_supervision=True,
    )
    patches = torch.randn(configuration["batch_size"], channels, *configuration["patch_size"])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(output.square().mean() for output in outputs(network(patches))).backward()
        optimizer.step()

    for _ in range(2):  # the heap and the optimiser's state settle
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(options.steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    return {
        "cpu_seconds": (after.ru_utime - before.ru_utime + system) / options.steps,
        "system_seconds": system / options.steps,
        "page_faults": (after.ru_minflt - before.ru_minflt) / options.steps,
        "peak_mb": peak_memory_mb(),
    }


def outputs(found: Any) -> Iterator[Any]:
    """All tensors that a network in training gives."""
    if isinstance(found, (list, tuple)):
        for one in found:
            yield from outputs(one)
    elif found is not None:
        yield found


if __name__ == "__main__":
    main()
