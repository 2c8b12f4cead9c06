"""Opaque calls replaced by ONNX's recurrent operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ...errors import ExportError
from ...onnxgraph import attributes_of, bodies_of, nodes_of
from ...onnxgraph.builder import Nodes
from ...onnxgraph.nodes import Walk, outer_values, repeating_node
from ...runtime.batch_axes import BATCH, TIME
from ...spec import ExportOptions
from ..emitter import StackOutputs, recurrent_stack
from ..node_names import scope_prefix
from ..opaque.recurrent_module import RecurrentModule
from ..targets import form_of
from ..tracing.opaque_node import DOMAIN
from ..weights import layer_weights, validate_state_dict
from .rename import TracedGraph

_SEQUENCE_RANK = 3


@dataclass(frozen=True)
class OpaqueCall:
    """One call of a recurrent module in the traced graph.

    Attributes:
        node: the opaque node.
        recurrent: the module.
        call: the number of the call, from 0, among those of the module.
        batch_first: the layout of its input.
    """

    node: NodeProto
    recurrent: RecurrentModule
    call: int
    batch_first: bool

    def value(self, index: int) -> str:
        """Input `index` of (x, h0, c0, lengths); "" where it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    @property
    def prefix(self) -> str:
        """What its nodes' names start with."""
        return scope_prefix(self.recurrent.path, self.call)


def opaque_calls(graph: TracedGraph, recurrent_modules: Mapping[str, RecurrentModule]) -> list[OpaqueCall]:
    """The graph's opaque nodes, in order.

    Raises:
        ExportError: one lies within a branch of torch.cond or the body of a loop.
    """
    calls = []
    for node in graph.nodes.nodes:
        if node.domain == DOMAIN:
            attributes = attributes_of(node)
            recurrent = recurrent_modules[attributes["module"].decode()]
            calls.append(OpaqueCall(node, recurrent, attributes["call"], bool(attributes["batch_first"])))
        elif any(inner.domain == DOMAIN for inner in nodes_of([node])):
            raise ExportError(
                f"{node.name}: a recurrent module is called within a branch or a loop ({node.op_type}), which is not "
                "supported; compute both branches and choose with torch.where"
            )
    return calls


def sequence_axes(graph: TracedGraph, opaque: OpaqueCall) -> tuple[int | str, int | str]:
    """The sizes or names of the time and the batch axis of a call's input."""
    dims = graph.dims.get(opaque.value(0), ())
    if len(dims) < _SEQUENCE_RANK:
        return TIME, BATCH
    return (dims[1], dims[0]) if opaque.batch_first else (dims[0], dims[1])


def batch_axis(graph: TracedGraph) -> str:
    """What the batch axis of the graph's inputs is called: "batch", or the name that all recurrent modules have for it.

    "batch" where there is no such name.  The modules may be in bodies of loops.
    """
    names = {dim for name in graph.inputs for dim in graph.dims.get(name, ()) if isinstance(dim, str)}
    found = set()
    for node in nodes_of(graph.nodes.nodes):
        if node.domain == DOMAIN:
            dims = graph.dims.get(node.input[0], ())
            found.add(dims[0 if attributes_of(node)["batch_first"] else 1] if len(dims) == _SEQUENCE_RANK else BATCH)
    only = next(iter(found)) if len(found) == 1 else BATCH
    return str(only) if BATCH not in names and only in names else BATCH


def exchanged_axes(graph: TracedGraph, calls: list[OpaqueCall], *, explicit: bool) -> str:
    """Which recurrent module takes an axis that is called "batch" as its time, and how to mend it; "" for none.

    One that goes over another axis of each step, such as its frequencies, has the time as its batch.  With explicit
    states that is also assumed of an axis of a fixed size: such a module starts again at each step.
    """
    along = [sequence_axes(graph, opaque)[0] for opaque in calls]
    for opaque in calls:
        time, batch = sequence_axes(graph, opaque)
        within = TIME in along or (explicit and isinstance(time, int) and time > 1)
        if time == BATCH or (batch == TIME and not within):
            other = opaque.batch_first
            return (
                f"{opaque.recurrent.path or 'the module'} is called with batch_first={other}, and so goes along the "
                f"axis {time} as its time, of sequences along {batch}; exchange the names in dynamic_shapes, or use "
                f"batch_first={not other}"
            )
    return ""


def lower_calls(
    graph: TracedGraph,
    calls: list[OpaqueCall],
    options: ExportOptions,
    guarded: Collection[tuple[str, int]] = (),
    deciding: set[str] | None = None,
) -> None:
    """Replace every opaque node by recurrent operators, written by the emitter that writes bare LSTMs.

    Args:
        graph: the traced graph, which is changed.
        calls: its opaque calls.
        options: how projections are written.
        guarded: calls, as ``(path, number)``, that are made to fail where their input is empty.
        deciding: the outputs of calls by which one decides for several rows; None finds them in the graph.

    Raises:
        WeightsError: a projection cannot be folded.
    """
    opaque = {id(item.node): item for item in calls}
    deciding = _deciding(graph) if deciding is None else deciding
    used = {value for node in nodes_of(graph.nodes.nodes) for value in node.input} | set(graph.outputs)
    old, graph.nodes.nodes = graph.nodes.nodes, []
    for node in old:
        if id(node) not in opaque:
            graph.nodes.nodes.append(node)
            continue
        call = opaque[id(node)]
        written = len(graph.nodes.nodes)
        if (call.recurrent.path, call.call) in guarded:
            name = f"{call.prefix}at_least_one_step"
            node.input[0] = _fail_if_empty(graph, node.input[0], name, shaped=options.target != "tract")
        _write_layers(graph, call, options, used, keeps_nan=not deciding.isdisjoint(node.output))
        if node.name in graph.lines:
            new = graph.nodes.nodes[written:]
            graph.lines.update({str(item.name): graph.lines[node.name] for item in new})


def lower_bodies(graph: TracedGraph, recurrent_modules: Mapping[str, RecurrentModule], options: ExportOptions) -> None:
    """Replace the opaque nodes within the bodies of Scans, each a step of a loop, by recurrent operators.

    Args:
        graph: the traced graph, which is changed; weights go to the graph itself, once for each module.
        recurrent_modules: by path.
        options: how projections are written.

    Raises:
        WeightsError: a projection cannot be folded.
    """
    deciding = _deciding(graph)
    for node in graph.nodes.nodes:
        for body in bodies_of(node):
            if not any(inner.domain == DOMAIN for inner in body.node):
                continue
            within = replace(graph, nodes=Nodes(list(body.node), graph.nodes.initializers))
            within.outputs = [value.name for value in body.output]
            within.dims = dict(graph.dims)
            calls = opaque_calls(within, recurrent_modules)
            lower_calls(within, calls, options, deciding=deciding)
            del body.node[:]
            body.node.extend(within.nodes.nodes)


def _deciding(graph: TracedGraph) -> set[str]:
    """The recurrent calls, by their outputs, from which a truth follows that chooses what several rows become.

    Where a NaN became a number, such an ``if`` may take another branch than PyTorch's.  Calls and conditions may be in
    bodies of loops.
    """
    everywhere = list(nodes_of(graph.nodes.nodes))
    producers = {name: node for node in everywhere for name in node.output}
    producers |= {value.name: node for node in everywhere for body in bodies_of(node) for value in body.input}
    conditions = [node.input[0] for node in everywhere if node.op_type in ("Where", "If")]
    walk = Walk(name for name in conditions if all(size == 1 for size in graph.dims.get(name, ())))
    found: set[str] = set()
    for name in walk:
        node = producers.get(name)
        if node is None or node.op_type in ("Shape", "Size"):
            continue
        if node.domain == DOMAIN:
            found.update(node.output)
        walk.add([*node.input, *outer_values(node)])
        walk.add(value.name for body in bodies_of(node) for value in body.output)
    return found


def _fail_if_empty(graph: TracedGraph, value: str, name: str, *, shaped: bool = True) -> str:
    """A copy of a value; computing it fails if the value has no elements.

    With 0 steps ONNX Runtime's recurrent operators give zeros or end the process, where PyTorch raises.  The number
    that cannot be read is added to the shape or, if not `shaped`, to the values: tract opens no file in which a shape
    depends on such a number.
    """
    nodes = graph.nodes
    entries = nodes.one("Size", value, name=f"{name}/entries")
    some = nodes.one("Min", entries, nodes.constant(f"{name}/1", np.array(1, np.int64)), name=f"{name}/some")
    # Index -2 of two zeros is the first; -3 is out of range, which is an error.
    index = nodes.one("Sub", some, nodes.constant(f"{name}/3", np.array(3, np.int64)), name=f"{name}/index")
    dtype = np.dtype(np.int64) if shaped else helper.tensor_dtype_to_np_dtype(graph.types[value])
    zero = nodes.one("Gather", nodes.constant(f"{name}/zeros", np.zeros(2, dtype)), index, name=f"{name}/zero")
    if not shaped:
        graph.dims[name], graph.types[name] = graph.dims.get(value, ()), graph.types[value]
        return nodes.one("Add", value, zero, name=name)
    sizes = nodes.one("Shape", value, name=f"{name}/sizes")
    shape = nodes.one("Add", sizes, zero, name=f"{name}/shape")
    graph.dims[name], graph.types[name] = graph.dims.get(value, ()), graph.types.get(value, 0)
    return nodes.one("Reshape", value, shape, name=name)


def _write_layers(
    graph: TracedGraph, opaque: OpaqueCall, options: ExportOptions, used: set[str], *, keeps_nan: bool
) -> None:
    spec = replace(opaque.recurrent.spec, batch_first=opaque.batch_first)
    state = validate_state_dict(spec, opaque.recurrent.weights, where=opaque.recurrent.path or "the module")
    names = [value if value in used else None for value in [*opaque.node.output, "", "", ""][:3]]
    recurrent = opaque.recurrent
    layers = [
        replace(
            layer_weights(spec, state, layer, recurrent.folds),
            P=recurrent.peepholes,  # of cells in the user's own code, as the next one
            reset_before=recurrent.reset_before,
        )
        for layer in range(spec.num_layers)
    ]
    form = form_of(
        options,
        layers,
        lengths=bool(opaque.value(3)),
        repeated=lambda: repeating_node(opaque.value(0), graph.producers.get) is not None,
    )
    lengths = opaque.value(3) or None
    if lengths and not form.int64_steps:
        lengths = _int32(graph, lengths)
    recurrent_stack(
        graph.nodes,
        spec,
        layers,
        opaque.value(0),
        opaque.value(1) or None,
        opaque.value(2) or None,
        lengths=lengths,
        form=replace(form, keeps_nan=keeps_nan and not form.scan),
        names=StackOutputs(*names),
        prefix=opaque.prefix,
        weights_prefix=scope_prefix(opaque.recurrent.path),
        batch_axis=str(sequence_axes(graph, opaque)[1]),
    )


def _int32(graph: TracedGraph, lengths: str) -> str:
    """Lengths as int32, which the operators require."""
    if graph.types.get(lengths) == TensorProto.INT32:
        return lengths
    name = f"{lengths}/int32"
    if not any(name in node.output for node in graph.nodes.nodes):
        graph.nodes.one("Cast", lengths, name=name, to=TensorProto.INT32)
    return name
