"""The graph with 8-bit convolutions, by ONNX Runtime's static quantisation.

Activations and weights are symmetric, weights by output channel, and only what a convolution reads
is quantised: norms, GELUs and residual sums stay in float32. So do the stems, whose input is the
image, the attention stream, which gains nothing, and pointwise convolutions, which save 5 % of the
time at most and change the labels of twice as many voxels.

Ranges are means over the calibration patches of each one's extremes. On two trained networks this
left half the error of the extremes of all patches (ONNX Runtime's default, and what its entropy
gives too); percentiles, unsigned activations and more patches were no better.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

Array = npt.NDArray[np.float32]

_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "CalibMovingAverage": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}


def quantise(model: onnx.ModelProto, patches: Sequence[Array]) -> onnx.ModelProto:
    """Quantise the convolutions of the convolution stream.

    Args:
        model: The float32 graph; it is not changed.
        patches: Of training images, (C, Z, Y, X) each, to find the ranges of activations with.

    Raises:
        ValueError: there are no patches.
    """
    if not patches:
        raise ValueError("Quantisation needs patches.")
    chosen = convolutions_to_quantise(model)
    with TemporaryDirectory() as folder, _without_advice():
        path = Path(folder) / "model.onnx"
        quantize_static(
            _copy(model),  # it empties its argument
            path,
            _Patches(model.graph.input[0].name, patches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=chosen,
            extra_options=_OPTIONS,
        )
        quantised: onnx.ModelProto = onnx.load(path)
    _leave_others_float32(quantised, chosen)
    return quantised


def convolutions_to_quantise(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions with 3-D kernels of more than a voxel, after the stems."""
    kernels = {t.name: t.dims[2:] for t in model.graph.initializer if len(t.dims) == 5}
    convolved: set[str] = set()
    names = []
    for node in model.graph.node:
        is_convolution = node.op_type == "Conv" and node.input[1] in kernels
        comes_after = not convolved.isdisjoint(node.input)
        if is_convolution and comes_after and max(kernels[node.input[1]]) > 1:
            names.append(node.name)
        if is_convolution or comes_after:
            convolved.update(node.output)
    return names


def _leave_others_float32(model: onnx.ModelProto, chosen: Sequence[str]) -> None:
    """Give the other readers of a quantised tensor, as residual sums, the tensor itself again."""
    writers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name in chosen:
            continue
        for place, name in enumerate(node.input):
            dequantise = writers.get(name)
            if dequantise is not None and dequantise.op_type == "DequantizeLinear":
                node.input[place] = writers[dequantise.input[0]].input[0]


class _Patches(CalibrationDataReader):  # type: ignore[misc]
    """Hands out one patch after another, as ONNX Runtime asks for them."""

    def __init__(self, name: str, patches: Sequence[Array]) -> None:
        self._name, self._patches = name, iter(patches)

    def get_next(self) -> dict[str, Array] | None:
        patch = next(self._patches, None)
        return None if patch is None else {self._name: np.ascontiguousarray(patch[None])}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@contextmanager
def _without_advice() -> Iterator[None]:
    """ONNX Runtime advises on the root logger to simplify the graph first; it is simple."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
