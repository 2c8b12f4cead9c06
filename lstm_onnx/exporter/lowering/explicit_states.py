"""The states of recurrent modules as inputs and outputs of the graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from onnx import NodeProto, helper

from ...errors import ExportError
from ...onnxgraph import bodies_of
from ...onnxgraph.nodes import Walk
from ...runtime.batch_axes import BATCH, TIME
from ...symbolic_dims import names_in
from ..node_names import state_prefix
from ..tracing.opaque_node import DOMAIN
from ..weights import Array
from .carried_states import skip_reshapes, values_before
from .lower import OpaqueCall, sequence_axes
from .rename import Dims, TracedGraph

COMPUTED = "starts from states that the model computes"
_SHAPE_ONLY = ("Shape", "Size")


@dataclass
class ExposedStates:
    """The states of recurrent modules that became inputs and outputs of a graph.

    Attributes:
        states: each state input and the output that is its next value.
        initial: initial values that are not zero, each ``(L*D, 1, features)``, by the state input.
        sources: ``(module, first call, last call, 0 for h or 1 for c)`` of each state input.
        loop_states: states that a Python loop carries, and that are not those of a module.
        notes: which states stay internal, and why.
    """

    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, Array] = field(default_factory=dict)
    sources: dict[str, tuple[str, int, int, int]] = field(default_factory=dict)
    loop_states: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoopedCall:
    """A call that stands for all calls in a Python loop.

    Attributes:
        origin: whether the module's first call in the loop starts from its states, and its last one ends with them.
        ambiguous: whether the module is also called elsewhere.
        initial: its initial states as arrays; None where the module's calls were recorded.
    """

    origin: bool
    ambiguous: bool = False
    initial: tuple[Array | None, ...] | None = None


def expose_states(
    graph: TracedGraph,
    calls: list[OpaqueCall],
    given: Collection[str] = (),
    looped: Mapping[str, LoopedCall] = MappingProxyType({}),
) -> ExposedStates:
    """Make the states of recurrent modules inputs and outputs of the graph.

    A state that is absent, zeros or learned becomes an input.  A call that continues an earlier call of the same module
    shares its pair.  A state that the model computes stays internal (a decoder that starts from its encoder's end), and
    so does that of a module that starts again at each step (over the letters of each word) or at each call (over a
    window of steps, most of which were in the window of the call before), or whose rows change from call to call.

    Args:
        graph: the traced graph, which is changed.
        calls: its opaque calls.
        given: the inputs that are states already: those of attributes, and arguments of the forward whose next values
            it returns; a call that starts from one has its pair.
        looped: the calls that stand for those in Python loops, by the module's path.

    Raises:
        ExportError: an initial state differs between the rows of a batch.
    """
    exposed = ExposedStates()
    producers = graph.producers
    times = {TIME, *(name for opaque in calls for name in names_in(str(sequence_axes(graph, opaque)[0])))}
    sizes = {name for own in graph.inputs for dim in graph.dims.get(own, ()) for name in names_in(str(dim))} | {BATCH}
    free: list[list[OpaqueCall]] = []
    for chain in _chains(calls):
        first = chain[0]
        path, source = first.recurrent.path, skip_reshapes(first.value(1), producers)
        if source in given:
            continue
        if times & names_in(str(sequence_axes(graph, first)[1])):
            note = f"{path} starts again at each step of a sequence, so its states stay internal; it has no h0"
        elif not names_in(str(sequence_axes(graph, first)[1])) <= sizes:
            note = f"{path} runs on rows that the inputs' numbers choose, so its states stay internal; it has no h0"
        elif kept := _window(graph, first, given):
            note = (
                f"{path} starts again at each call, over the steps in {kept}, so its states stay internal; it has no h0"
            )
        elif first.recurrent.branched:
            note = f"{path} is called in a branch that a value chooses, so its states stay internal; it has no h0"
        elif path in looped and looped[path].ambiguous:
            note = f"{path} is called in several loops, so its states stay internal; it has no h0"
        elif source in graph.inputs:
            note = f"{path} starts from {source}, whose next value forward does not return; return it for a stream"
        elif any(_depends_on_data(first.value(index), producers, graph) for index in (1, 2)):
            note = f"{path} {COMPUTED}, which stay internal; it has no h0"
        else:
            free.append(chain)
            continue
        if note not in exposed.notes:
            exposed.notes.append(note)
    for chain in free:  # not before, since this renames values
        _expose(graph, chain[0], chain[-1], exposed, looped.get(chain[0].recurrent.path))
    return exposed


def _window(graph: TracedGraph, opaque: OpaqueCall, given: Collection[str]) -> str:
    """The state of which a call's sequence of a fixed number of steps is made; "" where there is none."""
    steps = sequence_axes(graph, opaque)[0]
    if not isinstance(steps, int) or steps == 1:
        return ""
    before = values_before(graph, [opaque.value(0)], {})
    return next((name for name in given if name in before), "")


def _continues(opaque: OpaqueCall, before: OpaqueCall) -> bool:
    states = [opaque.value(index) for index in (1, 2) if opaque.value(index)]
    final = list(before.node.output[1 : 1 + len(states)])
    return opaque.recurrent is before.recurrent and bool(states) and states == final


def _depends_on_data(value: str, producers: Mapping[str, NodeProto], graph: TracedGraph) -> bool:
    """Whether a value depends on the inputs' values, and not only on their shapes."""
    walk = Walk([value] if value else [])
    for name in walk:
        if name in graph.inputs:
            return True
        node = producers.get(name)
        if node is None or node.op_type in _SHAPE_ONLY:
            continue
        if node.domain == DOMAIN or any(bodies_of(node)):
            return True
        walk.add(item for item in node.input if item)
    return False


def _expose(
    graph: TracedGraph, first: OpaqueCall, last: OpaqueCall, exposed: ExposedStates, looped: LoopedCall | None
) -> None:
    spec = first.recurrent.spec
    prefix, batch = state_prefix(first.recurrent.path, first.call), sequence_axes(graph, first)[1]
    kinds = (("h", 1, spec.state_size), ("c", 2, spec.hidden_size))[: 2 if spec.has_cell else 1]
    call = first.recurrent.calls[first.call] if first.call < len(first.recurrent.calls) else None
    for given in (first.node.input, last.node.output):
        given.extend([""] * (1 + len(kinds) - len(given)))
    for position, (kind, index, size) in enumerate(kinds):
        name, after = f"{prefix}{kind}0", f"{prefix}{kind}n"
        initial = call.initial[position] if call is not None and call.initial is not None else None
        array = None if initial is None else initial.detach().cpu().numpy()
        if looped is not None and looped.initial is not None:
            array = looped.initial[position]
        if array is not None and bool(array.any()):
            exposed.initial[name] = _one_row(array, name)
        shape: Dims = (spec.num_layers * spec.num_directions, batch, size)
        element = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        graph.add_input(name, shape, element)
        first.node.input[index] = name
        add_output(graph, last.node, index, after)
        graph.dims[after], graph.types[after] = shape, element
        exposed.states[name] = after
        if looped is None:
            exposed.sources[name] = (first.recurrent.path, first.call, last.call, position)
        elif looped.origin:
            exposed.sources[name] = (first.recurrent.path, 0, -1, position)
        else:
            exposed.loop_states.append(name)


def add_output(graph: TracedGraph, node: NodeProto, index: int, name: str) -> None:
    """Make output `index` of a node an output of the graph, called `name`; it may be one already by another name."""
    old = node.output[index]
    if old in graph.outputs:
        graph.nodes.one("Identity", old, name=name)
    else:
        if old:
            graph.replace_uses(old, name)
        node.output[index] = name
    graph.outputs.append(name)


def one_if_equal(array: Array, dims: Dims) -> Array:
    """An array with one entry along each dynamic axis whose entries are all equal, so that it fits every size."""
    for axis, dim in enumerate(dims):
        if isinstance(dim, str):
            first = np.take(array, [0], axis=axis)
            if np.array_equal(array, np.broadcast_to(first, array.shape)):
                array = first
    return array


def _one_row(state: Array, name: str) -> Array:
    """``(L*D, batch, features)`` as ``(L*D, 1, features)``, where all rows are equal."""
    if not np.array_equal(state, np.broadcast_to(state[:, :1], state.shape)):
        raise ExportError(
            f"{name} starts from different numbers in each row of the batch, but an explicit state has one initial "
            'value for all sequences. Export with states="zero", or pass the state as an argument of forward'
        )
    return np.ascontiguousarray(state[:, :1])


def _chains(calls: list[OpaqueCall]) -> list[list[OpaqueCall]]:
    """The calls as chains, in each of which a call starts from the final states of the call before it."""
    chains: list[list[OpaqueCall]] = []
    for opaque in calls:
        chain = next((chain for chain in chains if _continues(opaque, chain[-1])), None)
        if chain is None:
            chains.append([opaque])
        else:
            chain.append(opaque)
    return chains


def remove_unread_states(graph: TracedGraph, outputs: Iterable[str], states: Mapping[str, str]) -> None:
    """Remove the states that no output depends on, now or in a later call, with the nodes that compute them.

    A forward writes such a state without ever reading it, or only passes it on.

    Args:
        graph: it is changed.
        outputs: the outputs that are not states.
        states: each state input and the output that is its next value.
    """
    read = values_before(graph, outputs, states)
    unread = {name: after for name, after in states.items() if name not in read}
    if not unread:
        return
    graph.inputs[:] = [name for name in graph.inputs if name not in unread]
    graph.outputs[:] = [name for name in graph.outputs if name not in unread.values()]
    needed = values_before(graph, graph.outputs, {})
    graph.nodes.nodes[:] = [node for node in graph.nodes.nodes if not needed.isdisjoint(node.output)]
    graph.remove_unread_initializers()
