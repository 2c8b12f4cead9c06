"""The names of a traced graph: nodes and values after the user's modules, axes after the user's names."""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir
from onnx import NodeProto, ValueInfoProto, helper

from ...errors import ExportError
from ...onnxgraph import nodes_of, outer_values
from ...onnxgraph.builder import Nodes, integers_name
from ...symbolic_dims import with_names, without_quotients
from ..call.arguments import Arguments
from ..functional.functional_module import FunctionalModule
from ..node_names import node_name, operand_name
from ..tracing.opaque_node import DOMAIN
from ..user_code import stack_trace_line

Dims = tuple[int | str, ...]
_SCOPES = "pkg.torch.onnx.name_scopes"
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_ANONYMOUS = re.compile(r"(val|scalar|c_lifted|lifted|_tensor|anonymous)\w*")
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""The tracer's module name for code outside of all modules."""
_SYMBOL = re.compile(r"\b[su]\d+\b")


@dataclass
class TracedGraph:
    """A traced graph as ONNX messages; calls of recurrent modules are opaque nodes of the domain lstm_onnx.

    Attributes:
        nodes: the nodes and initializers.
        inputs: the names of the graph's inputs, in order.
        outputs: the names of the graph's outputs, in order.
        dims: by value, its sizes and axis names, where the tracer knows them, in bodies too; "" for an unknown size.
        types: by value, its ONNX element type.
        lines: by node, the line of the user's code that it comes from.
    """

    nodes: Nodes
    inputs: list[str]
    outputs: list[str]
    dims: dict[str, Dims]
    types: dict[str, int]
    lines: dict[str, str] = field(default_factory=dict)

    @property
    def producers(self) -> dict[str, NodeProto]:
        """The node that computes each value."""
        return {output: node for node in self.nodes.nodes for output in node.output if output}

    def remove_unread_initializers(self) -> None:
        """Remove the initializers that neither a node nor a body reads, and that are no output."""
        read = {name for node in self.nodes.nodes for name in (*node.input, *outer_values(node))} | set(self.outputs)
        for name in self.nodes.initializers.keys() - read:
            del self.nodes.initializers[name]

    def replace_uses(self, old: str, new: str) -> None:
        """Have the nodes, those in bodies too, read another value."""
        for node in nodes_of(self.nodes.nodes):
            for position, value in enumerate(node.input):
                if value == old:
                    node.input[position] = new

    def add_input(self, name: str, dims: Dims, element: int) -> None:
        """Add an input for a state; a parameter that is called so already, as an LSTM's own ``h0``, is renamed."""
        if name in self.nodes.initializers:
            own = self.nodes.constant(f"{name}/value", self.nodes.initializers.pop(name))
            self.replace_uses(name, own)
        self.inputs.append(name)
        self.dims[name], self.types[name] = dims, element

    def value_info(self, name: str) -> ValueInfoProto:
        """The type and shape of a value, as a graph's inputs and outputs declare it."""
        return helper.make_tensor_value_info(name, self.types[name], self.dims[name])


def rename(
    model: onnx_ir.Model, functional: FunctionalModule, state_axes: Mapping[str, Mapping[int, str]] | None = None
) -> TracedGraph:
    """Rename the nodes, values and axes of a traced model, and move its initializers out of it.

    Args:
        model: as `trace` returns it; it is changed.
        functional: the module that it was traced from, which names inputs and outputs.
        state_axes: the axes of attribute states that follow axes of the inputs, with the names of these.
    """
    graph = model.graph
    inputs = [*functional.arguments.tensors, *functional.states]
    outputs = [*functional.outputs, *functional.states.values()]
    for value, name in zip(graph.inputs, inputs, strict=True):
        value.name = name
    axes = _axis_names(model, functional.arguments, inputs, state_axes or {})
    nodes = Nodes()
    # The user's names take precedence over those of nodes and parameters.
    taken = Counter([*inputs, *outputs])
    _name_nodes(graph, taken)
    repeated = _name_outputs(graph, outputs)
    _take_initializers(graph, nodes, taken)
    lines: dict[str, str] = {}
    for node in graph:
        line = stack_trace_line(node.metadata_props.get(_STACK_TRACE, ""))
        if line is not None and node.name:
            lines[node.name] = line
        proto = onnx_ir.to_proto(node)
        _remove_metadata(proto)
        nodes.nodes.append(proto)
    for name, source in repeated:
        nodes.one("Identity", source.name, name=name)
    dims: dict[str, Dims] = {}
    types: dict[str, int] = {}
    values = [*graph.inputs, *graph.outputs, *(output for node in graph.all_nodes() for output in node.outputs)]
    for own, value in [*((value.name, value) for value in values), *repeated]:
        if own and value.shape is not None and value.dtype is not None:
            dims[own], types[own] = tuple(_dim(dim, axes) for dim in value.shape), int(value.dtype)
    return TracedGraph(nodes, inputs, outputs, dims, types, lines)


def _axis_names(
    model: onnx_ir.Model, arguments: Arguments, inputs: Sequence[str], state_axes: Mapping[str, Mapping[int, str]]
) -> dict[str, str]:
    """A name for each of the tracer's symbols (such as s13): the user's, else batch or time, else ``input_axis``."""
    symbols: dict[str, str] = {}
    defaults: dict[str, str] = {}
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        for axis, dim in enumerate(value.shape or ()):
            symbol = _text(dim)
            if symbol is None or not _SYMBOL.fullmatch(symbol):
                continue
            label = arguments.axes.get(name, {}).get(axis) or state_axes.get(name, {}).get(axis) or None
            if label is not None and label not in arguments.unnamed:
                symbols.setdefault(symbol, label)
            else:
                defaults.setdefault(symbol, label or f"{name}_{axis}".replace(".", "_"))
    for symbol, label in _batch_and_time(model):
        if symbol in defaults and symbol not in symbols and label not in symbols.values():
            symbols[symbol] = label
    for symbol, label in defaults.items():
        symbols.setdefault(symbol, label)
    _name_data_sizes(model, symbols)
    return symbols


def _batch_and_time(model: onnx_ir.Model) -> Iterator[tuple[str | None, str]]:
    """The symbols of the first two axes of the recurrent modules' inputs, with "batch" and "time"."""
    for node in model.graph:
        if node.domain == DOMAIN and node.inputs[0] is not None:
            order = ("batch", "time") if node.attributes["batch_first"].value else ("time", "batch")
            for dim, label in zip(node.inputs[0].shape or (), order, strict=False):
                yield _text(dim), label


def _name_data_sizes(model: onnx_ir.Model, symbols: dict[str, str]) -> None:
    """Name the sizes that depend on values: ``longest`` of the lengths where there are lengths, else ``count``."""
    packed = any(node.domain == DOMAIN and len(node.inputs) > 3 and node.inputs[3] is not None for node in model.graph)
    label, count = "longest" if packed else "count", 0
    for value in [*model.graph.outputs, *(output for node in model.graph for output in node.outputs)]:
        for dim in value.shape or ():
            for symbol in _SYMBOL.findall(_text(dim) or ""):
                if symbol not in symbols:
                    symbols[symbol] = label if count == 0 else f"{label}_{count}"
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
    return "" if text is None else without_quotients(with_names(text, axes))


def _name_nodes(graph: Any, taken: Counter[str]) -> None:
    """Name each node after its module and operator (``encoder/out/MatMul``), and its outputs after the node."""
    for node in graph:
        node.name = node_name(_scope(node), node.op_type, taken)
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
    modules = [scope for scope in scopes[:-1] if scope and scope != _NO_MODULE] if scopes else []
    return str(modules[-1]).removeprefix("inner").removeprefix(".").replace(".", "/") if modules else ""


def _name_outputs(graph: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Name the graph's outputs; returns ``(name, value)`` of those that are inputs, constants or outputs already."""
    repeated: list[tuple[str, Any]] = []
    named = set(map(id, graph.inputs))
    for value, name in zip(graph.outputs, names, strict=True):
        if id(value) in named or value.producer() is None:
            repeated.append((name, value))
        else:
            value.name = name
            named.add(id(value))
    return repeated


def _take_initializers(graph: Any, nodes: Nodes, taken: Container[str]) -> None:
    """Move the initializers to `nodes`, equal arrays only once."""
    users: dict[int, str] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            if value is not None:
                users.setdefault(id(value), operand_name(node.name, node.op_type, index))
    known: dict[tuple[Any, ...], str] = {}
    outputs = {output.name for node in graph.all_nodes() for output in node.outputs}  # one of several: Scan/0
    initializers = dict(graph.initializers)
    graph.initializers.clear()  # first, since a new name may be the old one of another
    for old, value in initializers.items():
        array = np.asarray(value.const_value.numpy(), order="C")
        # Not the bytes themselves, which would be another copy of all weights.
        key = (array.dtype.str, array.shape, hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest())
        if key not in known:
            name = str(old).removeprefix("inner.")
            if _ANONYMOUS.fullmatch(name):
                name = _constant_name(array, users.get(id(value), name))
            while name in taken or name in outputs:
                name += "/value"
            known[key] = nodes.constant(name, array)
        value.name = known[key]


def _constant_name(array: np.ndarray, user: str) -> str:
    if array.dtype == np.int64 and array.ndim == 1 and array.size <= 8:
        return integers_name(array.tolist())
    return user


def _remove_metadata(proto: NodeProto) -> None:
    """Remove the tracer's metadata of a node: stack traces, with paths of the machine that it ran on."""
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
                _remove_metadata(inner)


def require_separate_names(graph: TracedGraph) -> None:
    """Compare the names of inputs and outputs with those of states.

    Raises:
        ExportError: two are equal.
    """
    names = [*graph.inputs, *graph.outputs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ExportError(
            f"two inputs or outputs of the file are named {twice!r}, one of them a state; give the module's own "
            "another name, such as by output_names"
        )
