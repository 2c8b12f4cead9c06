"""The nodes of a product by a quantized weight, see `arithmetic`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..onnxgraph.builder import Nodes
from .arithmetic import ROW_LIMIT, TINY, ZERO_POINT, QuantizedWeight


@dataclass(frozen=True)
class Graph:
    """A graph that int8 nodes are added to.

    Attributes:
        nodes: its nodes and initializers; those of a body share the outer graph's initializers.
        opset: of ONNX's own operators.
    """

    nodes: Nodes
    opset: int

    def body(self) -> Graph:
        """A body within this graph."""
        return Graph(Nodes(initializers=self.nodes.initializers), self.opset)

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        """A constant of a single number."""
        kind = np.dtype(dtype).name
        return self.nodes.constant(f"int8/{kind}/{value:g}", np.array(value, dtype))

    def reduce_last(self, op: str, value: str, name: str) -> str:
        """A reduction of the last axis, which stays as one of size 1."""
        if self.opset >= 18 or op == "ReduceSum":
            return self.nodes.one(op, value, self.nodes.integers(-1), name=name, keepdims=1)
        return self.nodes.one(op, value, name=name, axes=[-1], keepdims=1)


def add_weight(graph: Graph, name: str, weight: QuantizedWeight) -> tuple[str, str]:
    """The initializers of a weight: integers and scales."""
    return (
        graph.nodes.constant(f"{name}/int8", weight.integers),
        graph.nodes.constant(f"{name}/scale", weight.scales),
    )


def quantized_product(
    graph: Graph, rows: str, weight: tuple[str, str], name: str, *, output: str | None = None, nan: bool = True
) -> str:
    """A product of float32 rows ``(..., in)`` by a weight ``(in, out)``.

    Args:
        graph: what the nodes are added to.
        rows: the value.
        weight: the names of its integers and scales, of `add_weight`.
        name: what the nodes' names start with.
        output: the name of the result, by default `name`.
        nan: a NaN or an infinity makes its row of the result NaN.  Without, it may vanish; for rows whose callers
            carry it on otherwise.
    """
    nodes = graph.nodes
    size = nodes.one("Abs", rows, name=f"{name}/abs")
    largest = graph.reduce_last("ReduceMax", size, f"{name}/largest")
    largest = nodes.one("Max", largest, graph.scalar(TINY), name=f"{name}/positive")
    scale = nodes.one("Mul", largest, graph.scalar(float(np.float32(1 / ROW_LIMIT))), name=f"{name}/scale")
    scaled = nodes.one("Div", rows, scale, name=f"{name}/scaled")
    rounded = nodes.one("Round", scaled, name=f"{name}/rounded")
    shifted = nodes.one("Add", rounded, graph.scalar(ZERO_POINT), name=f"{name}/shifted")
    integers = nodes.one("Cast", shifted, name=f"{name}/uint8", to=TensorProto.UINT8)
    zero_point = graph.scalar(ZERO_POINT, np.uint8)
    total = nodes.one("MatMulInteger", integers, weight[0], zero_point, name=f"{name}/MatMulInteger")
    if nan:
        zeros = nodes.one("Mul", size, graph.scalar(0), name=f"{name}/zeros")  # NaN where a number is not finite
        zero = graph.reduce_last("ReduceSum", zeros, f"{name}/zero")
        scale = nodes.one("Add", scale, zero, name=f"{name}/scale_or_nan")
    total = nodes.one("Cast", total, name=f"{name}/float", to=TensorProto.FLOAT)
    total = nodes.one("Mul", total, scale, name=f"{name}/by_rows")
    return nodes.one("Mul", total, weight[1], name=name, output=output)
