"""Which device to compute on."""

from typing import Literal

import torch

from veloxseg.errors import VeloxSegError

Device = Literal["auto", "cpu", "cuda", "mps"]


def choose_device(name: Device, *, num_gpus: int = 1) -> torch.device:
    """PyTorch's device of a name; "auto" takes a GPU if there is one.

    Raises:
        VeloxSegError: the device, or that many of them, are not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count() < num_gpus:
        raise VeloxSegError(
            f"--device cuda with {num_gpus} GPUs: this machine has {torch.cuda.device_count()} "
            "that PyTorch can use. Use --device cpu."
        )
    if num_gpus > 1 and name != "cuda":
        raise VeloxSegError(f"--num-gpus {num_gpus} needs --device cuda, got {name}.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise VeloxSegError("--device mps: not available here. Use --device cpu.")
    return torch.device(name)
