"""Real nodes in the place of opaque ones, and states lifted to the surface of the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import NodeProto, helper

from ...errors import ExportError
from ...onnxgraph import bodies_of, nodes_of
from ...runtime.symbolic_dims import names_in
from ...spec import ExportOptions
from ..emitter import StackOutputs, recurrent_stack
from ..tracing.opaque_ops import Site
from ..tracing.torch_export import DOMAIN
from ..weights import Array, fitted, layer_weights
from .rename import INT32, Dims, TracedGraph

_SHAPE_ONLY = ("Shape", "Size")
_SEQUENCE_RANK = 3
_RESHAPED = ("Identity", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class Opaque:
    """One call of a recurrent module in the traced graph."""

    node: NodeProto
    site: Site
    call: int
    batch_first: bool

    def value(self, index: int) -> str:
        """Input `index` (x, h0, c0, lengths), empty where it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    @property
    def prefix(self) -> str:
        """What its nodes' names begin with."""
        path = self.site.path.replace(".", "/")
        own = f"call{self.call + 1}" if self.call else ""
        return "".join(f"{part}/" for part in (path, own) if part)

    @property
    def weights_prefix(self) -> str:
        """What its weights' names begin with, alike for all calls."""
        return f"{self.site.path.replace('.', '/')}/" if self.site.path else ""

    @property
    def name(self) -> str:
        """What its states' names begin with."""
        own = f"call{self.call + 1}" if self.call else ""
        return "".join(f"{part}." for part in (self.site.path, own) if part)


@dataclass
class Lifted:
    """What is to be known of a model's states besides its graph.

    `states` maps state inputs to the outputs that feed them; `initial` holds what they start from
    where that is not zero, each ``(L*D, 1, features)``; `sources` maps them to ``(module, first call,
    last call, h or c)``; `notes` say what was left inside.
    """

    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, Array] = field(default_factory=dict)
    sources: dict[str, tuple[str, int, int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def opaque_calls(graph: TracedGraph, sites: Mapping[str, Site]) -> list[Opaque]:
    """The opaque nodes, in the graph's order.

    Raises:
        ExportError: one lies within a branch of torch.cond or the body of a loop.
    """
    calls = []
    for node in graph.nodes.nodes:
        if node.domain == DOMAIN:
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            site = sites[attributes["module"].decode()]
            calls.append(Opaque(node, site, attributes["call"], bool(attributes["batch_first"])))
        elif any(inner.domain == DOMAIN for inner in nodes_of([node])):
            raise ExportError(
                f"{node.name}: a recurrent module is called within a branch or a loop ({node.op_type}), which is not "
                "supported; compute both branches and choose with torch.where"
            )
    return calls


def lift_states(graph: TracedGraph, calls: list[Opaque], held: Collection[str] = ()) -> Lifted:
    """Make the states of recurrent modules inputs and outputs, where the forward starts them from nothing.

    A state that is absent, zeros or learned becomes an input; a call that goes on from an earlier
    call of the same module shares its pair; one that starts from data (a decoder from its encoder)
    stays inside, and so does one that runs anew for each step (over the letters of each word).
    One that starts from an attribute's state, whose inputs are `held`, has its pair already.
    """
    lifted = Lifted()
    producers = _producers(graph.nodes.nodes)
    times = {name for opaque in calls for name in names_in(str(_sequence_axes(graph, opaque)[0]))}
    free: list[list[Opaque]] = []
    for chain in _chains(calls):
        first = chain[0]
        if _peeled(first.value(1), producers) in held:
            continue
        if times & names_in(str(_sequence_axes(graph, first)[1])):
            note = f"{first.site.path} runs anew for each step of a sequence, so its states stay inside; it has no h0"
            if note not in lifted.notes:
                lifted.notes.append(note)
            continue
        if any(_depends_on_data(first.value(index), producers, graph) for index in (1, 2)):
            note = f"{first.site.path} starts from states that the model computes, which stay inside; it has no h0"
            if note not in lifted.notes:
                lifted.notes.append(note)
        else:
            free.append(chain)
    for chain in free:  # and not before: lifting renames values
        _lift(graph, chain[0], chain[-1], lifted)
    return lifted


def _goes_on(opaque: Opaque, before: Opaque) -> bool:
    given = [opaque.value(index) for index in (1, 2) if opaque.value(index)]
    return opaque.site is before.site and bool(given) and given == list(before.node.output[1 : 1 + len(given)])


def _producers(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    return {output: node for node in nodes for output in node.output if output}


def _depends_on_data(value: str, producers: Mapping[str, NodeProto], graph: TracedGraph) -> bool:
    """Whether a value depends on more of the inputs than their shapes."""
    todo, seen = [value] if value else [], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in graph.inputs:
            return True
        node = producers.get(name)
        if node is None or node.op_type in _SHAPE_ONLY:
            continue
        if node.domain == DOMAIN or any(bodies_of(node)):
            return True
        todo += [item for item in node.input if item]
    return False


def _lift(graph: TracedGraph, first: Opaque, last: Opaque, lifted: Lifted) -> None:
    spec = first.site.spec
    batch = _sequence_axes(graph, first)[1]
    kinds = (("h", 1, spec.state_size), ("c", 2, spec.hidden_size))[: 2 if spec.has_cell else 1]
    call = first.site.calls[first.call] if first.call < len(first.site.calls) else None
    while len(first.node.input) < 1 + len(kinds):
        first.node.input.append("")
    while len(last.node.output) < 1 + len(kinds):
        last.node.output.append("")
    for position, (kind, index, size) in enumerate(kinds):
        name, after = f"{first.name}{kind}0", f"{first.name}{kind}n"
        given = call.given[position] if call is not None and call.given is not None else None
        if given is not None and bool(given.any()):
            lifted.initial[name] = _one_row(given.detach().cpu().numpy(), name)
        first.node.input[index] = name
        shape: Dims = (spec.num_layers * spec.num_directions, batch, size)
        elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        _add_output(graph, last.node, index, after)
        graph.inputs.append(name)
        for value in (name, after):
            graph.dims[value], graph.types[value] = shape, elem_type
        lifted.states[name] = after
        lifted.sources[name] = (first.site.path, first.call, last.call, position)


def _sequence_axes(graph: TracedGraph, opaque: Opaque) -> tuple[int | str, int | str]:
    """The time and the batch of what a call goes through."""
    dims = graph.dims.get(opaque.value(0), ())
    if len(dims) < _SEQUENCE_RANK:
        return "time", "batch"
    return (dims[1], dims[0]) if opaque.batch_first else (dims[0], dims[1])


def _add_output(graph: TracedGraph, node: NodeProto, index: int, name: str) -> None:
    """Make output `index` of a node an output of the graph, `name`; it may be one already, under another name."""
    held = node.output[index]
    if held in graph.outputs:
        graph.nodes.one("Identity", held, name=name)
    else:
        for user in nodes_of(graph.nodes.nodes):
            for position, value in enumerate(user.input):
                if held and value == held:
                    user.input[position] = name
        node.output[index] = name
    graph.outputs.append(name)


def _one_row(given: Array, name: str) -> Array:
    if not np.array_equal(given, np.broadcast_to(given[:, :1], given.shape)):
        raise ExportError(
            f"{name} starts from other numbers in each row of the batch; an explicit state starts every sequence "
            'alike. Export with states="zero", or pass the state as an argument of forward'
        )
    return np.ascontiguousarray(given[:, :1])


def carried_states(graph: TracedGraph, calls: list[Opaque]) -> dict[str, str]:
    """States that the forward itself takes and returns: an argument that an LSTM starts from, and its end."""
    producers = _producers(graph.nodes.nodes)
    made = {output for opaque in calls for output in opaque.node.output[1:] if output}
    returned = {_peeled(output, producers, made): output for output in graph.outputs}
    pairs: dict[str, str] = {}
    for chain in _chains(calls):
        for index in (1, 2):
            source = _peeled(chain[0].value(index), producers)
            end = chain[-1].node.output[index] if index < len(chain[-1].node.output) else ""
            target = returned.get(end)
            if source in graph.inputs and target is not None and graph.dims.get(source) == graph.dims.get(target):
                pairs.setdefault(source, target)
    return pairs


def _chains(calls: list[Opaque]) -> list[list[Opaque]]:
    """Calls of one module of which each goes on from where the one before it ended."""
    chains: list[list[Opaque]] = []
    for opaque in calls:
        chain = next((chain for chain in chains if _goes_on(opaque, chain[-1])), None)
        if chain is None:
            chains.append([opaque])
        else:
            chain.append(opaque)
    return chains


def _peeled(value: str, producers: Mapping[str, NodeProto], until: Collection[str] = ()) -> str:
    """The value behind operators that change no number."""
    while value not in until:
        node = producers.get(value)
        if node is None or node.op_type not in _RESHAPED:
            break
        value = node.input[0]
    return value


def splice(
    graph: TracedGraph, calls: list[Opaque], options: ExportOptions, guarded: Collection[tuple[str, int]] = ()
) -> None:
    """Write the real nodes of every opaque one, by the emitter that writes bare LSTMs.

    Those in `guarded`, as ``(path, call)``, fail where their input is empty.
    """
    opaque = {id(item.node): item for item in calls}
    used = {value for node in nodes_of(graph.nodes.nodes) for value in node.input} | set(graph.outputs)
    old, graph.nodes.nodes = graph.nodes.nodes, []
    for node in old:
        if id(node) not in opaque:
            graph.nodes.nodes.append(node)
            continue
        call = opaque[id(node)]
        written = len(graph.nodes.nodes)
        if (call.site.path, call.call) in guarded:
            node.input[0] = _never_empty(graph, node.input[0], f"{call.prefix}at_least_one_step")
        _write(graph, call, options, used)
        if node.name in graph.lines:
            new = graph.nodes.nodes[written:]
            graph.lines.update({str(item.name): graph.lines[node.name] for item in new})


def _never_empty(graph: TracedGraph, value: str, name: str) -> str:
    """A value that is as another, where that has entries; where it has none, computing it fails.

    ONNX Runtime's recurrent operators give zeros for 0 steps, where PyTorch raises, or end the process.
    """
    nodes = graph.nodes
    entries = nodes.one("Size", value, name=f"{name}/entries")
    some = nodes.one("Min", entries, nodes.constant(f"{name}/1", np.array(1, np.int64)), name=f"{name}/some")
    # -2 is the first of two zeros; -3 is none of them, which is an error.
    index = nodes.one("Sub", some, nodes.constant(f"{name}/3", np.array(3, np.int64)), name=f"{name}/index")
    zero = nodes.one("Gather", nodes.constant(f"{name}/zeros", np.zeros(2, np.int64)), index, name=f"{name}/zero")
    sizes = nodes.one("Shape", value, name=f"{name}/sizes")
    shape = nodes.one("Add", sizes, zero, name=f"{name}/shape")
    graph.dims[name], graph.types[name] = graph.dims.get(value, ()), graph.types.get(value, 0)
    return nodes.one("Reshape", value, shape, name=name)


def _write(graph: TracedGraph, opaque: Opaque, options: ExportOptions, used: set[str]) -> None:
    site, nodes = opaque.site, graph.nodes
    spec = replace(site.spec, batch_first=opaque.batch_first)
    state = fitted(spec, site.weights, where=site.path or "the module")
    names = [value if value in used else None for value in [*opaque.node.output, "", "", ""][:3]]
    x = opaque.value(0)
    batch = _sequence_axes(graph, opaque)[1]
    recurrent_stack(
        nodes,
        spec,
        [layer_weights(spec, state, layer) for layer in range(spec.num_layers)],
        x,
        opaque.value(1) or None,
        opaque.value(2) or None,
        lengths=_int32(graph, opaque.value(3)) if opaque.value(3) else None,
        fold=options.projection == "fold",
        names=StackOutputs(*names),
        prefix=opaque.prefix,
        weights_prefix=opaque.weights_prefix,
        batch_axis=str(batch),
    )


def _int32(graph: TracedGraph, lengths: str) -> str:
    """Lengths as the operator takes them."""
    if graph.types.get(lengths) == INT32:
        return lengths
    name = f"{lengths}/int32"
    if not any(name in node.output for node in graph.nodes.nodes):
        graph.nodes.one("Cast", lengths, name=name, to=INT32)
    return name
