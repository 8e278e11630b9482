"""Writes an ONNX graph node by node."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
"""The first with Gelu."""

IR_VERSION = 9

Array = npt.NDArray[Any]


class GraphBuilder:
    """A graph under construction: every method adds a node and gives the name of its output.

    Constants are stored once however often they are asked for.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._scope: list[str] = []
        self._count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.nodes(kind, *inputs, outputs=1, **attributes)[0]

    def nodes(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def constant(self, value: Array | Sequence[int]) -> str:
        """Name of a constant; lists of integers are int64, floats become float32."""
        array = np.asarray(value)
        array = np.ascontiguousarray(
            array, dtype=np.float32 if array.dtype.kind == "f" else np.int64
        ).reshape(array.shape)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self._initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape; the batch axis, written 0, stays as it is."""
        return self.node("Reshape", x, self.constant(list(shape)))

    def transpose(self, x: str, *order: int) -> str:
        """Reorder the axes."""
        if order == tuple(range(len(order))):
            return x
        return self.node("Transpose", x, perm=list(order))

    def linear(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """``x @ weight + bias``, broadcast as NumPy does."""
        y = self.node("MatMul", x, self.constant(weight))
        return y if bias is None else self.node("Add", y, self.constant(bias))

    def model(
        self, *, inputs: dict[str, Sequence[int | str]], outputs: dict[str, tuple[str, Sequence[int | str]]]
    ) -> onnx.ModelProto:
        """Close the graph.

        Args:
            inputs: Name to shape; names of axes are free extents.
            outputs: Name to the node's output it is, and its shape.
        """
        ends = [
            self._nodes.append(helper.make_node("Identity", [inner], [name], name=name)) or name
            for name, (inner, _) in outputs.items()
        ]
        graph = helper.make_graph(
            self._nodes,
            "veloxseg",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, outputs[n][1]) for n in ends],
            self._initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="veloxseg"
        )
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model
