"""Writes an ONNX graph node by node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""The first with Gelu."""

IR_VERSION = 9
"""Of the file format; the first for opset 20."""

Shape = Sequence[int | str]


class GraphBuilder:
    """A graph under construction: every method adds a node and gives the name of its output.

    Constants are stored once, however often they are asked for.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output, named as the node is."""
        name = name or self._new_name(kind)
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def split(self, x: str, sizes: Sequence[int], *, axis: int) -> list[str]:
        """Cut along an axis; a single piece is ``x`` itself."""
        if len(sizes) == 1:
            return [x]
        name = self._new_name("Split")
        outputs = [f"{name}_{index}" for index in range(len(sizes))]
        inputs = [x, self.constant(sizes)]
        self._nodes.append(helper.make_node("Split", inputs, outputs, name=name, axis=axis))
        return outputs

    def concatenate(self, parts: Sequence[str], *, axis: int) -> str:
        """Join along an axis."""
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=axis)

    def reshape(self, x: str, *shape: int, name: str = "") -> str:
        """Reshape; an extent of 0 stays as it is, -1 is what remains."""
        return self.node("Reshape", x, self.constant(shape), name=name)

    def transpose(self, x: str, *order: int) -> str:
        """Reorder the axes."""
        return self.node("Transpose", x, perm=list(order))

    def linear(self, x: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None = None) -> str:
        """``x @ weight + bias``, broadcast as NumPy does."""
        y = self.node("MatMul", x, self.constant(weight))
        return y if bias is None else self.node("Add", y, self.constant(bias))

    def constant(self, value: npt.NDArray[Any] | Sequence[int]) -> str:
        """Name of a constant: floats are stored as float32, lists of integers as int64."""
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = name = f"constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return self._constants[key]

    def model(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> onnx.ModelProto:
        """Close the graph.

        Args:
            inputs: Name to shape; a name for an extent leaves it free.
            outputs: Name of a node to the shape of its output.
        """
        graph = helper.make_graph(
            self._nodes,
            "veloxseg",
            [_float_tensor(name, shape) for name, shape in inputs.items()],
            [_float_tensor(name, shape) for name, shape in outputs.items()],
            self._initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="veloxseg"
        )
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model

    def _new_name(self, kind: str) -> str:
        return f"{kind.lower()}_{len(self._nodes)}"


def _float_tensor(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
