"""LO305-308: sequence_lens, readers of padding, and inputs that are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of, is_default, node_label, typed
from ...onnxgraph.nodes import END_OF_AXIS, Walk
from ...onnxgraph.recurrent import SEQUENCE_LENS, batch_axis, direction_of, input_of, is_operator
from ..context import CheckContext, listed
from ..finding import Finding
from ..rule import applies, rule

_MOST_LENGTHS = 6
_OF_ZERO_ZERO = frozenset(
    {"Identity", "Cast", "Relu", "Tanh", "Dropout", "Gelu", "Elu", "LeakyRelu", "Selu", "Neg", "HardSwish", "Abs"}
    | {"Mish"}
)
_SAME_SHAPE = _OF_ZERO_ZERO | {"Sigmoid", "Softplus", "LayerNormalization", "HardSigmoid", "Exp"}
"""Operators that compute each element, or each feature vector, separately; the first ones map zeros to zeros."""
_MOVES = frozenset({"Transpose", "Squeeze", "Unsqueeze", "Reshape"})
_WITH_CONSTANT = frozenset({"MatMul", "Add", "Mul", "Sub", "Div"})
_KEEP_ZEROS = _OF_ZERO_ZERO | _MOVES | {"MatMul", "Mul", "Div", "Slice"}
_REDUCTIONS = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"})
_SUMS = frozenset({"ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum"})
"""Reductions that zeros do not change."""
_NORMALIZERS = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_SOFTMAX_OF_ONE_AXIS = 13
"""The opset since which their default axis is the last; before, it is 1, and all axes from there are merged."""
_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})

LENGTHS_TYPE = rule(
    "LO305",
    "lengths-type",
    "error",
    summary="sequence_lens is not int32",
    why="ONNX allows only int32 here, and ONNX Runtime refuses to open a file with int64, the dtype of PyTorch's "
    "lengths.",
    fix="put a Cast to int32 before the operator",
)
LENGTHS_CONSTANT = rule(
    "LO306",
    "lengths-constant",
    "warning",
    summary="sequence_lens is a constant",
    why="The lengths of the example were baked in: every batch is read with these lengths, and a batch of "
    "another size, or shorter sequences, fails.",
    fix="make the lengths an input of the model",
)
LENGTHS_IGNORED = rule(
    "LO307",
    "lengths-ignored",
    "warning",
    summary="an operator has sequence_lens, and a reader of its output takes padding for data",
    why="Output past a sequence's length is zero. So its last step is zero rather than the last state; a mean divides "
    "by the padded time; a maximum is never below zero; a sum counts biases that were added to it; a softmax over time "
    "gives padding a weight; and a following LSTM without lengths runs through the padding: its final states are "
    "those of the padding, and a reverse pass begins there. Results then depend on which sequences are in the batch.",
    fix="use hn as the last step, or mask by the lengths before the reduction; give each layer the lengths",
)
IGNORED_INPUT = rule(
    "LO308",
    "ignored-input",
    "warning",
    summary="no output depends on the values of an input: lengths or states are ignored",
    why="A caller believes that they matter. A trace loses an input that the code reads with .tolist(), .item() or "
    "len(), and states that the module keeps in an attribute; the input's shape may still be used.",
    fix="export again with code that uses it as a tensor, or remove it from the model's inputs",
)


@dataclass(frozen=True)
class _Padded:
    """A value of a graph with padding along its time axis, and whether the padding is zero."""

    scope: Scope
    name: str
    axis: int
    rank: int
    zero: bool = True


@applies(LENGTHS_TYPE)
def lengths_type(context: CheckContext) -> Iterator[Finding]:
    """sequence_lens must be int32."""
    for scope, node in context.onnx_operators:
        name = input_of(node, SEQUENCE_LENS)
        if not name:
            continue
        dtype = scope.dtype(name)
        stored = scope.weight(name).dtype if dtype == "unknown" else dtype
        if stored not in ("int32", "unknown", ""):
            yield LENGTHS_TYPE.violated(node, f"sequence_lens {name} is {stored}, but must be int32")


@applies(LENGTHS_CONSTANT)
def lengths_constant(context: CheckContext) -> Iterator[Finding]:
    """Lengths that are stored in the file."""
    for scope, node in context.onnx_operators:
        name = input_of(node, SEQUENCE_LENS)
        values = context.integers(scope, name) if name else None
        if values is not None:
            constant = listed(values, _MOST_LENGTHS)
            yield LENGTHS_CONSTANT.violated(node, f"sequence_lens {name} is the constant [{constant}]")


@applies(LENGTHS_IGNORED)
def lengths_ignored(context: CheckContext) -> Iterator[Finding]:
    """Readers of a padded output that take its padding for data."""
    findings: dict[str, Finding] = {}
    for scope, node in context.operators:
        if input_of(node, SEQUENCE_LENS) and node.output and node.output[0]:
            for finding in _misused(context, scope, node):
                findings.setdefault(finding.where, finding)
    for finding in _without_lengths(context):
        findings.setdefault(finding.where, finding)
    # nn.LSTM applies lengths to all of its layers: in a file of ours that takes lengths this is an error.
    options = context.metadata.options if context.metadata is not None else None
    promised = options is not None and options.lengths
    without = {node_label(node) for _, node in context.operators if not input_of(node, SEQUENCE_LENS)}
    for where, finding in findings.items():
        yield replace(finding, severity="error") if promised and where in without else finding


@applies(IGNORED_INPUT)
def ignored_inputs(context: CheckContext) -> Iterator[Finding]:
    """Inputs whose values no output depends on."""
    top = context.graph.scopes[0]
    used = {source for name in context.graph.outputs for source in top.data_sources(name)}
    for name in context.graph.inputs:
        if name not in used:
            yield IGNORED_INPUT.violated(name, f"no output depends on the values of the input {name}")


def _without_lengths(context: CheckContext) -> Iterator[Finding]:
    """Operators without lengths that read the same padded sequence as one with lengths, before it or after it."""
    padded: dict[tuple[Scope | None, str], NodeProto] = {}  # two bodies may have values of the same name
    todo = [(scope, input_of(node, 0), node) for scope, node in context.operators if input_of(node, SEQUENCE_LENS)]
    while todo:
        scope, name, reader = todo.pop()
        key = (scope.home(name), name)
        if not name or key in padded:
            continue
        padded[key] = reader
        maker = scope.producer(name)
        if maker is not None:
            todo += [(scope, source, reader) for source in _same_time(maker, name)]
    for scope, node in context.operators:
        other = padded.get((scope.home(input_of(node, 0)), input_of(node, 0)))
        if other is not None and not input_of(node, SEQUENCE_LENS) and _ends_in_padding(context, node):
            beside = f"{node_label(other)}, over the same steps, has lengths"
            yield LENGTHS_IGNORED.violated(node, f"{node.op_type} has no lengths and reads padding; {beside}")


def _same_time(node: NodeProto, name: str) -> list[str]:
    """The inputs that have the same time steps as the node's output `name`."""
    if is_operator(node):
        return [node.input[0]] if node.output and name == node.output[0] else []
    if not is_default(node.domain):
        return []
    if node.op_type in _SAME_SHAPE | _MOVES:
        return list(node.input[:1])
    return list(node.input) if node.op_type in _WITH_CONSTANT | {"Concat"} else []


def _misused(context: CheckContext, own: Scope, start: NodeProto) -> Iterator[Finding]:
    walk = Walk([_Padded(own, str(start.output[0]), 1 - batch_axis(start), 4)])
    for value in walk:
        for scope, reader, index in context.readers.get(value.name, ()):
            if scope.home(value.name) is not value.scope:
                continue
            problem = _problem(context, scope, reader, index, value)
            if problem:
                yield LENGTHS_IGNORED.violated(reader, f"{problem}; {node_label(start)} before it has lengths")
            elif reader.output and (axis := _next_axis(context, scope, reader, index, value)) is not None:
                rank = len(scope.shape(reader.output[0]) or ()) or value.rank
                zero = value.zero and is_default(reader.domain) and reader.op_type in _KEEP_ZEROS
                walk.add([_Padded(scope, str(reader.output[0]), axis, rank, zero)])


def _problem(context: CheckContext, scope: Scope, node: NodeProto, index: int, value: _Padded) -> str:
    """How the reader takes padding for data, or ""."""
    if index == 0 and is_operator(node):
        unaware = not input_of(node, SEQUENCE_LENS) and _ends_in_padding(context, node)
        return f"{node.op_type} has no lengths and reads padding" if unaware else ""
    if index != 0 or not is_default(node.domain):
        return ""
    kind, attributes = node.op_type, attributes_of(node)
    if kind in _REDUCTIONS or (kind in _SUMS and not value.zero):
        axes = typed(attributes, "axes", list) or context.integers(scope, input_of(node, 1)) or []
        over = value.axis in [axis % value.rank for axis in axes] if axes else not input_of(node, 1)
        return f"{kind} reduces over the padded time" if over else ""
    if kind in _POOLS:
        return f"{kind} reduces over the padded time" if value.axis >= 2 else ""
    if kind in _NORMALIZERS:
        one_axis = context.opset() >= _SOFTMAX_OF_ONE_AXIS
        first = typed(attributes, "axis", int) if "axis" in attributes else -1 if one_axis else 1
        over = value.axis == first % value.rank if one_axis else value.axis >= first % value.rank
        return f"{kind} normalizes over the padded time without a mask" if over else ""
    if kind == "Gather":
        last = context.integers(scope, input_of(node, 1)) == [-1]
        at_time = typed(attributes, "axis", int) % value.rank == value.axis
        return "Gather takes the last padded step" if last and at_time else ""
    if kind == "Slice":
        return "Slice takes the last padded step" if _is_last_step(context, scope, node, value) else ""
    return ""


def _ends_in_padding(context: CheckContext, node: NodeProto) -> bool:
    """Whether results that are used depend on the padding after the sequence."""
    backwards = direction_of(node) != "forward"
    return backwards or any(context.is_used(name) for name in node.output[1:])


def _is_last_step(context: CheckContext, scope: Scope, node: NodeProto, value: _Padded) -> bool:
    return any(
        axis % value.rank == value.axis and start == -1 and (end >= END_OF_AXIS or step < 0)
        for axis, start, end, step in context.slices(scope, node)
    )


def _next_axis(context: CheckContext, scope: Scope, node: NodeProto, index: int, value: _Padded) -> int | None:
    """The padded axis in the reader's output; None if it is lost, masked or unknown."""
    kind, attributes = node.op_type, attributes_of(node)
    if is_operator(node):
        return 1 - batch_axis(node) if index == 0 and not input_of(node, SEQUENCE_LENS) else None
    if not is_default(node.domain):
        return None
    if kind in _SAME_SHAPE:
        return value.axis
    if kind in _WITH_CONSTANT:
        other = input_of(node, 1 - index)
        stored = scope.weight(other).tensor is not None
        return value.axis if stored and (kind != "MatMul" or (index == 0 and value.axis < value.rank - 1)) else None
    if index != 0:
        return None
    if kind == "Transpose":
        order = typed(attributes, "perm", list) or list(range(value.rank))[::-1]
        return order.index(value.axis) if value.axis in order else None
    if kind in ("Squeeze", "Unsqueeze"):
        axes = typed(attributes, "axes", list) or context.integers(scope, input_of(node, 1))
        return _moved(kind, axes, value) if axes else None
    if kind == "Reshape":
        return _reshaped(context, scope, node, value)
    if kind == "Slice":  # trimmed to the longest sequence, or of features
        return value.axis
    return None


def _moved(kind: str, axes: list[int], value: _Padded) -> int | None:
    if kind == "Squeeze":
        gone = [axis % value.rank for axis in axes]
        return None if value.axis in gone else value.axis - sum(axis < value.axis for axis in gone)
    rank = value.rank + len(axes)
    added = {axis % rank for axis in axes}
    left = [axis for axis in range(rank) if axis not in added]
    return left[value.axis] if value.axis < len(left) else None


def _reshaped(context: CheckContext, scope: Scope, node: NodeProto, value: _Padded) -> int | None:
    target = context.integers(scope, input_of(node, 1))
    if target is not None and len(target) > value.axis and not any(target[: value.axis + 1]):
        return value.axis  # zeros in the shape keep the sizes up to it
    before, after = scope.shape(node.input[0]) or (), scope.shape(node.output[0]) or ()
    name = before[value.axis] if value.axis < len(before) else None
    places = [axis for axis, dim in enumerate(after) if dim == name]
    return places[0] if isinstance(name, str) and len(places) == 1 else None
