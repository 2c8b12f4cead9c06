"""Mutants that are wrong only past some size, at one size, for large numbers or in one row, or have another dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from ...errors import LSTMOnnxError
from ...onnxgraph.compute import computed
from ...onnxgraph.recurrent import RecurrentLayer
from ...symbolic_dims import ANY_SIZE, clamped
from .equivalence import ABSENT, APPLIED, Outcome, equivalent
from .graph_edit import Edit

_STEPS = 100
"""Time steps above which the mutant is wrong."""
_ONE_BATCH = 11
"""The batch size at which the mutant is wrong."""
_ROWS = 8
"""The most rows of a table that are tried for the one to make wrong: the first whose change shows."""
_LARGE = 20.0
"""The value above which an input is large."""
_NUMBERS = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8")
"""The dtypes of outputs that can be made wrong."""
_OTHERS: dict[int, int] = {
    TensorProto.FLOAT: TensorProto.DOUBLE,
    TensorProto.DOUBLE: TensorProto.FLOAT,
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.INT64: TensorProto.INT32,
    TensorProto.INT32: TensorProto.INT64,
    TensorProto.BOOL: TensorProto.UINT8,
}
"""The dtype that another is replaced by."""
_PLAIN = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})


def past_a_size(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Wrong above some number of time steps."""
    axis = _axis(edit, "time")
    if axis is None:
        return ABSENT
    name, tried, least, most = axis
    past = _STEPS if most is None else min(_STEPS, most - 1)
    if past < least:
        return equivalent(f"{name} has one size")
    if max(tried) <= past:  # PyTorch does not run with more steps, or is inconclusive there
        past = max(tried) - max(1, max(tried) // 4)
    return _wrong_where(edit, _size(edit, name), "Greater", np.array(past)) if past >= 1 else ABSENT


def at_one_size(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Wrong at one batch size."""
    axis = _axis(edit, "batch")
    if axis is None:
        return ABSENT
    name, tried, least, most = axis
    one = clamped(_ONE_BATCH, (least, most))
    if one not in tried:
        one = max(tried)
    return _wrong_where(edit, _size(edit, name), "Equal", np.array(one)) if len(tried) > 1 else ABSENT


def for_large_numbers(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Wrong for large inputs."""
    metadata = edit.metadata
    floats = [item for item in edit.graph.input if item.name in edit.ranges and "float" in _dtype(item)]
    floats.sort(key=lambda item: item.name in metadata.states)
    declared = {spec.name: spec for spec in metadata.inputs if spec.low is not None}
    open_ones = [item for item in floats if item.name not in declared]
    if not open_ones:
        return equivalent("its inputs have ranges without large numbers") if floats else ABSENT
    name, dtype = open_ones[0].name, _dtype(open_ones[0])
    largest = max(abs(edit.ranges[name].least), abs(edit.ranges[name].largest))
    past = _LARGE if largest > _LARGE else largest / 2
    size = edit.node("ReduceMax", edit.node("Abs", name), keepdims=0)
    # Integers are only compared there if there is nothing else: with saturated gates an argmax is of equal numbers.
    outputs = sorted(edit.graph.output, key=lambda item: "float" not in _dtype(item))
    return _wrong_where(edit, size, "Greater", np.array(past, dtype), outputs)


def in_one_row(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A table with one wrong row, among those that were tried, for which what is read of it is wrong as well."""
    same = ABSENT
    for node in list(edit.graph.node):
        if node.op_type != "Gather" or any(item.name == "axis" and item.i != 0 for item in node.attribute):
            continue
        source, table = _looked_up(edit, node.input[1]), edit.constant(node.input[0])
        if source is None or table is None or table.ndim != 2 or table.dtype.kind != "f":
            continue
        tried = [value for value in edit.ranges[source].values if 0 <= value < len(table)]
        if not tried:
            continue
        place = 2 * len(tried) // 3
        found = _wrong_row(edit, node.output[0], table, [*tried[place:], *tried[:place]][:_ROWS])
        if found is None:
            same = equivalent("an activation gives the same for it")
            continue
        node.input[0] = edit.node("Add", node.input[0], found)
        return APPLIED
    return same


def _wrong_row(edit: Edit, looked_up: str, table: np.ndarray, rows: list[int]) -> np.ndarray | None:
    """What to add to a table to make one row wrong; None where that would change nothing that is read."""
    # Not equal in all features, which a norm after the look-up would remove.
    change = np.where(np.arange(table.shape[1]) % 2 == 0, 1, 0).astype(table.dtype)
    right = table[rows]
    tried = np.stack([right, right + change, right - change])
    try:
        found = after_layers_of_rows(edit, looked_up, tried.reshape(-1, table.shape[1]))
    except LSTMOnnxError:
        found = [tried]
    parts = [array.astype(np.float64).reshape(3, len(rows), -1) for array in found]
    sizes = np.max([np.abs(part[1:] - part[0]).max(axis=-1, initial=0.0) for part in parts], axis=0, initial=0.0)
    showing = np.flatnonzero(sizes.max(axis=0) > 0)
    if not len(showing):
        return None
    added = np.zeros(table.shape, table.dtype)
    added[rows[showing[0]]] = change if sizes[0, showing[0]] >= sizes[1, showing[0]] else -change
    return added


def other_dtype(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """An output of another dtype, with the same numbers."""
    for item in edit.graph.output:
        other = _OTHERS.get(item.type.tensor_type.elem_type)
        if other is not None and edit.maker(item.name) is not None:
            edit.wrap_output(item.name, "Cast", to=other)
            item.type.tensor_type.elem_type = other
            return APPLIED
    return ABSENT


def _dtype(item: ValueInfoProto) -> str:
    """The dtype of an input or output if it is one of `_NUMBERS`, else ""."""
    kind = item.type.tensor_type.elem_type
    name = helper.tensor_dtype_to_np_dtype(kind).name if kind else ""
    return name if name in _NUMBERS else ""


def _axis(edit: Edit, role: str) -> tuple[str, tuple[int, ...], int, int | None] | None:
    """An axis by its name, or by its position among the axes: name, sizes tried, least and largest size."""
    sizes = {one.name: one.values for one in edit.ranges.values() if one.kind == "sizes"}
    names = list(sizes)
    named = {"batch", "time"} & set(names)
    place = {"batch": 0, "time": 1}[role]
    name = role if role in sizes else names[place] if not named and len(names) > place else None
    if name is None or _size(edit, name) == "":
        return None
    least, most = edit.metadata.axis_limits.get(name, ANY_SIZE)
    return name, sizes[name], least, most


def _size(edit: Edit, axis: str) -> str:
    """A value with the size of an axis; "" where no input has it."""
    for item in edit.graph.input:
        names = [dim.dim_param for dim in item.type.tensor_type.shape.dim]
        if axis in names:
            return edit.node("Gather", edit.node("Shape", item.name), np.array(names.index(axis)), axis=0)
    return ""


def _looked_up(edit: Edit, value: str) -> str | None:
    """The integer input that an index comes from unchanged."""
    node: NodeProto | None = edit.maker(value)
    while node is not None and node.op_type in _PLAIN:
        value = node.input[0]
        node = edit.maker(value)
    known = value in edit.ranges and edit.ranges[value].kind == "integers"
    return value if known and any(item.name == value for item in edit.graph.input) else None


def _wrong_where(
    edit: Edit, value: str, comparison: str, limit: np.ndarray, outputs: Sequence[ValueInfoProto] | None = None
) -> Outcome:
    """Replace an output y by 2 y + 3 where ``value comparison limit``: no number in -1 to 1 stays what it was.

    That output is the first of `outputs`, or of all, that holds numbers.
    """
    for item in outputs or edit.graph.output:
        dtype = _dtype(item)
        if not dtype or edit.maker(item.name) is None:
            continue
        condition = edit.node(comparison, value, limit)
        one = edit.node("Cast", condition, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        factor = edit.node("Add", one, np.array(1, dtype))
        three = edit.node("Mul", one, np.array(3, dtype))

        def wrong(right: str, factor: str = factor, three: str = three) -> str:
            return edit.node("Add", edit.node("Mul", right, factor), three)

        edit.replace_output(item.name, wrong)
        return APPLIED
    return ABSENT


_UNARY = frozenset(
    {"Identity", "Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Tanh", "HardSigmoid", "Softplus", "Clip"}
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})


def after_layers_of_rows(edit: Edit, value: str, rows: np.ndarray) -> list[np.ndarray]:
    """What is read of the rows of a table, after the linear maps, norms and activations that each row goes through.

    A change of a row that changes none of it, such as one before a unit that is zero either way, changes no output.

    Args:
        edit: the model.
        value: the rows that were looked up, whose last axis has the features.
        rows: ``(rows, features)``, to compute it for.

    Returns:
        An array for each value that is read, with a row for each of `rows`.

    Raises:
        LSTMOnnxError: ONNX Runtime does not run the layers by themselves.
    """
    nodes, own = [], {value}
    for node in edit.graph.node:
        if own & set(node.input) and _is_by_row(edit, node, own):
            nodes.append(node)
            own.update(node.output)
    ends = [name for name in own if edit.is_output(name) or any(node not in nodes for node in edit.readers(name))]
    constants = {name: edit.constant(name) for node in nodes for name in node.input}
    arrays = {name: array for name, array in constants.items() if array is not None}
    names = [name for name in sorted(ends) if name != value]
    version = edit.model.ir_version
    found = computed(nodes, arrays, {value: rows}, names, edit.model.opset_import, ir_version=version) if names else {}
    return [rows if name == value else found[name] for name in sorted(ends)]


def _is_by_row(edit: Edit, node: NodeProto, own: Iterable[str]) -> bool:
    """Whether each row of its output depends on the same row of one input alone."""
    others = [edit.constant(name) for name in node.input if name and name not in own]
    if len(node.output) != 1 or len(others) != len([name for name in node.input if name]) - 1:
        return False
    constants = [array for array in others if array is not None]
    if len(constants) < len(others):
        return False
    attributes = {item.name: item.i for item in node.attribute}
    if node.op_type in _UNARY:
        return True
    if node.op_type in _BINARY:
        return all(array.ndim <= 1 for array in constants)
    if node.op_type == "LayerNormalization":
        return attributes.get("axis", -1) == -1 and node.input[0] in own
    if node.op_type == "Gemm":
        return not attributes.get("transA") and node.input[0] in own and all(one.ndim <= 2 for one in constants)
    return node.op_type == "MatMul" and node.input[0] in own and all(array.ndim == 2 for array in constants)
