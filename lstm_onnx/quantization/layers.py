"""Writes linear and embedding layers as int8: MatMul, Gemm and Gather with a constant weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from ..onnxgraph import attributes_of
from .arithmetic import QuantizedWeight, quantize_table
from .block_products import BlockWeight
from .products import Graph, add_weight, digits, quantized_for, quantized_product, step_product


@dataclass(frozen=True)
class Linear:
    """A MatMul or Gemm that is int8.

    Attributes:
        name: the node's.
        rows: the value that is multiplied.
        product: the value of the product, without a bias.
        weight: the source's weight, quantized for the kernel.
        caller: the name of the node whose body contains it; "" for none.
    """

    name: str
    rows: str
    product: str
    weight: QuantizedWeight | BlockWeight
    caller: str


@dataclass(frozen=True)
class Embedding:
    """A Gather that is int8: the node's name, the values of its indices and its rows, and its table by columns."""

    name: str
    indices: str
    rows: str
    table: QuantizedWeight


def add_linear(graph: Graph, node: NodeProto, weight: np.ndarray, caller: str = "", points: str = "") -> Linear:
    """Add a MatMul, or a Gemm with its bias, by `weight`: ``(in, out)``, or for transB its transpose.

    Args:
        graph: to which nodes are added.
        node: the MatMul or Gemm.
        weight: its constant matrix.
        caller: the name of the node whose body contains it; "" for none.
        points: in the body of a projected layer's Scan, the zero points of its rows ``(1, batch, in)``.
    """
    attributes = attributes_of(node)
    name, output, transposed = node.name, node.output[0], bool(attributes.get("transB"))
    alpha = np.float32(attributes.get("alpha", 1.0))
    matrix = (weight.T if transposed else weight) * alpha
    quantized = quantized_for(graph.kernel, matrix)
    form = ("/transposed" if transposed else "") + ("" if alpha == 1 else f"/{digits(alpha)}")
    names = add_weight(graph, f"{node.input[1]}{form}", quantized)
    bias = node.input[2] if len(node.input) > 2 else ""
    rows = node.input[0]
    if points:
        total = step_product(graph, rows, names, points, f"{name}/product")
        zero = graph.zeros_or_nan(rows, len(matrix), f"{name}/zero")
        return Linear(name, rows, graph.nodes.one("Add", total, zero, name=name, output=output), quantized, caller)
    axis = 1 if node.op_type == "Gemm" else -1
    if not bias:
        total = quantized_product(graph, rows, names, name, output=output, axis=axis)
        return Linear(name, rows, total, quantized, caller)
    total = quantized_product(graph, rows, names, f"{name}/product", axis=axis)
    beta = float(attributes.get("beta", 1.0))
    if beta != 1.0:
        bias = graph.nodes.one("Mul", bias, graph.scalar(beta), name=f"{name}/bias")
    graph.nodes.one("Add", total, bias, name=name, output=output)
    return Linear(name, rows, total, quantized, caller)


def add_embedding(graph: Graph, node: NodeProto, table: np.ndarray) -> Embedding:
    """Add a Gather of rows of `table`, ``(rows, features)``: the rows of its integers by their scales."""
    name, output, weight = node.name, node.output[0], node.input[0]
    quantized = quantize_table(table.T)
    nodes = graph.nodes
    integers = nodes.constant(f"{weight}/rows/int8", np.ascontiguousarray(quantized.integers.T))
    scales = nodes.constant(f"{weight}/rows/scale", quantized.scales[:, None].copy())
    rows = nodes.one("Gather", integers, node.input[1], name=f"{name}/rows", axis=0)
    scale = nodes.one("Gather", scales, node.input[1], name=f"{name}/scales", axis=0)
    rows = nodes.one("Cast", rows, name=f"{name}/float", to=TensorProto.FLOAT)
    nodes.one("Mul", rows, scale, name=name, output=output)
    return Embedding(name, node.input[1], output, quantized)
