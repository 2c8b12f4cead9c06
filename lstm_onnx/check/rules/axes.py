"""LO201-205: axes that should be dynamic are dynamic, and have names.

A fixed size is not wrong in itself: a decoder runs step by step, and a model may need a batch of 1.  In a module's file
it is wrong if the values come from an input whose batch is open, and their shape, fully known, has no room for that
batch; if a Reshape, which keeps every element, loses a dynamic axis; and if an initial state has another batch than the
sequence.  What shapes do not prove either way is left to the rule that runs the file at several sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set

from onnx import NodeProto

from ...input_spec import InputSpec
from ...metadata import Metadata
from ...onnxgraph import Dim, Scope, Shape, attributes_of, shape_of, shown, typed
from ...onnxgraph.nodes import END_OF_AXIS
from ...onnxgraph.recurrent import batch_axis, initial_states, input_of, is_scan, scanned_inputs
from ...spec import LSTMSpec
from ...symbolic_dims import names_in
from ..context import CheckContext
from ..finding import Finding
from ..graph import Graph
from ..rule import Rule, applies, rule

_STEP_BY_STEP = ("Loop", "Scan")

DYNAMIC_AXES = rule(
    "LO201",
    "dynamic-axes",
    "error",
    summary="batch or time is fixed where it should be dynamic",
    why="The model then runs only at the size of the example with which it was traced. torch.onnx.export "
    "of torch 2.13 does so to a one-layer nn.LSTM without a warning.",
    fix="a size was baked in; export again with dynamic batch and time",
)
FROZEN_LITERAL = rule(
    "LO202",
    "frozen-literal",
    "error",
    summary="a Reshape or Expand to constants loses a dynamic axis",
    why="x.view(32, -1) or h.expand(2, 8, n), traced with Python numbers, leave these numbers in the graph: "
    "other sizes fail, or worse, mix one sequence with the next.",
    fix="use x.size(0) or -1 in the module's code, and export again with dynamic batch and time",
)
FROZEN_SLICE = rule(
    "LO203",
    "frozen-slice",
    "warning",
    summary="a Slice, Gather or SequenceAt by constants cuts a dynamic axis where the example ended",
    why="x[:, :100] and x[:, 99] may be intended, or may come from the length of the example: then the rest of a "
    "longer sequence is dropped silently, and a shorter one fails. torch.onnx.export of torch 2.13 unrolls an nn.RNN "
    "like this.",
    fix="take the size from a tensor (x.size(1), or -1 for the last step); --ignore LO203 if the cut is intended",
)
STATE_BATCH = rule(
    "LO204",
    "state-batch",
    "error",
    summary="an initial state has a fixed batch while that of an input is dynamic",
    why="The operator does not broadcast states: ONNX Runtime reports `Input initial_h must have shape {1,2,3}. "
    "Actual: {1,1,3}` at any other batch.",
    fix="make the states with x.size(0) in the module's code, or export again with dynamic batch and time",
)
UNNAMED_AXES = rule(
    "LO205",
    "unnamed-axes",
    "warning",
    summary="a dynamic axis of an input has no name, or the batch has a different name in each input",
    why="Names tell a runtime which axes have the same size. Without them it cannot make initial states for the "
    "batch of the input, and a size that does not fit is noticed only in the graph. tf2onnx names each axis "
    "separately.",
    fix="name the axes in the export (dynamic_shapes, dynamic_axes)",
)


@applies(DYNAMIC_AXES, FROZEN_LITERAL, STATE_BATCH)
def dynamic_axes(context: CheckContext) -> Iterator[Finding]:
    """Batch and time are dynamic, in the graph's inputs and outputs and at each recurrent node."""
    if context.shapes_problem:
        yield DYNAMIC_AXES.violated("", f"shapes cannot be inferred: {context.shapes_problem}", "fix what it names")
        return
    graph, metadata = context.graph, context.metadata or Metadata()
    of_module = metadata.spec is None and bool(metadata.inputs)
    findings = _module_axes(graph, metadata.inputs) if of_module else _lstm_axes(graph, metadata)
    violations = list(dict.fromkeys(findings))
    yield from violations
    if all(finding.rule != DYNAMIC_AXES.name for finding in violations):
        yield DYNAMIC_AXES.passed(_open_axes(graph, metadata))


def _open_axes(graph: Graph, metadata: Metadata) -> str:
    if metadata.spec is not None:
        return "batch and time are dynamic in every input and output"
    if metadata.inputs:
        promised = dict.fromkeys(dim for spec in metadata.inputs for dim in spec.shape if isinstance(dim, str))
        names = ", ".join(promised)
        return f"the dynamic axes in the metadata, {names}, are dynamic" if promised else "the metadata has none"
    count = sum(1 for _ in graph.recurrent)
    if count:
        inputs = _state_inputs(graph)
        steps = sum(_takes_one_step(scope, node, inputs) for scope, node in graph.recurrent)
        other = sum(
            not is_scan(node) and _runs_along_another_axis(graph, scope, node) for scope, node in graph.recurrent
        )
        but = f", but at {steps} that take one step in each call" if steps else ""
        but += f", but at {other} that run along another axis, of a fixed size" if other else ""
        return f"batch and time are dynamic at each of the {count} recurrent nodes{but}"
    axes = "; ".join(f"{name} {shown(shape_of(kind))}" for name, kind in graph.inputs.items())
    return f"there is no recurrent node (LSTM, GRU, RNN, Scan); the inputs are {axes or 'none'}"


# A bare LSTM of ours, or a file of another tool: every recurrent node must have a dynamic batch and time.


def _lstm_axes(graph: Graph, metadata: Metadata) -> Iterator[Finding]:
    ours = metadata.spec is not None
    if metadata.spec is not None:
        with_lengths = metadata.options is not None and metadata.options.lengths
        yield from _promised_by_spec(graph, metadata.spec, with_lengths=with_lengths)
    yield from _frozen_literals(graph, graph.axes)
    state_inputs = _state_inputs(graph)
    for scope, node in graph.recurrent:
        if is_scan(node):
            yield from _scan_axes(graph, scope, node, state_inputs, ours=ours)
        else:
            yield from _operator_axes(graph, scope, node, state_inputs)


def _promised_by_spec(graph: Graph, spec: LSTMSpec, *, with_lengths: bool) -> Iterator[Finding]:
    """The inputs and outputs of a bare LSTM against its spec."""
    h, c = spec.h_shape("batch"), spec.c_shape("batch")
    inputs: dict[str, Shape] = {"input": spec.sequence_shape("batch", "time", spec.input_size), "h0": h, "c0": c}
    outputs = {"output": spec.sequence_shape("batch", "time", spec.output_size), "hn": h, "cn": c}
    return _promised(graph, inputs | ({"lengths": ("batch",)} if with_lengths else {}), outputs)


def _promised(graph: Graph, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> Iterator[Finding]:
    """What is missing, and all wrong shapes in one finding."""
    different: dict[str, str] = {}
    for kind, promised, present in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        for name, shape in promised.items():
            if name not in present:
                yield DYNAMIC_AXES.violated(name, f"the {kind} {name} {shown(shape)} is missing")
            elif (actual := shape_of(present[name])) != shape:
                different[name] = f"{name} is {shown(actual)}, not {shown(shape)}"
    if different:
        message = f"not the shapes that the metadata promises: {'; '.join(different.values())}"
        yield DYNAMIC_AXES.violated(next(iter(different)), message)


def _operator_axes(graph: Graph, scope: Scope, node: NodeProto, state_inputs: Set[str]) -> Iterator[Finding]:
    """Batch and time of an operator's X and initial states."""
    batch = batch_axis(node)
    x = input_of(node, 0)
    if (
        _is_fixed(scope, x, 1 - batch)
        and not _takes_one_step(scope, node, state_inputs)
        and not _runs_along_another_axis(graph, scope, node)
    ):
        yield _fixed_axis(graph, scope, node, x, "time", 1 - batch)
    if _is_fixed(scope, x, batch):
        yield _fixed_axis(graph, scope, node, x, "batch", batch)
        return
    for value in initial_states(node):
        # A constant state is not broadcast: it fixes the batch, too.
        if value and _is_fixed(scope, value, batch) and _is_other(scope.dim(x, batch), scope.dim(value, batch)):
            yield _fixed_axis(graph, scope, node, value, "batch", batch, STATE_BATCH)


def _scan_axes(graph: Graph, scope: Scope, node: NodeProto, state_inputs: Set[str], *, ours: bool) -> Iterator[Finding]:
    """Time and batch of what a Scan reads in each step, which its values share: both are reported for the first one."""
    times = [] if _takes_one_step(scope, node, state_inputs) else _scanned(node)
    batches = [(value, 1) for value in scanned_inputs(node)] if ours else []
    for name, axes in (("time", times), ("batch", batches)):
        fixed = next(((value, axis) for value, axis in axes if _is_fixed(scope, value, axis)), None)
        if fixed is not None:
            yield _fixed_axis(graph, scope, node, fixed[0], name, fixed[1])


def _scanned(node: NodeProto) -> list[tuple[str, int]]:
    """What a Scan reads in each step, each with its time axis."""
    axes = typed(attributes_of(node), "scan_input_axes", list)
    return [(value, axes[index] if index < len(axes) else 0) for index, value in enumerate(scanned_inputs(node))]


def _sequence(node: NodeProto) -> tuple[str, int]:
    """The sequence that an operator or a Scan reads, and its time axis."""
    return (_scanned(node) or [("", 0)])[0] if is_scan(node) else (input_of(node, 0), 1 - batch_axis(node))


def _state_inputs(graph: Graph) -> set[str]:
    """The inputs from which states are computed, but not the sequence of the same operator."""
    found: set[str] = set()
    for scope, node in graph.recurrent:
        found |= _state_sources(scope, node) - scope.data_sources(_sequence(node)[0])
    return found


def _state_sources(scope: Scope, node: NodeProto) -> set[str]:
    return set[str]().union(*(scope.data_sources(value) for value in initial_states(node) if value))


def _takes_one_step(scope: Scope, node: NodeProto, state_inputs: Set[str]) -> bool:
    """Whether a call is one step: in a loop's body, or in a file that is called for each step with the states."""
    one = scope.dim(*_sequence(node)) == 1
    return one and (_in_loop(scope) or bool(_state_sources(scope, node) & state_inputs))


def _runs_along_another_axis(graph: Graph, scope: Scope, node: NodeProto) -> bool:
    """Whether its steps may be an axis such as frequency, with the inputs' batch and time merged into its batch.

    The shapes do not prove it: if an input has two dynamic axes and two others, either may be the node's batch.
    """
    x, batch = input_of(node, 0), batch_axis(node)
    shapes = [shape_of(graph.inputs[name]) or () for name in scope.data_sources(x)]
    return (
        scope.dim(x, batch) not in graph.axes
        and not _is_fixed(scope, x, batch)
        and _is_fixed(scope, x, 1 - batch)
        and any(
            sum(isinstance(dim, int) for dim in shape) > 1 < sum(not isinstance(dim, int) for dim in shape)
            for shape in shapes
        )
    )


def _in_loop(scope: Scope | None) -> bool:
    """Whether it is in the body of a Loop or Scan, however deep."""
    while scope is not None:
        if scope.caller is not None and scope.caller.op_type in _STEP_BY_STEP:
            return True
        scope = scope.parent
    return False


def _is_fixed(scope: Scope, value: str, axis: int) -> bool:
    """Whether the axis has a size, other than the 1 of an Unsqueeze."""
    size = scope.dim(value, axis)
    return isinstance(size, int) and not (size == 1 and "Unsqueeze" in scope.source(value)[1])


def _is_other(batch: Dim, size: Dim) -> bool:
    """Whether a batch is known not to be of a size; one without a name, or that shape inference named, may be."""
    return batch != size and batch is not None and not str(batch).startswith("unk__")


def _fixed_axis(
    graph: Graph, scope: Scope, node: NodeProto, value: str, name: str, axis: int, violated: Rule = DYNAMIC_AXES
) -> Finding:
    origin, _ = scope.source(value)
    origin_text = ""
    if origin != value:
        kind = "the input " if origin in graph.inputs else ""
        origin_text = f", which comes from {kind}{origin} {shown(scope.shape(origin))}"
    what = "the input" if value in graph.inputs else "the value"
    size = scope.dim(value, axis)
    message = f"{name} is fixed at {size} in {what} {value} {shown(scope.shape(value))}{origin_text}"
    return violated.violated(node, message)


# A module's file: its axes are those that the metadata promises for its inputs.


def _module_axes(graph: Graph, inputs: Sequence[InputSpec]) -> Iterator[Finding]:
    yield from _promised(graph, {spec.name: spec.shape for spec in inputs}, {})
    axes = {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}
    yield from _frozen_literals(graph, axes)
    batches = axes & {"batch", *graph.batches}
    for scope, node in graph.recurrent:
        values = scanned_inputs(node) if is_scan(node) else node.input[:1]
        lost = (found for value in values for found in _lost_batch(scope, node, value, inputs, axes, batches))
        yield from itertools.islice(lost, 1)
        if not is_scan(node):
            yield from _other_batch(scope, node)


def _lost_batch(
    scope: Scope, node: NodeProto, value: str, inputs: Sequence[InputSpec], axes: Set[str], batches: Set[str]
) -> Iterator[Finding]:
    """A value that comes from an input with a dynamic batch, and whose shape has none."""
    shape = scope.shape(value)
    if shape is None or not _consists_of(shape, axes) or _names(shape) & _names(tuple(batches)):
        return
    sources = scope.data_sources(value)
    for spec in inputs:
        lost = sorted(batches & {dim for dim in spec.shape if isinstance(dim, str)})
        if lost and spec.name in sources:
            message = (
                f"{lost[0]} is dynamic in the input {spec.name} {shown(spec.shape)}, but fixed in the value {value} "
                f"{shown(shape)} that comes from it"
            )
            yield DYNAMIC_AXES.violated(node, message)
            return


def _other_batch(scope: Scope, node: NodeProto) -> Iterator[Finding]:
    """Initial states with a fixed batch that is not that of X."""
    axis = batch_axis(node)
    batch = scope.dim(input_of(node, 0), axis)
    for value in initial_states(node):
        size = scope.dim(value, axis)
        if isinstance(size, int) and _is_other(batch, size):
            shape = shown(scope.shape(value))
            message = f"batch is fixed at {size} in the initial state {value} {shape}, but is {batch} in its input"
            yield STATE_BATCH.violated(node, message)


def _frozen_literals(graph: Graph, axes: Set[str]) -> Iterator[Finding]:
    """Every Reshape and Expand that loses one of the `axes` to a constant."""
    for scope in graph.scopes:
        for node in scope.nodes:
            if node.op_type not in ("Reshape", "Expand") or not node.input or not node.output:
                continue
            before, after = scope.shape(node.input[0]), scope.shape(node.output[0])
            if before is None or after is None or not (_consists_of(before, axes) and _consists_of(after, axes)):
                continue
            lost = ", ".join(sorted(_names(before) - _names(after)))
            if lost:
                message = f"{node.op_type} turns {node.input[0]} {shown(before)} into {shown(after)}, without {lost}"
                yield FROZEN_LITERAL.violated(node, message)


def _consists_of(shape: Shape, axes: Set[str]) -> bool:
    """Whether every dimension is a size, or computed from `axes` alone."""
    names = [names_in(dim) for dim in shape if isinstance(dim, str)]
    return None not in shape and all(each and each <= axes for each in names)


def _names(shape: Shape) -> set[str]:
    return {name for dim in shape if isinstance(dim, str) for name in names_in(dim)}


@applies(FROZEN_SLICE)
def frozen_slice(context: CheckContext) -> Iterator[Finding]:
    """A Slice to [0, n), or a Gather or SequenceAt of step n, of an axis that is dynamic in an input."""
    axes = context.graph.axes
    for scope, node in context.onnx_nodes("Slice", "Gather", "SequenceAt"):
        whole = scope.producer(input_of(node, 0)) if node.op_type == "SequenceAt" else node
        if whole is None or (whole is not node and (whole.op_type != "SplitToSequence" or input_of(whole, 1))):
            continue  # what takes a step of x.unbind() reads all of them, each by itself
        before = scope.shape(input_of(whole, 0)) or ()
        for axis, cut in _cuts(context, scope, node, whole):
            if -len(before) <= axis < len(before) and before[axis] in axes:
                message = f"{node.op_type} {cut} of {before[axis]} in {whole.input[0]} {shown(before)}"
                yield FROZEN_SLICE.violated(node, message)


def _cuts(context: CheckContext, scope: Scope, node: NodeProto, whole: NodeProto) -> Iterator[tuple[int, str]]:
    """The axes that are cut, and how.  The first step and the last one are intended."""
    if node.op_type != "Slice":
        steps = context.integers(scope, input_of(node, 1)) or []
        if len(steps) == 1 and steps[0] > 0:
            yield typed(attributes_of(whole), "axis", int), f"takes index {steps[0]}"
    for axis, start, end, _ in context.slices(scope, node) if node.op_type == "Slice" else ():
        if start == 0 and 1 < end < END_OF_AXIS:
            yield axis, f"takes the first {end}"


@applies(UNNAMED_AXES)
def unnamed_axes(context: CheckContext) -> Iterator[Finding]:
    """Dynamic axes of inputs without a name, and a batch with several names."""
    for name, kind in context.graph.inputs.items():
        shape = shape_of(kind)
        if kind.HasField("tensor_type") and (shape is None or None in shape):
            yield UNNAMED_AXES.violated(name, f"the input {name} {shown(shape)} has dynamic axes without a name")
    groups: dict[str, list[str]] = {}
    for name, first in context.graph.batches.items():
        if name in context.graph.axes:
            groups.setdefault(first, []).append(name)
    for names in groups.values():
        if len(names) > 1:
            yield UNNAMED_AXES.violated(
                "", f"{', '.join(names)} are the same batch, with a different name in each input"
            )
