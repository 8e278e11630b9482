"""What the runtime asks of an engine that computes logits."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from veloxseg.bundle.format import Precision

BackendName = Literal["openvino", "onnxruntime", "torch"]
BACKENDS: tuple[BackendName, ...] = ("openvino", "onnxruntime", "torch")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How patches are computed.

    Attributes:
        backend: The engine.
        precision: Of the arithmetic; float32 is pinned, whatever the processor would prefer.
        threads: Threads to compute with.
        batch: Patches handed to the engine at once.
    """

    backend: BackendName
    precision: Precision
    threads: int
    batch: int

    def __str__(self) -> str:
        """The execution in a few words."""
        return f"{self.backend}, {self.precision}, {self.threads} threads, batch {self.batch}"


class Backend(Protocol):
    """An engine with a model in it.

    Attributes:
        relative: Logits come less the background's, which is left out.
        device: Where it computes, in words.
    """

    relative: bool
    device: str

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute logits; the result lasts until the call after the next.

        Args:
            patches: (B, C, Z, Y, X)

        Returns:
            (B, K, Z, Y, X), or K - 1 classes if ``relative``.
        """
        ...
