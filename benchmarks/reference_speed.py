"""How fast the reference network is, beside the rate of large matrix products.

    python benchmarks/reference_speed.py [--threads 1] [--rounds 10] [--json FILE]

The PET/CT network at 96³ (two modalities, two classes, 1.75 G multiply-adds) with seeded random
weights. All variants and float32 matrix products (2048 and 4096, by PyTorch and by NumPy) take
turns in one process on pinned cores, so that whatever else the machine does hits all alike. The
reference of a round is its fastest product; ratios and scaled rates are taken round by round, and
their medians reported. The exit code is 1 if a bar is missed:

- float32 as the runtime computes it: 0.70 of the matrix product;
- bf16 or int8: 37.35 patches/s on a core of 93 GFLOP/s, 4.5 times the published code's 8.3 there.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

WARM_UP = 3
REPEATS = 5
MATRIX_SIZES = (2048, 4096)
MATRIX_REPEATS = {2048: 3, 4096: 1}
GFLOP_PER_PATCH = 3.5
MACHINE_GFLOPS = 93.0
FLOAT32_BAR = 0.70
REDUCED_BAR = 4.5 * 8.3
RUNTIME, REDUCED = "openvino float32, as the runtime", ("bf16", "int8")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")

Run = Callable[[], Any]


def pin(threads: int) -> list[int]:
    """Keep this process to the last cores it may use, and every library to as many threads."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    os.sched_setaffinity(0, cores)
    return cores


def processor_flags() -> list[str]:
    """Those instruction sets of this processor that matter here, as Linux names them."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return [flag for flag in FLAGS if flag in words]


def make_variants(threads: int, *, with_bf16: bool) -> dict[str, Run]:
    """One call of each variant, which computes ``threads`` patches if it can side by side."""
    import numpy as np
    import torch

    from veloxseg.bundle.graph import network_graph
    from veloxseg.bundle.quantise import quantise
    from veloxseg.network.config import NetworkConfig
    from veloxseg.network.inference import ArrayNetwork
    from veloxseg.network.veloxseg import VeloxSeg
    from veloxseg.runtime.backends.onnxruntime_backend import ONNXRuntimeBackend
    from veloxseg.runtime.backends.openvino_backend import OpenVINOBackend

    torch.manual_seed(0)
    config = NetworkConfig(patch_size=(96, 96, 96), in_channels=(1, 1), num_classes=2)
    state = VeloxSeg(config).eval().state_dict()
    weights = {name: value.contiguous().numpy() for name, value in state.items()}
    graph = network_graph(config, [weights])
    whole = graph.SerializeToString()
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((threads, 2, 96, 96, 96), dtype=np.float32)
    calibration = list(rng.standard_normal((2, 2, 96, 96, 96), dtype=np.float32))
    relative = network_graph(config, [weights], relative=True)
    int8 = quantise(relative, calibration).SerializeToString()

    def openvino(model: bytes, precision: Any, *, relative: bool = True) -> Run:
        backend = OpenVINOBackend(
            model, precision=precision, threads=threads, batch=threads, relative=relative
        )
        return lambda: backend.run(patches)

    eager = ArrayNetwork(config, [weights], threads=threads, device="cpu")
    session = ONNXRuntimeBackend(whole, threads=threads, device="cpu")
    variants = {
        "pytorch float32, eager": lambda: eager.run(patches),
        "onnxruntime float32": lambda: session.run(patches),
        "openvino float32, all logits": openvino(whole, "float32", relative=False),
        RUNTIME: openvino(whole, "float32"),
    }
    if with_bf16:
        variants["openvino bf16"] = openvino(whole, "bf16")
    variants["openvino int8, the rest bf16 where the processor has it"] = openvino(int8, "int8")
    return variants


def make_products() -> dict[str, tuple[Run, int]]:
    """Float32 matrix products, each with how often it is run in a round."""
    import numpy as np
    import torch

    products: dict[str, tuple[Run, int]] = {}
    for size in MATRIX_SIZES:
        a, b = (np.random.default_rng(seed).standard_normal((size, size), "f4") for seed in (0, 1))
        c = np.empty_like(a)
        x, y, z = (torch.from_numpy(matrix.copy()) for matrix in (a, b, c))
        repeats = MATRIX_REPEATS[size]
        products[f"numpy {size}"] = (lambda a=a, b=b, c=c: np.matmul(a, b, out=c), repeats)
        products[f"torch {size}"] = (lambda x=x, y=y, z=z: torch.mm(x, y, out=z), repeats)
    return products


def seconds_of(run: Run, repeats: int) -> list[float]:
    """Seconds of each of several calls."""
    times = []
    for _ in range(repeats):
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return times


def measure(threads: int, rounds: int, *, with_bf16: bool) -> dict[str, Any]:
    """Time all variants and products in rounds."""
    variants, products = make_variants(threads, with_bf16=with_bf16), make_products()
    for run in (*variants.values(), *(run for run, _ in products.values())):
        seconds_of(run, WARM_UP)
    times: dict[str, list[list[float]]] = {name: [] for name in variants}
    rates: dict[str, list[float]] = {name: [] for name in products}
    for number in range(rounds):
        for name, (run, repeats) in products.items():
            size = int(name.split()[1])
            rates[name].append(2 * size**3 / median(seconds_of(run, repeats)) / 1e9)
        for name, run in variants.items():
            run()  # the one before has filled the caches
            times[name].append([s / threads for s in seconds_of(run, REPEATS)])
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    references = [max(of_round) for of_round in zip(*rates.values(), strict=True)]
    return {
        "matrix_product_gflops": {name: median(found) for name, found in rates.items()},
        "reference_gflops": median(references),
        "reference_gflops_of_rounds": references,
        "rows": [summarise(name, found, references) for name, found in times.items()],
    }


def summarise(name: str, times: list[list[float]], references: list[float]) -> dict[str, Any]:
    """Figures of a variant from the seconds per patch of its rounds."""
    every = [s for of_round in times for s in of_round]
    rates = [1 / median(of_round) for of_round in times]
    per_gflops = median(rate / one for rate, one in zip(rates, references, strict=True))
    return {
        "variant": name,
        "milliseconds_median": 1e3 * median(every),
        "milliseconds_min": 1e3 * min(every),
        "patches_per_second": 1 / median(every),
        "gflops": GFLOP_PER_PATCH / median(every),
        "ratio_to_matrix_product": GFLOP_PER_PATCH * per_gflops,
        "patches_per_second_at_93_gflops": MACHINE_GFLOPS * per_gflops,
    }


def judge(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Which bars are met."""
    runtime = next(row for row in rows if row["variant"] == RUNTIME)
    reduced = [row for row in rows if row["variant"].split(", ")[0].split()[1] in REDUCED]
    best = max(row["patches_per_second_at_93_gflops"] for row in reduced)
    return {
        f"float32: {runtime['ratio_to_matrix_product']:.2f} of the matrix product, expected "
        f"{FLOAT32_BAR:.2f}": runtime["ratio_to_matrix_product"] >= FLOAT32_BAR,
        f"bf16 or int8: {best:.2f} patches/s at {MACHINE_GFLOPS:.0f} GFLOP/s, expected "
        f"{REDUCED_BAR:.2f}": best >= REDUCED_BAR,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print Markdown."""
    products = ", ".join(f"{k} {v:.1f}" for k, v in result["matrix_product_gflops"].items())
    print(f"Matrix products, GFLOP/s: {products}; reference {result['reference_gflops']:.1f}\n")
    print("| variant | ms, median (min) | patches/s | GFLOP/s | ratio | patches/s at 93 GFLOP/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in result["rows"]:
        print(
            f"| {row['variant']} | {row['milliseconds_median']:.1f} "
            f"({row['milliseconds_min']:.1f}) | {row['patches_per_second']:.2f} | "
            f"{row['gflops']:.1f} | {row['ratio_to_matrix_product']:.2f} | "
            f"{row['patches_per_second_at_93_gflops']:.1f} |"
        )
    print()
    for said, is_met in result["bars"].items():
        print(f"{'met' if is_met else 'MISSED'}: {said}")


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    cores = pin(options.threads)  # before any library counts them
    flags = processor_flags()
    with_bf16 = bool({"avx512_bf16", "amx_bf16"} & set(flags))
    said = ", ".join(flags) or "not known"
    print(f"{platform.machine()}, cores {cores or 'not pinned'}, instruction sets: {said}")
    if not with_bf16:
        print("Neither avx512_bf16 nor amx_bf16: bf16 is left out.")
    result = {
        "threads": options.threads,
        "cores": cores,
        "instruction_sets": flags,
        "versions": {name: version(name) for name in ("numpy", "torch", "onnxruntime", "openvino")},
        **measure(options.threads, options.rounds, with_bf16=with_bf16),
    }
    result["bars"] = judge(result["rows"])
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
