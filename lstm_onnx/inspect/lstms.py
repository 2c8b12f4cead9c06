"""Every recurrent node as an `LSTMInfo`: ONNX's LSTM, GRU and RNN, ONNX Runtime's quantised LSTM, our Scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from ..onnxgraph import Scope, Tensor, Weight, attributes_of, dtype_name, is_default, text, typed
from ..spec import GATES
from .report import LSTMInfo


@dataclass(frozen=True)
class _Kind:
    """How an operator counts: its gates, its work on each hidden feature beside them, ONNX's default activations."""

    gates: int
    elementwise: int
    activations: tuple[str, ...]


_KINDS = {
    "LSTM": _Kind(GATES, 9, ("sigmoid", "tanh", "tanh")),
    "GRU": _Kind(3, 8, ("sigmoid", "tanh")),
    "RNN": _Kind(1, 1, ("tanh",)),
}
_CALL = re.compile(r"(?:^|(?<=/))call[0-9]+/(?=l[0-9]+/[A-Za-z]*$)")
"""In the names of a module's nodes, from its second call on; its weights have the first call's names."""
_MODULE = re.compile(r"(?:(?P<path>.+)/)?l[0-9]+/(?:LSTM|GRU|RNN|Scan)")


def lstm_info(scope: Scope, node: NodeProto) -> LSTMInfo | None:
    """The LSTM, GRU or RNN that the node is, None for any other operator."""
    if node.op_type == "Scan" and is_default(node.domain):
        weights = _scan_weights(scope, node)
        return _scan_info(scope, node, weights) if weights else None
    quantised = (node.domain, node.op_type) == ("com.microsoft", "DynamicQuantizeLSTM")
    if quantised or (node.op_type in _KINDS and is_default(node.domain)):
        return _operator_info(scope, node, quantised=quantised)
    return None


def module_of(name: str) -> str | None:
    """The path of the nn.Module whose layer a node of that name is, in a file that lstm-onnx made of a module."""
    match = _MODULE.fullmatch(_CALL.sub("", name))
    return (match["path"] or "").replace("/", ".") if match else None


def _operator_info(scope: Scope, node: NodeProto, *, quantised: bool) -> LSTMInfo:
    """An operator with G gates and D directions.

    It takes X, W (D, GH, I), R (D, GH, H), B (D, 2GH), sequence_lens, initial_h; an LSTM also initial_c and
    P (D, 3H).  The quantised one has W and R transposed.
    """
    kind = _KINDS.get(node.op_type, _KINDS["LSTM"])
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    attributes = attributes_of(node)
    notes = _particulars(node.op_type, kind, attributes, peepholes=bool(inputs[7]))
    weights = {name: scope.weight(inputs[at]) for name, at in (("W", 1), ("R", 2), ("B", 3), ("P", 7)) if inputs[at]}
    own = node.name.endswith("/LSTM")
    prefix = _CALL.sub("", node.name).removesuffix("LSTM")
    projection = scope.weight(f"{prefix}W_hr").tensor if own else None
    if projection is not None:
        weights |= {name: scope.weight(f"{prefix}{name}") for name in ("W_hr", "W_hr_pinv")}
        notes.append("a projection is folded in: R is R W_hr, and pinv(W_hr) is stored for h0")
    unknown = [name for name, weight in weights.items() if weight.tensor is None]
    if unknown:
        notes.append(f"{', '.join(unknown)} computed in the graph: not counted as parameters")
    wide = _matrix(weights.get("W"), transposed=quantised)
    recurrent = _matrix(weights.get("R"), transposed=quantised)
    input_size = wide[1] if wide else None
    hidden_size = typed(attributes, "hidden_size", int)
    if recurrent:
        hidden_size = recurrent[1]
    elif not hidden_size and wide:
        hidden_size = wide[0] // kind.gates
    if input_size is None or not hidden_size:
        notes.append("sizes are not in the file: FLOPs are not counted")
    # A GRU of torch's kind adds the bias of its recurrent matrix before the reset gate, apart from that of W.
    biases = kind.gates + (node.op_type == "GRU" and bool(attributes.get("linear_before_reset", 0)))
    return _info(
        scope,
        node,
        direction=text(attributes.get("direction", "forward")),
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=projection.dims[-1] if projection is not None and len(projection.dims) > 1 else 0,
        carried=hidden_size,
        bias=bool(inputs[3]),
        gates=kind.gates,
        elementwise=kind.elementwise + biases * bool(inputs[3]) + 6 * bool(inputs[7]),
        initial=(inputs[5], inputs[6]),
        lengths=inputs[4],
        dtype=next((weight.dtype for weight in weights.values() if weight.dtype), "") or scope.dtype(inputs[0]),
        weights=[weight.tensor for weight in weights.values() if weight.tensor],
        notes=notes,
    )


def _scan_weights(scope: Scope, node: NodeProto) -> dict[str, Tensor]:
    """The matrices of a projected layer by the names that `exporter.emitter` gives them; empty for any other Scan."""
    if not node.name.endswith("/Scan"):
        return {}
    prefix = _CALL.sub("", node.name).removesuffix("Scan")
    suffixes = ("_forward", "_reverse") if scope.weight(f"{prefix}R_forward").tensor else ("",)
    names = ["W", *(f"{name}{suffix}" for name in ("R", "W_hr") for suffix in suffixes)]
    weights = {
        name: tensor for name in names if (tensor := scope.weight(prefix + name).tensor) and len(tensor.dims) == 2
    }
    if len(weights) != len(names) or len(node.input) < 3 * len(suffixes):
        return {}
    biases = scope.weight(f"{prefix}B").tensor
    return weights if biases is None else {**weights, "B": biases}


def _scan_info(scope: Scope, node: NodeProto, weights: Mapping[str, Tensor]) -> LSTMInfo:
    """A projected layer: W (I, D*4H), B (D*4H), and for each direction R (P, 4H) and W_hr (H, P)."""
    both = "R_forward" in weights
    count = 2 if both else 1
    projection = weights["W_hr_forward" if both else "W_hr"]
    backwards = any(typed(attributes_of(node), "scan_input_directions", list))
    return _info(
        scope,
        node,
        direction="bidirectional" if both else "reverse" if backwards else "forward",
        input_size=weights["W"].dims[0],
        hidden_size=projection.dims[0],
        proj_size=projection.dims[1],
        carried=projection.dims[1],
        bias="B" in weights,
        gates=GATES,
        elementwise=_KINDS["LSTM"].elementwise + GATES * ("B" in weights),
        initial=tuple(node.input[: 2 * count]),
        lengths=node.input[3 * count] if len(node.input) > 3 * count else "",
        dtype=dtype_name(weights["W"].elem_type),
        weights=list(weights.values()),
        notes=["torch's two biases are stored as their sum"] if "B" in weights else [],
    )


def _info(
    scope: Scope,
    node: NodeProto,
    *,
    direction: str,
    input_size: int | None,
    hidden_size: int,
    proj_size: int,
    carried: int,
    bias: bool,
    gates: int,
    elementwise: int,
    initial: tuple[str, ...],
    lengths: str,
    dtype: str,
    weights: Sequence[Tensor],
    notes: list[str],
) -> LSTMInfo:
    """What all kinds share: origins of states and lengths, and the sums; h has `carried` features."""
    origins = [scope.origins(name) for name in initial]
    computed = sorted({op for _, ops in origins for op in ops})
    if computed:
        notes.append(f"initial states are computed in the graph ({', '.join(computed)})")
    flops = 0
    if input_size is not None and hidden_size:
        matrices = 2 * gates * hidden_size * (input_size + carried) + 2 * proj_size * hidden_size
        flops = matrices + hidden_size * elementwise
        flops *= 2 if direction == "bidirectional" else 1
    return LSTMInfo(
        name=node.name or next((output for output in node.output if output), ""),
        kind=node.op_type,
        direction=direction,
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=proj_size,
        bias=bias,
        states=tuple(dict.fromkeys(source for sources, _ in origins for source in sources)),
        lengths=next(iter(scope.origins(lengths)[0]), "") if lengths else None,
        dtype=dtype,
        parameters=sum(tensor.size for tensor in weights),
        bytes=sum(tensor.num_bytes for tensor in weights),
        flops_per_step=flops,
        notes=tuple(notes),
    )


def _particulars(op_type: str, kind: _Kind, attributes: dict[str, Any], *, peepholes: bool) -> list[str]:
    """What the node does that torch's module does not."""
    notes = ["peepholes"] if peepholes else []
    if "clip" in attributes:
        notes.append(f"clip {text(attributes['clip'])}")
    if attributes.get("layout", 0):
        notes.append("layout=1 (batch first), which ONNX Runtime refuses")
    if attributes.get("input_forget", 0):
        notes.append("input_forget (input and forget gate are coupled)")
    if op_type == "GRU" and not attributes.get("linear_before_reset", 0):
        notes.append("linear_before_reset=0 (the reset gate comes before the recurrent matrix)")
    activations = [text(name) for name in typed(attributes, "activations", list)]
    usual = [*kind.activations] * (len(activations) // len(kind.activations))
    if [name.lower() for name in activations] != usual:
        notes.append(f"activations {', '.join(activations)}")
    return notes


def _matrix(weight: Weight | None, *, transposed: bool) -> tuple[int, int] | None:
    """Rows and columns of one direction's, None where they are not known."""
    if weight is None or len(weight.dims) != 3:
        return None
    _, rows, columns = weight.dims
    return (columns, rows) if transposed else (rows, columns)
