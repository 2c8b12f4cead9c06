"""What is in a Scan or a Loop that is not a layer: its states, the operators of a step, and what a step costs."""

from __future__ import annotations

from collections import Counter

from onnx import NodeProto

from ..onnxgraph import Scope, attributes_of, is_default, node_name, shown, typed
from .lstms import lstm_info
from .report import LoopInfo

_PRODUCTS = ("MatMul", "Gemm")
_NODE_TIMES = ((64, 7.0), (256, 2.5))
"""Up to these hidden sizes a Scan of an LSTM's equations took so many times as long as an LSTM node: 100 steps of one
sequence on one thread, as measured with ONNX Runtime 1.31 at hidden sizes of 32, 128 and 512."""
_LARGE = 1.3


def loop_info(scope: Scope, node: NodeProto) -> LoopInfo | None:
    """What a node's body does in each step; None for a node that is not a Scan or Loop."""
    if node.op_type not in ("Scan", "Loop") or not is_default(node.domain):
        return None
    body = next(scope.bodies(node), None)
    if body is None:
        return None
    if node.op_type == "Scan":
        count = len(node.input) - typed(attributes_of(node), "num_scan_inputs", int)
        carried = body.inputs[: max(count, 0)]
    else:
        carried = body.inputs[2:]
    shapes = [body.shape(name) for name in carried]
    operators: Counter[str] = Counter()
    flops = 0
    layers = False
    todo = [body]
    while todo:
        inner = todo.pop()
        for own in inner.nodes:
            info = lstm_info(inner, own)
            layers = layers or info is not None
            if info is not None:
                flops += info.flops_per_step
            elif own.op_type in _PRODUCTS and len(own.input) > 1:
                flops += max(_product(inner, name) for name in own.input[:2])
            if own.op_type != "Constant":
                operators[own.op_type] += 1
            if info is None:
                todo += inner.bodies(own)
    return LoopInfo(
        node_name(node),
        node.op_type,
        tuple(shown(shape) for shape in shapes),
        dict(sorted(operators.items())),
        flops,
        _note(node, shapes, operators) if not layers else "",
    )


def _product(scope: Scope, name: str) -> int:
    """FLOPs of a row times a stored matrix; 0 for a value that is not a stored matrix."""
    dims = scope.weight(name).dims
    return 2 * dims[-1] * dims[-2] if len(dims) > 1 and all(dim > 0 for dim in dims) else 0


def _note(node: NodeProto, shapes: list[tuple[int | str | None, ...] | None], operators: Counter[str]) -> str:
    """How much faster a recurrent node of its size would be, where its parts are those of a cell."""
    sizes = [shape[-1] for shape in shapes if shape and isinstance(shape[-1], int)]
    gates = operators["Tanh"] and (operators["Sigmoid"] or operators["MatMul"] or operators["Gemm"])
    if node.op_type != "Scan" or not sizes or not gates:
        return ""
    hidden = max(int(size) for size in sizes)
    times = next((times for most, times in _NODE_TIMES if hidden <= most), _LARGE)
    return (
        f"a Scan of this size takes about {times:g} times as long as an LSTM or GRU node: where the cell has the "
        "equations of nn.LSTM or nn.GRU, use these"
    )
