"""Sizes that were frozen in a module's file: where an axis that its inputs promise to be open cannot be any more.

A fixed size is no fault in itself: a decoder runs step by step, a tutorial's model has a batch of 1
by what it does with its input.  It is one where the numbers come from an input whose batch is open,
and their shape, known in full, has no room for that batch; where a Reshape, which keeps every
number, loses an open axis; and where an initial state has another batch than the sequence.  What
shapes do not prove either way is left to the rule that runs the file at several sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from onnx import NodeProto

from ..inputs import InputSpec
from ..onnxgraph import Dim, Scope, Shape, shape_of, shown
from .graph import Graph, batch_axis, initial_states, scanned
from .report import BAKED, Finding, failed

Label = Callable[[NodeProto], str]
_AXES = "dynamic-axes"
_LITERAL = "frozen-literal"
_STATE = "state-batch"
_NAME = re.compile(r"[^\W\d]\w*")


def frozen_axes(graph: Graph, inputs: Sequence[InputSpec], label: Label) -> Iterator[Finding]:
    """What contradicts the axes that `inputs` promise; `label` names a node for people."""
    yield from _promised(graph, inputs)
    axes = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    yield from _lost_in_reshape(graph, axes, label)
    batches = axes & {"batch", *_batches_of_nodes(graph)}
    for scope, node in graph.recurrent:
        for value in scanned(node) if node.op_type == "Scan" else node.input[:1]:
            yield from _without_batch(scope, node, value, inputs, axes, batches, label)
        if node.op_type != "Scan":
            yield from _other_batch(scope, node, label)


def _promised(graph: Graph, inputs: Sequence[InputSpec]) -> Iterator[Finding]:
    for spec in inputs:
        if spec.name not in graph.inputs:
            yield failed(_AXES, spec.name, f"the input {spec.name} {shown(spec.shape)} is not there")
        elif (actual := shape_of(graph.inputs[spec.name])) != spec.shape:
            message = f"the input {spec.name} is {shown(actual)}, and the metadata says {shown(spec.shape)}"
            yield failed(_AXES, spec.name, message, BAKED)


def _lost_in_reshape(graph: Graph, axes: set[str], label: Label) -> Iterator[Finding]:
    for scope in graph.scopes:
        for node in scope.nodes:
            if node.op_type != "Reshape" or not node.input or not node.output:
                continue
            before, after = scope.shape(node.input[0]), scope.shape(node.output[0])
            if not _known(before, axes) or not _known(after, axes) or before is None or after is None:
                continue
            lost = sorted(_names(before) - _names(after))
            if lost:
                message = f"Reshape makes {node.input[0]} {shown(before)} {shown(after)}, without {', '.join(lost)}"
                yield failed(_LITERAL, label(node), message)


def _batches_of_nodes(graph: Graph) -> Iterator[str]:
    """What stands where LSTM, GRU and RNN have their batch."""
    for scope, node in graph.recurrent:
        if node.op_type != "Scan" and node.input and isinstance(dim := _batch_dim(scope, node), str):
            yield dim


def _without_batch(
    scope: Scope,
    node: NodeProto,
    value: str,
    inputs: Sequence[InputSpec],
    axes: set[str],
    batches: set[str],
    label: Label,
) -> Iterator[Finding]:
    shape = scope.shape(value)
    if shape is None or not _known(shape, axes) or _names(shape) & batches:
        return
    sources = scope.data_sources(value)
    for spec in inputs:
        lost = sorted(batches.intersection(dim for dim in spec.shape if isinstance(dim, str)))
        if lost and spec.name in sources:
            yield failed(
                _AXES,
                label(node),
                f"{lost[0]} is open in the input {spec.name} {shown(spec.shape)}, and fixed in the value {value} "
                f"{shown(shape)} that comes from it",
                BAKED,
            )
            return


def _other_batch(scope: Scope, node: NodeProto, label: Label) -> Iterator[Finding]:
    batch, axis = _batch_dim(scope, node), batch_axis(node)
    for value in initial_states(node):
        shape = scope.shape(value) or ()
        size = shape[axis] if axis < len(shape) else None
        # A dim without a name, or one that shape inference made up, may well be that size.
        if isinstance(size, int) and batch != size and batch is not None and not _made_up(batch):
            message = f"batch is fixed at {size} in the initial state {value} {shown(shape)}, and {batch} in its input"
            yield failed(_STATE, label(node), message)


def _batch_dim(scope: Scope, node: NodeProto) -> Dim:
    shape = scope.shape(node.input[0] if node.input else "") or ()
    return shape[batch_axis(node)] if batch_axis(node) < len(shape) else None


def _known(shape: Shape | None, axes: set[str]) -> bool:
    """Whether every dimension is a size or made of axes that the inputs promise."""
    return shape is not None and all(isinstance(dim, int) or (dim is not None and _made_of(dim, axes)) for dim in shape)


def _made_of(dim: str, axes: set[str]) -> bool:
    names = set(_NAME.findall(dim))
    return bool(names) and names <= axes


def _made_up(dim: Dim) -> bool:
    return isinstance(dim, str) and dim.startswith("unk__")


def _names(shape: Shape) -> set[str]:
    return {name for dim in shape if isinstance(dim, str) for name in _NAME.findall(dim)}
