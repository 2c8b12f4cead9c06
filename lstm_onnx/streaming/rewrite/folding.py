"""Folds small integer constants that other exporters compute in the graph, such as the amounts of a Pad."""

from __future__ import annotations

import numpy as np
from onnx import helper

from ...onnxgraph.compute import model_of
from .facts import Static
from .rewriter import Call

_SMALL = 2**12
_FOLDED = frozenset(
    {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mul", "Neg"}
    | {"Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)


def folded(call: Call, opset: int) -> np.ndarray | None:
    """The integers, or the one number, that a node computes from small integer constants; None for other nodes."""
    if call.op not in _FOLDED or len(call.node.output) != 1 or not call.given:
        return None
    arrays = {name: _constant(fact) for name, fact in zip(call.node.input, call.facts, strict=True) if name}
    if any(array is None for array in arrays.values()):
        return None
    from onnx.reference import ReferenceEvaluator  # no file of this package needs it

    known = {name: array for name, array in arrays.items() if array is not None}
    try:
        model = model_of([call.node], {}, known, call.node.output, [helper.make_opsetid("", opset)])
        [found] = ReferenceEvaluator(model).run(None, known)
    except Exception:  # noqa: BLE001 - a node that it does not run is not a constant
        return None
    array = np.asarray(found)
    bound = call.op == "Cast" and array.size == 1  # a bound of a Range of floats
    return array if (array.dtype.kind in "iub" or bound) and array.size <= _SMALL else None


def _constant(fact: object) -> np.ndarray | None:
    if not isinstance(fact, Static):
        return None
    if fact.array is not None:
        return fact.array if fact.array.dtype.kind in "iub" and fact.array.size <= _SMALL else None
    values = [size.number for size in fact.numbers or ()]
    if fact.numbers is None or None in values or fact.shape is None:
        return None
    array = np.array(values, fact.dtype or np.int64)
    return array.reshape(()) if fact.shape == () else array
