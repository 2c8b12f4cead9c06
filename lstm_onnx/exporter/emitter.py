"""Recurrent layers as ONNX nodes: the one emitter, of bare LSTMs and of those within a module.

`recurrent_stack` writes the nodes for any nn.LSTM, nn.GRU or nn.RNN into a `Nodes` list.  Each layer
is one LSTM, GRU or RNN operator, or, for a projection that is not folded and where it is asked for, one Scan whose
body is one time step (`scan_layers`).

Node ``l0/LSTM`` has the output ``l0/LSTM`` (or ``l0/LSTM/Y``, ... where it has several), and layer 0's
matrices are ``l0/W``, ``l0/R``, ``l0/B`` (see `node_names`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..onnxgraph.builder import Nodes, valid_steps
from ..onnxgraph.nan_marks import final_mark, step_marks
from ..spec import GRUSpec, RecurrentSpec, RNNSpec
from .node_names import FOLDED_INVERSE
from .scan_layers import Layer, StackOutputs, copied_steps, scan_layer, zero_states
from .targets import AS_OPERATORS, LayerForm
from .weights import Array, LayerWeights, fold_projection

__all__ = ["StackOutputs", "recurrent_stack"]


def recurrent_stack(
    nodes: Nodes,
    spec: RecurrentSpec,
    layers: Sequence[LayerWeights],
    x: str,
    h0: str | None,
    c0: str | None,
    *,
    lengths: str | None = None,
    form: LayerForm = AS_OPERATORS,
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
        lengths: int32 ``(batch,)`` in 1..time, with `form.int64_steps` of any integers; None where all sequences are of
            full length.
        form: the form of each layer.
        names: the names of the outputs, of which at least one is not None.
        prefix: what all names start with, such as "encoder/"; small constants have none and are shared.
        weights_prefix: what the weights' names start with, if not `prefix`, so that two stacks can share them.
        batch_axis: the name of the batch axis in a Scan's body.

    Returns:
        `names`, with cn None where there is no cell state.

    Raises:
        WeightsError: `form` folds, and a W_hr is too badly conditioned for it.
    """
    if not spec.has_cell:
        c0, names = None, replace(names, cn=None)
    if spec.batch_first:
        x = nodes.one("Transpose", x, name=f"{prefix}input/time_first", perm=[1, 0, 2])
    scan = form.scan or (layers[0].W_hr is not None and not form.fold)
    # The operator takes the states of both directions as one tensor, a Scan one for each.
    step = spec.num_directions if scan else 1
    pieces = spec.num_layers * step
    # An operator's states default to zeros, a Scan's do not.
    given = h0 and (c0 or not spec.has_cell)
    zero_h, zero_c = zero_states(nodes, spec, x, prefix) if scan and not given else ("", "")
    initial_h = _split_states(nodes, spec, h0, pieces, f"{prefix}h0") if h0 else [zero_h] * pieces
    initial_c = _split_states(nodes, spec, c0, pieces, f"{prefix}c0") if c0 else [zero_c] * pieces
    if scan and form.copied_input:
        x = copied_steps(nodes, x, f"{prefix}input/copied")
    valid = None
    if (scan or form.keeps_nan) and lengths:
        valid = valid_steps(nodes, x, lengths, f"{prefix}valid", int64=form.int64_steps)
    final_h: list[str] = []
    final_c: list[str] = []
    for index, weights in enumerate(layers):
        name = f"{prefix}l{index}"
        last = index == spec.num_layers - 1
        layer = Layer(
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
            exact_sigmoid=form.exact_sigmoid,
        )
        states = slice(index * step, (index + 1) * step)
        if scan:
            x, h, c = scan_layer(layer, x, initial_h[states], initial_c[states], valid)
        else:
            x, h, c = _operator_layer(
                layer, x, initial_h[index], initial_c[index], lengths or "", valid or "", keeps_nan=form.keeps_nan
            )
        final_h += h
        final_c += c
    for final, joined, short in ((final_h, names.hn, "hn"), (final_c, names.cn, "cn")):
        if joined and pieces > 1:
            nodes.add("Concat", *final, name=f"{prefix}{short}/Concat", outputs=(joined,), axis=0)
    return names


def _split_states(nodes: Nodes, spec: RecurrentSpec, value: str, pieces: int, name: str) -> list[str]:
    """``(L*D, batch, features)`` split into `pieces` along its first axis."""
    if pieces == 1:
        return [value]
    sizes = nodes.integers(*[spec.num_layers * spec.num_directions // pieces] * pieces)
    outputs = [f"{name}/{piece}" for piece in range(pieces)]
    return list(nodes.add("Split", value, sizes, name=f"{name}/Split", outputs=outputs))


def _operator_layer(
    layer: Layer, x: str, initial_h: str, initial_c: str, lengths: str, valid: str, *, keeps_nan: bool
) -> tuple[str, list[str], list[str]]:
    """One layer as one LSTM, GRU or RNN operator, with a projection folded into it: output, final h and c."""
    nodes, spec, name, weights, outputs = layer.nodes, layer.spec, layer.name, layer.weights, layer.outputs
    operator = f"{name}/{spec.op_type}"
    y = f"{operator}/Y" if outputs.output else ""
    h = layer.state(outputs.hn, f"{operator}/Y_h")
    c = layer.state(outputs.cn, f"{operator}/Y_c")
    recurrent, project_out = weights.R, None
    states = [value for value in (initial_h, initial_c) if value]
    if weights.W_hr is not None:
        folded = fold_projection(weights.R, weights.W_hr, layer=layer.index, known=weights.folded)
        recurrent = folded.R
        # With one direction the matrices stay 2-D, so that ONNX Runtime runs each MatMul as a single GEMM.
        if initial_h:
            project_in = layer.constant(FOLDED_INVERSE, _squeezed(folded.P_in))
            initial_h = nodes.one("MatMul", initial_h, project_in, name=f"{name}/unproject_h0")
        project_out = layer.constant("W_hr", _squeezed(folded.P_out))
        h = h and f"{operator}/Y_h"
    inputs = [x, layer.constant("W", weights.W), layer.constant("R", recurrent)]
    inputs.append("" if weights.B is None else layer.constant("B", weights.B))
    peepholes = "" if weights.P is None else layer.constant("P", weights.P)
    results = [y, h, c]
    if keeps_nan:
        results = [
            value and f"{operator}/{part}_of_numbers" for value, part in zip(results, ("Y", "Y_h", "Y_c"), strict=True)
        ]
    nodes.add(
        spec.op_type,
        *_present([*inputs, lengths, initial_h, initial_c, peepholes]),
        name=operator,
        outputs=_present(results),
        hidden_size=spec.hidden_size,
        direction="bidirectional" if spec.bidirectional else "forward",
        **_attributes(spec, weights),
    )
    if keeps_nan:
        _add_nan(layer, x, states, valid, list(zip(results, (y, h, c), strict=True)))
    if project_out is not None:
        y = y and nodes.one("MatMul", y, project_out, name=f"{name}/project")
        projected = f"{name}/project_hn"
        h = h and nodes.one("MatMul", h, project_out, name=projected, output=layer.state(outputs.hn, projected))
    return y and _merge_directions(layer, y), [h], [c]


def _add_nan(layer: Layer, x: str, states: Sequence[str], valid: str, results: Sequence[tuple[str, str]]) -> None:
    """Add NaN to what follows from a NaN in x or in the initial states: to each result, under another name."""
    nodes, spec, name = layer.nodes, layer.spec, layer.name
    zero = nodes.constant(f"{spec.dtype}/0", np.zeros((), spec.dtype))
    nan = nodes.constant(f"{spec.dtype}/nan", np.full((), np.nan, spec.dtype))

    def mark_of(value: str, title: str) -> str:
        found = nodes.one("IsNaN", value, name=f"{name}/{title}_is_nan")
        marks = nodes.one("Where", found, nan, zero, name=f"{name}/{title}_zeros")
        return nodes.one("ReduceSum", marks, nodes.integers(-1), name=f"{name}/{title}_zero", keepdims=1)

    x_mark = mark_of(x, "x")
    if valid:
        x_mark = nodes.one("Where", valid, x_mark, zero, name=f"{name}/x_valid_zero")
    marks = [mark_of(value, title) for value, title in zip(states, ("h0", "c0"), strict=False)]
    state_mark = nodes.one("Add", *marks, name=f"{name}/states_zero") if len(marks) > 1 else "".join(marks)
    (y, marked), *finals = results
    if y:
        reverse = [False, True][: spec.num_directions]
        mark = step_marks(nodes, name, zero, x_mark, reverse, state_mark, valid)
        nodes.one("Add", y, mark, name=f"{y}_or_nan", output=marked)
    finals = [(value, output) for value, output in finals if value]
    mark = final_mark(nodes, name, x_mark, state_mark) if finals else ""
    for value, output in finals:
        nodes.one("Add", value, mark, name=f"{value}_or_nan", output=output)


def _attributes(spec: RecurrentSpec, weights: LayerWeights) -> dict[str, Any]:
    """The attributes that make the operator compute what torch does, or what the weights say."""
    if isinstance(spec, GRUSpec):
        # torch's reset gate acts on R h + Rb, not on h
        return {"linear_before_reset": int(not weights.reset_before)}
    if isinstance(spec, RNNSpec):
        return {"activations": [spec.nonlinearity.capitalize()] * spec.num_directions}
    return {}


def _present(names: Sequence[str]) -> list[str]:
    """`names` without the absent ones at the end."""
    count = max(place for place, name in enumerate(names, 1) if name)
    return list(names[:count])


def _squeezed(stacked: Array) -> Array:
    return stacked[0] if len(stacked) == 1 else stacked


def _merge_directions(layer: Layer, y: str) -> str:
    """The operator's Y ``(time, D, batch, S)`` as ``(time, batch, D*S)``, or batch first."""
    nodes, spec, name = layer.nodes, layer.spec, layer.name
    if spec.num_directions == 1 and not layer.batch_first:
        return nodes.one("Squeeze", y, nodes.integers(1), name=f"{name}/output", output=layer.outputs.output)
    perm = [2, 0, 1, 3] if layer.batch_first else [0, 2, 1, 3]
    y = nodes.one("Transpose", y, name=f"{name}/Transpose", perm=perm)
    # A 0 in Reshape keeps the dimension, whatever it is: batch and time stay dynamic.
    shape = nodes.integers(0, 0, spec.output_size)
    return nodes.one("Reshape", y, shape, name=f"{name}/output", output=layer.outputs.output)
