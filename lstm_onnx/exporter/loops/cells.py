"""Recognises loops that amount to one call of a recurrent module."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..aten import aten, aten_operators
from ..opaque.recurrent_module import RecurrentModule
from .canonical import RECURRENT
from .pieces import CONVERSIONS
from .program import Affine, Carry, Element, Here, Loop, NoState, Operator, Program, Result, by_step, positions_in
from .steps import Steps

_ZEROS = aten_operators("zeros new_zeros zeros_like")
_OF_ZEROS = CONVERSIONS | aten_operators(
    "unsqueeze expand view reshape select.int slice.Tensor squeeze.dim repeat transpose.int"
)


@dataclass(frozen=True)
class Source:
    """What a recurrent module gets in each step: an entry of a tensor, or a value of an earlier loop.

    `base` is the tensor and `axis` the one of the steps, or `base` is an `Element`; `start` is the index.
    `squeezed` says that an entry has no axis for its one step.
    """

    base: Any
    axis: int
    start: Affine
    squeezed: bool


@dataclass(frozen=True)
class RecurrentCall:
    """A recurrent module that is called in each step with the states of the step before.

    Attributes:
        module: its path.
        kwargs: those of the opaque operator.
        source: its input.
        initial: h and c before the first step; c is None where it has none.
        states: the positions of h and c.
        outputs: by position of a result, which result it is (0 the output, 1 and 2 the states), and the axis of length
            1 that was removed from it; None where none was.
    """

    module: str
    kwargs: Mapping[str, Any]
    source: Source
    initial: tuple[Any, Any]
    states: tuple[int, ...]
    outputs: Mapping[int, tuple[int, int | None]]


def is_read(item: Operator, target: Any = aten.select.int) -> bool:
    """Whether an operator (`target`) picks by the step number from a tensor outside the loop."""
    if item.target is not target or not isinstance(item.args[2], Affine) or not item.args[2].step:
        return False
    return not positions_in(item.args[0]) and not by_step(item.args[0])


def is_result(loop: Loop, item: Operator) -> bool:
    """Whether an operator only removes the axis of length 1 from a recurrent module's result for one step."""
    if item.target is not aten.squeeze.dim or not isinstance(item.args[0], Here):
        return False
    part = loop.body[item.args[0].position]
    of = part.args[0] if part.target is operator.getitem else None
    return isinstance(of, Here) and loop.body[of.position].target is RECURRENT


def call_of(loop: Loop, modules: Mapping[str, RecurrentModule]) -> RecurrentCall | None:
    """The recurrent call that the whole body of a loop amounts to; None where it is anything else."""
    calls = [item for item in loop.body if item.target is RECURRENT]
    if len(calls) != 1:
        return None
    (item,) = calls
    x, h, c, lengths = item.args
    kwargs = dict(item.kwargs)
    spec = modules[kwargs["module"]].spec
    if lengths is not None or spec.num_directions != 1:
        return None
    source, used = _source(loop, x, _single_axis(kwargs))
    outputs = _outputs(loop, item)
    if source is None or {item.index, *used, *outputs} != {part.index for part in loop.body}:
        return None
    states = [h] if c is None else [h, c]
    for which, state in enumerate(states, start=1):
        if not isinstance(state, Carry) or state.back != 1 or outputs.get(state.position) != (which, None):
            return None
    initial = (h.initial[0], None if c is None else c.initial[0])
    return RecurrentCall(kwargs["module"], kwargs, source, initial, tuple(state.position for state in states), outputs)


def _source(loop: Loop, x: Any, axis: int) -> tuple[Source | None, set[int]]:
    """Where the input of a call comes from, and the positions that only pass it along."""
    used: set[int] = set()
    squeezed = False
    if isinstance(x, Here):
        item = loop.body[x.position]
        if item.target is aten.unsqueeze.default and item.args[1] == axis:
            used.add(item.index)
            squeezed, x = True, item.args[0]
    if isinstance(x, Here) and squeezed and is_read(loop.body[x.position]):
        item = loop.body[x.position]
        return Source(item.args[0], item.args[1], item.args[2], True), {*used, item.index}
    if isinstance(x, Element) and isinstance(x.step, Affine) and x.step.step:
        return Source(x, axis, x.step, squeezed), used
    return None, used


def _outputs(loop: Loop, call: Operator) -> dict[int, tuple[int, int | None]]:
    """The positions of a call's results, with or without the axis of length 1 (that of the step or of the layer)."""
    kwargs = dict(call.kwargs)
    found: dict[int, tuple[int, int | None]] = {}
    for item in loop.body:
        source = item.args[0] if item.args else None
        if not isinstance(source, Here):
            continue
        if source.position == call.index and item.target is operator.getitem:
            found[item.index] = (item.args[1], None)
        elif item.target is aten.squeeze.dim and source.position in found:
            which, lacks = found[source.position]
            if lacks is None and item.args[1] == _single_axis(kwargs, which):
                found[item.index] = (which, item.args[1])
    return found


def _single_axis(kwargs: Mapping[str, Any], which: int = 0) -> int:
    """The axis of length 1 in a result of a call: that of the step in the output, that of the layer in a state."""
    return 1 if kwargs["batch_first"] and which == 0 else 0


def is_zeros(program: Program, value: Any) -> bool:
    """Whether a value outside of loops is always zeros."""
    while isinstance(value, Result):
        item = program.results[value.index]
        if item.target in _ZEROS or (item.target is aten.full.default and item.args[1] == 0):
            return True
        if item.target not in _OF_ZEROS:
            return False
        value = item.args[0]
    return False


def run_recurrent(module: Any, loop: Loop, call: RecurrentCall, count: Any, needed: Collection[int]) -> bool:
    """Call the recurrent module once, and store the results of its steps.

    Args:
        module: the `RolledModule` that runs, which stores the results.
        loop: the loop.
        call: the call that the loop amounts to.
        count: the number of steps.
        needed: positions of which steps other than the last one are used.

    Returns:
        Whether that is possible: the operator gives the states of all steps only if they are its output.
    """
    rows = call.kwargs["rows"]
    for position in needed:
        which, _ = call.outputs.get(position, (2, None))
        if which == 2 or (which == 1 and rows != 1):
            return False
    sequence, batch_first = _sequence(module, call, count)
    initial = [None if state is None or isinstance(state, NoState) else state for state in call.initial]
    zeros = all(state is None or is_zeros(module.program, state) for state in initial)
    states = [None if zeros or state is None else module.value(state) for state in initial]
    kwargs = {**call.kwargs, "batch_first": batch_first}
    output, *final = module.recurrent_call(sequence, states, None, kwargs)
    steps = Steps(output, 1 if batch_first else 0)
    for position, (which, lacks) in call.outputs.items():
        if which == 0 or (which == 1 and rows == 1):
            whole = steps if lacks is not None else steps.unsqueezed(_single_axis(call.kwargs, which))
            module.steps[loop.index, position] = whole
        if which > 0:
            last = final[which - 1]
            module.last[loop.index, position] = last if lacks is None else last.squeeze(lacks)
    return True


def _sequence(module: Any, call: RecurrentCall, count: Any) -> tuple[Any, bool]:
    """The whole sequence, and whether its batch comes first."""
    source = call.source
    if isinstance(source.base, Element):
        whole = module.steps[source.base.loop, source.base.position]
    else:
        whole = Steps(module.value(source.base), source.axis)
    whole = whole.range(module.number(source.start.at_first()), source.start.step, count)
    if not source.squeezed:  # an entry has an axis of one step
        whole = Steps(whole.along(0).squeeze(_single_axis(call.kwargs) + 1), 0)
    elif whole.axis > 1:  # after that of the features
        whole = Steps(whole.along(0), 0)
    return whole.tensor, whole.axis == 1
