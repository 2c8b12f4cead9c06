"""Linear and embedding layers as int8: MatMul, Gemm and Gather with a constant weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from ..onnxgraph import attributes_of
from .arithmetic import QuantizedWeight, quantize_weight
from .products import Graph, add_weight, quantized_product


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm that is int8.

    Attributes:
        name: the node's.
        rows: the value that is multiplied.
        product: the value of the product, without a bias.
        weight: of the source, as it is quantized.
        caller: the name of the node whose body it is in, "" for none.
    """

    name: str
    rows: str
    product: str
    weight: QuantizedWeight
    caller: str


@dataclass(frozen=True)
class Embedding:
    """A Gather that is int8: the node's name, the values of its indices and its rows, and its table by columns."""

    name: str
    indices: str
    rows: str
    table: QuantizedWeight


def add_linear(graph: Graph, node: NodeProto, weight: np.ndarray, caller: str = "") -> Linear:
    """Add a MatMul, or a Gemm with its bias, by `weight`: ``(in, out)``, or for transB its transpose."""
    attributes = attributes_of(node)
    name, output, transposed = node.name, node.output[0], bool(attributes.get("transB"))
    alpha = np.float32(attributes.get("alpha", 1.0))
    quantized = quantize_weight((weight.T if transposed else weight) * alpha)
    form = ("/transposed" if transposed else "") + ("" if alpha == 1 else f"/{alpha:g}")
    names = add_weight(graph, f"{node.input[1]}{form}", quantized)
    bias = node.input[2] if len(node.input) > 2 else ""
    if not bias:
        product = quantized_product(graph, node.input[0], names, name, output=output)
        return Linear(name, node.input[0], product, quantized, caller)
    product = quantized_product(graph, node.input[0], names, f"{name}/product")
    beta = float(attributes.get("beta", 1.0))
    if beta != 1.0:
        bias = graph.nodes.one("Mul", bias, graph.scalar(beta), name=f"{name}/bias")
    graph.nodes.one("Add", product, bias, name=name, output=output)
    return Linear(name, node.input[0], product, quantized, caller)


def add_embedding(graph: Graph, node: NodeProto, table: np.ndarray) -> Embedding:
    """Add a Gather of rows of `table`, ``(rows, features)``: the rows of its integers by their scales."""
    name, output, weight = node.name, node.output[0], node.input[0]
    quantized = quantize_weight(table.T)
    nodes = graph.nodes
    integers = nodes.constant(f"{weight}/rows/int8", np.ascontiguousarray(quantized.integers.T))
    scales = nodes.constant(f"{weight}/rows/scale", quantized.scales[:, None].copy())
    rows = nodes.one("Gather", integers, node.input[1], name=f"{name}/rows", axis=0)
    scale = nodes.one("Gather", scales, node.input[1], name=f"{name}/scales", axis=0)
    rows = nodes.one("Cast", rows, name=f"{name}/float", to=TensorProto.FLOAT)
    nodes.one("Mul", rows, scale, name=name, output=output)
    return Embedding(name, node.input[1], output, quantized)
