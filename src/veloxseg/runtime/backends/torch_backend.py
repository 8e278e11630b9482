"""PyTorch, where it is installed: on the GPUs that the other engines' packages do not reach."""

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.networks import read_networks
from veloxseg.bundle.reading import Bundle
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
        config, folds = read_networks(bundle)
        self._network = ArrayNetwork(config, folds, threads=threads, device=device)
        self.device = str(self._network.device)

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See :class:`~veloxseg.runtime.backends.backend.Backend`."""
        return self._network.run(patches)
