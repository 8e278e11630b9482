"""One network measured in a process of its own, so that peaks and threads do not mix.

    python -m veloxseg.runtime.peer_benchmark_worker JOB

JOB is what :func:`job_words` makes; the last line of standard output is the result, JSON.
"""

import json
import sys
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from veloxseg.errors import VeloxSegError
from veloxseg.network.config import Axes
from veloxseg.network.peers.registry import legal_extent
from veloxseg.peak_memory import peak_memory_mb

_MIN_RUNS, _MAX_SECONDS = 3, 60.0


def job_words(
    architecture: Mapping[str, Any],
    *,
    channels: int,
    classes: int,
    patch_size: Axes,
    threads: int,
    seconds: float,
) -> list[str]:
    """The command that measures a network.

    Args:
        architecture: As a plan describes it.
        channels: Of the input.
        classes: Outputs.
        patch_size: Extent of the input in voxels.
        threads: Threads to compute with.
        seconds: Shortest time to run it for.
    """
    job = {
        "architecture": dict(architecture),
        "channels": channels,
        "classes": classes,
        "patch_size": list(patch_size),
        "threads": threads,
        "seconds": seconds,
    }
    return [sys.executable, "-m", "veloxseg.runtime.peer_benchmark_worker", json.dumps(job)]


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, multiply-adds, seconds of runs and the peak of memory, before anything counts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    kwargs = job["architecture"]["arch_kwargs"]
    network = _build(job).eval()
    patch = torch.randn(1, job["channels"], *job["patch_size"])
    if "peer" not in kwargs:
        patch = patch.to(memory_format=torch.channels_last_3d)  # as the network's weights are
    times: list[float] = []
    with torch.inference_mode():
        logits = network(patch)
        if tuple(logits.shape) != (1, job["classes"], *job["patch_size"]):
            raise VeloxSegError(f"The network gave logits of {tuple(logits.shape)}.")
        while len(times) < _MIN_RUNS or sum(times) < job["seconds"]:
            started = perf_counter()
            network(patch)
            times.append(perf_counter() - started)
            if sum(times) > _MAX_SECONDS:
                break
        peak = peak_memory_mb()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patch)
    multiple = kwargs.get("multiple", (1, 1, 1))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds": int(counter.get_total_flops()) // 2,
        "input_size": legal_extent(job["patch_size"], multiple),
        "seconds": times,
        "peak_memory_mb": peak,
    }


def _build(job: Mapping[str, Any]) -> Any:
    from veloxseg.network.peers.plans import build_peer
    from veloxseg.network.plans import build_network

    kwargs = job["architecture"]["arch_kwargs"]
    build: Any = build_peer if "peer" in kwargs else build_network
    return build(job["channels"], job["classes"], **kwargs)


def _main() -> None:
    try:
        result = measure(json.loads(sys.argv[1]))
    except VeloxSegError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(json.dumps(result))


if __name__ == "__main__":
    _main()
