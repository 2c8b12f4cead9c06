"""LSTM, GRU, RNN and Scan: their states over time, and their initial states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...onnxgraph import bodies_of, outer_values, shape_of, text
from ...onnxgraph.nodes import is_handed_on
from ..fact import NONE, Axis, Fact, Names, axis_of, join, length, open_names
from ..node import Call, Meeting, operator
from ..size import Size, normal

_FROM_THE_END = "that direction starts at the sequence's end, which a stream has not seen yet"
_LENGTHS, _INITIAL_H, _INITIAL_C = 4, 5, 6


@operator("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
def recurrent(call: Call) -> list[Fact]:
    """X ``(time, batch, features)`` to Y, Y_h and, for an LSTM, Y_c."""
    x = call.fact(0)
    cell = "LSTM" in call.op
    # The initial states are handled separately: starting from a state is no other use of it.
    whole, call = call, replace(call, facts=call.facts[:_LENGTHS])
    starts = [whole.fact(index) if whole.has(index) else None for index in (_INITIAL_H, _INITIAL_C)[: 1 + cell]]
    if x.axes is None or x.rank != 3:
        call.meet(x.open, "takes an input of unknown axes")
        joined = replace(join(whole.given), states=NONE, spans=x.open)
        return [joined] * 3
    first_batch = call.attributes.get("layout", 0) == 1
    time, batch = (x.axes[1], x.axes[0]) if first_batch else (x.axes[0], x.axes[1])
    call.meet(length(x.axes[2]).names, "uses the steps as features")
    names = _went_along(call, time, starts, x)
    direction = call.attributes.get("direction", b"forward")
    if direction not in (b"forward", "forward"):
        how = f"is {text(direction)}: {_FROM_THE_END}"
        _goes_backwards(call, names, how)
        carried = any(start.states for start in starts if start is not None)
        if carried and not names and length(time) != Size.of(1):
            call.findings.from_the_end = call.findings.from_the_end or Meeting(str(call.node.name), call.op, how)
    if call.op == "DynamicQuantizeLSTM":
        call.meet(names, "computes the scale of its activations from all steps of a call")
    hidden = axis_of(Size.of(int(call.attributes.get("hidden_size", 0))))
    directions = axis_of(Size.of(2 if direction in (b"bidirectional", "bidirectional") else 1))
    joined = _joined(call, [x, *(start for start in starts if start is not None)], names)
    y_axes: tuple[Axis, ...] = (time, directions, batch, hidden)
    h_axes: tuple[Axis, ...] = (directions, batch, hidden)
    if first_batch:
        y_axes, h_axes = (batch, time, directions, hidden), (batch, directions, hidden)
    end = replace(joined, axes=h_axes, last=joined.last | names)
    return [replace(joined, axes=y_axes), end, end]


def _joined(call: Call, facts: Sequence[Fact], names: Names) -> Fact:
    """The merged fact of all outputs; initial states are checked separately."""
    found = join(facts)
    call.meet(found.positions if found.varies else NONE, "counts steps from the first of each call")
    call.meet(found.sized if found.varies else NONE, "computes with the number of steps")
    return replace(found, states=NONE, last=found.last - names, lengths=False)


def _goes_backwards(call: Call, names: Names, how: str) -> None:
    call.meet(names, how)
    for name in names:
        call.findings.backwards.setdefault(name, Meeting(str(call.node.name), call.op, how))


def _went_along(call: Call, time: Axis, starts: Sequence[Fact | None], x: Fact) -> Names:
    """The dynamic axes of the recurrence; records states that are not carried from call to call.

    A Scan may have no `starts`: then its steps are independent.
    """
    names = length(time).names
    given = [start for start in starts if start is not None]
    from_states = [start for start in given if start.states]
    if not names:
        if from_states:
            how = "advances by a fixed number of steps at each call, however many steps the call has"
            call.findings.per_call = call.findings.per_call or Meeting(str(call.node.name), call.op, how)
            call.meet(x.last, how)
        return names
    if length(time).symbol is None:
        call.meet(names, "runs along an axis that holds more than the sequence")
    if not starts:
        return names
    for name in names:
        recurrent = call.findings.recurrent
        recurrent[name] = recurrent.get(name, False) or bool(from_states)
    if len(from_states) < len(starts):
        late = NONE.union(*(start.last for start in given))
        computed = call.findings.first_names(late) & call.findings.first_names(names)
        if computed:
            call.meet(names, "starts from a value that is computed at the end of the sequence")
        else:
            call.meet(names, "starts again at each call: not all of its states are inputs and outputs of the file")
    return names


@operator("Scan")
def scan(call: Call) -> list[Fact]:
    """Scan: loop-carried values first, then the scanned inputs."""
    count = int(call.attributes.get("num_scan_inputs", 0))
    facts = [call.fact(index) for index in range(len(call.facts))]
    carried, scanned = facts[: len(facts) - count], facts[len(facts) - count :]
    changing = _changing(call, len(carried))
    still = [carried[index] for index in range(len(carried)) if index not in changing]
    call = replace(call, facts=tuple(scanned))
    axes = call.attributes.get("scan_input_axes", [0] * count)
    outer = [call.findings.facts[name] for name in outer_values(call.node) if name in call.findings.facts]
    time = _scanned_axis(call, scanned, axes)
    if time is None:
        reached = open_names(facts)
        call.meet(reached, "scans an unknown axis")
        return [replace(join(facts), states=NONE, spans=reached)] * len(call.node.output)
    names = _went_along(call, time, [carried[index] for index in changing], join(scanned))
    if any((*call.attributes.get("scan_input_directions", []), *call.attributes.get("scan_output_directions", []))):
        _goes_backwards(call, names, f"scans backwards: {_FROM_THE_END}")
    _same_in_all_steps(call, [*still, *outer], names)
    joined = _joined(call, [*facts, *outer], names)
    return _scan_outputs(call, carried, time, replace(joined, spans=joined.spans | names), names)


def _changing(call: Call, count: int) -> list[int]:
    """The carried values that a step may change; a loop without any carries one that no step changes."""
    body = next(iter(bodies_of(call.node)))
    pairs = enumerate(zip(body.input[:count], body.output[:count], strict=True))
    return [index for index, (before, after) in pairs if not is_handed_on(body, before.name, after.name)]


def _same_in_all_steps(call: Call, facts: Sequence[Fact], names: Names) -> None:
    """Record a value that every step reads and that differs between calls."""
    call.meet({name for fact in facts if fact.varies for name in fact.open & names}, "reads all steps at each step")
    late = call.findings.first_names(NONE.union(*(fact.last for fact in facts)))
    if late & call.findings.first_names(names):
        call.meet(names, "combines the last step, or a summary of all steps, with every step")
    if any(fact.states for fact in facts):
        call.findings.handled(call)


def _scanned_axis(call: Call, scanned: Sequence[Fact], axes: Sequence[int]) -> Axis | None:
    """The scanned axis; None if it is unknown."""
    time: Axis = ()
    for fact, axis in zip(scanned, axes, strict=False):
        if fact.axes is None or not -fact.rank <= axis < fact.rank:
            return None
        own = fact.axes[axis]
        first, other = length(time).symbol, length(own).symbol
        if first is not None and other is not None:
            call.findings.same(first, other)
        time = time or own
    return time


def _scan_outputs(call: Call, carried: Sequence[Fact], time: Axis, joined: Fact, names: Names) -> list[Fact]:
    """The final loop-carried values, and the stacked outputs of the steps."""
    body = next(iter(bodies_of(call.node)))
    places = call.attributes.get("scan_output_axes", [0] * len(body.output))
    results = []
    for index, value in enumerate(body.output):
        shape = shape_of(value.type)
        axes = None if shape is None else call.findings.axes(value.name, shape)
        if index < len(carried):
            own = axes if carried[index].axes is None else carried[index].axes
            results.append(replace(joined, axes=own, last=joined.last | names))
            continue
        if axes is not None:
            place = normal(places[index - len(carried)], len(axes) + 1)
            axes = (*axes[:place], time, *axes[place:])
        results.append(replace(joined, axes=axes))
    return results
