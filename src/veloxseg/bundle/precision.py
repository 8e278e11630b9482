"""The float32 graph with its constants in 16 bits: half the file, and what the engine computes in.

Every large constant is followed by a cast to float32. Engines fold the casts, or compute with the
16 bits as they are; nothing else of the graph changes. The head's convolution stays float32: the
runtime subtracts the background's weights there, which is best done before anything is rounded.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from veloxseg.bundle.weights import LARGEST_FP16
from veloxseg.errors import BundleError

Array = npt.NDArray[np.float32]

HEAD_CONV = "head_conv"
"""How the names of the last convolutions end; see :mod:`veloxseg.bundle.graph`."""

SMALLEST = 256
"""Entries below which a constant stays float32: biases and norms are small and matter most."""


def store_in_16_bits(
    model: onnx.ModelProto, precision: Literal["bf16", "fp16"], *, only_exact: bool = False
) -> onnx.ModelProto:
    """Store the large float32 constants of a graph in 16 bits.

    Args:
        model: The float32 graph; it is not changed.
        precision: ``bf16``: float32 with 8 bits of mantissa; ``fp16``: up to 65504 with 11 bits.
        only_exact: With ``fp16``: leave in float32 what would be rounded, so that the graph
            computes what it did.

    Raises:
        BundleError: a constant is too large for fp16.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    head = {name for node in graph.node if node.name.endswith(HEAD_CONV) for name in node.input}
    casts, kept = [], []
    for tensor in graph.initializer:
        is_large = tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= SMALLEST
        values = numpy_helper.to_array(tensor) if is_large else None
        if values is None or tensor.name in head or (only_exact and not _is_exact(values)):
            kept.append(tensor)
            continue
        short = f"{tensor.name}_{precision}"
        kept.append(_SHORTEN[precision](short, values))
        cast = helper.make_node(
            "Cast", [short], [tensor.name], name=f"{tensor.name}_cast", to=TensorProto.FLOAT
        )
        casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(halved)
    return halved


def round_to_bf16(values: Array) -> npt.NDArray[np.uint16]:
    """The bits of bfloat16 nearest to float32 values, halves to even; values are finite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded: npt.NDArray[np.uint16] = ((bits + even) >> np.uint32(16)).astype(np.uint16)
    return rounded


def _is_exact(values: Array) -> bool:
    """Whether float16 holds all values as they are."""
    if np.abs(values).max() > LARGEST_FP16:
        return False
    return np.array_equal(values.astype(np.float16), values)


def _to_bf16(name: str, values: Array) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=values.shape)
    tensor.raw_data = round_to_bf16(values).astype("<u2").tobytes()
    return tensor


def _to_fp16(name: str, values: Array) -> onnx.TensorProto:
    largest = float(np.abs(values).max())
    if largest > LARGEST_FP16:
        raise BundleError(
            f"A weight of the network is {largest:.3g}. fp16 holds up to "
            f"{LARGEST_FP16:g}. Leave out --precision fp16, or take bf16."
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


_SHORTEN: dict[str, Callable[[str, Array], onnx.TensorProto]] = {"bf16": _to_bf16, "fp16": _to_fp16}
