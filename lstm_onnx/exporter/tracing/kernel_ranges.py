"""Replaces nodes whose ONNX Runtime kernels are right only for some numbers by other operators.

- Sigmoid in float32 is 0 below -18, where PyTorch's is up to 1.5e-8, and off by a factor of up to 2 from -17 on.
  Mostly that does not matter, but then a logarithm gives -inf, a division by a sum of such numbers gives NaN, and a
  root magnifies the difference.
- Clip, Max, Min, Relu, Sign, ReduceMax and ReduceMin of int64 compare only the lower 32 bits on some machines, so
  that times in milliseconds come out wrong.
- ReduceSum and the like, ArgMax and ArgMin return an empty tensor unchanged if their axis counts from the end (up to
  ONNX Runtime 1.31): without rows, `rows.sum(-1)` keeps the width of a row.
- Reductions of a 0-d tensor accept no axis, where PyTorch accepts 0 and -1.
- Div and Mod of integers crash the process for the smallest number and -1; Mod with the sign of the dividend (fmod)
  computes int64 in float64.
- DFT and STFT are inexact if the length is not a power of two: see `fourier`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience, tape

from ...onnxgraph.nodes import Walk
from .fourier import constant, constant_input, replaced_transform

_FLOAT, _INT32, _INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
_LARGE = (_INT64, ir.DataType.UINT64, _FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_SMALL_NUMBERS = ("Shape", "Size", "ArgMax", "ArgMin", "NonZero")
_MAGNIFIES = {"Log": 0, "Reciprocal": 0, "Div": 1, "Sqrt": 0, "Pow": 0}
"""Operators whose result differs between 1e-9 and 0, each with the index of that input; not powers of 1 and more."""
_PASSES = {
    *("Cast", "Clip", "Concat", "Div", "Expand", "Flatten", "Gather", "Identity", "Max", "Min", "Mul", "Neg"),
    *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
    *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"),
}
"""Operators that keep small numbers small; so do sums of them, also with a constant, and powers of 1 or more."""

_Build = Callable[[tape.Tape, ir.Node], ir.Value]


def replace_limited_kernels(model: ir.Model) -> None:
    """Replace nodes by other operators where their kernels may be wrong."""
    _reduce_without_axes(model)
    _count_axes_from_start(model)
    nodes = list(model.graph.all_nodes())
    small = _small_values(node.outputs[0] for node in nodes if node.op_type == "Sigmoid")
    for node, build in [(node, _replacement(node, small)) for node in nodes]:  # find all before replacing the first
        if build is not None:
            made = tape.Tape()
            put_in_place(node, made, [build(made, node)])


def put_in_place(node: ir.Node, made: tape.Tape, values: Sequence[ir.Value]) -> None:
    """Replace a node by the nodes that were made, and its outputs by `values`, which get their types and shapes.

    The names are temporary: `rename` gives others.
    """
    for number, part in enumerate(made.nodes):
        part.metadata_props.update(node.metadata_props)
        part.name = f"{node.name or node.outputs[0].name}_{number}"
        for place, value in enumerate(part.outputs):
            value.name = f"{part.name}_{place}"
    assert node.graph is not None  # noqa: S101 - all_nodes gives nodes of graphs
    convenience.replace_nodes_and_values(node.graph, node, [node], list(made.nodes), list(node.outputs), values)


def _replacement(node: ir.Node, small: Container[ir.Value]) -> _Build | None:
    first = node.inputs[0] if node.inputs else None
    if node.domain not in ("", "ai.onnx") or first is None:
        return None
    if node.op_type in ("DFT", "STFT"):
        return replaced_transform(node)
    if node.op_type == "Sigmoid":
        return _sigmoid if first.dtype == _FLOAT and _is_magnified(node.outputs[0], small) else None
    if node.op_type in ("Div", "Mod"):
        return _divided if _is_wrong_division(node) else None
    build = _INT64_KERNELS.get(node.op_type)
    # Vectors hold lengths, which are small.
    if build is None or first.dtype != _INT64 or first.shape is None or len(first.shape) < 2:
        return None
    return build if any(_may_be_large(value, {}) for value in node.inputs[:2]) else None


def _reduce_without_axes(model: ir.Model) -> None:
    """Remove the axis from reductions of a 0-d tensor, where PyTorch accepts it: ``x.sum().amax(0)``."""
    for node in model.graph.all_nodes():
        first = node.inputs[0] if node.inputs else None
        scalar = first is not None and first.shape is not None and len(first.shape) == 0
        if scalar and node.op_type.startswith("Reduce") and len(node.inputs) > 1:
            node.replace_input_with(1, None)


def _count_axes_from_start(model: ir.Model) -> None:
    """Count axes from the start in reductions of tensors that may be empty: one of their sizes is not an input's."""
    never_empty = {str(dim) for value in model.graph.inputs for dim in value.shape or ()}
    for node in model.graph.all_nodes():
        shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
        if not shape or node.domain not in ("", "ai.onnx"):
            continue
        if all(isinstance(dim, int) or str(dim) in never_empty for dim in shape):
            continue
        axis = node.attributes.get("axis")
        stored = constant_input(node, 1)
        if node.op_type in ("ArgMax", "ArgMin") and axis is not None:
            node.attributes["axis"] = ir.AttrInt64("axis", axis.as_int() % len(shape))
        elif node.op_type.startswith("Reduce") and stored is not None and (stored < 0).any():
            axes = stored % len(shape)
            name = "axes/" + "_".join(map(str, axes.ravel()))
            value = model.graph.initializers.get(name)
            if value is None:
                value = ir.Value(name=name, const_value=ir.tensor(axes, name=name))
                model.graph.register_initializer(value)
            node.replace_input_with(1, value)


def _small_values(sigmoids: Iterable[ir.Value]) -> set[ir.Value]:
    """Values that are small where sigmoids are."""
    walk = Walk(sigmoids)
    for passed in walk:
        for user, place in passed.uses():
            if _passes(user, place, walk.seen):
                walk.add(user.outputs)
    return walk.seen


def _is_magnified(value: ir.Value, small: Container[ir.Value]) -> bool:
    walk = Walk([value])
    for passed in walk:
        for user, place in passed.uses():
            if _passes(user, place, small):
                walk.add(user.outputs)
            elif _MAGNIFIES.get(user.op_type) == place:
                return True
    return False


def _passes(user: ir.Node, place: int, small: Container[ir.Value]) -> bool:
    """Whether a small number at this place keeps the result small, if the other inputs are small or constant."""
    if user.op_type == "Add":
        return user.inputs[1 - place] in small or constant_input(user, 1 - place) is not None
    if user.op_type == "Pow":
        power = constant_input(user, 1)
        return place == 0 and power is not None and bool((power >= 1).all())
    return user.op_type in _PASSES and _MAGNIFIES.get(user.op_type) != place


def _may_be_large(value: ir.Value | None, known: dict[ir.Value, bool]) -> bool:
    """Whether a value may hold integers beyond 32 bits, since it is computed from an input that may."""
    if value is None or value.dtype not in _LARGE:
        return False
    if value in known:
        return known[value]
    known[value] = False
    node = value.producer()
    stored = convenience.get_const_tensor(value)
    if stored is not None:
        found = bool(stored.size and np.abs(stored.numpy().astype(np.float64)).max() >= 2**31)
    elif node is None:
        found = True
    else:
        found = node.op_type not in _SMALL_NUMBERS and any(_may_be_large(item, known) for item in node.inputs)
    known[value] = found
    return found


def _is_fmod(node: ir.Node) -> bool:
    kind = node.attributes.get("fmod")
    return node.op_type == "Mod" and kind is not None and bool(kind.as_int())


def _is_wrong_division(node: ir.Node) -> bool:
    """Whether the smallest number of an integer type may be divided by -1, or a remainder may be rounded."""
    first, by = node.inputs[0], constant_input(node, 1)
    if first is None or constant_input(node, 0) is not None:
        return False
    if by is not None and not (by == -1).any() and not (first.dtype == _INT64 and _is_fmod(node)):
        return False
    return first.dtype == _INT32 or (first.dtype == _INT64 and _may_be_large(first, {}))


def _divided(made: tape.Tape, node: ir.Node) -> ir.Value:
    """A quotient or remainder by 1 in place of -1, which PyTorch computes so as well: the smallest number stays."""
    a, b = node.inputs
    assert a is not None  # noqa: S101 - both are required
    assert a.dtype is not None  # noqa: S101 - the caller's condition
    negated = made.op("Equal", [b, constant(made, -1, a.dtype)])
    divisor = made.op("Where", [negated, constant(made, 1, a.dtype), b])
    if _is_fmod(node):
        return made.op("Sub", [a, made.op("Mul", [made.op("Div", [a, divisor]), divisor])])
    if node.op_type == "Mod":
        return made.op("Mod", [a, divisor])
    return made.op("Div", [made.op("Where", [negated, made.op("Neg", [a]), a]), divisor])


def _sigmoid(made: tape.Tape, node: ir.Node) -> ir.Value:
    raised = made.op("Add", [constant(made, 1.0, _FLOAT), made.op("Exp", [made.op("Neg", [node.inputs[0]])])])
    return made.op("Reciprocal", [raised])


def _chosen(made: tape.Tape, comparison: str, a: Any, b: Any) -> ir.Value:
    return made.op("Where", [made.op(comparison, [a, b]), a, b])


def _extreme(*comparisons: str) -> _Build:
    """The first input and the others, reduced pair by pair to the one for which the comparison with the other holds."""

    def build(made: tape.Tape, node: ir.Node) -> ir.Value:
        value: Any = node.inputs[0]
        for other, comparison in zip(node.inputs[1:], itertools.cycle(comparisons), strict=False):
            if other is not None:
                value = _chosen(made, comparison, value, other)
        return value if value is not node.inputs[0] else made.op("Identity", [value])

    return build


def _relu(made: tape.Tape, node: ir.Node) -> ir.Value:
    return _chosen(made, "Greater", node.inputs[0], constant(made, 0, _INT64))


def _sign(made: tape.Tape, node: ir.Node) -> ir.Value:
    x, zero = node.inputs[0], constant(made, 0, _INT64)
    above, below = (made.op("Cast", [made.op(name, [x, zero])], {"to": _INT64}) for name in ("Greater", "Less"))
    return made.op("Sub", [above, below])


def _reduced(largest: int) -> _Build:
    """A reduction by TopK along each axis in turn."""

    def build(made: tape.Tape, node: ir.Node) -> ir.Value:
        value: Any = node.inputs[0]
        rank = len(value.shape)
        given = constant_input(node, 1)
        axes = range(rank) if given is None else sorted(int(axis) % rank for axis in given.ravel())
        one = constant(made, [1], _INT64)
        for axis in axes:
            attributes = {"axis": axis, "largest": largest, "sorted": 1}
            value = made.op_multi_out("TopK", [value, one], attributes, num_outputs=2)[0]
        keep = node.attributes.get("keepdims")
        if keep is not None and not keep.as_int():
            value = made.op("Squeeze", [value, constant(made, list(axes), _INT64)])
        reduced: ir.Value = value
        return reduced

    return build


_INT64_KERNELS: dict[str, _Build] = {
    "Clip": _extreme("Greater", "Less"),
    "Max": _extreme("Greater"),
    "Min": _extreme("Less"),
    "Relu": _relu,
    "Sign": _sign,
    "ReduceMax": _reduced(1),
    "ReduceMin": _reduced(0),
}
