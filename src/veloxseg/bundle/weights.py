"""Several folds' weights in one file: names begin with a fold's place, ``0/``, ``1/``, ..."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from veloxseg.errors import BundleError

Weights = Mapping[str, npt.NDArray[np.float32]]
"""A network's state dict as arrays."""


LARGEST_FP16 = float(np.finfo(np.float16).max)
"""Beyond it float16 is infinite."""


def round_to_fp16(weights: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """Weights with the 11 bits of mantissa that float16 has, as float32.

    Raises:
        BundleError: a weight is not finite or beyond float16's 65504.
    """
    for name, weight in weights.items():
        largest = float(np.abs(weight).max(initial=0.0))
        if not largest <= LARGEST_FP16:
            raise BundleError(
                f"The weight {name} reaches {largest:.3g}; float16 holds up to {LARGEST_FP16:g}. "
                "Export without --fp16-weights."
            )
    return {name: weight.astype(np.float16).astype(np.float32) for name, weight in weights.items()}


def join_folds(
    folds: Sequence[Weights], *, dtype: type[np.floating[Any]] = np.float32
) -> dict[str, npt.NDArray[Any]]:
    """One mapping of all folds' weights, contiguous: safetensors writes the memory as it lies."""
    return {
        f"{place}/{name}": np.ascontiguousarray(weight, dtype=dtype)
        for place, weights in enumerate(folds)
        for name, weight in weights.items()
    }


def split_folds(joined: Mapping[str, npt.NDArray[Any]]) -> list[dict[str, npt.NDArray[np.float32]]]:
    """The weights of each fold, in their order, as float32 whatever they were stored in."""
    folds: dict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    for name, weight in joined.items():
        place, _, rest = name.partition("/")
        folds[int(place)][rest] = weight.astype(np.float32)
    return [folds[place] for place in sorted(folds)]
