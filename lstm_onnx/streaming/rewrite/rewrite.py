"""Rewrites a graph node by node with the functions of their operators; an operator without one is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import lcm

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ...metadata import ENDED, Streaming
from ...onnxgraph import attributes_of, is_default, node_name, outer_values
from ...onnxgraph.load import opset_of
from ...onnxgraph.nodes import RANDOM, needed_nodes
from ...onnxgraph.recurrent import GATES
from ...symbolic_dims import ANY_SIZE, Limit
from . import families  # noqa: F401 - importing them registers them
from .counts import Count, largest_rest
from .errors import FoldedError, NodeRefusedError, OwnStateError, RefusedError
from .facts import Carry, Fact, Rewritten, Static, Stream, StreamOutput
from .families.framing import placed
from .folding import folded
from .graph import Graph, fill_value
from .lengths import Lengths
from .rewriter import ANY_STATIC, AS_NUMBER, FAMILIES, Call, Family, NeedsEndError, Rewriter, stored
from .source import Source, module_of
from .stages import unfolded

LEAST_OPSET = 13
_MOVES = frozenset(
    ("Identity", "Slice", "Gather", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Split", "Concat", "Cast")
)
"""Operators that may be between a state input and the recurrent node that starts from it."""
_NOT_STEADY = (
    "its first or last chunk gives another number of steps than the others, and with chunk all must be equal",
    "chunks of any length (without chunk)",
)
_RECURRENT = (*GATES, "Scan")


def rewrite(
    model: ModelProto,
    initializers: Mapping[str, np.ndarray],
    time: Mapping[str, int],
    states: Mapping[str, str],
    chunk: int | None = None,
    limit: Limit = ANY_SIZE,
) -> Rewritten:
    """Rewrite a model.

    Args:
        model: with its functions inlined; not changed.  Its initializers are not read.
        initializers: its constants by name.
        time: the time axis of each input that has one.
        states: the state inputs that it has, and the outputs that feed them.
        chunk: the number of steps of which every chunk is a multiple; None for chunks of any length.
        limit: the least and the largest number of steps for which the model is right.

    Raises:
        RefusedError: it cannot be computed chunk by chunk, or not in such chunks.
    """
    opset = opset_of(model)
    if opset < LEAST_OPSET:
        raise RefusedError(f"has opset {opset}, and streams need {LEAST_OPSET} or later")
    least, most = limit
    source = Source(model, initializers, time, states)
    rewriting = _Rewrite(source, opset, ending=False, chunk=chunk, least=least)
    try:
        done = rewriting.result()
    except NeedsEndError:
        if chunk is not None:
            raise RefusedError(*_NOT_STEADY) from None
        rewriting = _Rewrite(source, opset, ending=True, least=least)
        done = rewriting.result()
    # `Streaming` has no largest number of steps, but a table's rows may limit it.
    if most is not None and not any(count.total(most + 1) > rows for count, rows in rewriting.p.table_rows):
        raise RefusedError(
            f"takes sequences of at most {most} steps, and a stream may have more", "a time axis without a largest size"
        )
    return done


def _require_steady(counts: Sequence[Count], chunk: int) -> None:
    """Refuse chunks that would not all give the same number of steps of every value."""
    if any(count.settled or count.at_start for count in counts):
        raise RefusedError(*_NOT_STEADY)
    period = lcm(*(count.period for count in counts))
    if chunk % period:
        raise RefusedError(
            f"chunks of {chunk} steps do not all give the same number of steps", f"chunks of multiples of {period}"
        )


def _is_own(p: Rewriter, name: str) -> bool:
    """Whether a value is a state input, or the state at the end of a chunk."""
    return name in p.tainted or isinstance(p.facts.get(name), Carry)


class _Rewrite:
    """One pass over a graph, which gives a graph with or without the input `last`."""

    def __init__(self, source: Source, opset: int, *, ending: bool, chunk: int | None = None, least: int = 1) -> None:
        self.source, self.chunk = source, chunk
        self.beyond: set[str] = set()
        """Values of recurrent modules that continue from a state without a step of the sequence."""
        graph = Graph(opset, ending, source.open_axes, taken=source.names(), step_input=next(iter(source.time.items())))
        graph.batch = source.batch()
        graph.steady = chunk is not None
        self.p = Rewriter(graph, source, Lengths(source.axis_name), chunk=chunk, least=least)

    # --- the pass -----------------------------------------------------------------------------------------------------

    def result(self) -> Rewritten:
        """Rewrite every node, and assemble the model."""
        p = self.p
        for name, array in self.source.initializers.items():
            p.facts[name] = stored(array)
            p.names[name] = name
            p.graph.nodes.initializers[name] = array
        for name in self.source.inputs:
            p.facts[name] = self._input(name)
        for node in self.source.model.graph.node:
            if any(node.output):  # otherwise nothing depends on it
                self._node(node)
        return self._assembled()

    def _input(self, name: str) -> Fact:
        p, shape = self.p, self.source.sizes(name)
        dtype = helper.tensor_dtype_to_np_dtype(self.source.inputs[name].type.tensor_type.elem_type)
        p.names[name] = name
        if name not in self.source.time:
            if name in self.source.states:
                p.tainted.add(name)
            return Static(shape, dtype)
        axis, count = self.source.time[name], p.counts[0]
        fact = Stream(shape, dtype, axis, count)
        if p.graph.ending:
            p.graph.prefix = name
            missing = p.graph.math("Sub", 1, p.graph.math("Min", p.graph.length(name, axis), 1))
            p.names[name] = p.graph.padded(name, axis, len(shape), missing, 0.0, np.dtype(dtype))
        return fact

    def _node(self, node: NodeProto) -> None:
        p = self.p
        p.graph.prefix = str(node.name) or str(node.op_type)
        p.module = module_of(node)
        facts = tuple(p.facts[name] if name else None for name in node.input)
        call = Call(node, attributes_of(node), facts)
        try:
            self._require_states_apart(call)
            found = self._facts(call)
            self._note_arrivals(call, found)
        except OwnStateError:
            raise
        except RefusedError as why:
            raise NodeRefusedError(node, why) from None
        for value, fact in zip(node.output, found, strict=False):
            if value:
                p.facts[value] = fact
        names = (*node.input, *outer_values(node))
        stepped = call.op in _RECURRENT and not call.streams
        if any(name in self.beyond or (stepped and _is_own(p, name)) for name in names):
            self.beyond.update(node.output)
        for value in node.output[len(found) :]:
            if value:
                raise NodeRefusedError(node, RefusedError(f"has the output {value}, which is not known"))

    def _facts(self, call: Call) -> list[Fact]:
        p = self.p
        constant = folded(call, p.graph.opset) if is_default(call.node.domain) else None
        if constant is not None:
            p.emitted(call, p.graph.constant(constant))
            return [stored(constant)]
        inner = [p.facts[name] for name in outer_values(call.node) if name in p.facts]
        known = FAMILIES.get(call.op) if is_default(call.node.domain) else None
        if call.op in RANDOM:
            raise RefusedError("generates random numbers, which differ at each call")
        numbered = any(isinstance(fact, Static) and fact.places is not None for fact in call.given)
        found = placed(p, call) if numbered and is_default(call.node.domain) else None
        if found is not None:
            return found
        if call.op not in ANY_STATIC or (numbered and call.op != "Shape"):
            call = p.materialized(call)
        if any(isinstance(fact, Static) and (fact.repeated or fact.places) for fact in inner):
            raise RefusedError("has a body that reads a value of each step")
        if known is not None:
            return self._by(known, call)
        facts = [*call.given, *inner]
        sizes = [size for fact in facts if isinstance(fact, Static) for size in fact.numbers or ()]
        if any(map(p.lengths.depends, sizes)):
            raise RefusedError(*AS_NUMBER)
        if any(isinstance(fact, Stream) for fact in facts):
            raise RefusedError("is an operator that is not known to compute each step separately")
        for name in outer_values(call.node):
            if p.names.get(name, name) != name or (name in p.facts and p.name(name) != name):
                raise RefusedError("has a body that reads a value that changes from step to step")
        return p.plain(call)

    def _by(self, family: Family, call: Call) -> list[Fact]:
        """The result of a node by its family; merged axes are split into steps only where the family needs that."""
        try:
            return list(family(self.p, call))
        except FoldedError:
            apart = self._unfolded(call)
            if apart is call:
                raise
            return list(family(self.p, apart))

    def _unfolded(self, call: Call) -> Call:
        """The call with time axes that hold several entries of each step, as streams of more steps."""
        p, facts = self.p, list(call.facts)
        for place, fact in call.streams:
            value = call.node.input[place]
            p.names[value], apart = unfolded(p, p.name(value), fact)
            p.facts[value] = facts[place] = apart
        return call if tuple(facts) == call.facts else replace(call, facts=tuple(facts))

    def _note_arrivals(self, call: Call, found: Sequence[Fact]) -> None:
        """Record that a value computed from the first step of a stream does not exist before that step."""
        p = self.p
        names = (*call.node.input, *outer_values(call.node))
        counts = tuple(dict.fromkeys(count for name in names for count in p.arrivals.get(name, ())))
        if not counts:
            return
        if call.op in _RECURRENT:
            p.require_arrived(counts, None)
        for value, fact in zip(call.node.output, found, strict=False):
            if isinstance(fact, Stream):
                p.require_arrived(counts, fact.count)
            else:
                if isinstance(fact, Static) and fact.repeated is not None:
                    p.require_arrived(counts, fact.repeated[1])
                p.arrives(value, *counts)

    def _require_states_apart(self, call: Call) -> None:
        """Require that nothing but recurrent nodes that start from them computes with state inputs."""
        p = self.p
        names = [name for name in (*call.node.input, *outer_values(call.node)) if name in p.tainted]
        if not names:
            return
        if call.op in _MOVES and not call.streams:
            p.tainted.update(call.node.output)
        elif call.op not in _RECURRENT and call.op != "Shape":
            place = f"{node_name(call.node)} ({call.op})"
            raise OwnStateError(
                f"{place} computes with the state {names[0]}, which the module carries itself",
                "leave the state out, and give the module whole sequences",
            )

    # --- the model ----------------------------------------------------------------------------------------------------

    def _assembled(self) -> Rewritten:
        p, g = self.p, self.p.graph
        beyond = next((name for name in self.source.states.values() if name in self.beyond), None)
        if beyond is not None:
            raise OwnStateError(
                f"{beyond} is a state after further steps that are not in the sequence",
                "leave the states out, and give the module whole sequences",
            )
        outputs: list[ValueInfoProto] = []
        streams: dict[str, StreamOutput] = {}
        for value in self.source.model.graph.output:
            g.prefix = value.name
            info, output = self._output(value)
            outputs.append(info)
            if value.name not in self.source.states.values():
                streams[value.name] = output
        caches = {state.name: state.after for state in g.states}
        g.used_steps = g.used_steps or p.least > (self.chunk or 1)
        _, needed = needed_nodes(g.nodes.nodes, [*(value.name for value in outputs), *caches.values()])
        last = g.last_name if g.last_name in needed else None
        if last is not None and not g.ending:
            raise NeedsEndError
        if g.used_steps:
            self._count_steps(caches, last)
        ends = [value.name for value in outputs] + list(caches.values())
        g.prune(ends)
        g.without_identities(set(ends))
        inputs = [self._input_info(name) for name in self.source.inputs]
        if last is not None:
            inputs.append(helper.make_tensor_value_info(last, TensorProto.INT64, [1]))
        batch = g.batch
        for state in g.states:
            kind = helper.np_dtype_to_tensor_dtype(state.dtype)
            dims = [size.number if size.number is not None else str(size) for size in state.shape]
            inputs.append(helper.make_tensor_value_info(state.name, kind, dims))
            outputs.append(helper.make_tensor_value_info(state.after, kind, dims))
        if g.used_steps:
            dims = [str(batch) if batch is not None else 1]
            inputs.append(helper.make_tensor_value_info(g.steps_name, TensorProto.INT64, dims))
            outputs.append(helper.make_tensor_value_info(caches[g.steps_name], TensorProto.INT64, dims))
        model = ModelProto(ir_version=self.source.model.ir_version, producer_name=self.source.model.producer_name)
        model.producer_version = self.source.model.producer_version
        model.opset_import.extend(self.source.model.opset_import)
        model.graph.name = self.source.model.graph.name or "streaming"
        model.graph.node.extend(g.nodes.nodes)
        model.graph.input.extend(inputs)
        model.graph.output.extend(outputs)
        counts = [fact.count for fact in p.facts.values() if isinstance(fact, Stream)]
        if self.chunk is not None:
            _require_steady(p.counts, self.chunk)
        initial = {
            state.name: np.full(
                [1 if size.number is None else size.number for size in state.shape], fill_value(state.fill, state.dtype)
            )
            for state in g.states
            if state.fill
        }
        streaming = Streaming(
            time=dict(self.source.time),
            outputs={name: output.axis for name, output in streams.items()},
            caches=tuple(caches),
            delay=max((output.rest for output in streams.values()), default=0),
            hop=lcm(*(count.rate.denominator for count in counts)),
            multiple=lcm(p.multiple, self.chunk or 1),
            least=p.least,
            settled=max(p.settled, int(g.used_begun), *(count.settled for count in counts)),
            period=lcm(*(count.period for count in counts)),
            positions=g.used_positions,
            first={name: output.first for name, output in streams.items() if output.axis is not None},
            steps=g.steps_name if g.used_steps else None,
            last=last,
            chunk=self.chunk or 1,
        )
        time, ahead = self.source.axis_name, tuple(p.look_ahead)
        return Rewritten(model, dict(g.nodes.initializers), caches, initial, streams, streaming, time, ahead)

    def _count_steps(self, caches: dict[str, str], last: str | None) -> None:
        """The steps so far, or `ENDED`: no call can go on from the states of one that has ended the sequence."""
        g = self.p.graph
        g.prefix = "steps"
        after = g.add("Add", g.steps_name, g.length(*g.step_input))
        if last is not None:
            ended = g.add("Greater", last, g.ints(0), hint="ended")
            after = g.add("Where", ended, g.ints(ENDED), after, hint="counted")
        caches[g.steps_name] = g.fresh(f"{g.steps_name}_next")
        g.nodes.add("Identity", after, name=g.fresh("steps/Identity"), outputs=[caches[g.steps_name]])

    def _input_info(self, name: str) -> ValueInfoProto:
        info = ValueInfoProto()
        info.CopyFrom(self.source.inputs[name])
        if name in self.source.time:
            for dim, own in zip(info.type.tensor_type.shape.dim, self.source.dims(name), strict=True):
                if dim.dim_param or own == self.source.axis_name:
                    dim.Clear()
                    dim.dim_param = str(own)
        return info

    def _output(self, value: ValueInfoProto) -> tuple[ValueInfoProto, StreamOutput]:
        p, g = self.p, self.p.graph
        fact = p.facts[value.name]
        producer = next((node for node in self.source.model.graph.node if value.name in node.output), NodeProto())
        try:
            if isinstance(fact, Static) and (fact.repeated is not None or fact.places is not None):
                identity = helper.make_node("Identity", [value.name], [value.name], name=producer.name)
                fact = p.materialized(Call(identity, {}, (fact,))).facts[0] or fact
            inner = p.name(value.name)
        except RefusedError as why:
            raise NodeRefusedError(producer, why) from None
        info = ValueInfoProto()
        info.CopyFrom(value)
        output = StreamOutput(None)
        if isinstance(fact, Stream):
            inner, fact = unfolded(p, inner, fact)
            if fact.fold is not None:
                problem = RefusedError(
                    f"returns {value.name} with time merged with other axes", "reshape it before it is returned"
                )
                raise NodeRefusedError(producer, problem)
            count = fact.count
            first = next((m for m in range(1, count.settled + count.period + 2) if count.available(m) > 0), 1)
            output = StreamOutput(fact.axis, largest_rest(count), first)
            exact = g.is_exact(count)
            if not exact:
                inner = g.cut(inner, fact.axis, 0, g.new(count), "new_steps")
            dims = info.type.tensor_type.shape.dim
            while len(dims) < fact.rank:
                dims.add()
            for axis, size in enumerate(fact.shape):
                dims[axis].Clear()
                if axis == fact.axis:
                    equal = exact and count.is_input
                    dims[axis].dim_param = self.source.axis_name if equal else f"{value.name.replace('.', '_')}_steps"
                elif size.number is not None:
                    dims[axis].dim_value = size.number
                else:
                    dims[axis].dim_param = str(size)
        g.nodes.add("Identity", inner, name=g.fresh(f"{value.name}/output"), outputs=[value.name])
        return info, output
