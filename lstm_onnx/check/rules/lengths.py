"""The rules on sequence_lens: its type, where it comes from, who reads padding; and on inputs that are ignored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of, is_default, text, typed
from ..context import END, LENGTHS, Subject, input_of, is_layer, label
from ..graph import batch_axis
from ..report import Finding, failed

_SAME_SHAPE = frozenset(
    {"Identity", "Cast", "Relu", "Tanh", "Sigmoid", "Dropout", "Gelu", "Elu", "LeakyRelu", "Selu", "Softplus", "Neg"}
    | {"LayerNormalization", "HardSigmoid", "HardSwish", "Abs", "Exp", "Mish"}
)
"""Operators that work on each number, or each feature vector, by itself."""
_MOVES = frozenset({"Transpose", "Squeeze", "Unsqueeze", "Reshape"})
_WITH_CONSTANT = frozenset({"MatMul", "Add", "Mul", "Sub", "Div"})
_AVERAGES = frozenset({"ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"})
_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})


@dataclass(frozen=True)
class _Padded:
    """A value that has padding along an axis."""

    name: str
    axis: int
    rank: int


def lengths_type(subject: Subject) -> Iterator[Finding]:
    """int32, and nothing else."""
    for scope, node in subject.recurrent:
        name = input_of(node, LENGTHS)
        if not name:
            continue
        dtype = scope.dtype(name)
        stored = scope.weight(name).dtype if dtype == "unknown" else dtype
        if stored not in ("int32", "unknown", ""):
            yield failed("lengths-type", label(node), f"sequence_lens {name} is {stored}, and must be int32")


def lengths_constant(subject: Subject) -> Iterator[Finding]:
    """Lengths that are stored in the file."""
    for scope, node in subject.recurrent:
        name = input_of(node, LENGTHS)
        values = subject.integers(scope, name) if name else None
        if values is not None:
            said = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
            yield failed("lengths-constant", label(node), f"sequence_lens {name} is the constant [{said}]")


def lengths_ignored(subject: Subject) -> Iterator[Finding]:
    """Readers of a padded output that do not know of the padding."""
    found: dict[str, Finding] = {}
    for _, node in subject.layers:
        if input_of(node, LENGTHS) and node.output and node.output[0]:
            for finding in _followed(subject, node):
                found.setdefault(finding.where, finding)
    for finding in _without_lengths(subject):
        found.setdefault(finding.where, finding)
    # nn.LSTM has lengths for all of its layers: in a file of ours that asks for them this is no matter of taste.
    promised = (
        subject.metadata is not None and subject.metadata.options is not None and subject.metadata.options.lengths
    )
    bare = {label(node) for _, node in subject.layers if not input_of(node, LENGTHS)} if promised else set()
    for where, finding in found.items():
        yield replace(finding, severity="error") if where in bare else finding


def ignored_inputs(subject: Subject) -> Iterator[Finding]:
    """Inputs of the model that it makes nothing of."""
    top = subject.graph.scopes[0]
    used = {source for name in subject.graph.outputs for source in top.data_sources(name)}
    for name in subject.graph.inputs:
        if name not in used:
            yield failed("ignored-input", name, f"the numbers in the input {name} reach no output")


def _without_lengths(subject: Subject) -> Iterator[Finding]:
    """Operators without lengths on what another one takes up to its lengths: a layer below it, or one beside it."""
    padded: dict[str, NodeProto] = {}
    todo = [(scope, input_of(node, 0), node) for scope, node in subject.layers if input_of(node, LENGTHS)]
    while todo:
        scope, name, reader = todo.pop()
        if not name or name in padded:
            continue
        padded[name] = reader
        maker = scope.producer(name)
        if maker is not None:
            todo += [(scope, source, reader) for source in _same_time(maker, name)]
    for _, node in subject.layers:
        other = padded.get(input_of(node, 0))
        if other is not None and not input_of(node, LENGTHS) and _ends_in_padding(subject, node):
            message = (
                f"{node.op_type} has no lengths and reads padding; {label(other)}, which goes as long, has lengths"
            )
            yield failed("lengths-ignored", label(node), message)


def _same_time(node: NodeProto, name: str) -> list[str]:
    """The inputs that have the steps of the node's output `name`, one for one."""
    if is_layer(node):
        return [node.input[0]] if node.output and name == node.output[0] else []
    if not is_default(node.domain):
        return []
    if node.op_type in _SAME_SHAPE | _MOVES:
        return list(node.input[:1])
    return list(node.input) if node.op_type in _WITH_CONSTANT | {"Concat"} else []


def _followed(subject: Subject, start: NodeProto) -> Iterator[Finding]:
    todo, seen = [_Padded(str(start.output[0]), 1 - batch_axis(start), 4)], set()
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        for where, reader, index in subject.readers.get(value.name, ()):
            problem = _problem(subject, where, reader, index, value)
            if problem:
                yield failed("lengths-ignored", label(reader), f"{problem}; {label(start)} before it has lengths")
            elif reader.output and (axis := _next_axis(subject, where, reader, index, value)) is not None:
                rank = len(where.shape(reader.output[0]) or ()) or value.rank
                todo.append(_Padded(str(reader.output[0]), axis, rank))


def _problem(subject: Subject, scope: Scope, node: NodeProto, index: int, value: _Padded) -> str:
    """What the reader does with padding, or ""."""
    if index == 0 and is_layer(node):
        unaware = not input_of(node, LENGTHS) and _ends_in_padding(subject, node)
        return f"{node.op_type} has no lengths and reads padding" if unaware else ""
    if index != 0 or not is_default(node.domain):
        return ""
    kind, attributes = node.op_type, attributes_of(node)
    if kind in _AVERAGES:
        axes = typed(attributes, "axes", list) or subject.integers(scope, input_of(node, 1)) or []
        over = value.axis in [axis % value.rank for axis in axes] if axes else not input_of(node, 1)
        return f"{kind} goes over the padded time" if over else ""
    if kind in _POOLS:
        return f"{kind} goes over the padded time" if value.axis >= 2 else ""
    if kind == "Softmax":
        hit = typed(attributes, "axis", int) if "axis" in attributes else -1
        return "Softmax goes over the padded time without a mask" if hit % value.rank == value.axis else ""
    if kind == "Gather":
        last = subject.integers(scope, input_of(node, 1)) == [-1]
        at_time = typed(attributes, "axis", int) % value.rank == value.axis
        return "Gather takes the last padded step" if last and at_time else ""
    if kind == "Slice":
        return "Slice takes the last padded step" if _is_last_step(subject, scope, node, value) else ""
    return ""


def _ends_in_padding(subject: Subject, node: NodeProto) -> bool:
    """Whether what the operator gives for real steps depends on the padding behind them."""
    backwards = text(attributes_of(node).get("direction", "forward")) != "forward"
    return backwards or any(subject.is_used(name) for name in node.output[1:])


def _is_last_step(subject: Subject, scope: Scope, node: NodeProto, value: _Padded) -> bool:
    return any(
        axis % value.rank == value.axis and start == -1 and (end >= END or step < 0)
        for axis, start, end, step in subject.slices(scope, node)
    )


def _next_axis(subject: Subject, scope: Scope, node: NodeProto, index: int, value: _Padded) -> int | None:
    """Where the padded axis is behind the reader; None where it is lost, masked or out of sight."""
    kind, attributes = node.op_type, attributes_of(node)
    if is_layer(node):
        return 1 - batch_axis(node) if index == 0 and not input_of(node, LENGTHS) else None
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
        axes = typed(attributes, "axes", list) or subject.integers(scope, input_of(node, 1))
        return _moved(kind, axes, value) if axes else None
    if kind == "Reshape":
        return _reshaped(subject, scope, node, value)
    if kind == "Slice":  # a trim to the longest sequence, or a choice of features
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


def _reshaped(subject: Subject, scope: Scope, node: NodeProto, value: _Padded) -> int | None:
    target = subject.integers(scope, input_of(node, 1))
    if target is not None and len(target) > value.axis and not any(target[: value.axis + 1]):
        return value.axis  # zeros keep the sizes up to it
    before, after = scope.shape(node.input[0]) or (), scope.shape(node.output[0]) or ()
    name = before[value.axis] if value.axis < len(before) else None
    places = [axis for axis, dim in enumerate(after) if dim == name]
    return places[0] if isinstance(name, str) and len(places) == 1 else None
