"""Sizes that were frozen: where an axis that the inputs promise to be open cannot be any more.

A fixed size is no fault in itself: a decoder runs step by step, a tutorial's model has a batch of 1
by what it does with its input.  It is one where the numbers come from an input whose batch is open,
and their shape, known in full, has no room for that batch; where a Reshape, which keeps every
number, loses an open axis; and where an initial state has another batch than the sequence.  What
shapes do not prove either way is left to the rule that runs the file at several sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from onnx import NodeProto

from ...input_spec import InputSpec
from ...onnxgraph import Scope, Shape, shape_of, shown
from ...runtime.symbolic_dims import names_in
from ..context import label
from ..graph import Graph, batch_axis, dim_of, initial_states, scanned
from ..report import BAKED, Finding, failed

_AXES = "dynamic-axes"


def frozen_axes(graph: Graph, inputs: Sequence[InputSpec]) -> Iterator[Finding]:
    """What contradicts the axes that the `inputs` of a module's file promise."""
    yield from _promised(graph, inputs)
    axes = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    yield from frozen_literals(graph, axes)
    batches = axes & {"batch", *graph.batches}
    for scope, node in graph.recurrent:
        for value in scanned(node) if node.op_type == "Scan" else node.input[:1]:
            yield from _without_batch(scope, node, value, inputs, axes, batches)
        if node.op_type != "Scan":
            yield from _other_batch(scope, node)


def _promised(graph: Graph, inputs: Sequence[InputSpec]) -> Iterator[Finding]:
    for spec in inputs:
        if spec.name not in graph.inputs:
            yield failed(_AXES, spec.name, f"the input {spec.name} {shown(spec.shape)} is not there")
        elif (actual := shape_of(graph.inputs[spec.name])) != spec.shape:
            message = f"the input {spec.name} is {shown(actual)}, and the metadata says {shown(spec.shape)}"
            yield failed(_AXES, spec.name, message, BAKED)


def frozen_literals(graph: Graph, axes: Set[str]) -> Iterator[Finding]:
    """Every Reshape and Expand that loses one of the `axes` to a constant."""
    for scope in graph.scopes:
        for node in scope.nodes:
            if node.op_type not in ("Reshape", "Expand") or not node.input or not node.output:
                continue
            before, after = scope.shape(node.input[0]), scope.shape(node.output[0])
            if not _known(before, axes) or not _known(after, axes) or before is None or after is None:
                continue
            lost = ", ".join(sorted(_names(before) - _names(after)))
            if lost:
                message = f"{node.op_type} makes {node.input[0]} {shown(before)} {shown(after)}, without {lost}"
                yield failed("frozen-literal", label(node), message)


def _without_batch(
    scope: Scope,
    node: NodeProto,
    value: str,
    inputs: Sequence[InputSpec],
    axes: Set[str],
    batches: Set[str],
) -> Iterator[Finding]:
    shape = scope.shape(value)
    if shape is None or not _known(shape, axes) or _names(shape) & batches:
        return
    sources = scope.data_sources(value)
    for spec in inputs:
        lost = sorted(batches & {dim for dim in spec.shape if isinstance(dim, str)})
        if lost and spec.name in sources:
            yield failed(
                _AXES,
                label(node),
                f"{lost[0]} is open in the input {spec.name} {shown(spec.shape)}, and fixed in the value {value} "
                f"{shown(shape)} that comes from it",
                BAKED,
            )
            return


def _other_batch(scope: Scope, node: NodeProto) -> Iterator[Finding]:
    axis = batch_axis(node)
    batch = dim_of(scope, node.input[0], axis) if node.input else None
    for value in initial_states(node):
        size = dim_of(scope, value, axis)
        # A dim without a name, or one that shape inference made up, may well be that size.
        if isinstance(size, int) and batch != size and batch is not None and not str(batch).startswith("unk__"):
            shape = shown(scope.shape(value))
            message = f"batch is fixed at {size} in the initial state {value} {shape}, and {batch} in its input"
            yield failed("state-batch", label(node), message)


def _known(shape: Shape | None, axes: Set[str]) -> bool:
    """Whether every dimension is a size or made of axes that the inputs promise."""
    return shape is not None and all(isinstance(dim, int) or (dim is not None and _made_of(dim, axes)) for dim in shape)


def _made_of(dim: str, axes: Set[str]) -> bool:
    names = names_in(dim)
    return bool(names) and names <= axes


def _names(shape: Shape) -> set[str]:
    return {name for dim in shape if isinstance(dim, str) for name in names_in(dim)}
