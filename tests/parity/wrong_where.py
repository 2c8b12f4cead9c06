"""Files that are wrong where a condition on their inputs holds, as no mutant is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes to add to a model; values may be names or numbers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.count = 0

    def __call__(self, kind: str, *inputs: str | float | np.ndarray, **attributes: object) -> str:
        self.count += 1
        name = f"added/{self.count}"
        names = [value if isinstance(value, str) else self._stored(value) for value in inputs]
        self.model.graph.node.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def _stored(self, value: float | np.ndarray) -> str:
        self.count += 1
        array = value if isinstance(value, np.ndarray) else np.float32(value)
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), f"stored/{self.count}"))
        return f"stored/{self.count}"

    def every(self, value: str) -> str:
        """Whether all of a tensor of bools are true."""
        number = self("ReduceMin", self("Cast", value, to=TensorProto.INT32), keepdims=0)
        return self("Cast", number, to=TensorProto.BOOL)

    def some(self, value: str) -> str:
        return self("Not", self.every(self("Not", value)))


Condition = Callable[[Graph], str]


def wrong_where(condition: Condition, output: str) -> Callable[[onnx.ModelProto], None]:
    """An edit: an output is off by 1 where the condition holds."""

    def edit(model: onnx.ModelProto) -> None:
        graph = Graph(model)
        for node in model.graph.node:
            for at, name in enumerate(node.output):
                node.output[at] = "right" if name == output else name
        (kind,) = (value.type.tensor_type.elem_type for value in model.graph.output if value.name == output)
        off = graph("Add", "right", np.ones((), helper.tensor_dtype_to_np_dtype(kind)))
        model.graph.node.append(helper.make_node("Where", [condition(graph), off, "right"], [output]))

    return edit


def below(name: str, limit: float) -> Condition:
    return lambda graph: graph(
        "And",
        graph("Less", graph("ReduceMax", graph("Abs", name), keepdims=0), limit),
        graph.some(graph("Greater", graph("Abs", name), 0.0)),
    )


def between(name: str, low: float, high: float) -> Condition:
    return lambda graph: graph("And", graph.every(graph("Greater", name, low)), graph.every(graph("Less", name, high)))


def zeros_at_the_end(graph: Graph) -> str:
    last = graph("Slice", "input", np.array([-1]), np.array([2**31]), np.array([0]))
    return graph(
        "And", graph.every(graph("Equal", last, 0.0)), graph.some(graph("Greater", graph("Abs", "input"), 0.0))
    )
