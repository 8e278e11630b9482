"""PyTorch, where it is installed: on the GPUs that the other engines' packages do not reach."""

import json

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from veloxseg.bundle.format import NETWORK, WEIGHTS
from veloxseg.bundle.reading import Bundle
from veloxseg.bundle.weights import split_folds
from veloxseg.network.config import NetworkConfig
from veloxseg.network.inference import ArrayNetwork


class TorchBackend:
    """The network that the bundle's graph was written from, with its weights.

    Args:
        bundle: Its network.json and weights.safetensors are read.
        threads: Threads to compute with on a processor.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    relative = False

    def __init__(self, bundle: Bundle, *, threads: int, device: str = "auto") -> None:
        config = NetworkConfig(**json.loads(bundle.read(NETWORK)))
        folds = split_folds(load(bundle.read(WEIGHTS)))
        self._network = ArrayNetwork(config, folds, threads=threads, device=device)
        self.device = str(self._network.device)

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See :class:`~veloxseg.runtime.backends.backend.Backend`."""
        return self._network.run(patches)
