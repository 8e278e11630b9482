"""Checkpoints read without running any code that may be in them."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from veloxseg.bundle.weights import Weights
from veloxseg.errors import BundleError


def load_tensors(path: Path) -> dict[str, Any]:
    """A checkpoint's content; of a PyTorch file tensors and numbers only, no code is run."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(_numpy_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty"
        raise BundleError(
            f"{path}: no checkpoint of tensors, or cut short ({reason}). Expected one that PyTorch "
            "or safetensors has saved, without objects of other packages. Copy it again."
        ) from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds a {type(content).__name__}. Expected a state dict.")
    return content


def _numpy_types() -> list[Any]:
    """NumPy's scalars, which nnU-Net's checkpoints hold: losses of each epoch."""
    scalar = np.float32(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    types = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    return [*((scalar, name) for name in names), np.dtype, *types]


def as_arrays(network: torch.nn.Module) -> Weights:
    """A network's weights by name, in float32."""
    return {
        name: np.ascontiguousarray(tensor.float().numpy())
        for name, tensor in network.state_dict().items()
    }
