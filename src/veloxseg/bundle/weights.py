"""Several folds' weights in one file: names begin with a fold's place, ``0/``, ``1/``, ..."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[np.float32]]
"""A network's state dict as arrays."""


def join_folds(folds: Sequence[Weights]) -> dict[str, npt.NDArray[np.float32]]:
    """One mapping of all folds' weights, contiguous: safetensors writes the memory as it lies."""
    return {
        f"{place}/{name}": np.ascontiguousarray(weight)
        for place, weights in enumerate(folds)
        for name, weight in weights.items()
    }


def split_folds(joined: Weights) -> list[dict[str, npt.NDArray[np.float32]]]:
    """The weights of each fold, in their order."""
    folds: dict[int, dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    for name, weight in joined.items():
        place, _, rest = name.partition("/")
        folds[int(place)][rest] = weight
    return [folds[place] for place in sorted(folds)]
