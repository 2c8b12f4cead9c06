"""A traced graph under names for people: values after their modules, axes after what they are."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from ..emitter import Nodes
from ..tracing.arguments import Arguments
from ..tracing.functional import Prepared
from ..tracing.torch_export import DOMAIN
from ..tracing.user_code import traced_line

Dims = tuple[int | str, ...]
_SCOPES = "pkg.torch.onnx.name_scopes"
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_ANONYMOUS = re.compile(r"(val|scalar|c_lifted|lifted|_tensor|anonymous)\w*")
_SYMBOL = re.compile(r"\b[su]\d+\b")


@dataclass
class TracedGraph:
    """A traced graph as ONNX messages; recurrent modules are opaque nodes of the domain lstm_onnx.

    `inputs` and `outputs` name the graph's own, in order; `dims` the dimensions of whatever value
    the tracer knows them of; `types` their ONNX element types; `lines` the lines of the user's code that
    nodes come from, by the nodes' names.
    """

    nodes: Nodes
    inputs: list[str]
    outputs: list[str]
    dims: dict[str, Dims]
    types: dict[str, int]
    lines: dict[str, str] = field(default_factory=dict)

    def value_info(self, name: str, doc: str = "") -> ValueInfoProto:
        """A graph input's or output's."""
        return helper.make_tensor_value_info(name, self.types[name], self.dims[name], doc)


def named(model: onnx_ir.Model, prepared: Prepared) -> TracedGraph:
    """Rename everything in a traced model, and take its initializers out."""
    graph = model.graph
    inputs = [*prepared.arguments.tensors, *prepared.states]
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    axes = _axis_names(model, prepared.arguments, inputs)
    nodes = Nodes()
    # What the user named keeps its name, whatever a node or a parameter is called.
    taken = Counter([*inputs, *prepared.outputs, *prepared.states.values()])
    _name_nodes(graph, taken)
    repeated = _name_outputs(graph, [*prepared.outputs, *prepared.states.values()])
    _take_initializers(graph, nodes, taken)
    lines: dict[str, str] = {}
    for node in graph:
        line = traced_line(node.metadata_props.get(_STACK_TRACE, ""))
        if line is not None and node.name:
            lines[node.name] = line
        proto = onnx_ir.to_proto(node)
        _strip(proto)
        nodes.nodes.append(proto)
    for name, source in repeated:
        nodes.one("Identity", source.name, name=name)
    dims: dict[str, Dims] = {}
    types: dict[str, int] = {}
    values = [*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)]
    for value in values:
        if value.name and value.shape is not None and value.dtype is not None:
            dims[value.name] = tuple(_dim(dim, axes) for dim in value.shape)
            types[value.name] = int(value.dtype)
    for name, source in repeated:
        dims[name], types[name] = tuple(_dim(dim, axes) for dim in source.shape), int(source.dtype)
    return TracedGraph(nodes, inputs, [*prepared.outputs, *prepared.states.values()], dims, types, lines)


def _axis_names(model: onnx_ir.Model, arguments: Arguments, inputs: Sequence[str]) -> dict[str, str]:
    """The tracer's symbols (s13) to names: those that the user gave, then batch and time, then where they stand."""
    symbols: dict[str, str] = {}
    weak: dict[str, str] = {}
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        for axis, dim in enumerate(value.shape or ()):
            symbol = _text(dim)
            if symbol is None or not _SYMBOL.fullmatch(symbol):
                continue
            label = arguments.axes.get(name, {}).get(axis)
            if label is not None and label not in arguments.unnamed:
                symbols.setdefault(symbol, label)
            else:
                weak.setdefault(symbol, label or f"{name}_{axis}".replace(".", "_"))
    for symbol, label in _batch_and_time(model):
        if symbol in weak and symbol not in symbols and label not in symbols.values():
            symbols[symbol] = label
    for symbol, label in weak.items():
        symbols.setdefault(symbol, label)
    _name_data_sizes(model, symbols)
    return symbols


def _batch_and_time(model: onnx_ir.Model) -> Iterator[tuple[str | None, str]]:
    """What the axes of the recurrent modules' inputs are called."""
    for node in model.graph:
        if node.domain == DOMAIN and node.inputs[0] is not None:
            order = ("batch", "time") if node.attributes["batch_first"].value else ("time", "batch")
            for dim, label in zip(node.inputs[0].shape or (), order, strict=False):
                yield _text(dim), label


def _name_data_sizes(model: onnx_ir.Model, symbols: dict[str, str]) -> None:
    """Sizes that are data: the longest of the lengths, where there are lengths, or how many of something."""
    packed = any(node.domain == DOMAIN and len(node.inputs) > 3 and node.inputs[3] is not None for node in model.graph)
    word, count = "longest" if packed else "count", 0
    for value in [*model.graph.outputs, *(output for node in model.graph for output in node.outputs)]:
        for dim in value.shape or ():
            for symbol in _SYMBOL.findall(_text(dim) or ""):
                if symbol not in symbols:
                    symbols[symbol] = word if count == 0 else f"{word}_{count}"
                    count += 1


def _text(dim: Any) -> str | None:
    if isinstance(dim, int):
        return None
    value = getattr(dim, "value", dim)
    return value if isinstance(value, str) else None


def _dim(dim: Any, axes: Mapping[str, str]) -> int | str:
    if isinstance(dim, int):
        return dim
    text = _text(dim)
    return "" if text is None else _SYMBOL.sub(lambda match: axes.get(match.group(), match.group()), text)


def _name_nodes(graph: Any, taken: Counter[str]) -> None:
    """Each node after its module and operator, ``encoder/out/MatMul``, and its values after it."""
    for node in graph:
        scope = _scope(node)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        for index, output in enumerate(node.outputs):
            output.name = node.name if len(node.outputs) == 1 else f"{node.name}/{index}"
        for attribute in node.attributes.values():
            if attribute.type == onnx_ir.AttributeType.GRAPH:
                for number, value in enumerate(attribute.value.inputs):
                    value.name = f"{node.name}/{attribute.name}/{number}"
                _name_nodes(attribute.value, taken)


def _scope(node: Any) -> str:
    """The path of the module whose code made the node."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    modules = [scope for scope in scopes[:-1] if scope] if scopes else []
    return str(modules[-1]).removeprefix("inner").removeprefix(".").replace(".", "/") if modules else ""


def _name_outputs(graph: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Give the results their names; those that are inputs, constants or there twice come as ``(name, value)``."""
    repeated: list[tuple[str, Any]] = []
    own = set(map(id, graph.inputs))
    for value, name in zip(graph.outputs, names, strict=True):
        if id(value) in own or value.producer() is None:
            repeated.append((name, value))
        else:
            value.name = name
            own.add(id(value))
    return repeated


def _take_initializers(graph: Any, nodes: Nodes, taken: Container[str]) -> None:
    """The initializers into `nodes`, each array once."""
    users: dict[int, str] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is not None:
                users.setdefault(id(value), f"{node.name}/{_OPERANDS.get(node.op_type, {}).get(index, index)}")
    known: dict[tuple[Any, ...], str] = {}
    held = dict(graph.initializers)
    graph.initializers.clear()  # or a new name could not be one that another still has
    for old, value in held.items():
        array = np.asarray(value.const_value.numpy(), order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in known:
            name = str(old).removeprefix("inner.")
            if _ANONYMOUS.fullmatch(name):
                name = _constant_name(array, users.get(id(value), name))
            while name in taken:
                name += "/value"
            known[key] = nodes.constant(name, array)
        value.name = known[key]


_OPERANDS = {"MatMul": {1: "weight"}, "Gemm": {1: "weight", 2: "bias"}, "Add": {1: "bias"}, "Conv": {1: "weight"}}


def _constant_name(array: np.ndarray, user: str) -> str:
    if array.dtype == np.int64 and array.ndim == 1 and array.size <= 8:
        return "ints/" + "_".join(map(str, array.tolist()))
    return user


def _strip(proto: NodeProto) -> None:
    """What the tracer noted of a node: stack traces, with paths of the machine that it ran on."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for attribute in proto.attribute:
        attribute.doc_string = ""
        if attribute.HasField("g"):
            del attribute.g.metadata_props[:]
            del attribute.g.value_info[:]
            for value in (*attribute.g.input, *attribute.g.output):
                del value.metadata_props[:]
            for inner in attribute.g.node:
                _strip(inner)


INT32, INT64 = TensorProto.INT32, TensorProto.INT64
