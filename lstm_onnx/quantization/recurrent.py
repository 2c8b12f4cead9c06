"""Writes an LSTM, GRU or RNN operator as int8: one product for all steps outside, a Scan over time for the rest.

Formulas are those of ONNX's operators (https://onnx.ai/onnx/operators/), with gates in the order i, o, f, c for an LSTM
and z, r, h for a GRU.  Each direction is one Scan; the reverse one reads and writes its sequences backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from ..onnxgraph.builder import valid_steps
from .arithmetic import QuantizedWeight
from .block_products import BlockWeight
from .kernels import BLOCK_SIZES, DYNAMIC_QUANTIZE_LSTM, MATMUL_INTEGER
from .products import (
    Graph,
    Weight,
    add_weight,
    integer_product,
    quantized_for,
    quantized_product,
    scaled_step,
    step_product,
    zero_points,
)

INPUT_PRODUCT, HIDDEN_PRODUCT, RESET_PRODUCT = "input_product", "hidden_product", "reset_product"
"""The suffixes of the products' names: by W, by R, and by the part of a GRU's R after the reset gate."""
OR_NAN = "_or_nan"
"""The suffix of the name of an initial state that is NaN where the other one was."""


@dataclass(frozen=True)
class Layer:
    """An LSTM, GRU or RNN operator with constant weights; D directions, G gates, H hidden_size.

    Attributes:
        name: the node's name.
        op_type: "LSTM", "GRU" or "RNN".
        W: ``(D, G*H, input_size)``.
        R: ``(D, G*H, H)``.
        B: ``(D, 2*G*H)``.
        P: ``(D, 3*H)``, an LSTM's peepholes of the input, output and forget gates; None if there are none.
        weights: the names of W and R, for those of their integers and scales.
        x: ``(time, batch, input_size)``.
        lengths: int32 ``(batch,)``, or "".
        h0, c0: ``(D, batch, H)``, or "" for zeros.
        y, hn, cn: the names of the outputs; "" for one that is not used.
        reverse: for each direction, whether it starts at the end.
        activations: for each direction, its activations.
        reset_after: linear_before_reset of a GRU.
        kernel: the kernel of its products, one of `kernels.KERNELS`.
        caller: the name of the node whose body contains it; "" for none.
    """

    name: str
    op_type: str
    W: np.ndarray
    R: np.ndarray
    B: np.ndarray
    weights: tuple[str, str]
    x: str
    lengths: str
    h0: str
    c0: str
    y: str
    hn: str
    cn: str
    reverse: tuple[bool, ...]
    activations: tuple[tuple[str, ...], ...]
    reset_after: bool = False
    kernel: str = MATMUL_INTEGER
    caller: str = ""
    P: np.ndarray | None = None

    @property
    def hidden_size(self) -> int:
        """The features of h and c."""
        return int(self.R.shape[2])

    @property
    def cell(self) -> bool:
        """Whether there is a cell state."""
        return self.op_type == "LSTM"

    def recurrent_parts(self, index: int) -> list[np.ndarray]:
        """R of a direction: whole, or for a GRU the parts before and after a reset gate that is applied between."""
        if self.op_type == "GRU" and not self.reset_after:
            return np.split(self.R[index], [2 * self.hidden_size])
        return [self.R[index]]

    @cached_property
    def quantized(self) -> tuple[tuple[QuantizedWeight | BlockWeight, ...], ...]:
        """For each direction its weights in the kernel's form: W, and the parts of R."""
        matrices = [(self.W[index], *self.recurrent_parts(index)) for index in range(len(self.reverse))]
        return tuple(tuple(quantized_for(self.kernel, matrix.T) for matrix in one) for one in matrices)


@dataclass(frozen=True)
class _Direction:
    """One direction: names of its parts in the outer graph, and its weights.

    `bias` belongs to the input's part of the gates, `bias_h` to the part that a GRU's reset gate multiplies.
    """

    name: str
    index: int
    W: Weight
    R: tuple[Weight, ...]
    bias: str
    bias_h: str
    points: str
    peepholes: tuple[str, ...] = ()


def add_layer(graph: Graph, layer: Layer) -> None:
    """Add the nodes of a layer, which give the operator's outputs under their own names."""
    nodes = graph.nodes
    valid = valid_steps(nodes, layer.x, layer.lengths, f"{layer.name}/valid") if layer.lengths else ""
    zeros = add_zeros(graph, layer, 1) if not layer.h0 or (layer.cell and not layer.c0) else ""
    points = "" if graph.kernel in BLOCK_SIZES else zero_points(graph, layer.x, f"{layer.name}/zero_points")
    count = len(layer.reverse)
    h0 = _by_direction(graph, layer.h0, count, f"{layer.name}/h0") if layer.h0 else [zeros] * count
    c0 = _by_direction(graph, layer.c0, count, f"{layer.name}/c0") if layer.cell and layer.c0 else [zeros] * count
    outputs = (layer.y, layer.hn, layer.cn)
    for index in range(count):
        _add_direction(graph, layer, index, h0[index], c0[index], valid, points)
    if count == 1:
        return  # its Scan gives the outputs themselves
    found = [direction_outputs(layer, index) for index in range(count)]
    for output, axis, values in zip(outputs, (1, 0, 0), zip(*found, strict=True), strict=False):
        if output:
            nodes.one("Concat", *values, name=f"{output}/Concat", output=output, axis=axis)


def direction_outputs(layer: Layer, index: int) -> list[str]:
    """The values of a direction: its output ``(time, 1, batch, H)``, its final h and, for an LSTM, c ``(1, batch, H)``.

    For a layer with a single direction they are the operator's own outputs, if these are used.  Those of
    DynamicQuantizeLSTM contain all directions.
    """
    if layer.kernel == DYNAMIC_QUANTIZE_LSTM:
        return [f"{layer.name}/{DYNAMIC_QUANTIZE_LSTM}/{output}" for output in ("Y", "Y_h", "Y_c")]
    name = _direction_name(layer, index)
    own = [f"{name}/output", f"{name}/hn", *([f"{name}/cn"] if layer.cell else [])]
    if len(layer.reverse) > 1:
        return own
    return [output or value for output, value in zip((layer.y, layer.hn, layer.cn), own, strict=False)]


def direction_nodes(layer: Layer) -> list[str]:
    """The names of the nodes that give `direction_outputs`."""
    if layer.kernel == DYNAMIC_QUANTIZE_LSTM:
        return [f"{layer.name}/{DYNAMIC_QUANTIZE_LSTM}"] * len(layer.reverse)
    return [f"{_direction_name(layer, index)}/Scan" for index in range(len(layer.reverse))]


def direction_arrays(layer: Layer, index: int, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A direction's output ``(time, batch, H)``, its final h and, for an LSTM, c ``(batch, H)``."""
    output, *final = (values[name] for name in direction_outputs(layer, index))
    at = index if layer.kernel == DYNAMIC_QUANTIZE_LSTM else 0
    return [output[:, at], *(array[at] for array in final)]


def _direction_name(layer: Layer, index: int) -> str:
    return f"{layer.name}/{'reverse' if layer.reverse[index] else 'forward'}"


def _add_direction(graph: Graph, layer: Layer, index: int, h0: str, c0: str, valid: str, points: str) -> None:
    """Add one direction, with its states ``(1, batch, H)``."""
    nodes = graph.nodes
    name = _direction_name(layer, index)
    suffix = f"/{index}" if len(layer.reverse) > 1 else ""
    gates = layer.R.shape[1]
    input_matrix, *parts = layer.quantized[index]
    input_weight = add_weight(graph, f"{layer.weights[0]}{suffix}", input_matrix)
    input_bias, bias_h = layer.B[index][:gates], layer.B[index][gates:]
    if layer.op_type == "GRU":
        hidden = layer.hidden_size
        # The reset gate is applied between the two biases: only those of the other gates can be added outside.
        input_bias = input_bias + np.concatenate([bias_h[: 2 * hidden], np.zeros(hidden, np.float32)])
        bias_h = bias_h[2 * hidden :]
        if not layer.reset_after:
            input_bias[2 * hidden :] += bias_h
    else:
        input_bias = input_bias + bias_h
    recurrent = tuple(
        add_weight(graph, f"{layer.weights[1]}{suffix}{f'/part{at}' if len(parts) > 1 else ''}", part)
        for at, part in enumerate(parts)
    )
    bias = nodes.constant(f"{name}/bias", np.ascontiguousarray(input_bias, np.float32))
    hidden_bias = ""
    if layer.op_type == "GRU" and layer.reset_after:
        hidden_bias = nodes.constant(f"{name}/hidden_bias", np.ascontiguousarray(bias_h, np.float32))
    if layer.h0:
        h0, c0 = _carry_nan(graph, layer, h0, c0, name)
    peepholes = () if layer.P is None else np.split(layer.P[index], 3)
    direction = _Direction(
        name,
        index,
        input_weight,
        recurrent,
        bias,
        hidden_bias,
        points,
        tuple(nodes.constant(f"{name}/P_{gate}", part) for gate, part in zip("iof", peepholes, strict=False)),
    )
    body = _body(graph, layer, direction, masked=bool(valid))
    backwards = int(layer.reverse[index])
    states = [h0, c0] if layer.cell else [h0]
    scanned = [*_products_of_x(graph, layer, direction), *([valid] if valid else [])]
    output, *final = direction_outputs(layer, index)
    nodes.add(
        "Scan",
        *states,
        *scanned,
        name=direction_nodes(layer)[index],
        outputs=[*final, output],
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_directions=[backwards] * len(scanned),
        scan_output_directions=[backwards],
    )


def _products_of_x(graph: Graph, layer: Layer, at: _Direction) -> list[str]:
    """What a body reads of x at each step: its part of the gates; for MatMulInteger, integers and the rows' scales."""
    nodes, name = graph.nodes, f"{at.name}/{INPUT_PRODUCT}"
    if graph.kernel in BLOCK_SIZES:
        product = quantized_product(graph, layer.x, at.W, name)
        return [nodes.one("Add", product, at.bias, name=f"{at.name}/input_gates")]
    total, scales = integer_product(graph, layer.x, at.W, name)
    return [total, nodes.one("Squeeze", scales, nodes.integers(-1), name=f"{name}/scales")]


def _gates_of_x(inner: Graph, layer: Layer, at: _Direction) -> tuple[str, list[ValueInfoProto]]:
    """In a body, the input's part of the gates ``(batch, gates)``, and its inputs for them, see `_products_of_x`."""
    gates = layer.R.shape[1]
    if inner.kernel in BLOCK_SIZES:
        gx = f"{at.name}/gates_of_x"
        return gx, [helper.make_tensor_value_info(gx, TensorProto.FLOAT, ("batch", gates))]
    total, scales = f"{at.name}/integers_of_x", f"{at.name}/scales_of_x"
    product = scaled_step(inner, total, scales, at.W, f"{at.name}/{INPUT_PRODUCT}")
    return inner.nodes.one("Add", product, at.bias, name=f"{at.name}/input_gates"), [
        helper.make_tensor_value_info(total, TensorProto.INT32, ("batch", gates)),
        helper.make_tensor_value_info(scales, TensorProto.FLOAT, ("batch",)),
    ]


def _carry_nan(graph: Graph, layer: Layer, h0: str, c0: str, name: str) -> tuple[str, str]:
    """Initial states in which a NaN or an infinity in h is spread to c, or to all of h, which propagates it."""
    nodes = graph.nodes
    zero = graph.zeros_or_nan(h0, layer.hidden_size, f"{name}/h0_zero")
    if layer.cell:
        return h0, nodes.one("Add", c0, zero, name=f"{name}/c0{OR_NAN}")
    return nodes.one("Add", h0, zero, name=f"{name}/h0{OR_NAN}"), c0


def _body(graph: Graph, layer: Layer, at: _Direction, *, masked: bool) -> GraphProto:
    """One step, from states ``(1, batch, H)``, the values for x's part of the gates and, with lengths, its validity."""
    inner = graph.body()
    body = inner.nodes
    name, hidden = at.name, layer.hidden_size
    h, c, valid = f"{name}/h", f"{name}/c", f"{name}/valid"
    gx, read = _gates_of_x(inner, layer, at)
    new_c = ""
    if layer.op_type == "LSTM":
        new_h, new_c = _lstm_step(inner, layer, at, h, c, gx)
    elif layer.op_type == "GRU":
        new_h = _gru_step(inner, layer, at, h, gx)
    else:
        gates = body.one("Add", gx, _hidden_product(inner, at, h), name=f"{name}/gates")
        # A tanh of finite gates would hide a NaN in h.
        gates = body.one("Add", gates, inner.zeros_or_nan(h, hidden, f"{name}/h_zero"), name=f"{name}/gates_or_nan")
        new_h = body.one(layer.activations[at.index][0], gates, name=f"{name}/new_h")
    if masked:
        y = body.one("Where", valid, new_h, graph.scalar(0), name=f"{name}/masked_y")
        new_h = body.one("Where", valid, new_h, h, name=f"{name}/masked_h")
        new_c = new_c and body.one("Where", valid, new_c, c, name=f"{name}/masked_c")
    else:
        y = body.one("Identity", new_h, name=f"{name}/y")
    inputs, outputs = [h, *([c] if new_c else [])], [new_h, *([new_c] if new_c else [])]
    values = [*(_state(value, hidden) for value in inputs), *read]
    if masked:
        values.append(helper.make_tensor_value_info(valid, TensorProto.BOOL, ("batch", 1)))
    return helper.make_graph(body.nodes, f"{name}/step", values, [_state(value, hidden) for value in (*outputs, y)])


def _hidden_product(inner: Graph, at: _Direction, rows: str, part: int = 0) -> str:
    """The product of rows ``(1, batch, H)`` by R, or by a part of it."""
    name = f"{at.name}/{RESET_PRODUCT if part else HIDDEN_PRODUCT}"
    return step_product(inner, rows, at.R[part], at.points, name)


def _lstm_step(inner: Graph, layer: Layer, at: _Direction, h: str, c: str, gx: str) -> tuple[str, str]:
    body, name = inner.nodes, at.name
    hidden = layer.hidden_size
    f, g, shown = layer.activations[at.index]
    # If h has a NaN, so does c, which propagates it.
    gates = body.one("Add", gx, _hidden_product(inner, at, h), name=f"{name}/gates")
    iof, cell = inner.split(gates, (3 * hidden, hidden), f"{name}/Split", (f"{name}/iof", f"{name}/cell_gate"))
    if not at.peepholes:
        iof = body.one(f, iof, name=f"{name}/iof_activated")
    i, o, forget = inner.split(iof, (hidden,) * 3, f"{name}/Split_iof", [f"{name}/{gate}" for gate in "iof"])

    def peeped(gate: str, place: int, state: str) -> str:
        """A gate with its peephole on the cell state."""
        seen = body.one("Mul", at.peepholes[place], state, name=f"{gate}_seen")
        return body.one(f, body.one("Add", gate, seen, name=f"{gate}_peeped"), name=f"{gate}_activated")

    if at.peepholes:
        i, forget = peeped(i, 0, c), peeped(forget, 2, c)
    written = body.one("Mul", i, body.one(g, cell, name=f"{name}/g"), name=f"{name}/written")
    kept = body.one("Mul", forget, c, name=f"{name}/kept")
    new_c = body.one("Add", kept, written, name=f"{name}/new_c")
    if at.peepholes:
        o = peeped(o, 1, new_c)
    return body.one("Mul", o, body.one(shown, new_c, name=f"{name}/shown"), name=f"{name}/new_h"), new_c


def _gru_step(inner: Graph, layer: Layer, at: _Direction, h: str, gx: str) -> str:
    body, name = inner.nodes, at.name
    hidden = layer.hidden_size
    f, g = layer.activations[at.index]
    sizes = (2 * hidden, hidden)
    x_zr, x_n = inner.split(gx, sizes, f"{name}/Split_x", (f"{name}/x_zr", f"{name}/x_n"))
    # A NaN in h stays, since the new h contains h times a gate.
    product = _hidden_product(inner, at, h)
    h_n = ""
    if layer.reset_after:
        product, h_n = inner.split(product, sizes, f"{name}/Split_h", (f"{name}/h_zr", f"{name}/h_n"))
    zr = body.one(f, body.one("Add", x_zr, product, name=f"{name}/zr_gates"), name=f"{name}/zr")
    z, r = inner.split(zr, (hidden,) * 2, f"{name}/Split_zr", (f"{name}/z", f"{name}/r"))
    if layer.reset_after:
        h_n = body.one("Add", h_n, at.bias_h, name=f"{name}/h_n_biased")
        h_n = body.one("Mul", r, h_n, name=f"{name}/reset")
    else:
        reset = body.one("Mul", r, h, name=f"{name}/reset")
        h_n = _hidden_product(inner, at, reset, 1)
    n = body.one(g, body.one("Add", x_n, h_n, name=f"{name}/n_gates"), name=f"{name}/n")
    change = body.one("Sub", h, n, name=f"{name}/change")
    return body.one("Add", n, body.one("Mul", z, change, name=f"{name}/kept"), name=f"{name}/new_h")


def _state(name: str, features: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, "batch", features))


def _by_direction(graph: Graph, value: str, count: int, name: str) -> Sequence[str]:
    """``(D, batch, H)`` as one ``(1, batch, H)`` for each direction."""
    if count == 1:
        return [value]
    outputs = [f"{name}/{index}" for index in range(count)]
    sizes = graph.nodes.integers(*[1] * count)
    return graph.nodes.add("Split", value, sizes, name=f"{name}/Split", outputs=outputs, axis=0)


def add_zeros(graph: Graph, layer: Layer, count: int) -> str:
    """Add initial states of zeros ``(count, batch, H)``."""
    nodes, name = graph.nodes, f"{layer.name}/zeros"
    shape = nodes.one("Shape", layer.x, name=f"{name}/Shape")
    batch = nodes.one("Gather", shape, nodes.integers(1), name=f"{name}/batch")
    shape = nodes.one(
        "Concat", nodes.integers(count), batch, nodes.integers(layer.hidden_size), name=f"{name}/shape", axis=0
    )
    return nodes.one("Expand", graph.scalar(0), shape, name=name)
