"""Whether an ONNX file is fit for production: valid, dynamic, runnable on the asked provider, states paired.

A file that cannot be read as ONNX at all, or a provider that is not there, is an error.  Everything
that is wrong with a readable file is a `Finding`, and so is whatever onnx or ONNX Runtime raise
about it: nothing that failed to be checked counts as passed.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, inliner

from .errors import ConfigError, FileError, InputError, ModelError, ProviderError, RunError
from .files import readable_file
from .runtime import Model, ValueInfo
from .runtime.providers import (
    CPU,
    PROVIDERS,
    cuda_unavailable,
    off_cuda,
    open_session,
    ort_errors,
    placements,
)
from .spec import Story

_ONNX_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.defs.SchemaError,
    DecodeError,
    EncodeError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    MemoryError,
)
"""What the onnx package raises about a model; its C++ errors share no base but Exception."""
_OPERATORS = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
_INITIAL_STATES = (5, 6)
"""Where these operators take initial_h and, an LSTM, initial_c."""
_PASSING = ("Cast", "Gather", "Identity", "MatMul", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators through which a value is still its first input in another form."""
_PRODUCER = "lstm-onnx"
_STATES = {"h0": "hn", "c0": "cn"}
"""Which output feeds which state in a bare LSTM."""
_SIZES = ((1,), (3, 5, 7, 11, 13, 17), (2, 7, 5, 3, 11, 13))
"""What the axes are set to in each run, in turn: a baked-in size can equal one of these rows but not all."""
_MOST_ELEMENTS = 2**26
_LARGE_TENSOR = 2**16
_BAKED = "a size was baked in; export again with dynamic batch and time"
_REEXPORT = "export the model again"
_FIRST_COLUMN = 15

Dim = int | str | None
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Finding:
    """What one rule has to say.

    `where` is the node or value it is about, or ""; `message` says what is so or what is wrong; `fix`
    how to mend it.  A rule that could not be tried on this file is `skipped`: neither passed nor failed.
    """

    rule: str
    passed: bool
    where: str
    message: str
    fix: str = ""
    skipped: bool = False

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return not self.passed and not self.skipped


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`; truthy when nothing failed.  `provider` is where the model was run."""

    file: str
    provider: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if finding.failed)

    def __bool__(self) -> bool:
        """Whether something was checked, and nothing failed."""
        return any(finding.passed for finding in self.findings) and not self.failures

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: the verdict and every finding."""
        return {
            "passed": bool(self),
            "file": self.file,
            "provider": self.provider,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        """A table for people: a line for each finding, how to mend it below, the verdict last."""
        lines = []
        for finding in self.findings:
            mark = "skip" if finding.skipped else "ok" if finding.passed else "FAIL"
            where = f"{finding.where}: " if finding.where else ""
            lines.append(f"{mark:4}  {finding.rule:{_FIRST_COLUMN}}{where}{finding.message}")
            if finding.fix and finding.failed:
                lines.append(f"{'':{_FIRST_COLUMN + 6}}fix: {finding.fix}")
        rules = dict.fromkeys(finding.rule for finding in self.failures)
        verdict = "passed" if self else f"FAILED ({', '.join(rules) or 'nothing was checked'})"
        return "\n".join([*lines, f"{self.file}: {verdict} on {self.provider}"])


def check(path: str | os.PathLike[str], *, provider: str = "auto") -> CheckReport:
    """Check an ONNX file: ours by what its metadata promises, others by what their graph shows.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA where a GPU can be used and else CPU.

    Raises:
        FileError: the file is missing, empty, a folder or otherwise unreadable.
        ModelError: its content is not an ONNX model at all.
        ProviderError: the provider is unknown or is not there.
        MissingDependencyError: no usable ONNX Runtime is installed.
    """
    _require_provider(provider)
    model = _read(path)
    file = os.fspath(path)
    findings = [_valid_onnx(file)]
    story: Story | None = None
    try:
        story = Story.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        findings.append(_metadata(story, model.producer_name))
    except ConfigError as error:
        findings.append(_failed("metadata", "", str(error), _REEXPORT))
    try:
        graph = _Graph(_inferred(model))
    except _ONNX_ERRORS as error:
        findings.append(_failed("dynamic-axes", "", f"shapes cannot be inferred: {_words(error)}", _REEXPORT))
        graph = _Graph(model)
    else:
        findings += _guarded("dynamic-axes", lambda: _dynamic_axes(graph, story or Story()))
    findings += _guarded("states-paired", lambda: _states_paired(graph, story))
    ran_on, dynamic = _on_provider(file, provider)
    return CheckReport(file, ran_on, (*findings, *dynamic))


def _passed(rule: str, message: str) -> Finding:
    return Finding(rule, True, "", message)


def _failed(rule: str, where: str, message: str, fix: str) -> Finding:
    return Finding(rule, False, where, message, fix)


def _skipped(rule: str, message: str) -> Finding:
    return Finding(rule, False, "", message, skipped=True)


def _words(error: BaseException | str) -> str:
    """An error's message on one line, and not without end."""
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")


def _guarded(rule: str, findings: Callable[[], list[Finding]]) -> list[Finding]:
    """A static rule's findings; a graph too damaged to walk (names that are not text) fails it."""
    try:
        return findings()
    except _ONNX_ERRORS as error:
        return [_failed(rule, "", f"the graph is damaged: {_words(error)}", _REEXPORT)]


def _require_provider(provider: str) -> None:
    if provider not in PROVIDERS:
        raise ProviderError(f'provider "{provider}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    reason = cuda_unavailable() if provider == "cuda" else None
    if reason is not None:
        raise ProviderError(f"CUDA cannot be used: {reason}")


def _read(path: str | os.PathLike[str]) -> ModelProto:
    """The model without its external data."""
    found = readable_file(path, "an .onnx file")
    if not found.is_file():
        raise FileError(f"{path}: is no regular file; expected an .onnx file")
    try:
        model = onnx.load_model(str(Path(found)), format="protobuf", load_external_data=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or only a part of one: {_words(error)}") from error
    # protobuf reads many a random byte as fields it does not know.
    if not model.graph.node or not model.opset_import:
        lacking = "nodes" if not model.graph.node else "operator set (opset_import)"
        raise ModelError(f"{path}: is not an ONNX model that can run: it has no {lacking}; {_REEXPORT}")
    return model


def _valid_onnx(file: str) -> Finding:
    try:
        onnx.checker.check_model(file, full_check=True)
    except _ONNX_ERRORS as error:
        return _failed("valid-onnx", "", f"onnx's checker refuses it: {_words(error)}", _REEXPORT)
    return _passed("valid-onnx", "onnx's checker, shapes and types included, accepts it")


def _metadata(story: Story, producer: str) -> Finding:
    version = story.versions.get("lstm_onnx")
    if producer == _PRODUCER and (version is None or (story.spec is not None and story.digest is None)):
        # A file can be cut off just where its graph ends: what is left is a sound model that lost its story.
        return _failed("metadata", "", f"{_PRODUCER} wrote the file, and its metadata is missing or cut off", _REEXPORT)
    if version is None:
        return _passed("metadata", "none of lstm-onnx's; the graph speaks for itself")
    kind = "a bare LSTM" if story.spec is not None else "a model that holds more than one LSTM"
    return _passed("metadata", f"written by lstm_onnx {version}, {kind}")


# --- The graph and its shapes ---


@dataclass(frozen=True)
class _Scope:
    """One graph, or a subgraph with what it sees of those around it."""

    graph: GraphProto
    shapes: Mapping[str, Shape]
    producers: Mapping[str, NodeProto]


class _Graph:
    """A model's graph as the rules look at it."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: value.type for value in graph.input if value.name not in constants}
        self.outputs = {value.name: value.type for value in graph.output}
        self.scopes = tuple(_scopes(graph, {}, {}))

    @property
    def recurrent(self) -> Iterator[tuple[_Scope, NodeProto]]:
        """Every node that carries a state over time, also in subgraphs."""
        for scope in self.scopes:
            for node in scope.graph.node:
                if node.op_type in (*_OPERATORS, "Scan"):
                    yield scope, node

    def source(self, scope: _Scope, value: str) -> tuple[str, set[str]]:
        """Where `value` comes from, and the operators it passes through on the way."""
        seen: set[str] = set()
        passed: set[str] = set()
        while value not in self.inputs and value not in seen:
            seen.add(value)
            node = scope.producers.get(value)
            if node is None or node.op_type not in _PASSING or not node.input:
                break
            passed.add(node.op_type)
            value = node.input[0]
        return value, passed


def _scopes(graph: GraphProto, shapes: Mapping[str, Shape], producers: Mapping[str, NodeProto]) -> Iterator[_Scope]:
    own: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = _shape(value.type)
        if shape is not None:
            own[value.name] = shape
    made = {name: node for node in graph.node for name in node.output if name}
    scope = _Scope(graph, {**shapes, **own}, {**producers, **made})
    yield scope
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _scopes(inner, scope.shapes, scope.producers)


def _shape(kind: TypeProto) -> Shape | None:
    """The dimensions of a tensor's type; None for another type or an unknown rank."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def _show(shape: Shape | None) -> str:
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def _inferred(model: ModelProto) -> ModelProto:
    """`model` with every shape that follows from its inputs; large weights are dropped on the way."""
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _LARGE_TENSOR:
            bare = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            bare.data_location = TensorProto.EXTERNAL
            tensor.CopyFrom(bare)
    if model.functions:
        model = inliner.inline_local_functions(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


# --- Static rules ---


def _dynamic_axes(graph: _Graph, story: Story) -> list[Finding]:
    rule = "dynamic-axes"
    ours = story.spec is not None
    found = [*_promised_axes(graph, story), *_frozen_literals(graph)]
    count = 0
    for scope, node in graph.recurrent:
        count += 1
        found += _scan_axes(graph, scope, node, ours) if node.op_type == "Scan" else _node_axes(graph, scope, node)
    if found:
        return list(dict.fromkeys(found))
    if count == 0:
        axes = "; ".join(f"{name} {_show(_shape(kind))}" for name, kind in graph.inputs.items())
        return [_passed(rule, f"there is no recurrent node (LSTM, GRU, RNN, Scan); the inputs are {axes or 'none'}")]
    if ours:
        return [_passed(rule, "batch and time are open in every input and output")]
    return [_passed(rule, f"batch and time are open at each of the {count} recurrent nodes")]


def _promised_axes(graph: _Graph, story: Story) -> Iterator[Finding]:
    """A bare LSTM's inputs and outputs against what its sizes say."""
    spec = story.spec
    if spec is None:
        return
    sequence = spec.sequence_shape
    inputs: dict[str, Shape] = {
        "input": sequence("batch", "time", spec.input_size),
        "h0": spec.h_shape("batch"),
        "c0": spec.c_shape("batch"),
    }
    if story.options is not None and story.options.lengths:
        inputs["lengths"] = ("batch",)
    outputs: dict[str, Shape] = {
        "output": sequence("batch", "time", spec.output_size),
        "hn": spec.h_shape("batch"),
        "cn": spec.c_shape("batch"),
    }
    for kind, expected, present in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        for name, shape in expected.items():
            if name not in present:
                yield _failed("dynamic-axes", name, f"the {kind} {name} {_show(shape)} is not there", _REEXPORT)
                continue
            actual = _shape(present[name])
            if actual != shape:
                message = f"the {kind} {name} is {_show(actual)}, and the metadata's sizes say {_show(shape)}"
                yield _failed("dynamic-axes", name, message, _BAKED)


def _frozen_literals(graph: _Graph) -> Iterator[Finding]:
    """Reshape and Expand that make an open size a fixed one."""
    for scope in graph.scopes:
        for node in scope.graph.node:
            if node.op_type not in ("Reshape", "Expand") or not node.input or not node.output:
                continue
            before, after = scope.shapes.get(node.input[0]), scope.shapes.get(node.output[0])
            if before is None or after is None:
                continue
            if not all(isinstance(dim, int) for dim in before) and all(isinstance(dim, int) for dim in after):
                message = f"{node.op_type} makes {node.input[0]} {_show(before)} the fixed {_show(after)}"
                yield _failed("dynamic-axes", _label(node), message, _BAKED)


def _node_axes(graph: _Graph, scope: _Scope, node: NodeProto) -> Iterator[Finding]:
    """An LSTM's X and initial states: batch and time must be open."""
    batch_first = _attribute(node, "layout", 0) == 1
    axes = {"batch": 0, "time": 1} if batch_first else {"time": 0, "batch": 1}
    x = node.input[0] if node.input else ""
    fixed = [name for name, axis in axes.items() if _is_fixed(graph, scope, x, axis)]
    for name in fixed:
        yield _fixed_axis(graph, scope, node, x, name, axes[name])
    if "batch" in fixed:
        return
    for index in _INITIAL_STATES:
        value = node.input[index] if index < len(node.input) else ""
        # A constant state is broadcast by nobody: it too fixes the batch.
        if value and _is_fixed(graph, scope, value, 0 if batch_first else 1):
            yield _fixed_axis(graph, scope, node, value, "batch", 0 if batch_first else 1)


def _scan_axes(graph: _Graph, scope: _Scope, node: NodeProto, ours: bool) -> Iterator[Finding]:
    count = _attribute(node, "num_scan_inputs", 0)
    time_axes = _attribute(node, "scan_input_axes", [])
    for index, value in enumerate(node.input[len(node.input) - count :] if count else []):
        axis = time_axes[index] if index < len(time_axes) else 0
        if _is_fixed(graph, scope, value, axis):
            yield _fixed_axis(graph, scope, node, value, "time", axis)
        if ours and _is_fixed(graph, scope, value, 1):
            yield _fixed_axis(graph, scope, node, value, "batch", 1)


def _is_fixed(graph: _Graph, scope: _Scope, value: str, axis: int) -> bool:
    """Whether the axis has a size, other than the 1 that an Unsqueeze gives it by design."""
    shape = scope.shapes.get(value, ())
    size = shape[axis] if axis < len(shape) else None
    return isinstance(size, int) and not (size == 1 and "Unsqueeze" in graph.source(scope, value)[1])


def _fixed_axis(graph: _Graph, scope: _Scope, node: NodeProto, value: str, name: str, axis: int) -> Finding:
    shape = scope.shapes[value]
    origin, _ = graph.source(scope, value)
    if origin == value:
        origin_text = ""
    else:
        kind = "the input " if origin in graph.inputs else ""
        origin_text = f", which comes from {kind}{origin} {_show(scope.shapes.get(origin))}"
    what = "the input" if value in graph.inputs else "the value"
    message = f"{name} is fixed at {shape[axis]} in {what} {value} {_show(shape)}{origin_text}"
    return _failed("dynamic-axes", _label(node), message, _BAKED)


def _label(node: NodeProto) -> str:
    # A name that is not UTF-8 comes as bytes.
    return str(node.name) or f"{node.op_type} that makes {', '.join(node.output)}"


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value if isinstance(value, type(default)) else default
    return default


def _states_paired(graph: _Graph, story: Story | None) -> list[Finding]:
    rule = "states-paired"
    if story is None:
        return [_skipped(rule, "the metadata that pairs them cannot be read")]
    if story.spec is not None and dict(story.states) != _STATES:
        said = ", ".join(f"{source} <- {target}" for source, target in story.states.items()) or "nothing"
        return [_failed(rule, "", f"the metadata says {said}; a bare LSTM has h0 <- hn, c0 <- cn", _REEXPORT)]
    if story.states:
        problems = [*_pair_problems(graph, story.states)]
        pairs = ", ".join(f"{source} <- {target}" for source, target in story.states.items())
        return problems or [_passed(rule, f"{pairs}, with equal dtypes and shapes")]
    loose: dict[str, None] = {}
    for scope, node in graph.recurrent:
        if node.op_type == "Scan":
            initial = list(node.input[: len(node.input) - _attribute(node, "num_scan_inputs", 0)])
        else:
            initial = [node.input[index] for index in _INITIAL_STATES if index < len(node.input)]
        sources = (graph.source(scope, value)[0] for value in initial if value)
        loose.update(dict.fromkeys(source for source in sources if source in graph.inputs))
    if loose:
        return [
            _passed(rule, f"{', '.join(loose)} are states that nothing pairs; load(..., states={{...}}) names them")
        ]
    return [_passed(rule, "there are no state inputs: each run starts from the model's own states")]


def _pair_problems(graph: _Graph, states: Mapping[str, str]) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for source, target in states.items():
        pair = f"{source} <- {target}"
        missing = False
        for kind, name, known in (("input", source, graph.inputs), ("output", target, graph.outputs)):
            if name not in known:
                missing = True
                text = f"the {kind} {name} is not there; the {kind}s are {', '.join(known)}"
                yield _failed("states-paired", pair, text, _REEXPORT)
        if target in taken:
            yield _failed("states-paired", pair, f"{target} already feeds {taken[target]}", _REEXPORT)
        taken.setdefault(target, source)
        if missing:
            continue
        ends = graph.inputs[source], graph.outputs[target]
        types = [_type_name(kind.tensor_type.elem_type) for kind in ends]
        shapes = [_shape(kind) for kind in ends]
        if types[0] != types[1]:
            text = f"{source} is {types[0]} and {target} is {types[1]}"
            yield _failed("states-paired", pair, text, _REEXPORT)
        if shapes[0] != shapes[1]:
            text = f"{source} is {_show(shapes[0])} and {target} is {_show(shapes[1])}"
            yield _failed("states-paired", pair, text, _REEXPORT)


def _type_name(elem_type: int) -> str:
    names: dict[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return names.get(elem_type, f"type {elem_type}")


# --- Rules that open and run the model ---


def _on_provider(file: str, provider: str) -> tuple[str, list[Finding]]:
    """Where the model runs, and whether it does."""
    unopened = _skipped("runnable", "not tried, since it cannot be loaded")
    try:
        session, used = open_session(file, provider)
    except (ModelError, MemoryError) as error:
        text = _ort_words(error, file)
        return provider, [
            _skipped("provider", "not known, since it cannot be opened"),
            _failed("runnable", "", text, "mend what it names, or export the model again"),
        ]
    except ProviderError as error:
        _require_cuda_works()
        return provider, [_failed("provider", "", str(error), 'export at opset 21 or below, or use "auto"'), unopened]
    findings = [_placed(session, provider, used)]
    try:
        # States are a matter of their own rule: here every input is given.
        model = Model(file, session, used, states={})
    except ProviderError as error:
        text = _ort_words(error, file)
        return used, [_failed("provider", "", text, 'export it as float32, or use provider "cuda"'), unopened]
    except _model_errors() as error:
        text = _ort_words(error, file)
        return used, [*findings, _failed("runnable", "", f"it cannot be loaded: {text}", _REEXPORT)]
    return used, [*findings, *_runnable(model)]


def _require_cuda_works() -> None:
    """Tell a model that CUDA cannot run from a CUDA that runs nothing, which is an error.

    Raises:
        ProviderError: not even an addition runs there.
    """
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    open_session(model.SerializeToString(), "cuda")


def _model_errors() -> tuple[type[Exception], ...]:
    """What loading or running a model can raise that is the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def _ort_words(error: BaseException, file: str) -> str:
    """ONNX Runtime's message without the file's name, its codes, and its own source lines."""
    text = str(error).replace(f"Load model from {file} failed:", "").removeprefix(f"{file}: ")
    text = text.removeprefix("ONNX Runtime failed while running: ")
    text = re.sub(r"\b\d+ : [A-Z_]+ : |/\S+:\d+ \S+?\(.*?\) ", "", text)
    return _words(text)


def _placed(session: Any, provider: str, used: str) -> Finding:
    try:
        placed = placements(session)
    except _model_errors() as error:
        return _failed("provider", "", f"ONNX Runtime does not say where its nodes run: {_words(error)}", "upgrade it")
    elsewhere = off_cuda(placed) if used == "cuda" else [item for item in placed if item.provider != CPU]
    names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:5])
    if elsewhere and provider != "auto":
        return _failed("provider", names, f"not on {provider}, nor are {len(elsewhere)} nodes in all", 'use "auto"')
    rest = f", but {len(elsewhere)} on the CPU: {names}" if elsewhere else ""
    return _passed("provider", f"{len(placed)} nodes run on {used}{rest}")


def _runnable(model: Model) -> list[Finding]:
    rule = "runnable"
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [_skipped(rule, f"not tried: no values can be drawn for {'; '.join(undrawable)}")]
    tried: list[str] = []
    found: list[Finding] = []
    for sizes in _bindings(model.inputs.values()):
        label = ", ".join(f"{axis or 'unnamed axes'} {size}" for axis, size in sizes.items()) or "its fixed sizes"
        shapes = {name: _bound(info, sizes) for name, info in model.inputs.items()}
        if sum(prod(shape) for shape in shapes.values()) > _MOST_ELEMENTS:
            return [_skipped(rule, f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
        tried.append(label)
        problem = _run_problem(model, shapes, sizes)
        if problem:
            found.append(_failed(rule, "", f"cannot run at {label}: {problem}", _BAKED))
    return found or [_passed(rule, f"runs at {'; '.join(tried)}, and its outputs have the shapes that it declares")]


def _bindings(infos: Iterable[ValueInfo]) -> list[dict[str | None, int]]:
    """Sizes for the open axes, by name; None stands for all that have none, as nothing tells them apart."""
    open_axes = [None if isinstance(dim, int) else dim for info in infos for dim in info.shape if _is_open(dim)]
    axes = sorted(dict.fromkeys(open_axes), key=lambda axis: {"batch": 0, "time": 1}.get(axis or "", 2))
    rows = [{axis: row[index % len(row)] for index, axis in enumerate(axes)} for row in _SIZES]
    return rows if axes else [{}]


def _is_open(dim: Dim) -> bool:
    return not isinstance(dim, int) or dim < 1


def _bound(info: ValueInfo, sizes: Mapping[str | None, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else sizes[_axis(dim)] for dim in info.shape)


def _axis(dim: Dim) -> str | None:
    return dim if isinstance(dim, str) else None


def _run_problem(model: Model, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str | None, int]) -> str:
    """What goes wrong at these sizes, or ""."""
    rng = np.random.default_rng(0)
    feeds = {name: _drawn(rng, info, shapes[name], sizes) for name, info in model.inputs.items()}
    try:
        results = model.run(feeds)
    except _model_errors() as error:
        return _ort_words(error, model.path)
    for name, info in model.outputs.items():
        value = results[name]
        if not isinstance(value, np.ndarray) or info.dtype is None:
            continue
        expected = [sizes.get(dim) if isinstance(dim, str) else dim for dim in info.shape]
        wrong = [e for e, size in zip(expected, value.shape, strict=False) if e is not None and 0 < e != size]
        if wrong or (info.shape and len(info.shape) != value.ndim):
            return f"the output {name} has shape {value.shape}, and the file says {_show(info.shape)}"
    return ""


def _drawn(
    rng: np.random.Generator, info: ValueInfo, shape: tuple[int, ...], sizes: Mapping[str | None, int]
) -> np.ndarray:
    """Values that any model should take: normal numbers, the tokens 0 and 1, whole sequences."""
    dtype = info.dtype
    assert dtype is not None  # noqa: S101 - the caller leaves such models alone
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and "len" in info.name.lower():
        return np.full(shape, sizes.get("time", 1), dtype)
    return rng.integers(0, 2, shape).astype(dtype)
