"""The rules that read the file: is it valid, is its metadata whole, are axes open, are states paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from ...metadata import Metadata
from ...onnxgraph import Scope, Shape, attributes_of, dtype_name, shape_of, shown, typed
from ..context import Subject, label
from ..graph import ONNX_ERRORS, Graph, batch_axis, dim_of, end_of, initial_states, scanned
from ..inference import has_negative_dims
from ..report import BAKED, Finding, failed, passed, skipped, words
from .frozen_axes import frozen_axes, frozen_literals

_PRODUCER = "lstm-onnx"
_STATES = {"h0": "hn", "c0": "cn"}
"""Which output feeds which state in a bare LSTM."""
_AXES = "dynamic-axes"
_PAIRED = "states-paired"
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_STEP_BY_STEP = ("Loop", "Scan")


def valid_onnx(subject: Subject) -> list[Finding]:
    """onnx's own checker, its external data included."""
    full = not has_negative_dims(subject.model)
    try:
        onnx.checker.check_model(subject.file, full_check=full)
    except ONNX_ERRORS as error:
        return [failed("valid-onnx", "", f"onnx's checker refuses it: {words(error)}")]
    how = "shapes and types included" if full else "shapes and types left out, which it might not survive"
    return [passed("valid-onnx", f"onnx's checker, {how}, accepts it")]


def metadata(metadata: Metadata, model: ModelProto) -> Finding:
    """Metadata of ours must be whole; a file of others need have none."""
    producer = model.producer_name
    version = metadata.versions.get("lstm_onnx")
    # Of a bare LSTM the spec says what goes in, of a module the inputs.
    whole = version is not None and metadata.digest is not None and (metadata.spec is not None or bool(metadata.inputs))
    if producer == _PRODUCER and not whole:
        # A file can be cut off just where its graph ends: what is left is a sound model that lost its metadata.
        return failed("metadata", "", f"{_PRODUCER} wrote the file, and its metadata is missing or cut off")
    if version is None:
        return passed("metadata", "none of lstm-onnx's; the graph speaks for itself")
    converted = _converted(metadata, model)
    if metadata.spec is not None:
        return passed("metadata", f"written by lstm_onnx {version}, a bare LSTM{converted}")
    said = "; ".join(f"{spec.name} {spec.dtype} {shown(spec.shape)}" for spec in metadata.inputs)
    takes = f"a module that takes {said or 'what its graph says'}"
    return passed("metadata", f"written by lstm_onnx {version}, {takes}{converted}")


def _converted(metadata: Metadata, model: ModelProto) -> str:
    """What another tool has made of the dtypes since the metadata was written, in words; the graph counts."""
    written = {spec.name: spec.dtype for spec in metadata.inputs}
    if metadata.spec is not None:
        written["input"] = metadata.spec.dtype
    now = {value.name: dtype_name(value.type.tensor_type.elem_type) for value in model.graph.input}
    changed = [f"{name} is {now[name]}, and was {was}" for name, was in written.items() if now.get(name, was) != was]
    return f"; converted since: {', '.join(changed)}" if changed else ""


def dynamic_axes(subject: Subject) -> list[Finding]:
    """Batch and time must be open, at the graph's ends and at every recurrent node."""
    if subject.shapeless:
        return [failed(_AXES, "", f"shapes cannot be inferred: {subject.shapeless}", "mend what it names")]
    graph, metadata = subject.graph, subject.metadata or Metadata()
    if metadata.spec is None and metadata.inputs:
        return _module_axes(graph, metadata)
    ours = metadata.spec is not None
    found = [*_promised_axes(graph, metadata), *frozen_literals(graph, graph.axes)]
    count = 0
    for scope, node in graph.recurrent:
        count += 1
        found += _scan_axes(graph, scope, node, ours) if node.op_type == "Scan" else _node_axes(graph, scope, node)
    found = list(dict.fromkeys(found))
    if any(finding.rule == _AXES for finding in found):
        return found
    if count == 0:
        axes = "; ".join(f"{name} {shown(shape_of(kind))}" for name, kind in graph.inputs.items())
        return [
            *found,
            passed(_AXES, f"there is no recurrent node (LSTM, GRU, RNN, Scan); the inputs are {axes or 'none'}"),
        ]
    if ours:
        return [*found, passed(_AXES, "batch and time are open in every input and output")]
    return [*found, passed(_AXES, f"batch and time are open at each of the {count} recurrent nodes")]


def _module_axes(graph: Graph, metadata: Metadata) -> list[Finding]:
    """A module's axes are those that its inputs promise, and no others."""
    found = list(dict.fromkeys(frozen_axes(graph, metadata.inputs)))
    if any(finding.rule == _AXES for finding in found):
        return found
    promised = dict.fromkeys(dim for spec in metadata.inputs for dim in spec.shape if isinstance(dim, str))
    return [*found, passed(_AXES, f"{', '.join(promised) or 'no axis'}, as promised, open in the inputs and not lost")]


def _promised_axes(graph: Graph, metadata: Metadata) -> Iterator[Finding]:
    """A bare LSTM's inputs and outputs against what its sizes say."""
    spec = metadata.spec
    if spec is None:
        return
    sequence = spec.sequence_shape
    inputs: dict[str, Shape] = {
        "input": sequence("batch", "time", spec.input_size),
        "h0": spec.h_shape("batch"),
        "c0": spec.c_shape("batch"),
    }
    if metadata.options is not None and metadata.options.lengths:
        inputs["lengths"] = ("batch",)
    outputs: dict[str, Shape] = {
        "output": sequence("batch", "time", spec.output_size),
        "hn": spec.h_shape("batch"),
        "cn": spec.c_shape("batch"),
    }
    for kind, expected, present in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        for name, shape in expected.items():
            if name not in present:
                yield failed(_AXES, name, f"the {kind} {name} {shown(shape)} is not there")
                continue
            actual = shape_of(present[name])
            if actual != shape:
                message = f"the {kind} {name} is {shown(actual)}, and the metadata's sizes say {shown(shape)}"
                yield failed(_AXES, name, message, BAKED)


def _node_axes(graph: Graph, scope: Scope, node: NodeProto) -> Iterator[Finding]:
    """An LSTM's X and initial states: batch and time must be open."""
    axes = {"batch": 0, "time": 1} if batch_axis(node) == 0 else {"time": 0, "batch": 1}
    x = node.input[0] if node.input else ""
    fixed = [name for name, axis in axes.items() if _is_fixed(scope, x, axis)]
    if "time" in fixed and dim_of(scope, x, axes["time"]) == 1 and _is_a_step(scope):
        fixed.remove("time")
    for name in fixed:
        yield _fixed_axis(graph, scope, node, x, name, axes[name])
    if "batch" in fixed:
        return
    for value in initial_states(node):
        # A constant state is broadcast by nobody: it too fixes the batch.
        if value and _is_fixed(scope, value, axes["batch"]):
            yield _fixed_axis(graph, scope, node, value, "batch", axes["batch"], "state-batch")


def _scan_axes(graph: Graph, scope: Scope, node: NodeProto, ours: bool) -> Iterator[Finding]:
    time_axes = typed(attributes_of(node), "scan_input_axes", list)
    for index, value in enumerate(scanned(node)):
        axis = time_axes[index] if index < len(time_axes) else 0
        if _is_fixed(scope, value, axis):
            yield _fixed_axis(graph, scope, node, value, "time", axis)
        if ours and _is_fixed(scope, value, 1):
            yield _fixed_axis(graph, scope, node, value, "batch", 1)


def _is_a_step(scope: Scope) -> bool:
    """Whether it is within a body that runs step by step."""
    around: Scope | None = scope
    while around is not None:
        if around.caller is not None and around.caller.op_type in _STEP_BY_STEP:
            return True
        around = around.parent
    return False


def _is_fixed(scope: Scope, value: str, axis: int) -> bool:
    """Whether the axis has a size, other than the 1 that an Unsqueeze gives it by design."""
    size = dim_of(scope, value, axis)
    return isinstance(size, int) and not (size == 1 and "Unsqueeze" in scope.source(value)[1])


def _fixed_axis(
    graph: Graph, scope: Scope, node: NodeProto, value: str, name: str, axis: int, rule: str = _AXES
) -> Finding:
    origin, _ = scope.source(value)
    if origin == value:
        origin_text = ""
    else:
        kind = "the input " if origin in graph.inputs else ""
        origin_text = f", which comes from {kind}{origin} {shown(scope.shape(origin))}"
    what = "the input" if value in graph.inputs else "the value"
    size = dim_of(scope, value, axis)
    message = f"{name} is fixed at {size} in {what} {value} {shown(scope.shape(value))}{origin_text}"
    return failed(rule, label(node), message)


def states_paired(subject: Subject) -> list[Finding]:
    """Every state input must be fed by an output of its dtype and shape."""
    graph, metadata = subject.graph, subject.metadata
    if metadata is None:
        return [skipped(_PAIRED, "the metadata that pairs them cannot be read")]
    said = ", ".join(f"{source} <- {target}" for source, target in metadata.states.items())
    if metadata.spec is not None and dict(metadata.states) != _STATES:
        return [failed(_PAIRED, "", f"the metadata says {said or 'nothing'}; a bare LSTM has h0 <- hn, c0 <- cn")]
    unpaired = [name for name in (*metadata.initial, *metadata.origins) if name not in metadata.states]
    if unpaired:
        return [
            failed(_PAIRED, unpaired[0], f"the metadata tells of the state {unpaired[0]}, and pairs it with nothing")
        ]
    if metadata.states:
        pairs = list(_pair_problems(graph, metadata.states)) or _swapped(graph, metadata.states)
        problems = [*pairs, *_initial_problems(graph, metadata)]
        said = ", ".join(_told(metadata, source, target) for source, target in metadata.states.items())
        return problems or [passed(_PAIRED, f"{said}, with equal dtypes and shapes")]
    if any(scope.origins(value)[0] for scope, node in graph.recurrent for value in initial_states(node)):
        return [passed(_PAIRED, "the metadata pairs no states, and so none of them wrongly")]
    return [passed(_PAIRED, "there are no state inputs: each run starts from the model's own states")]


def _told(metadata: Metadata, source: str, target: str) -> str:
    """As in ``lstm.h0 <- lstm.hn (h of lstm)``."""
    origin = metadata.origins.get(source)
    return f"{source} <- {target}" + (
        f" ({'c' if origin.index else 'h'} of {origin.module or 'the module'})" if origin else ""
    )


def _initial_problems(graph: Graph, metadata: Metadata) -> Iterator[Finding]:
    """What states start from must fit them; one entry along an open axis serves every size."""
    for source, array in metadata.initial.items():
        kind = graph.inputs.get(source)
        if kind is None:
            continue  # the pair says so already
        shape = shape_of(kind) or ()
        fits = len(shape) == array.ndim and all(
            size == dim if isinstance(dim, int) else size > 0 for size, dim in zip(array.shape, shape, strict=True)
        )
        elem_type = kind.tensor_type.elem_type
        # The graph counts: the file may have been converted to another float since its metadata was written.
        floats = array.dtype.kind == "f" and elem_type in _FLOATS
        if not fits or not (floats or helper.np_dtype_to_tensor_dtype(array.dtype) == elem_type):
            message = f"{source} {shown(shape)} starts from {array.dtype.name} {array.shape}, which does not fit"
            yield failed(_PAIRED, source, message)


def _swapped(graph: Graph, states: Mapping[str, str]) -> Iterator[Finding]:
    """An h that is fed by a c, or a c by an h, of one shape as they are."""
    starts: dict[str, str] = {}
    ends: dict[str, str] = {}
    for scope, node in graph.recurrent:
        if node.op_type in ("LSTM", "DynamicQuantizeLSTM"):
            for kind, value, output in zip("hc", initial_states(node), node.output[1:3], strict=False):
                ends[output] = kind
                starts |= dict.fromkeys(scope.origins(value)[0], kind)
    for source, target in states.items():
        start, end = starts.get(source), ends.get(end_of(graph.scopes[0], target))
        if start and end and start != end:
            yield failed(_PAIRED, f"{source} <- {target}", f"the state {source} is {start}, and {target} is {end}")


def _pair_problems(graph: Graph, states: Mapping[str, str]) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for source, target in states.items():
        pair = f"{source} <- {target}"
        missing = False
        for kind, name, known in (("input", source, graph.inputs), ("output", target, graph.outputs)):
            if name not in known:
                missing = True
                yield failed(_PAIRED, pair, f"the {kind} {name} is not there; the {kind}s are {', '.join(known)}")
        if target in taken:
            yield failed(_PAIRED, pair, f"{target} already feeds {taken[target]}")
        taken.setdefault(target, source)
        if missing:
            continue
        ends = graph.inputs[source], graph.outputs[target]
        types = [dtype_name(kind.tensor_type.elem_type) for kind in ends]
        shapes = [shape_of(kind) for kind in ends]
        if types[0] != types[1]:
            yield failed(_PAIRED, pair, f"{source} is {types[0]} and {target} is {types[1]}")
        if shapes[0] != shapes[1]:
            yield failed(_PAIRED, pair, f"{source} is {shown(shapes[0])} and {target} is {shown(shapes[1])}")
