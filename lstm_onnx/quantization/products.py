"""Adds the nodes of a product by a quantized weight, see `arithmetic` and `block_products`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from ..onnxgraph.builder import Nodes
from .arithmetic import ROW_STEP, TINY, ZERO_POINT, QuantizedWeight, quantize_weight
from .block_products import BlockWeight, block_size, quantize_blocks
from .kernels import BLOCK_SIZES, CONTRIB, MATMUL_INTEGER, MATMUL_NBITS


@dataclass(frozen=True)
class Graph:
    """A graph to which int8 nodes are added.

    Attributes:
        nodes: its nodes and initializers; those of a body share the outer graph's initializers.
        opset: of ONNX's own operators.
        kernel: one of `kernels.KERNELS`; with DynamicQuantizeLSTM, other products are MatMulInteger.
    """

    nodes: Nodes
    opset: int
    kernel: str = MATMUL_INTEGER

    def body(self) -> Graph:
        """A body inside this graph."""
        return Graph(Nodes(initializers=self.nodes.initializers), self.opset, self.kernel)

    def scalar(self, value: float, dtype: type = np.float32) -> str:
        """A constant of a single number."""
        kind = np.dtype(dtype)
        return self.nodes.constant(f"int8/{kind.name}/{digits(kind.type(value))}", np.array(value, dtype))

    def reduce(self, op: str, value: str, name: str, *axes: int, keep: bool = True) -> str:
        """A reduction of axes, by default of the last one; `keep` keeps them as axes of size 1."""
        axes = axes or (-1,)
        if self.opset >= 18 or op == "ReduceSum":
            return self.nodes.one(op, value, self.nodes.integers(*axes), name=name, keepdims=int(keep))
        return self.nodes.one(op, value, name=name, axes=list(axes), keepdims=int(keep))

    def split(self, value: str, sizes: Sequence[int], name: str, outputs: Sequence[str]) -> tuple[str, ...]:
        """Parts of a value of these sizes along its last axis."""
        return self.nodes.add("Split", value, self.nodes.integers(*sizes), name=name, outputs=outputs, axis=-1)

    def zeros_or_nan(self, rows: str, size: int, name: str) -> str:
        """For rows ``(..., size)``, ``(..., 1)`` with 0, or NaN for a row with a number that is not finite."""
        zeros = self.nodes.constant(f"int8/zeros/{size}", np.zeros((size, 1), np.float32))
        return self.nodes.one("MatMul", rows, zeros, name=name)


def digits(number: np.generic) -> str:
    """A number as text for a name, unique among the numbers of a dtype."""
    return str(number).removesuffix(".0")


@dataclass(frozen=True)
class Weight:
    """A weight ``(in, out)`` in a graph: the names of its integers and scales, and its sizes."""

    integers: str
    scales: str
    sizes: tuple[int, int]


def quantized_for(kernel: str, weight: np.ndarray) -> QuantizedWeight | BlockWeight:
    """A weight ``(in, out)`` of finite numbers in the form of a kernel."""
    return quantize_blocks(weight, kernel) if kernel in BLOCK_SIZES else quantize_weight(weight)


def add_weight(graph: Graph, name: str, weight: QuantizedWeight | BlockWeight) -> Weight:
    """Add the integers and scales of a weight."""
    name = f"{name}/blocks" if isinstance(weight, BlockWeight) else name
    integers, scales = (
        graph.nodes.constant(f"{name}/int8", weight.integers),
        graph.nodes.constant(f"{name}/scale", weight.scales),
    )
    return Weight(integers, scales, weight.sizes)


def zero_points(graph: Graph, x: str, name: str) -> str:
    """The zero point of each row of a step, uint8 ``(batch,)``, for `step_product`.

    Args:
        graph: the graph that contains the Scan.
        x: ``(time, batch, features)``.
        name: the value's name.
    """
    nodes = graph.nodes
    shape = nodes.one("Shape", x, name=f"{name}/shape")
    batch = nodes.one("Gather", shape, nodes.integers(1), name=f"{name}/batch")
    value = numpy_helper.from_array(np.array([ZERO_POINT], np.uint8))
    return nodes.one("ConstantOfShape", batch, name=name, value=value)


def step_product(graph: Graph, rows: str, weight: Weight, points: str, name: str) -> str:
    """A product of float32 rows ``(1, batch, in)`` by a weight ``(in, out)``, in a body, with few nodes.

    The numbers are those of `quantized_product`.  A NaN or an infinity may get lost: callers propagate it otherwise.

    Args:
        graph: the body.
        rows: the value.
        weight: of `add_weight`.
        points: of `zero_points`, from the outer graph.
        name: what the nodes' names start with.
    """
    nodes = graph.nodes
    if graph.kernel in BLOCK_SIZES:
        return _block_product(graph, rows, weight, name, name)
    size = nodes.one("Abs", rows, name=f"{name}/abs")
    largest = graph.reduce("ReduceMax", size, f"{name}/largest", 0, -1, keep=False)
    scale = nodes.one("Mul", largest, graph.scalar(float(ROW_STEP)), name=f"{name}/scale")
    integers = nodes.one("QuantizeLinear", rows, scale, points, name=f"{name}/uint8", axis=1)
    total = nodes.one(
        "MatMulInteger", integers, weight.integers, graph.scalar(ZERO_POINT, np.uint8), name=f"{name}/{MATMUL_INTEGER}"
    )
    total = nodes.one("DequantizeLinear", total, scale, name=f"{name}/by_rows", axis=1)
    return nodes.one("Mul", total, weight.scales, name=name)


def _block_product(graph: Graph, rows: str, weight: Weight, name: str, output: str) -> str:
    """A MatMulNBits of float32 rows ``(..., in)``."""
    size, out = weight.sizes
    return graph.nodes.one(
        MATMUL_NBITS,
        rows,
        weight.integers,
        weight.scales,
        name=f"{name}/{MATMUL_NBITS}",
        output=output,
        domain=CONTRIB,
        K=size,
        N=out,
        bits=8,
        block_size=block_size(graph.kernel, size),
        accuracy_level=4,
    )


def quantized_product(
    graph: Graph, rows: str, weight: Weight, name: str, *, output: str | None = None, axis: int = -1
) -> str:
    """A product of float32 rows ``(..., in)`` by a weight ``(in, out)``.

    A NaN or an infinity makes its row of the result NaN.

    Args:
        graph: what the nodes are added to.
        rows: the value.
        weight: of `add_weight`.
        name: what the nodes' names start with.
        output: the name of the result, by default `name`.
        axis: the last axis of the rows; if it counts from the end, ONNX Runtime (1.31) fails for a batch without rows.
    """
    nodes = graph.nodes
    if graph.kernel in BLOCK_SIZES:
        total = _block_product(graph, rows, weight, name, f"{name}/product")
        return nodes.one(
            "Add", total, graph.zeros_or_nan(rows, weight.sizes[0], f"{name}/zero"), name=name, output=output
        )
    total, scales = integer_product(graph, rows, weight, name, axis)
    # A DequantizeLinear with a scale for each feature is many times slower than these two nodes.
    total = nodes.one("Cast", total, name=f"{name}/float", to=TensorProto.FLOAT)
    total = nodes.one("Mul", total, scales, name=f"{name}/by_rows")
    return nodes.one("Mul", total, weight.scales, name=name, output=output)


def integer_product(graph: Graph, rows: str, weight: Weight, name: str, axis: int = -1) -> tuple[str, str]:
    """The integers of a product of float32 rows ``(..., in)`` by a weight ``(in, out)``, and the scales of the rows.

    These are int32 ``(..., out)`` and float32 ``(..., 1)``: NaN for a row with a number that is not finite.

    Args:
        graph: what the nodes are added to.
        rows: the value.
        weight: of `add_weight`.
        name: what the nodes' names start with.
        axis: see `quantized_product`.
    """
    nodes = graph.nodes
    absolute = nodes.one("Abs", rows, name=f"{name}/abs")
    largest = graph.reduce("ReduceMax", absolute, f"{name}/largest", axis)
    largest = nodes.one("Max", largest, graph.scalar(TINY), name=f"{name}/positive")
    scales = nodes.one("Mul", largest, graph.scalar(float(ROW_STEP)), name=f"{name}/row_scale")
    scaled = nodes.one("Div", rows, scales, name=f"{name}/scaled")
    zero_point = graph.scalar(ZERO_POINT, np.uint8)
    integers = nodes.one("QuantizeLinear", scaled, graph.scalar(1), zero_point, name=f"{name}/uint8")
    total = nodes.one("MatMulInteger", integers, weight.integers, zero_point, name=f"{name}/{MATMUL_INTEGER}")
    zeros = graph.zeros_or_nan(rows, weight.sizes[0], f"{name}/zero")
    return total, nodes.one("Add", scales, zeros, name=f"{name}/scale_or_nan")


def scaled_step(graph: Graph, total: str, scales: str, weight: Weight, name: str) -> str:
    """One step of an `integer_product`, in a body, as float32 ``(batch, out)``.

    In a body these numbers are still in a CPU's caches, which those of all steps would exceed.

    Args:
        graph: the body.
        total: the step's integers ``(batch, out)``.
        scales: of its rows ``(batch,)``.
        weight: of `add_weight`.
        name: what the nodes' names start with.
    """
    total = graph.nodes.one("DequantizeLinear", total, scales, name=f"{name}/by_rows", axis=0)
    return graph.nodes.one("Mul", total, weight.scales, name=name)
