"""OpenVINO, the fastest engine on processors."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from veloxseg.bundle.format import Precision

HINTS = {"float32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "bf16"}
"""What the engine computes in; with int8, all but the quantised convolutions. A processor without
these instructions computes in float32 instead."""

_HEAD_CONV, _HEAD_CELLS = "head_conv", "head_cells"  # as veloxseg.bundle.graph names its nodes
_RELATIVE_OUTPUT = "relative_logits"


class OpenVINOBackend:
    """One request of one patch on each stream; a batch is spread over the streams.

    Patches side by side, a thread each, are faster than one patch on all threads.

    Args:
        model: ONNX file.
        precision: Of the arithmetic: never what the engine would choose by itself.
        threads: Threads in all.
        batch: Patches at once: the number of streams, which share the threads.
        relative: Reduce the head to logits less the background's, which saves a class of work;
            right where outputs compete as labels do, so that only their differences matter.
    """

    def __init__(
        self,
        model: bytes,
        *,
        precision: Precision,
        threads: int,
        batch: int,
        relative: bool,
    ) -> None:
        core = openvino.Core()
        network = core.read_model(model)
        self.relative = network.outputs[0].any_name == _RELATIVE_OUTPUT
        if relative and not self.relative:
            self.relative = _make_relative(network)
        shape = network.inputs[0].partial_shape
        network.reshape([1, *(shape[axis].get_length() for axis in range(1, 5))])
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": batch,
        }
        compiled = core.compile_model(network, "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(batch)]
        logits = tuple(compiled.outputs[0].get_shape())[1:]
        self._results = np.empty((2, batch, *logits), np.float32)
        self._turn = 0
        self.device = core.get_property("CPU", "FULL_DEVICE_NAME")

    def run(self, patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See :class:`~veloxseg.runtime.backends.backend.Backend`."""
        most = len(self._requests)
        if len(patches) > most:
            parts = [self.run(patches[i : i + most]).copy() for i in range(0, len(patches), most)]
            return np.concatenate(parts)
        self._turn = 1 - self._turn
        results = self._results[self._turn, : len(patches)]
        running = self._requests[: len(patches)]
        for request, patch, result in zip(running, patches, results, strict=True):
            request.set_output_tensor(0, openvino.Tensor(result[None], shared_memory=True))
            request.start_async({0: patch[None]}, share_inputs=True)
        for request in running:
            request.wait()
        return results


def _make_relative(network: Any) -> bool:
    """Subtract the background's weights of the head from the others', and leave it out.

    Softmax and argmax depend on differences of logits only, and so do means and interpolations of
    them: masks and probabilities stay the same. False if the head is not as this version writes it.
    """
    nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
    heads = [name.removesuffix(_HEAD_CONV) for name in nodes if name.endswith(f"/{_HEAD_CONV}")]
    for head in heads:
        convolution, bias = nodes[f"{head}{_HEAD_CONV}/WithoutBiases"], nodes[head + _HEAD_CONV]
        cells, voxels = nodes[head + _HEAD_CELLS], nodes[head.removesuffix("/")]
        shape = _value(nodes, cells.input_value(1))
        classes, cell = int(shape[1]), math.prod(shape[2:5])
        if classes < 2:
            return False
        for node, axis in ((convolution, 0), (bias, 1)):
            first, rest = np.split(_value(nodes, node.input_value(1)), [cell], axis=axis)
            difference = rest - np.concatenate([first] * (classes - 1), axis=axis)
            node.input(1).replace_source_output(openvino.op.Constant(difference).output(0))
        for node in (cells, voxels):
            shape = _value(nodes, node.input_value(1)).copy()
            shape[1] = classes - 1
            node.input(1).replace_source_output(openvino.op.Constant(shape).output(0))
    network.validate_nodes_and_infer_types()
    return bool(heads)


def _value(nodes: dict[str, Any], output: Any) -> npt.NDArray[Any]:
    """A constant, through the reshapes and conversions that stand between it and its use."""
    node = nodes[output.get_node().get_friendly_name()]
    if node.get_type_name() == "Constant":
        if node.get_element_type() == openvino.Type.bf16:  # NumPy has no such type
            return np.asarray(node.get_data(dtype=np.float32))
        return np.asarray(node.data)
    inner = _value(nodes, node.input_value(0))
    if node.get_type_name() == "Reshape":
        return inner.reshape(tuple(node.output(0).get_shape()))
    return inner.astype(np.float32)
