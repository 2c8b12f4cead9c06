"""The rules on axes that other rules leave alone: cut by a constant, or without a name."""

from __future__ import annotations

from collections.abc import Iterator

from ..onnxgraph import is_default, shape_of, shown
from .report import Finding, failed
from .subject import Subject, input_of, label

_END = 2**31 - 1


def frozen_slice(subject: Subject) -> Iterator[Finding]:
    """A Slice to [0, n) of an axis that an input leaves open."""
    axes = {dim for kind in subject.graph.inputs.values() for dim in shape_of(kind) or () if isinstance(dim, str)}
    for scope, node in subject.nodes:
        if node.op_type != "Slice" or not is_default(node.domain):
            continue
        before = scope.shape(input_of(node, 0)) or ()
        for axis, start, end, _ in subject.slices(scope, node):
            # From 1 step on it is the first one that is meant.
            if -len(before) <= axis < len(before) and before[axis] in axes and start == 0 and 1 < end < _END:
                message = f"Slice cuts {before[axis]} of {node.input[0]} {shown(before)} to {end}"
                yield failed("frozen-slice", label(node), message)


def unnamed_axes(subject: Subject) -> Iterator[Finding]:
    """Inputs whose open axes have no names."""
    for name, kind in subject.graph.inputs.items():
        shape = shape_of(kind)
        if kind.HasField("tensor_type") and (shape is None or None in shape):
            yield failed("unnamed-axes", name, f"the input {name} {shown(shape)} has open axes without a name")
