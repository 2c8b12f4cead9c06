"""Recurrent layers as ONNX nodes: the one emitter, of bare LSTMs and of those within a module.

`recurrent_stack` writes the nodes for any nn.LSTM, nn.GRU or nn.RNN into a `Nodes` list.  Each layer
is one LSTM, GRU or RNN operator, or, for a projection that is not folded, one Scan whose body is one
time step.

Node ``l0/LSTM`` has the output ``l0/LSTM`` (or ``l0/LSTM/Y``, ... where it has several), and layer 0's
matrices are ``l0/W``, ``l0/R``, ``l0/B`` (see `node_names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from ..onnxgraph.builder import Nodes, valid_steps
from ..spec import GRUSpec, RecurrentSpec, RNNSpec
from .node_names import DIRECTIONS, FOLDED_INVERSE
from .weights import Array, LayerWeights, fold_projection


@dataclass(frozen=True)
class StackOutputs:
    """The names of the outputs of a stack of layers; None for one that is not used, which is not written.

    Attributes:
        output: ``(time, batch, D*S)``, or ``(batch, time, D*S)`` with ``batch_first``.
        hn: ``(L*D, batch, S)``.
        cn: ``(L*D, batch, H)``; None for a GRU and an RNN, which have no cell state.
    """

    output: str | None
    hn: str | None
    cn: str | None


def recurrent_stack(
    nodes: Nodes,
    spec: RecurrentSpec,
    layers: Sequence[LayerWeights],
    x: str,
    h0: str | None,
    c0: str | None,
    *,
    lengths: str | None = None,
    fold: bool = False,
    names: StackOutputs,
    prefix: str = "",
    weights_prefix: str | None = None,
    batch_axis: str = "batch",
) -> StackOutputs:
    """Write all layers of an nn.LSTM, nn.GRU or nn.RNN.

    With L layers, D directions, H hidden_size and S proj_size or hidden_size; all floats are of the spec's dtype.

    Args:
        nodes: the list that nodes and initializers are appended to.
        spec: the module's sizes.
        layers: the weights of each layer.
        x: ``(time, batch, input_size)``, or ``(batch, time, input_size)`` when `spec.batch_first`.
        h0: ``(L*D, batch, S)``, or None for zeros.
        c0: ``(L*D, batch, H)``, or None for zeros; a GRU and an RNN have none.
        lengths: int32 ``(batch,)`` in 1..time, or None where all sequences are of full length.
        fold: write projections by the LSTM operator instead of Scan.
        names: the names of the outputs, of which at least one is not None.
        prefix: what all names start with, such as "encoder/"; small constants have none and are shared.
        weights_prefix: what the weights' names start with, if not `prefix`, so that two stacks can share them.
        batch_axis: the name of the batch axis in a Scan's body.

    Returns:
        `names`, with cn None where there is no cell state.

    Raises:
        WeightsError: `fold` and a W_hr too badly conditioned for it.
    """
    if not spec.has_cell:
        c0, names = None, replace(names, cn=None)
    if spec.batch_first:
        x = nodes.one("Transpose", x, name=f"{prefix}input/time_first", perm=[1, 0, 2])
    scan = layers[0].W_hr is not None and not fold
    # The operator takes the states of both directions as one tensor, a Scan one for each.
    step = spec.num_directions if scan else 1
    pieces = spec.num_layers * step
    # The operator's states default to zeros, a Scan's do not.
    zero_h, zero_c = _zero_states(nodes, spec, x, prefix) if scan and not (h0 and c0) else ("", "")
    initial_h = _split_states(nodes, spec, h0, pieces, f"{prefix}h0") if h0 else [zero_h] * pieces
    initial_c = _split_states(nodes, spec, c0, pieces, f"{prefix}c0") if c0 else [zero_c] * pieces
    valid = valid_steps(nodes, x, lengths, f"{prefix}valid") if scan and lengths else None
    final_h: list[str] = []
    final_c: list[str] = []
    for index, weights in enumerate(layers):
        name = f"{prefix}l{index}"
        last = index == spec.num_layers - 1
        layer = _Layer(
            nodes,
            spec,
            name,
            f"{prefix if weights_prefix is None else weights_prefix}l{index}",
            weights,
            index,
            outputs=names if last else replace(names, output=f"{name}/output"),
            batch_first=last and spec.batch_first,
            batch_axis=batch_axis,
            only=pieces == 1,
        )
        states = slice(index * step, (index + 1) * step)
        if scan:
            x, h, c = _scan_layer(layer, x, initial_h[states], initial_c[states], valid)
        else:
            x, h, c = _operator_layer(layer, x, initial_h[index], initial_c[index], lengths or "")
        final_h += h
        final_c += c
    for final, joined, short in ((final_h, names.hn, "hn"), (final_c, names.cn, "cn")):
        if joined and pieces > 1:
            nodes.add("Concat", *final, name=f"{prefix}{short}/Concat", outputs=(joined,), axis=0)
    return names


@dataclass(frozen=True)
class _Layer:
    """One layer to be written.

    `outputs` names its outputs.  Where it is not the `only` layer with states, its final states are parts of
    hn and cn: then only whether `outputs` has them counts.
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

    def constant(self, name: str, array: Array) -> str:
        """Add one of the layer's matrices as an initializer."""
        return self.nodes.constant(f"{self.weights_name}/{name}", array)

    def state(self, name: str | None, part: str) -> str:
        """The name of a final state: `name`, or `part` of one of several layers; "" where it is not used."""
        return (name if self.only else part) if name else ""


def _split_states(nodes: Nodes, spec: RecurrentSpec, value: str, pieces: int, name: str) -> list[str]:
    """``(L*D, batch, features)`` split into `pieces` along its first axis."""
    if pieces == 1:
        return [value]
    sizes = nodes.integers(*[spec.num_layers * spec.num_directions // pieces] * pieces)
    outputs = [f"{name}/{piece}" for piece in range(pieces)]
    return list(nodes.add("Split", value, sizes, name=f"{name}/Split", outputs=outputs))


def _operator_layer(
    layer: _Layer, x: str, initial_h: str, initial_c: str, lengths: str
) -> tuple[str, list[str], list[str]]:
    """One layer as one LSTM, GRU or RNN operator, with a projection folded into it: output, final h and c."""
    nodes, spec, name, weights, outputs = layer.nodes, layer.spec, layer.name, layer.weights, layer.outputs
    operator = f"{name}/{spec.op_type}"
    y = f"{operator}/Y" if outputs.output else ""
    h = layer.state(outputs.hn, f"{operator}/Y_h")
    c = layer.state(outputs.cn, f"{operator}/Y_c")
    recurrent, project_out = weights.R, None
    if weights.W_hr is not None:
        folded = fold_projection(weights.R, weights.W_hr, layer=layer.index)
        recurrent = folded.R
        # With one direction the matrices stay 2-D: ONNX Runtime then runs each MatMul as a single GEMM.
        if initial_h:
            project_in = layer.constant(FOLDED_INVERSE, _squeezed(folded.P_in))
            initial_h = nodes.one("MatMul", initial_h, project_in, name=f"{name}/unproject_h0")
        project_out = layer.constant("W_hr", _squeezed(folded.P_out))
        h = h and f"{operator}/Y_h"
    inputs = [x, layer.constant("W", weights.W), layer.constant("R", recurrent)]
    inputs.append("" if weights.B is None else layer.constant("B", weights.B))
    nodes.add(
        spec.op_type,
        *_present([*inputs, lengths, initial_h, initial_c]),
        name=operator,
        outputs=_present([y, h, c]),
        hidden_size=spec.hidden_size,
        direction="bidirectional" if spec.bidirectional else "forward",
        **_attributes(spec),
    )
    if project_out is not None:
        y = y and nodes.one("MatMul", y, project_out, name=f"{name}/project")
        projected = f"{name}/project_hn"
        h = h and nodes.one("MatMul", h, project_out, name=projected, output=layer.state(outputs.hn, projected))
    return y and _merge_directions(layer, y), [h], [c]


def _attributes(spec: RecurrentSpec) -> dict[str, Any]:
    """The attributes that make the operator compute what torch does."""
    if isinstance(spec, GRUSpec):
        return {"linear_before_reset": 1}  # torch's reset gate acts on R h + Rb, not on h
    if isinstance(spec, RNNSpec):
        return {"activations": [spec.nonlinearity.capitalize()] * spec.num_directions}
    return {}


def _present(names: Sequence[str]) -> list[str]:
    """`names` without the absent ones at the end."""
    count = max(place for place, name in enumerate(names, 1) if name)
    return list(names[:count])


def _squeezed(stacked: Array) -> Array:
    return stacked[0] if len(stacked) == 1 else stacked


def _merge_directions(layer: _Layer, y: str) -> str:
    """The operator's Y ``(time, D, batch, S)`` as ``(time, batch, D*S)``, or batch first."""
    nodes, spec, name = layer.nodes, layer.spec, layer.name
    if spec.num_directions == 1 and not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.outputs.output)
    perm = [2, 0, 1, 3] if layer.batch_first else [0, 2, 1, 3]
    y = nodes.one("Transpose", y, name=f"{name}/Transpose", perm=perm)
    # A 0 in Reshape keeps the dimension, whatever it is: batch and time stay dynamic.
    shape = nodes.integers(0, 0, spec.output_size)
    return nodes.one("Reshape", y, shape, name=f"{name}/output", output=layer.outputs.output)


def _scan_layer(
    layer: _Layer, x: str, initial_h: list[str], initial_c: list[str], valid: str | None
) -> tuple[str, list[str], list[str]]:
    """One projected layer as one Scan over time, all of whose outputs are written.

    The input's part of the gates, W x + b, needs no state: it is one MatMul for all steps, and the body
    computes R h, the gates and the projection.  The reverse direction reads and writes its sequences
    backwards by the Scan's direction attributes.  Returns the output, and the final h and c of each direction.
    """
    nodes, spec, name, weights = layer.nodes, layer.spec, layer.name, layer.weights
    count = spec.num_directions
    directions = DIRECTIONS[:count]
    wide = np.concatenate([w.T for w in weights.W], axis=1)
    gates = nodes.one("MatMul", x, layer.constant("W", wide), name=f"{name}/input_gates")
    if weights.B is not None:
        both = weights.B.reshape(count, 2, -1).sum(axis=1).reshape(-1)
        gates = nodes.one("Add", gates, layer.constant("B", both), name=f"{name}/input_gates_biased")
    if count == 1:
        scanned = [gates]
    else:
        sizes = nodes.integers(*[spec.gates * spec.hidden_size] * 2)
        outputs = [f"{name}/input_gates/{direction}" for direction in directions]
        scanned = list(nodes.add("Split", gates, sizes, name=f"{name}/input_gates/Split", outputs=outputs, axis=-1))
    body = _scan_body(layer, directions, masked=valid is not None)
    backwards = [int(direction == "reverse") for direction in directions]
    masks = [valid] * count if valid else []
    results = nodes.add(
        "Scan",
        *initial_h,
        *initial_c,
        *scanned,
        *masks,
        name=f"{name}/Scan",
        outputs=[
            *[(layer.only and layer.outputs.hn) or f"{name}/Scan/h_{direction}" for direction in directions],
            *[(layer.only and layer.outputs.cn) or f"{name}/Scan/c_{direction}" for direction in directions],
            *[f"{name}/Scan/y_{direction}" for direction in directions],
        ],
        body=body,
        num_scan_inputs=len(scanned) + len(masks),
        scan_input_directions=backwards * (2 if masks else 1),
        scan_output_directions=backwards,
    )
    h, c, ys = list(results[:count]), list(results[count : 2 * count]), results[2 * count :]
    if not layer.outputs.output:
        return "", h, c
    y = ys[0] if count == 1 else nodes.one("Concat", *ys, name=f"{name}/both_directions", axis=-1)
    if not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.outputs.output), h, c
    y = nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/time_first")
    return nodes.one("Transpose", y, name=f"{name}/output", output=layer.outputs.output, perm=[1, 0, 2]), h, c


def _scan_body(layer: _Layer, directions: Sequence[str], *, masked: bool) -> GraphProto:
    """One time step of a projected layer.

    States are h ``(1, batch, P)`` and c ``(1, batch, H)`` of each direction; scanned in are the input
    gates ``(batch, 4H)`` and, with lengths, whether the step is within the sequence ``(batch, 1)``.
    Matrices are read from the outer graph.  A step past the end of its sequence keeps the state and gives
    zeros, by Where, so that a NaN in the padding does not spread.
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
        recurrent = layer.constant(f"R{suffix}", np.ascontiguousarray(layer.weights.R[index].T))
        project = layer.constant(f"W_hr{suffix}", np.ascontiguousarray(layer.weights.W_hr[index].T))
        h, c = f"{at}/h", f"{at}/c"
        gates = body.one("MatMul", h, recurrent, name=f"{at}/recurrent_gates")
        gates = body.one("Add", gates, f"{at}/input_gates", name=f"{at}/gates")
        sizes = outer.integers((spec.gates - 1) * spec.hidden_size, spec.hidden_size)
        iof, g = body.add("Split", gates, sizes, name=f"{at}/Split", outputs=(f"{at}/iof", f"{at}/cell_gate"), axis=-1)
        iof = body.one("Sigmoid", iof, name=f"{at}/Sigmoid")
        sizes, outputs = outer.integers(*[spec.hidden_size] * 3), [f"{at}/{gate}" for gate in "iof"]
        i, o, f = body.add("Split", iof, sizes, name=f"{at}/Split_iof", outputs=outputs, axis=-1)
        g = body.one("Tanh", g, name=f"{at}/g")
        kept = body.one("Mul", f, c, name=f"{at}/kept")
        written = body.one("Mul", i, g, name=f"{at}/written")
        new_c = body.one("Add", kept, written, name=f"{at}/new_c")
        shown = body.one("Tanh", new_c, name=f"{at}/tanh_c")
        hidden = body.one("Mul", o, shown, name=f"{at}/hidden")
        new_h = body.one("MatMul", hidden, project, name=f"{at}/new_h")
        if masked:
            y = body.one("Where", f"{at}/valid", new_h, zero, name=f"{at}/masked_y")
            new_c = body.one("Where", f"{at}/valid", new_c, c, name=f"{at}/masked_c")
            new_h = body.one("Where", f"{at}/valid", new_h, h, name=f"{at}/masked_h")
        else:
            y = body.one("Identity", new_h, name=f"{at}/y")  # a subgraph's outputs need names of their own
        h_out.append(new_h)
        c_out.append(new_c)
        y_out.append(y)

    def values(names: Sequence[str], shape: tuple[str | int, ...], elem_type: int = kind) -> list[ValueInfoProto]:
        return [helper.make_tensor_value_info(name, elem_type, shape) for name in names]

    def of_each(short: str) -> list[str]:
        return [f"{name}/{direction}/{short}" for direction in directions]

    batch = layer.batch_axis
    h_shape, c_shape = (1, batch, spec.state_size), (1, batch, spec.hidden_size)
    inputs = values(of_each("h"), h_shape) + values(of_each("c"), c_shape)
    inputs += values(of_each("input_gates"), (batch, spec.gates * spec.hidden_size))
    if masked:
        inputs += values(of_each("valid"), (batch, 1), TensorProto.BOOL)
    results = values(h_out, h_shape) + values(c_out, c_shape) + values(y_out, h_shape)
    return helper.make_graph(body.nodes, f"{name}/step", inputs, results)


def _zero_states(nodes: Nodes, spec: RecurrentSpec, x: str, prefix: str) -> tuple[str, str]:
    """Zeros ``(1, batch, S)`` and ``(1, batch, H)``, for every layer and direction without initial states."""
    at = f"{prefix}zeros"
    shape = nodes.one("Shape", x, name=f"{at}/Shape")
    batch = nodes.one("Gather", shape, nodes.integers(1), name=f"{at}/batch")
    shape = nodes.one("Concat", nodes.integers(1), batch, nodes.integers(1), name=f"{at}/shape", axis=0)

    def zeros(state: str, features: int) -> str:
        row = nodes.constant(f"zero/{spec.dtype}/{features}", np.zeros((1, 1, features), spec.dtype))
        return nodes.one("Expand", row, shape, name=f"{at}/{state}")

    return zeros("h0", spec.state_size), zeros("c0", spec.hidden_size)
