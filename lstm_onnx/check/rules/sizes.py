"""The rules on axes that other rules leave alone: cut by a constant, or without one name."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of, is_default, shape_of, shown, typed
from ..context import END, Subject, input_of, label
from ..report import Finding, failed


def frozen_slice(subject: Subject) -> Iterator[Finding]:
    """A Slice to [0, n), or a Gather of the n-th step, of an axis that an input leaves open."""
    axes = subject.graph.axes
    for scope, node in subject.nodes:
        if is_default(node.domain) and node.op_type in ("Slice", "Gather"):
            before = scope.shape(input_of(node, 0)) or ()
            for axis, message in _cuts(subject, scope, node):
                if -len(before) <= axis < len(before) and before[axis] in axes:
                    cut = f"{node.op_type} {message} of {before[axis]} in {node.input[0]} {shown(before)}"
                    yield failed("frozen-slice", label(node), cut)


def _cuts(subject: Subject, scope: Scope, node: NodeProto) -> Iterator[tuple[int, str]]:
    """Which axis is cut where.  The first step, and the last, are meant."""
    if node.op_type == "Gather":
        steps = subject.integers(scope, input_of(node, 1)) or []
        if len(steps) == 1 and steps[0] > 0:
            yield typed(attributes_of(node), "axis", int), f"takes number {steps[0]}, counted from 0,"
    for axis, start, end, _ in subject.slices(scope, node) if node.op_type == "Slice" else ():
        if start == 0 and 1 < end < END:
            yield axis, f"takes the first {end}"


def unnamed_axes(subject: Subject) -> Iterator[Finding]:
    """Inputs whose open axes have no names, and a batch that has several."""
    for name, kind in subject.graph.inputs.items():
        shape = shape_of(kind)
        if kind.HasField("tensor_type") and (shape is None or None in shape):
            yield failed("unnamed-axes", name, f"the input {name} {shown(shape)} has open axes without a name")
    several: dict[str, list[str]] = {}
    for name, first in subject.graph.batches.items():
        if name in subject.graph.axes:
            several.setdefault(first, []).append(name)
    for names in several.values():
        if len(names) > 1:
            yield failed("unnamed-axes", "", f"{', '.join(names)} are one batch, and have a name in each input")
