"""Time and peak memory of one training step, beside the rate of a large matrix product.

    python benchmarks/training_step.py [--threads 2] [--steps 10] [--json FILE]

A step is forward, objective, backward and AdamW on a batch of two at 96³ (the published PET/CT
network, two modalities, two classes), float32, from random data. Peak memory is the highest
resident set of the whole process, Python, PyTorch and the matrices of the product included.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from veloxseg.network.published import load_published
from veloxseg.training.objective import Objective

PATCH = 96


def matrix_product_gflops(size: int = 4096, repeats: int = 5) -> float:
    """Rate of a large float32 matrix product, the median of some repeats."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times) / 1e9


def resident_gb() -> float:
    """Highest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    gflops_before = matrix_product_gflops()

    model = load_published(
        {
            "in_ch": [1, 1],
            "n_classes": 2,
            "input_size": [PATCH] * 3,
            "depths": [1] * 4,
            "conv_drop": 0.1,
        }
    )
    model.train()
    objective = Objective(in_channels=(1, 1), num_heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.5e-4, weight_decay=0.01)
    image = torch.randn(2, 2, PATCH, PATCH, PATCH)
    label = (F.avg_pool3d(torch.randn(2, 1, PATCH, PATCH, PATCH), 9, 1, 4) > 0.05).float()
    strides = (1, 8, 16, 32)
    targets = [F.interpolate(label, scale_factor=1 / s) for s in strides]

    times = []
    for _ in range(options.steps + 2):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        objective(model(image), targets, image).total.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    times = sorted(times[2:])
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "threads": options.threads,
        "matrix_product_gflops": [gflops_before, matrix_product_gflops()],
        "step_seconds": {
            "median": statistics.median(times),
            "minimum": times[0],
            "maximum": times[-1],
        },
        "peak_memory_gb": resident_gb(),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
