"""A loop over a recurrent module as one call of it with the whole sequence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .cells import RecurrentCall, is_zeros
from .program import Element, Loop, NoState
from .steps import Steps


def run_recurrent(module: Any, loop: Loop, call: RecurrentCall, count: Any, needed: Collection[int]) -> bool:
    """Call the recurrent module once, and keep what its steps return.

    Args:
        module: the `RolledModule` that runs; what is kept is kept there.
        loop: the loop.
        call: what it is a call of.
        count: the number of steps.
        needed: positions of which other steps than the last one are used.

    Returns:
        Whether it could: the operator has no states of all steps but those that are its output.
    """
    rows = call.kwargs["rows"]
    for position in needed:
        which, _ = call.outputs.get(position, (2, None))
        if which == 2 or (which == 1 and rows != 1):
            return False
    sequence, batch_first = _sequence(module, call, count)
    initial = [None if state is None or isinstance(state, NoState) else state for state in call.initial]
    if all(state is None or is_zeros(module.program, state) for state in initial):
        states: list[Any] = [None, None]
    else:
        states = [None if state is None else module.value(state) for state in initial]
    kwargs = {**call.kwargs, "batch_first": batch_first}
    output, *final = module.recurrent_call(sequence, states, None, kwargs)
    steps = Steps(output, 1 if batch_first else 0)
    for position, (which, lacks) in call.outputs.items():
        if which == 0 or (which == 1 and rows == 1):
            axis = (1 if call.kwargs["batch_first"] else 0) if which == 0 else 0
            module.steps[loop.index, position] = steps if lacks is not None else steps.unsqueezed(axis)
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
        axis = 1 if call.kwargs["batch_first"] else 0
        entries = whole.along(0).squeeze(axis + 1)
        whole = Steps(entries, 0)
    return whole.tensor, whole.axis == 1
