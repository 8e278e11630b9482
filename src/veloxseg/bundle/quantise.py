"""The graph with 8-bit convolutions, by ONNX Runtime's static quantisation.

Activations and weights are symmetric, weights by output channel, and only what a convolution reads
is quantised: norms, GELUs and residual sums stay in float32, and so do the stems, whose input is
the image, and the attention stream, which gains nothing.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[np.float32]


def quantise(model: onnx.ModelProto, patches: Sequence[Array], **kw) -> onnx.ModelProto:
    """Quantise the convolution stream's convolutions."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.it = iter(patches)

        def get_next(self):
            p = next(self.it, None)
            return None if p is None else {"image": p[None]}

    own = onnx.ModelProto()
    own.CopyFrom(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            own,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=kw.get("nodes") or convolutions(model),
            op_types_to_quantize=["Conv"],
            calibrate_method=kw.get("method", CalibrationMethod.MinMax),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv"],
                **kw.get("extra", {}),
            },
        )
        return onnx.load(path)


def convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions with 3-D kernels that come after the stems."""
    kernels = {t.name: list(t.dims) for t in model.graph.initializer if len(t.dims) == 5}
    convolved: set[str] = set()
    names = []
    for node in model.graph.node:
        comes_after = bool(convolved & set(node.input))
        if node.op_type == "Conv" and node.input[1] in kernels and comes_after:
            names.append(node.name)
        if node.op_type == "Conv" or comes_after:
            convolved |= set(node.output)
    return names
