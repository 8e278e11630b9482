"""The network at inference for callers that know arrays only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from veloxseg.network.config import NetworkConfig
from veloxseg.network.veloxseg import VeloxSeg


class ArrayNetwork:
    """The mean of one or several networks' logits, from array to array, on a GPU if there is one.

    Args:
        config: Their sizes.
        folds: The state dict of each, as arrays.
        threads: Threads to compute with on a processor; None leaves PyTorch's number.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    def __init__(
        self,
        config: NetworkConfig,
        folds: Sequence[Mapping[str, npt.NDArray[np.float32]]],
        *,
        threads: int | None = None,
        device: str = "auto",
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._networks = []
        for weights in folds:
            network = VeloxSeg(config).eval()
            network.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
            self._networks.append(network.to(self.device))

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, num_classes, Z, Y, X) of patches (B, C, Z, Y, X)."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(patches)).to(self.device)
            batch = batch.to(memory_format=torch.channels_last_3d)
            logits: Any = sum(network(batch) for network in self._networks)
            mean: npt.NDArray[np.float32] = (logits / len(self._networks)).cpu().numpy()
        return mean
