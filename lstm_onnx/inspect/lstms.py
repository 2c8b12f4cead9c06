"""Each recurrent layer as an `LSTMInfo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import NodeProto

from ..onnxgraph import Scope, Tensor, Weight, dtype_name, node_name, text
from ..onnxgraph.recurrent import (
    INITIAL_C,
    INITIAL_H,
    PEEPHOLES,
    QUANTIZED_LSTM,
    RecurrentLayer,
    activations_of,
    has_default_activations,
    input_of,
    read_layer,
)
from .report import LSTMInfo

ELEMENTWISE = {"LSTM": 9, "GRU": 8, "RNN": 1}
"""An operator's elementwise FLOPs for each hidden feature, biases aside."""


def lstm_info(scope: Scope, node: NodeProto) -> LSTMInfo | None:
    """The recurrent layer that the node is, None for any other node."""
    layer = read_layer(node, scope.producers)
    if layer is None:
        return None
    return _scan_info(scope, layer) if layer.scan else _operator_info(scope, layer)


def _operator_info(scope: Scope, layer: RecurrentLayer) -> LSTMInfo:
    """A layer of G gates and D directions: W (D, GH, I), R (D, GH, H), B (D, 2GH), P (D, 3H)."""
    node, gates = layer.node, layer.gates
    transposed = node.op_type == QUANTIZED_LSTM
    bias, peepholes = bool(layer.B), bool(input_of(node, PEEPHOLES))
    notes = _unlike_torch(layer, peepholes=peepholes)
    names = {"W": input_of(node, 1), "R": input_of(node, 2), "B": input_of(node, 3), "P": input_of(node, PEEPHOLES)}
    pseudo_inverse, projection = layer.folded_projection(scope.nodes, scope.producers)
    if projection:
        names |= {"W_hr": projection[0].value}
        names |= {"W_hr_pinv": pseudo_inverse[0].value} if pseudo_inverse else {}
        for_h0 = ", and pinv(W_hr) is stored for h0" if pseudo_inverse else ""
        notes.append(f"a projection is folded in: R is R W_hr{for_h0}")
    weights = {key: scope.weight(name) for key, name in names.items() if name}
    computed = [key for key, weight in weights.items() if weight.tensor is None]
    if computed:
        notes.append(f"{', '.join(computed)} computed in the graph: not counted as parameters")
    input_matrix = _matrix(weights.get("W"), transposed=transposed)
    recurrent_matrix = _matrix(weights.get("R"), transposed=transposed)
    input_size = input_matrix[1] if input_matrix else None
    hidden_size = layer.hidden_size
    if recurrent_matrix:
        hidden_size = recurrent_matrix[1]
    elif not hidden_size and input_matrix:
        hidden_size = input_matrix[0] // gates
    if input_size is None or not hidden_size:
        notes.append("sizes are not in the file: FLOPs are not counted")
    projected = weights["W_hr"].dims if projection else ()
    # torch's GRU adds the bias of its recurrent matrix before the reset gate, separately from that of W.
    biases = gates + (layer.op_type == "GRU" and bool(layer.attributes.get("linear_before_reset", 0)))
    return _info(
        scope,
        layer,
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=projected[-1] if len(projected) > 1 else 0,
        state_size=hidden_size,
        elementwise=biases * bias + 6 * peepholes,
        initial=(input_of(node, INITIAL_H), input_of(node, INITIAL_C)),
        dtype=next((weight.dtype for weight in weights.values() if weight.dtype), "") or scope.dtype(layer.x),
        weights=[weight.tensor for weight in weights.values() if weight.tensor],
        notes=notes,
    )


def _scan_info(scope: Scope, layer: RecurrentLayer) -> LSTMInfo | None:
    """A layer of G gates: W (I, D*GH), B (D*GH), and for each direction R (S, GH) and perhaps W_hr (H, P)."""
    matrices = [scope.weight(port.value).tensor for port in (*layer.W, *layer.R, *layer.W_hr)]
    stored = [tensor for tensor in matrices if tensor is not None and len(tensor.dims) == 2]
    if len(stored) < len(matrices):
        return None
    proj_size = stored[-1].dims[1] if layer.W_hr else 0
    biases = [tensor for port in (*layer.B, *layer.Rb) if (tensor := scope.weight(port.value).tensor)]
    return _info(
        scope,
        layer,
        input_size=stored[0].dims[0],
        hidden_size=layer.hidden_size,
        proj_size=proj_size,
        state_size=proj_size or layer.hidden_size,
        elementwise=layer.gates * bool(layer.B) + bool(layer.Rb),
        initial=tuple(port.value for state in "hc" for port in layer.initial(state)),
        dtype=dtype_name(stored[0].elem_type),
        weights=[*stored, *biases],
        notes=["torch's two biases are stored as their sum"] if layer.B else [],
    )


def _info(
    scope: Scope,
    layer: RecurrentLayer,
    *,
    input_size: int | None,
    hidden_size: int,
    proj_size: int,
    state_size: int,
    elementwise: int,
    initial: tuple[str, ...],
    dtype: str,
    weights: Sequence[Tensor],
    notes: list[str],
) -> LSTMInfo:
    """What operators and Scans share; h has `state_size` features in the node."""
    origins = [scope.origins(name) for name in initial]
    computed = sorted({op for _, ops in origins for op in ops})
    if computed:
        notes.append(f"initial states are computed in the graph ({', '.join(computed)})")
    flops = 0
    if input_size is not None and hidden_size:
        flops = 2 * layer.gates * hidden_size * (input_size + state_size) + 2 * proj_size * hidden_size
        flops += hidden_size * (ELEMENTWISE[layer.op_type] + elementwise)
        flops *= layer.directions
    return LSTMInfo(
        name=node_name(layer.node),
        kind=layer.node.op_type,
        direction=layer.direction,
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=proj_size,
        bias=bool(layer.B),
        states=tuple(dict.fromkeys(source for sources, _ in origins for source in sources)),
        lengths=next(iter(scope.origins(layer.lengths.value)[0]), "") if layer.lengths else None,
        dtype=dtype,
        parameters=sum(tensor.size for tensor in weights),
        bytes=sum(tensor.num_bytes for tensor in weights),
        flops_per_step=flops,
        notes=tuple(notes),
    )


def _unlike_torch(layer: RecurrentLayer, *, peepholes: bool) -> list[str]:
    """What the operator does that torch's module does not."""
    attributes: Mapping[str, Any] = layer.attributes
    notes = ["peepholes"] if peepholes else []
    if "clip" in attributes:
        notes.append(f"clip {text(attributes['clip'])}")
    if attributes.get("layout", 0):
        notes.append("layout=1 (batch first), which ONNX Runtime refuses")
    if attributes.get("input_forget", 0):
        notes.append("input_forget (input and forget gate are coupled)")
    if layer.op_type == "GRU" and not attributes.get("linear_before_reset", 0):
        notes.append("linear_before_reset=0 (the reset gate is applied before the recurrent matrix)")
    if not has_default_activations(layer.node):
        notes.append(f"activations {', '.join(activations_of(layer.node))}")
    return notes


def _matrix(weight: Weight | None, *, transposed: bool) -> tuple[int, int] | None:
    """Rows and columns of one direction's matrix, None if they are unknown."""
    if weight is None or len(weight.dims) != 3:
        return None
    _, rows, columns = weight.dims
    return (columns, rows) if transposed else (rows, columns)
