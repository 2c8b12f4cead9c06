"""An LSTM stack as ONNX nodes: one emitter, whoever asks.

`lstm_stack` writes the nodes for any nn.LSTM into a `Nodes` list.  Each layer is one LSTM operator,
or, for a projection that is not folded, one Scan whose body is one time step.

Values are named for the person who opens the file: node ``l0/LSTM`` gives ``l0/LSTM`` (or
``l0/LSTM/Y``, ... where it has several outputs), and layer 0's matrices are ``l0/W``, ``l0/R``,
``l0/B``.  The names depend on the model alone, so two exports of one model are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from .spec import GATES, LSTMSpec
from .weights import Array, LayerWeights, fold_projection

DIRECTIONS = ("forward", "reverse")


@dataclass
class Nodes:
    """ONNX nodes and initializers in the making; values are their names."""

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self, op: str, *inputs: str, name: str, outputs: Sequence[str] | None = None, **attributes: Any
    ) -> tuple[str, ...]:
        """Append one node; `outputs` defaults to one value with the node's own name."""
        names = tuple(outputs or (name,))
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def one(self, op: str, *inputs: str, name: str, output: str | None = None, **attributes: Any) -> str:
        """`add` for a node with a single output."""
        return self.add(op, *inputs, name=name, outputs=(output or name,), **attributes)[0]

    def constant(self, name: str, array: np.ndarray) -> str:
        """An initializer; the same name may be asked for again with the same array."""
        held = self.initializers.setdefault(name, array)
        if held is not array and (held.dtype != array.dtype or not np.array_equal(held, array)):
            raise ValueError(f"the initializer {name} is there already, with other numbers")
        return name

    def integers(self, *values: int) -> str:
        """A 1-D int64 initializer, shared by all who ask for the same values (axes, shapes, sizes)."""
        return self.constant("ints/" + "_".join(map(str, values)), np.array(values, np.int64))


@dataclass(frozen=True)
class StackOutputs:
    """What a stack of layers yields.

    output is ``(time, batch, D*S)`` or batch first as asked; hn ``(L*D, batch, S)``; cn ``(L*D, batch, H)``.
    """

    output: str
    hn: str
    cn: str


def lstm_stack(
    nodes: Nodes,
    spec: LSTMSpec,
    layers: Sequence[LayerWeights],
    x: str,
    h0: str,
    c0: str,
    *,
    lengths: str | None = None,
    fold: bool = False,
    names: StackOutputs,
    prefix: str = "",
) -> StackOutputs:
    """Write the whole nn.LSTM: from `x` in the spec's own layout, h0 and c0 to `names`.

    Args:
        nodes: where to write.
        spec: the LSTM's sizes.
        layers: one `LayerWeights` a layer.
        x: ``(time, batch, input_size)``, or ``(batch, time, input_size)`` when `spec.batch_first`.
        h0: ``(L*D, batch, S)``.
        c0: ``(L*D, batch, H)``.
        lengths: int32 ``(batch,)`` in 1..time, or None when all sequences are whole.
        fold: lower projections to the LSTM operator instead of Scan.
        names: the names of the three results.
        prefix: put before every name, such as "encoder.".

    Raises:
        WeightsError: `fold` and a W_hr too badly conditioned for it.
    """
    if spec.batch_first:
        x = nodes.one("Transpose", x, name=f"{prefix}input/time_first", perm=[1, 0, 2])
    scan = spec.proj_size > 0 and not fold
    # The operator takes a layer's states with both directions in one tensor; a Scan carries each by itself.
    group = 1 if scan else spec.num_directions
    initial_h = _split_states(nodes, spec, h0, group, f"{prefix}h0")
    initial_c = _split_states(nodes, spec, c0, group, f"{prefix}c0")
    valid = _valid_steps(nodes, x, lengths, prefix) if scan and lengths else None
    final_h: list[str] = []
    final_c: list[str] = []
    step = len(initial_h) // spec.num_layers
    alone = len(initial_h) == 1
    for index, weights in enumerate(layers):
        last = index == spec.num_layers - 1
        layer = _Layer(
            nodes,
            spec,
            f"{prefix}l{index}",
            weights,
            index,
            y=names.output if last else None,
            batch_first=last and spec.batch_first,
            hn=names.hn if alone else None,
            cn=names.cn if alone else None,
        )
        states = slice(index * step, (index + 1) * step)
        if scan:
            x, h, c = _scan_layer(layer, x, initial_h[states], initial_c[states], valid)
        else:
            x, h, c = _operator_layer(layer, x, initial_h[index], initial_c[index], lengths)
        final_h += h
        final_c += c
    if not alone:
        nodes.add("Concat", *final_h, name=f"{prefix}hn/Concat", outputs=(names.hn,), axis=0)
        nodes.add("Concat", *final_c, name=f"{prefix}cn/Concat", outputs=(names.cn,), axis=0)
    return names


@dataclass(frozen=True)
class _Layer:
    """One layer to be written; the last has its results' names given."""

    nodes: Nodes
    spec: LSTMSpec
    name: str
    weights: LayerWeights
    index: int
    y: str | None
    batch_first: bool
    hn: str | None
    cn: str | None


def _split_states(nodes: Nodes, spec: LSTMSpec, value: str, group: int, name: str) -> list[str]:
    """``(L*D, batch, features)`` as pieces of `group` rows each."""
    total = spec.num_layers * spec.num_directions
    pieces = total // group
    if pieces == 1:
        return [value]
    outputs = [f"{name}/{piece}" for piece in range(pieces)]
    return list(nodes.add("Split", value, nodes.integers(*[group] * pieces), name=f"{name}/Split", outputs=outputs))


def _operator_layer(
    layer: _Layer, x: str, initial_h: str, initial_c: str, lengths: str | None
) -> tuple[str, list[str], list[str]]:
    """One layer as one LSTM operator, a projection folded into it."""
    nodes, spec, name, weights = layer.nodes, layer.spec, layer.name, layer.weights
    recurrent, project_out = weights.R, None
    if weights.W_hr is not None:
        folded = fold_projection(weights.R, weights.W_hr, layer=layer.index)
        recurrent = folded.R
        # With one direction the matrices stay 2-D: ONNX Runtime then runs each MatMul as a single GEMM.
        project_in = nodes.constant(f"{name}/W_hr_pinv", _squeezed(folded.P_in))
        project_out = nodes.constant(f"{name}/W_hr", _squeezed(folded.P_out))
        initial_h = nodes.one("MatMul", initial_h, project_in, name=f"{name}/unproject_h0")
    inputs = [x, nodes.constant(f"{name}/W", weights.W), nodes.constant(f"{name}/R", recurrent)]
    inputs.append("" if weights.B is None else nodes.constant(f"{name}/B", weights.B))
    inputs += [lengths or "", initial_h, initial_c]
    h_name = layer.hn if project_out is None else None
    y, h, c = nodes.add(
        "LSTM",
        *inputs,
        name=f"{name}/LSTM",
        outputs=(f"{name}/LSTM/Y", h_name or f"{name}/LSTM/Y_h", layer.cn or f"{name}/LSTM/Y_c"),
        hidden_size=spec.hidden_size,
        direction="bidirectional" if spec.bidirectional else "forward",
    )
    if project_out is not None:
        y = nodes.one("MatMul", y, project_out, name=f"{name}/project")
        h = nodes.one("MatMul", h, project_out, name=f"{name}/project_hn", output=layer.hn)
    return _merge_directions(layer, y), [h], [c]


def _squeezed(stacked: Array) -> Array:
    return stacked[0] if len(stacked) == 1 else stacked


def _merge_directions(layer: _Layer, y: str) -> str:
    """The operator's Y ``(time, D, batch, S)`` as ``(time, batch, D*S)``, or batch first."""
    nodes, spec, name = layer.nodes, layer.spec, layer.name
    if spec.num_directions == 1 and not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.y)
    perm = [2, 0, 1, 3] if layer.batch_first else [0, 2, 1, 3]
    y = nodes.one("Transpose", y, name=f"{name}/Transpose", perm=perm)
    # A 0 in Reshape keeps the dimension, whatever it is: batch and time stay dynamic.
    return nodes.one("Reshape", y, nodes.integers(0, 0, spec.output_size), name=f"{name}/output", output=layer.y)


def _scan_layer(
    layer: _Layer, x: str, initial_h: list[str], initial_c: list[str], valid: str | None
) -> tuple[str, list[str], list[str]]:
    """One projected layer as one Scan over time.

    The input's part of the gates, W x + b, needs no state: it is one MatMul for all steps, so the
    body is left with R h, the gates and the projection.  The reverse direction reads and writes its
    sequences backwards by the Scan's own direction attributes.
    """
    nodes, spec, name, weights = layer.nodes, layer.spec, layer.name, layer.weights
    directions = DIRECTIONS[: spec.num_directions]
    wide = np.concatenate([w.T for w in weights.W], axis=1)
    gates = nodes.one("MatMul", x, nodes.constant(f"{name}/W", wide), name=f"{name}/input_gates")
    if weights.B is not None:
        both = weights.B.reshape(len(directions), 2, -1).sum(axis=1).reshape(-1)
        gates = nodes.one("Add", gates, nodes.constant(f"{name}/B", both), name=f"{name}/input_gates_biased")
    if len(directions) == 1:
        scanned = [gates]
    else:
        sizes = nodes.integers(*[GATES * spec.hidden_size] * 2)
        outputs = [f"{name}/input_gates/{direction}" for direction in directions]
        scanned = list(nodes.add("Split", gates, sizes, name=f"{name}/input_gates/Split", outputs=outputs, axis=-1))
    body = _scan_body(layer, directions, masked=valid is not None)
    backwards = [int(direction == "reverse") for direction in directions]
    masks = [valid] * len(directions) if valid else []
    single = len(directions) == 1
    results = nodes.add(
        "Scan",
        *initial_h,
        *initial_c,
        *scanned,
        *masks,
        name=f"{name}/Scan",
        outputs=[
            *[(single and layer.hn) or f"{name}/Scan/h_{direction}" for direction in directions],
            *[(single and layer.cn) or f"{name}/Scan/c_{direction}" for direction in directions],
            *[f"{name}/Scan/y_{direction}" for direction in directions],
        ],
        body=body,
        num_scan_inputs=len(scanned) + len(masks),
        scan_input_directions=backwards * (2 if masks else 1),
        scan_output_directions=backwards,
    )
    count = len(directions)
    h, c, ys = list(results[:count]), list(results[count : 2 * count]), results[2 * count :]
    y = ys[0] if count == 1 else nodes.one("Concat", *ys, name=f"{name}/both_directions", axis=-1)
    if not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.y), h, c
    y = nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/time_first")
    return nodes.one("Transpose", y, name=f"{name}/output", output=layer.y, perm=[1, 0, 2]), h, c


def _scan_body(layer: _Layer, directions: Sequence[str], *, masked: bool) -> GraphProto:
    """One time step of a projected layer.

    States are h ``(1, batch, P)`` and c ``(1, batch, H)`` of each direction; scanned in are the input
    gates ``(batch, 4H)`` and, with lengths, whether the step is within the sequence ``(batch, 1)``.
    Matrices are read from the outer graph.  A step outside its sequence keeps the state and yields
    zeros; chosen by Where, so that a NaN in the padding stays there.
    """
    outer, spec, name = layer.nodes, layer.spec, layer.name
    body = Nodes()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    assert layer.weights.W_hr is not None  # noqa: S101 - only projected layers become a Scan
    zero = outer.constant(f"zero/{spec.dtype}", np.zeros((), spec.dtype)) if masked else ""
    h_out: list[str] = []
    c_out: list[str] = []
    y_out: list[str] = []
    for index, direction in enumerate(directions):
        at = f"{name}/{direction}"
        suffix = f"_{direction}" if spec.bidirectional else ""
        recurrent = outer.constant(f"{name}/R{suffix}", np.ascontiguousarray(layer.weights.R[index].T))
        project = outer.constant(f"{name}/W_hr{suffix}", np.ascontiguousarray(layer.weights.W_hr[index].T))
        h, c = f"{at}/h", f"{at}/c"
        gates = body.one("MatMul", h, recurrent, name=f"{at}/recurrent_gates")
        gates = body.one("Add", gates, f"{at}/input_gates", name=f"{at}/gates")
        sizes = outer.integers((GATES - 1) * spec.hidden_size, spec.hidden_size)
        iof, g = body.add("Split", gates, sizes, name=f"{at}/Split", outputs=(f"{at}/iof", f"{at}/cell_gate"), axis=-1)
        iof = body.one("Sigmoid", iof, name=f"{at}/Sigmoid")
        thirds = outer.integers(*[spec.hidden_size] * 3)
        i, o, f = body.add(
            "Split", iof, thirds, name=f"{at}/Split_iof", outputs=(f"{at}/i", f"{at}/o", f"{at}/f"), axis=-1
        )
        g = body.one("Tanh", g, name=f"{at}/g")
        kept = body.one("Mul", f, c, name=f"{at}/kept")
        written = body.one("Mul", i, g, name=f"{at}/written")
        new_c = body.one("Add", kept, written, name=f"{at}/new_c")
        shown = body.one("Tanh", new_c, name=f"{at}/tanh_c")
        hidden = body.one("Mul", o, shown, name=f"{at}/hidden")
        new_h = body.one("MatMul", hidden, project, name=f"{at}/new_h")
        y = new_h
        if masked:
            y = body.one("Where", f"{at}/valid", new_h, zero, name=f"{at}/masked_y")
            new_c = body.one("Where", f"{at}/valid", new_c, c, name=f"{at}/masked_c")
            new_h = body.one("Where", f"{at}/valid", new_h, h, name=f"{at}/masked_h")
        else:
            # A subgraph's outputs need names of their own.
            y = body.one("Identity", new_h, name=f"{at}/y")
        h_out.append(new_h)
        c_out.append(new_c)
        y_out.append(y)

    def value(name: str, shape: list[str | int], elem_type: int = kind) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, elem_type, shape)

    h_shape: list[str | int] = [1, "batch", spec.proj_size]
    c_shape: list[str | int] = [1, "batch", spec.hidden_size]
    inputs = [value(f"{name}/{direction}/h", h_shape) for direction in directions]
    inputs += [value(f"{name}/{direction}/c", c_shape) for direction in directions]
    inputs += [
        value(f"{name}/{direction}/input_gates", ["batch", GATES * spec.hidden_size]) for direction in directions
    ]
    if masked:
        inputs += [value(f"{name}/{direction}/valid", ["batch", 1], TensorProto.BOOL) for direction in directions]
    outputs = [value(h, h_shape) for h in h_out] + [value(c, c_shape) for c in c_out]
    outputs += [value(y, h_shape) for y in y_out]
    return helper.make_graph(body.nodes, f"{name}/step", inputs, outputs)


def _valid_steps(nodes: Nodes, x: str, lengths: str, prefix: str) -> str:
    """Whether each step lies within its sequence: bool ``(time, batch, 1)``."""
    at = f"{prefix}valid"
    shape = nodes.one("Shape", x, name=f"{at}/Shape")
    time = nodes.one("Gather", shape, nodes.constant("int/0", np.array(0, np.int64)), name=f"{at}/time")
    time = nodes.one("Cast", time, name=f"{at}/time_int32", to=TensorProto.INT32)
    zero = nodes.constant("int32/0", np.array(0, np.int32))
    one = nodes.constant("int32/1", np.array(1, np.int32))
    steps = nodes.one("Range", zero, time, one, name=f"{at}/Range")
    steps = nodes.one("Unsqueeze", steps, nodes.integers(1, 2), name=f"{at}/steps")
    column = nodes.one("Unsqueeze", lengths, nodes.integers(1), name=f"{at}/lengths")
    return nodes.one("Less", steps, column, name=at)
