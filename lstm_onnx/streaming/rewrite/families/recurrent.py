"""LSTM, GRU, RNN and Scan, whose states are carried, and CumSum, whose running sum is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from ....onnxgraph import bodies_of, outer_values
from ....onnxgraph.nodes import is_handed_on
from ...size import ONE, Size, normal
from ..errors import REVERSE, RefusedError
from ..facts import Carry, Fact, Static, Stream, with_size
from ..graph import END, State, make_node_like
from ..rewriter import Call, Rewriter, family, of_stream
from ..stages import aligned, real, require_plain
from .unchanged import unchanged

_BY_FIRST_STEP = (
    "starts from a state that is computed from the first step, as a loop whose first step differs from the others does"
)


@family("LSTM", "GRU", "RNN")
@of_stream
def recurrent(p: Rewriter, call: Call, f: Stream) -> Sequence[Fact]:
    """``(time, batch, input_size)``; states ``(1, batch, hidden_size)``.

    A layer that runs over another axis, such as frequency, has time in its batch: its sequences are each step's own.
    """
    a = call.attributes
    if f.axis == 1 and not a.get("layout") and not call.has(4):
        if any(place not in (0, 5, 6) for place, _ in call.streams):
            raise RefusedError("has weights that vary with time")
        return unchanged(p, call)
    require_plain(f)
    direction = bytes(a.get("direction", b"forward")).decode()
    if direction != "forward":
        raise RefusedError(f"goes through the sequence from its end (direction {direction})", REVERSE)
    if f.axis or a.get("layout"):  # ONNX Runtime refuses layout 1
        raise RefusedError("has time on an axis other than that of its steps")
    if call.has(4):
        raise RefusedError("has lengths (sequence_lens), but the sequences of a stream continue", "no lengths")
    if any(isinstance(call.fact(place), Stream | Carry) for place in (1, 2, 3, 7)):
        raise RefusedError("has weights that vary with time")
    p.require_steps(f.count)
    g, hidden = p.graph, int(a["hidden_size"])
    state_shape = (ONE, f.shape[1], Size.of(hidden))
    inputs = p.inputs(call)
    inputs += [""] * (8 - len(inputs))
    kinds = "hc" if call.op == "LSTM" else "h"
    starts = [_start(p, call, place, kind, (state_shape, p.dtype(f))) for place, kind in enumerate(kinds, 5)]
    inputs[5 : 5 + len(starts)] = [start for start, _ in starts]
    while inputs and not inputs[-1]:
        inputs.pop()
    ends = [g.fresh(f"{g.prefix}/{name}") for name in ("Y", "Y_h", "Y_c")[: 1 + len(kinds)]]
    if call.node.output[0]:
        ends[0] = p.own_name(call.node.output[0])
        p.names[call.node.output[0]] = ends[0]
    g.nodes.nodes.append(make_node_like(call.node, inputs, ends))
    _carry(p, f, starts, ends[1:], call.node.output[1:])
    found: list[Fact] = [Stream((f.shape[0], *state_shape), p.output_dtype(call), 0, f.count)]
    found += [Carry(state_shape, p.dtype(f)) for _ in starts]
    return found[: len(call.node.output)]


def _start(
    p: Rewriter, call: Call, place: int, kind: str, form: tuple[tuple[Size, ...], np.dtype]
) -> tuple[str, State | None]:
    """A state's value before the call, and the new state for it; None if the source has a state."""
    fact, g = call.fact(place), p.graph
    if fact is not None and call.node.input[place] in p.tainted:
        return p.name(call.node.input[place]), None
    if fact is not None and not isinstance(fact, Static):
        raise RefusedError("starts from a state that is only known at the last step of another sequence")
    shape, dtype = form
    name = p.state_name(f"{kind}0")
    state = g.state(name, dtype, shape, after=f"{name.removesuffix('0')}n")
    return _started(p, state, call, place), state


def _started(p: Rewriter, state: State, call: Call, place: int) -> str:
    """The state; in the first call the input from which it starts, unless that is left out or zeros."""
    fact, g = call.fact(place), p.graph
    if not isinstance(fact, Static) or fact.fill == 0:
        return state.name
    begun = g.add("Greater", g.started(), g.ints(0))
    return g.add("Where", begun, state.name, p.name(call.node.input[place]), hint="start")


def _carry(
    p: Rewriter, f: Stream, starts: Sequence[tuple[str, State | None]], ends: Sequence[str], outputs: Sequence[str]
) -> None:
    """Carry states from the end of this call to the next one, and make outputs of them."""
    for place, ((start, state), end) in enumerate(zip(starts, ends, strict=True)):
        after = kept(p, f, end, start)
        if state is not None:
            p.graph.feed(state, after)
        if place < len(outputs) and outputs[place]:
            p.names[outputs[place]] = after


def kept(p: Rewriter, f: Stream, after: str, before: str) -> str:
    """The state after this call, which is the one before it if the call has no step."""
    if p.graph.is_exact(f.count):
        return after
    return p.graph.add("Where", p.graph.any_new(f.count), after, before, hint="kept")


@family("Scan")
def scan(p: Rewriter, call: Call) -> list[Fact]:
    """A loop over steps: its carried values are states."""
    a = call.attributes
    inputs = int(a["num_scan_inputs"])
    count = len(call.node.input) - inputs
    _require_still_body(p, call)
    if not call.streams:
        return p.plain(call)
    axes = list(a.get("scan_input_axes", [0] * inputs))
    for place, fact in call.streams:
        if place >= count and normal(axes[place - count], fact.rank) != fact.axis:
            raise RefusedError(
                "scans an axis other than time", "a float32 LSTM, GRU or RNN without a projection over that axis"
            )
    if any(place < count for place, _ in call.streams):
        raise RefusedError("starts from a value that varies with time")
    if len(call.streams) != inputs:
        raise RefusedError("scans inputs of which not all vary with time")
    if any(a.get("scan_input_directions", [])) or any(a.get("scan_output_directions", [])):
        raise RefusedError("goes through the sequence from its end", REVERSE)
    for _, fact in call.streams:
        require_plain(fact)
    names, steps = aligned(p, [(p.name(call.node.input[place]), fact) for place, fact in call.streams])
    f = replace(call.streams[0][1], count=steps)
    g = p.graph
    starts = [_scan_start(p, call, place) for place in range(count)]
    ends = [g.fresh(f"{g.prefix}/end_{place}") for place in range(count)]
    outputs = [p.own_name(name) if name else g.fresh(f"{g.prefix}/unused") for name in call.node.output[count:]]
    inner = [*(start for start, _ in starts), *names]
    g.nodes.nodes.append(make_node_like(call.node, inner, [*ends, *outputs]))
    _carry(p, f, starts, ends, call.node.output)
    found: list[Fact] = [Carry(before.shape, before.dtype) for before in call.given[:count]]
    return found + _scan_outputs(p, call, f, outputs, count)


def _require_still_body(p: Rewriter, call: Call) -> None:
    for name in outer_values(call.node):
        fact = p.facts.get(name)
        if isinstance(fact, Stream | Carry):
            raise RefusedError("has a body that reads a value that varies with time")
        if fact is not None and p.name(name) != name:
            raise RefusedError("has a body that reads a size of an axis")


def _scan_start(p: Rewriter, call: Call, place: int) -> tuple[str, State | None]:
    value, fact = call.node.input[place], call.given[place]
    if value in p.tainted:
        return p.name(value), None
    if not isinstance(fact, Static):
        raise RefusedError("starts from a state that is only known at the last step of another sequence")
    if fact.shape is None:
        raise RefusedError(_BY_FIRST_STEP if p.arrivals.get(value) else "starts from a state of unknown shape")
    if fact.repeated is not None:
        raise RefusedError("starts from a value of every step")
    body = next(bodies_of(call.node))
    if is_handed_on(body, body.input[place].name, body.output[place].name):
        return p.name(value), None
    batch = p.graph.batch
    if batch is not None and not any(
        batch.names <= size.names for size in fact.shape
    ):  # the sequences of a pool are not at the same step
        raise RefusedError("carries a value that all sequences of a batch share, such as a count of steps")
    state = p.graph.state(p.state_name(f"state_{place}"), p.dtype(fact), fact.shape)
    return _started(p, state, call, place), state


def _scan_outputs(p: Rewriter, call: Call, f: Stream, outputs: list[str], count: int) -> list[Fact]:
    """The outputs with one entry per step; their other axes are those of the body's outputs."""
    body = next(bodies_of(call.node))
    axes = list(call.attributes.get("scan_output_axes", [0] * len(outputs)))
    found: list[Fact] = []
    for place, (name, axis) in enumerate(zip(outputs, axes, strict=True)):
        value = call.node.output[count + place]
        if value:
            p.names[value] = name
        dtype, shape = p.inferred(value)
        info = body.output[count + place].type.tensor_type
        dtype = dtype or (onnx.helper.tensor_dtype_to_np_dtype(info.elem_type) if info.elem_type else None)
        if shape is None:
            rest = _body_shape(p, info, call)
            if rest is None:
                raise RefusedError("gives values of unknown shape")
            at = normal(axis, len(rest) + 1)
            shape = (*rest[:at], ONE, *rest[at:])
        at = normal(axis, len(shape))
        found.append(Stream(with_size(shape, at, f.shape[f.axis]), dtype, at, f.count))
    return found


def _body_shape(p: Rewriter, info: onnx.TypeProto.Tensor, call: Call) -> tuple[Size, ...] | None:
    """The axes of an output of the body; one without a size is the batch."""
    if not info.HasField("shape"):
        # The output is often the state's next value itself.
        states = [fact.shape for fact in call.given if isinstance(fact, Static) and fact.shape is not None]
        return states[0] if len(set(states)) == 1 else None
    sizes: list[Size] = []
    for dim in info.shape.dim:
        if dim.HasField("dim_value"):
            sizes.append(Size.of(int(dim.dim_value)))
        elif p.graph.batch is not None:
            sizes.append(p.graph.batch)
        else:
            return None
    return tuple(sizes)


@family("CumSum")
@of_stream
def cumsum(p: Rewriter, call: Call, fact: Stream) -> list[Fact]:
    """Along time, the sum of earlier calls is added."""
    axes = call.integers(1)
    if axes is None:
        raise RefusedError("sums along an axis that is not constant")
    if normal(axes[0], fact.rank) != fact.axis:
        p.copy(call)
        return [fact]
    if call.attributes.get("reverse"):
        raise RefusedError("sums from the end of the sequence", "a sum from its start")
    require_plain(fact)
    g, x = p.graph, p.name(call.node.input[0])
    state = g.state(p.state_name("sum"), p.dtype(fact), with_size(fact.shape, fact.axis, ONE))
    exclusive = int(call.attributes.get("exclusive", 0))
    own = g.add("CumSum", x, p.name(call.node.input[1]), exclusive=exclusive)
    result = g.add("Add", own, state.name)
    if g.is_exact(fact.count) and not exclusive:
        g.feed(state, g.cut(result, fact.axis, -1, END))
    else:
        g.feed(state, g.add("Add", state.name, g.total(real(p, x, fact), fact.axis)))
    p.emitted(call, result)
    return [fact]
