"""ONNX Runtime: ready in a moment, and on GPUs where its GPU package is installed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from veloxseg.errors import VeloxSegError

_RELATIVE_OUTPUT = "relative_logits"
_PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")


class ONNXRuntimeBackend:
    """A session on a GPU if this installation of ONNX Runtime has one, else on the processor.

    Args:
        model: ONNX file.
        threads: Threads to compute with.
        device: ``auto``, ``cpu`` to leave a GPU alone, or ``cuda``.

    Raises:
        VeloxSegError: there is no GPU to use.
    """

    def __init__(self, model: bytes, *, threads: int, device: str = "auto") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        providers = [name for name in _PREFERRED if name in available]
        if device == "cuda" and "CUDAExecutionProvider" not in available:
            raise VeloxSegError(
                "--device cuda: this ONNX Runtime has no CUDA. Install onnxruntime-gpu in place of "
                "onnxruntime, or choose --backend torch."
            )
        if device == "cpu":
            providers = ["CPUExecutionProvider"]
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        self.relative = self._session.get_outputs()[0].name == _RELATIVE_OUTPUT
        self.device = self._session.get_providers()[0].removesuffix("ExecutionProvider")

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See :class:`~veloxseg.runtime.backends.backend.Backend`."""
        logits: npt.NDArray[np.float32] = self._session.run(None, {self._input: patches})[0]
        return logits
