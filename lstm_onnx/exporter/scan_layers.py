"""Recurrent layers as ONNX Scans: projected LSTMs, and layers that an engine's own operators compute wrongly.

The input's part of the gates, W x + b, needs no state: it is one MatMul for all steps.  The body of the Scan is one
step, and reads its matrices from the outer graph.  The reverse direction reads and writes its sequences backwards by
the Scan's direction attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from ..onnxgraph.builder import Nodes
from ..spec import RecurrentSpec, RNNSpec
from .node_names import DIRECTIONS
from .weights import Array, LayerWeights


@dataclass(frozen=True)
class StackOutputs:
    """The names of the outputs of a stack of layers; None for an unused output, which is not written.

    Attributes:
        output: ``(time, batch, D*S)``, or ``(batch, time, D*S)`` with ``batch_first``.
        hn: ``(L*D, batch, S)``.
        cn: ``(L*D, batch, H)``; None for a GRU and an RNN, which have no cell state.
    """

    output: str | None
    hn: str | None
    cn: str | None


@dataclass(frozen=True)
class Layer:
    """One layer to be written.

    `outputs` names its outputs.  If it is not the `only` layer with states, its final states are parts of hn and cn,
    and it only matters whether `outputs` has these.  `exact_sigmoid` is of `targets.LayerForm`.
    """

    nodes: Nodes
    spec: RecurrentSpec
    name: str
    weights_name: str
    weights: LayerWeights
    index: int
    outputs: StackOutputs
    batch_first: bool
    batch_axis: str
    only: bool
    exact_sigmoid: bool = False

    def constant(self, name: str, array: Array) -> str:
        """Add one of the layer's matrices as an initializer."""
        return self.nodes.constant(f"{self.weights_name}/{name}", array)

    def state(self, name: str | None, part: str) -> str:
        """The name of a final state: `name`, or `part` of one of several layers; "" where it is not used."""
        return (name if self.only else part) if name else ""


def scan_layer(
    layer: Layer, x: str, initial_h: list[str], initial_c: list[str], valid: str | None
) -> tuple[str, list[str], list[str]]:
    """One layer as one Scan over time, all of whose outputs are written.

    Args:
        layer: what to write.
        x: ``(time, batch, features)``.
        initial_h: for each direction, ``(1, batch, S)``.
        initial_c: for each direction, ``(1, batch, H)``; empty where there is no cell state.
        valid: bool ``(time, batch, 1)``, the steps within their sequences; None for all.

    Returns:
        The output, and the final h and c of each direction.
    """
    nodes, spec, name = layer.nodes, layer.spec, layer.name
    count = spec.num_directions
    directions = DIRECTIONS[:count]
    wide = np.concatenate([w.T for w in layer.weights.W], axis=1)
    gates = nodes.one("MatMul", x, layer.constant("W", wide), name=f"{name}/input_gates")
    input_bias, recurrent_bias = _biases(layer)
    if input_bias is not None:
        gates = nodes.one("Add", gates, layer.constant("B", input_bias), name=f"{name}/input_gates_biased")
    if count == 1:
        scanned = [gates]
    else:
        sizes = nodes.integers(*[spec.gates * spec.hidden_size] * 2)
        outputs = [f"{name}/input_gates/{direction}" for direction in directions]
        scanned = list(nodes.add("Split", gates, sizes, name=f"{name}/input_gates/Split", outputs=outputs, axis=-1))
    body = _body(layer, directions, recurrent_bias, masked=valid is not None)
    backwards = [int(direction == "reverse") for direction in directions]
    masks = [valid] * count if valid else []
    cell_outputs = [(layer.only and layer.outputs.cn) or f"{name}/Scan/c_{direction}" for direction in directions]
    results = nodes.add(
        "Scan",
        *initial_h,
        *(initial_c if spec.has_cell else []),
        *scanned,
        *masks,
        name=f"{name}/Scan",
        outputs=[
            *[(layer.only and layer.outputs.hn) or f"{name}/Scan/h_{direction}" for direction in directions],
            *(cell_outputs if spec.has_cell else []),
            *[f"{name}/Scan/y_{direction}" for direction in directions],
        ],
        body=body,
        num_scan_inputs=len(scanned) + len(masks),
        scan_input_directions=backwards * (2 if masks else 1),
        scan_output_directions=backwards,
    )
    h, c, ys = list(results[:count]), list(results[count:-count]), results[-count:]
    c = c or [""] * count
    if not layer.outputs.output:
        return "", h, c
    y = ys[0] if count == 1 else nodes.one("Concat", *ys, name=f"{name}/both_directions", axis=-1)
    if not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.outputs.output), h, c
    y = nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/time_first")
    return nodes.one("Transpose", y, name=f"{name}/output", output=layer.outputs.output, perm=[1, 0, 2]), h, c


def _biases(layer: Layer) -> tuple[Array | None, Array | None]:
    """The biases that are added to W x, ``(D*G*H,)``, and to R h of a GRU's new gate before the reset, ``(D, H)``."""
    spec, biases = layer.spec, layer.weights.B
    if biases is None:
        return None, None
    parts = biases.reshape(spec.num_directions, 2, -1)
    if spec.op_type != "GRU":
        return parts.sum(axis=1).reshape(-1), None
    new = (spec.gates - 1) * spec.hidden_size
    recurrent = parts[:, 1, new:].copy()
    outside = parts[:, 0].copy()
    outside[:, :new] += parts[:, 1, :new]
    return outside.reshape(-1), recurrent


def _body(layer: Layer, directions: Sequence[str], recurrent_bias: Array | None, *, masked: bool) -> GraphProto:
    """One time step.

    States are h ``(1, batch, S)`` and c ``(1, batch, H)`` of each direction; scanned in are the input
    gates ``(batch, G*H)`` and, with lengths, whether the step is within the sequence ``(batch, 1)``.
    Matrices are read from the outer graph.  A step past the end of its sequence keeps the state and gives
    zeros, by Where, so that a NaN in the padding does not spread.
    """
    outer, spec, name = layer.nodes, layer.spec, layer.name
    body = Nodes()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    zero = outer.constant(f"zero/{spec.dtype}", np.zeros((), spec.dtype)) if masked else ""
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[spec.op_type]
    h_out: list[str] = []
    c_out: list[str] = []
    y_out: list[str] = []
    for index, direction in enumerate(directions):
        at = f"{name}/{direction}"
        h, c = f"{at}/h", f"{at}/c"
        bias = None if recurrent_bias is None else recurrent_bias[index]
        new_h, new_c = step(_Step(layer, body, at, index, bias), h, c)
        if masked:
            y = body.one("Where", f"{at}/valid", new_h, zero, name=f"{at}/masked_y")
            if new_c:
                new_c = body.one("Where", f"{at}/valid", new_c, c, name=f"{at}/masked_c")
            new_h = body.one("Where", f"{at}/valid", new_h, h, name=f"{at}/masked_h")
        else:
            y = body.one("Identity", new_h, name=f"{at}/y")  # a subgraph's outputs need names of their own
        h_out.append(new_h)
        c_out += [new_c] if new_c else []
        y_out.append(y)

    def values(names: Sequence[str], shape: tuple[str | int, ...], elem_type: int = kind) -> list[ValueInfoProto]:
        return [helper.make_tensor_value_info(name, elem_type, shape) for name in names]

    def of_each(short: str) -> list[str]:
        return [f"{name}/{direction}/{short}" for direction in directions]

    batch = layer.batch_axis
    h_shape, c_shape = (1, batch, spec.state_size), (1, batch, spec.hidden_size)
    inputs = values(of_each("h"), h_shape) + (values(of_each("c"), c_shape) if spec.has_cell else [])
    inputs += values(of_each("input_gates"), (batch, spec.gates * spec.hidden_size))
    if masked:
        inputs += values(of_each("valid"), (batch, 1), TensorProto.BOOL)
    results = values(h_out, h_shape) + values(c_out, c_shape) + values(y_out, h_shape)
    return helper.make_graph(body.nodes, f"{name}/step", inputs, results)


@dataclass(frozen=True)
class _Step:
    """One direction of a step, written into `body` under names that start with `at`."""

    layer: Layer
    body: Nodes
    at: str
    index: int
    recurrent_bias: Array | None

    def matrix(self, name: str, array: Array) -> str:
        """A matrix of this direction, as the right operand of a product."""
        return self.vector(name, np.ascontiguousarray(array[self.index].T))

    def vector(self, name: str, array: Array) -> str:
        """Numbers of this direction, in the outer graph."""
        suffix = f"_{DIRECTIONS[self.index]}" if self.layer.spec.bidirectional else ""
        return self.layer.constant(f"{name}{suffix}", array)

    def one(self, op: str, *inputs: str, name: str) -> str:
        """Add a node to the body."""
        return self.body.one(op, *inputs, name=f"{self.at}/{name}")

    def split(self, value: str, sizes: Sequence[int], name: str, outputs: Sequence[str]) -> tuple[str, ...]:
        """Split a value along its last axis."""
        lengths = self.layer.nodes.integers(*sizes)
        names = [f"{self.at}/{output}" for output in outputs]
        return self.body.add("Split", value, lengths, name=f"{self.at}/{name}", outputs=names, axis=-1)

    def sigmoid(self, value: str, name: str = "") -> str:
        """Add a sigmoid called `name`; where exp overflows to infinity, its reciprocal is the right 0."""
        at = f"{name}_" if name else ""
        if not self.layer.exact_sigmoid:
            return self.one("Sigmoid", value, name=f"{at}Sigmoid")
        dtype = self.layer.spec.dtype
        one = self.layer.nodes.constant(f"one/{dtype}", np.ones((), dtype))
        power = self.one("Exp", self.one("Neg", value, name=f"{at}Neg"), name=f"{at}Exp")
        return self.one("Reciprocal", self.one("Add", power, one, name=f"{at}Add"), name=f"{at}Sigmoid")

    def peeping(self, gate: str, value: str, peepholes: Array, c: str) -> str:
        """A gate that sees the cell state by peepholes, ``(D, 3*H)`` of i, o and f."""
        own = np.split(peepholes[self.index], 3)["iof".index(gate)]
        seen = self.one("Mul", c, self.vector(f"P_{gate}", own), name=f"{gate}_seen")
        return self.sigmoid(self.one("Add", value, seen, name=f"{gate}_gate"), name=gate)

    @property
    def input_gates(self) -> str:
        """The step's part of W x + b."""
        return f"{self.at}/input_gates"


def _lstm_step(step: _Step, h: str, c: str) -> tuple[str, str]:
    size, weights = step.layer.spec.hidden_size, step.layer.weights
    gates = step.one("MatMul", h, step.matrix("R", weights.R), name="recurrent_gates")
    project = None if weights.W_hr is None else step.matrix("W_hr", weights.W_hr)
    gates = step.one("Add", gates, step.input_gates, name="gates")
    if weights.P is None:
        iof, g = step.split(gates, (3 * size, size), "Split", ("iof", "cell_gate"))
        i, o, f = step.split(step.sigmoid(iof), (size,) * 3, "Split_iof", "iof")
    else:
        i, o, f, g = step.split(gates, (size,) * 4, "Split", (*(f"{gate}_blind" for gate in "iof"), "cell_gate"))
        i, f = step.peeping("i", i, weights.P, c), step.peeping("f", f, weights.P, c)
    g = step.one("Tanh", g, name="g")
    kept = step.one("Mul", f, c, name="kept")
    written = step.one("Mul", i, g, name="written")
    new_c = step.one("Add", kept, written, name="new_c")
    if weights.P is not None:
        o = step.peeping("o", o, weights.P, new_c)
    shown = step.one("Tanh", new_c, name="tanh_c")
    if project is None:
        return step.one("Mul", o, shown, name="new_h"), new_c
    hidden = step.one("Mul", o, shown, name="hidden")
    return step.one("MatMul", hidden, project, name="new_h"), new_c


def _gru_step(step: _Step, h: str, _: str) -> tuple[str, str]:
    size, weights = step.layer.spec.hidden_size, step.layer.weights
    zr, new = step.split(step.input_gates, (2 * size, size), "Split_input", ("input_zr", "input_new"))
    own_new = ""
    if weights.reset_before:
        own_zr = step.one("MatMul", h, step.matrix("R_zr", weights.R[:, : 2 * size]), name="recurrent_zr")
    else:
        recurrent = step.one("MatMul", h, step.matrix("R", weights.R), name="recurrent_gates")
        own_zr, own_new = step.split(recurrent, (2 * size, size), "Split_recurrent", ("recurrent_zr", "recurrent_new"))
    zr = step.sigmoid(step.one("Add", own_zr, zr, name="zr"))
    z, r = step.split(zr, (size,) * 2, "Split_zr", "zr")
    if weights.reset_before:
        reset = step.one("Mul", r, h, name="reset")
        own_new = step.one("MatMul", reset, step.matrix("R_new", weights.R[:, 2 * size :]), name="recurrent_new")
    if step.recurrent_bias is not None:
        own_new = step.one("Add", own_new, step.vector("Rb", step.recurrent_bias), name="recurrent_new_biased")
    if not weights.reset_before:
        own_new = step.one("Mul", r, own_new, name="reset")
    new = step.one("Tanh", step.one("Add", new, own_new, name="new_gate"), name="n")
    kept = step.one("Mul", z, step.one("Sub", h, new, name="change"), name="kept")
    return step.one("Add", new, kept, name="new_h"), ""


def _rnn_step(step: _Step, h: str, _: str) -> tuple[str, str]:
    spec = step.layer.spec
    gates = step.one("MatMul", h, step.matrix("R", step.layer.weights.R), name="recurrent_gates")
    gates = step.one("Add", gates, step.input_gates, name="gates")
    assert isinstance(spec, RNNSpec)  # noqa: S101 - its operator says so
    return step.one(spec.nonlinearity.capitalize(), gates, name="new_h"), ""


def zero_states(nodes: Nodes, spec: RecurrentSpec, x: str, prefix: str) -> tuple[str, str]:
    """Zeros ``(1, batch, S)`` and, for a cell state, ``(1, batch, H)``, for layers without states."""
    at = f"{prefix}zeros"
    shape = nodes.one("Shape", x, name=f"{at}/Shape")
    batch = nodes.one("Gather", shape, nodes.integers(1), name=f"{at}/batch")
    shape = nodes.one("Concat", nodes.integers(1), batch, nodes.integers(1), name=f"{at}/shape", axis=0)

    def zeros(state: str, features: int) -> str:
        row = nodes.constant(f"zero/{spec.dtype}/{features}", np.zeros((1, 1, features), spec.dtype))
        return nodes.one("Expand", row, shape, name=f"{at}/{state}")

    return zeros("h0", spec.state_size), zeros("c0", spec.hidden_size) if spec.has_cell else ""


def copied_steps(nodes: Nodes, x: str, name: str) -> str:
    """A copy of ``(time, batch, features)``, gathered step by step."""
    shape = nodes.one("Shape", x, name=f"{name}/Shape")
    first, one = nodes.constant("int/0", np.array(0, np.int64)), nodes.constant("int/1", np.array(1, np.int64))
    time = nodes.one("Gather", shape, first, name=f"{name}/time")
    steps = nodes.one("Range", first, time, one, name=f"{name}/steps")
    return nodes.one("Gather", x, steps, name=name, axis=0)
