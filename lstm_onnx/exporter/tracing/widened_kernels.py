"""Computes nodes in int32 whose types have no kernel in ONNX Runtime's CPU provider.

PyTorch computes with masks and small integers as with other numbers: the maximum of two masks is true where either is,
the ceiling of an integer is that integer, and none is NaN.  ONNX has no such operators for booleans, and no products,
powers or sums of 8 and 16 bits; ONNX Runtime lacks others for 16 bits.  int32 holds all these numbers, and a result
too large for their type loses its upper bits, as in PyTorch.  Gemm has no kernel for integers, so it becomes MatMul.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir import tape

from .fourier import constant
from .kernel_ranges import put_in_place

_BOOL, _INT8, _INT16, _UINT8 = ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT8
_WIDE, _INT64 = ir.DataType.INT32, ir.DataType.INT64
_SMALL = (_INT8, _INT16, _UINT8)
_INTEGERS = (*_SMALL, _WIDE, _INT64)
_LACKING: Mapping[str, tuple[ir.DataType, ...]] = {
    **dict.fromkeys(("Add", "Mul", "TopK", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), (_BOOL,)),
    **dict.fromkeys(("Max", "Min", "Clip", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin"), (_BOOL, _INT16)),
    **dict.fromkeys(("MatMul", "Pow", "CumSum", "Einsum", "Relu"), _SMALL),
    **dict.fromkeys(("ReduceSum", "ReduceProd", "ReduceSumSquare", "ReduceMean"), _SMALL),
    "Where": (_BOOL, _INT16),
    "Neg": (_UINT8,),
    "Pad": (_INT16,),
    "NonZero": (_INT8, _INT16),
    "Trilu": _SMALL,
}
"""By operator: the types for which it has no kernel.

PyTorch does not subtract masks; where torch.onnx does, as for isclose, it casts a tolerance to True.
"""
_PLACES: Mapping[str, Sequence[int]] = {"Where": (1, 2), "Pad": (0, 2), "CumSum": (0,), "TopK": (0,), "Trilu": (0,)}
"""The inputs of that type, for operators that also have others; for reductions it is the first."""
_OTHER_RESULT = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "ArgMax", "ArgMin", "NonZero")
"""Operators whose result is of another type."""
_ROUNDINGS = ("Ceil", "Floor", "Round")


def widen_kernels(model: ir.Model) -> None:
    """Cast around such nodes of a model, which is changed."""
    for node in list(model.graph.all_nodes()):
        if node.domain not in ("", "ai.onnx"):
            continue
        values = [node.inputs[place] for place in _places(node)]
        kind = next((value.dtype for value in values if value is not None), None)
        made = tape.Tape()
        if node.op_type in _ROUNDINGS and kind in _INTEGERS:
            found = [made.op("Identity", [node.inputs[0]])]
        elif node.op_type in ("IsNaN", "IsInf") and kind in (_BOOL, *_INTEGERS):
            found = [made.op("Not", [made.op("Equal", [node.inputs[0]] * 2)])]
        elif node.op_type == "Gemm" and kind in _INTEGERS:
            found = [_multiplied(made, node, kind)]
        elif kind is not None and kind in _LACKING.get(node.op_type, ()):
            found = _widened(made, node, kind)
        else:
            continue
        put_in_place(node, made, found)


def _places(node: ir.Node) -> Sequence[int]:
    count = 1 if node.op_type.startswith(("Reduce", "Arg")) else len(node.inputs)
    return [place for place in _PLACES.get(node.op_type, range(count)) if place < len(node.inputs)]


def _widened(made: tape.Tape, node: ir.Node, kind: ir.DataType) -> list[ir.Value]:
    inputs = list(node.inputs)
    for place in _places(node):
        value = inputs[place]
        if value is not None and value.dtype in (kind, None):  # an exponent may be of another type
            inputs[place] = _cast(made, value, _WIDE)
    found = list(made.op_multi_out(node.op_type, inputs, dict(node.attributes), num_outputs=len(node.outputs)))
    if node.op_type not in _OTHER_RESULT:
        found[0] = _cast(made, found[0], kind)
        node.outputs[0].dtype = kind  # an invalid node has no type yet
    return found


def _multiplied(made: tape.Tape, node: ir.Node, kind: ir.DataType) -> ir.Value:
    """``alpha * A @ B + beta * C``, in int64."""
    attributes = node.attributes
    values = [_cast(made, value, _INT64) for value in node.inputs if value is not None]
    for place, name in enumerate(("transA", "transB")):
        if name in attributes and attributes[name].as_int():
            values[place] = made.op("Transpose", [values[place]], {"perm": [1, 0]})
    terms = [made.op("MatMul", values[:2]), *values[2:]]
    for place, name in enumerate(("alpha", "beta")[: len(terms)]):
        if name in attributes and attributes[name].as_float() != 1:
            terms[place] = made.op("Mul", [terms[place], constant(made, int(attributes[name].as_float()), _INT64)])
    return _cast(made, made.op("Add", terms) if len(terms) > 1 else terms[0], kind)


def _cast(made: tape.Tape, value: ir.Value, kind: ir.DataType) -> ir.Value:
    result = made.op("Cast", [value], {"to": kind})
    result.dtype, result.shape = kind, value.shape
    return result
