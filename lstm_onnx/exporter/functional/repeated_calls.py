"""Checks that a module gives the same outputs for the same inputs and states, whatever was called before."""

from __future__ import annotations

import collections
import contextlib
import itertools
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...errors import ExportError
from ..copies.kept_values import Change, count_to, counting, lengthen_lists
from ..copies.object_parts import attributes_of
from ..copies.whole_numbers import attribute_numbers, code_numbers
from .attribute_states import AttributeState, initial_tensors, require_kept_shapes
from .functional_module import FunctionalModule, Tensors
from .number_states import NumberState, numbers_as_tensors
from .outside_reads import require_no_outside_reads
from .undefined_results import RandomLine, random_error

_OFTEN_COUNTED_TO = (20, 30, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1024, 10_000)
"""Numbers near which counters that a forward changes are tried, to see whether the outputs depend on them.

A counter may be compared with the number of calls after which a state is reset, before or after it is increased."""
_CALLS = 16
"""Counters are also tried after this many calls."""
_MOST_NUMBERS = 32
"""The most numbers of the module's own code that are tried."""
_AGAIN = 2
"""The number of calls from the same states: the first may only set a flag for the next."""
_MOST_NAMED = 3
_CONTAINERS = (dict, list, set, collections.deque, bytearray, types.CellType)


def select_states(
    functional: FunctionalModule,
    first: Sequence[Tensor],
    changes: Sequence[Change],
    numbers: tuple[NumberState, ...] = (),
    twice: tuple[str, ...] = (),
) -> None:
    """Keep as states those attributes with which the module repeats the outputs of its first call.

    Args:
        functional: the module, with every attribute of tensors as a state that might be one.
        first: the outputs of the first call of the module itself.
        changes: everything that this call changed.
        numbers: attributes with integers that might also be states.
        twice: arguments that were the same tensor in the first call of the module itself.

    Raises:
        ExportError: there are none, or the outputs depend on something else that calls change.
    """
    found = functional.stateful.attribute_states
    problem: ExportError | None = None
    choices: list[tuple[NumberState, ...]] = [(), numbers] if numbers else [()]
    for counted, candidates in itertools.product(choices, _candidates(found)):
        functional.stateful.attribute_states = candidates + counted
        try:
            outputs, after = _run(functional, functional.arguments.tensors)
        except ExportError as error:
            problem = problem or error
            continue
        if different := _different(outputs, dict(zip(outputs, first, strict=True))):
            problem = problem or _first_call_problem(functional, different, twice)
            continue
        before_calls = functional.stateful.kept.contents()
        try:
            _begin_with_later_calls(functional, outputs, after, changes)
            _require_repeatable(functional, outputs, after, changes)
            if counted:
                _require_computed(functional, outputs, after)
        except ExportError as error:
            functional.stateful.kept.put_back(before_calls)
            if numbers and not counted:
                problem = problem or error
                continue
            raise (problem if problem is not None and (counted or candidates is not found) else error) from None
        if counted:
            functional.stateful.number_problem = str(problem)
        if functional.attribute_states:
            before = initial_tensors(functional.attribute_states)
            functional.stateful.attribute_states = _with_reads(functional, after)
            require_kept_shapes(functional.attribute_states, before, after)
        return
    assert problem is not None  # noqa: S101 - there is one candidate at least
    raise problem


def _with_reads(functional: FunctionalModule, after: Tensors) -> tuple[AttributeState, ...]:
    """The states, each with whether outputs of a second call depend on it, directly or through another state."""
    inputs, states = functional.arguments.tensors, functional.attribute_states
    later = dict(zip(functional.states, after.values(), strict=True))
    then, ends = functional.run(inputs, later)
    changed: list[set[int]] = []  # by state: the other states that change with it
    read: set[int] = set()
    for number, state in enumerate(states):
        others = {name: _other_values(later[name]) for name in state.input_names}
        changed.append(set())
        try:
            outputs, found = functional.run(inputs, {**later, **others})
        except ExportError:
            read.add(number)
            continue
        if _different(outputs, then):
            read.add(number)
        for other, one in enumerate(states):
            if _different({name: found[name] for name in one.output_names}, ends):
                changed[number].add(other)
    while more := {number for number, others in enumerate(changed) if others & read} - read:
        read |= more
    return tuple(replace(state, is_read=number in read) for number, state in enumerate(states))


def _other_values(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.full_like(tensor, torch.nan)
    return ~tensor if tensor.dtype == torch.bool else tensor + 1


def _require_computed(functional: FunctionalModule, outputs: Tensors, after: Tensors) -> None:
    """Require that number states can be tensors, in the first call and in the next one.

    Raises:
        ExportError: the module's code reads one as a number, or gives different results.
    """
    inputs = functional.arguments.tensors
    later = dict(zip(functional.states, after.values(), strict=True))

    def found(states: Mapping[str, Tensor]) -> Tensors:
        return {name: value for part in functional.run(inputs, states) for name, value in part.items()}

    starts = [(initial_tensors(functional.attribute_states), {**outputs, **after}), (later, found(later))]
    counted = [state.input_names[0] for state in functional.attribute_states if isinstance(state, NumberState)]
    for count in _numbers(functional):  # code may look them up in a dict, where a tensor is never found
        for number in (count - 1, count):
            states = {**later, **dict.fromkeys(counted, torch.tensor(number))}
            with contextlib.suppress(ExportError):  # such as a position past the end of a ring buffer
                starts.append((states, found(states)))
    for states, wanted in starts:
        with numbers_as_tensors(functional.stateful):
            if _different(found(states), wanted):
                raise ExportError("an int and a tensor with its value give different results")


def _candidates(found: tuple[AttributeState, ...]) -> Iterator[tuple[AttributeState, ...]]:
    """The states as they were found, and then other choices.

    A state whose shape changes is from another batch, and the module replaces it.  An attribute that has no value
    before the first call, such as a mask, may be computed once for all calls; then it is not a state.
    """
    shapes = [
        state.initial is None or [item.shape for item in state.initial] == [item.shape for item in state.after]
        for state in found
    ]
    if not all(shapes):
        yield tuple(state if same else replace(state, initial=None) for state, same in zip(found, shapes, strict=True))
    yield found
    if any(state.initial is None for state in found):
        yield tuple(state for state in found if state.initial is not None)


def _run(functional: FunctionalModule, inputs: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    return functional.run(inputs, initial_tensors(functional.attribute_states))


def _different(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first output that differs from what is wanted."""
    return next((name for name, one in outputs.items() if not _close(one, wanted[name])), None)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))


def _first_call_problem(functional: FunctionalModule, name: str, twice: tuple[str, ...]) -> ExportError:
    problem = _random_problem(functional)
    if problem is not None:
        return problem
    if twice:
        return ExportError(
            f"{' and '.join(twice)} are one tensor in the example, and the module gives another {name} for separate "
            "tensors with equal numbers; the inputs of a file are always separate, so pass a tensor for each"
        )
    empty = ", ".join(state.where for state in functional.attribute_states if state.initial is None)
    if not empty:
        return ExportError(
            f"the module gives a different {name} at its second call: it keeps something between calls that is not in "
            f"attributes of its objects, but perhaps in a parameter, a class, or a tensor that two attributes hold; "
            f"keep a tensor or a "
            "tuple of tensors in one attribute of the module, or pass the state as an argument of forward and return it"
        )
    return ExportError(
        f"with zeros in {empty} the module gives a different {name} than at its first call, "
        "so its state cannot become an input of the file; pass the state as an argument of forward"
    )


def _random_problem(functional: FunctionalModule) -> ExportError | None:
    """The error that refuses a forward with random numbers, if it has any."""
    inputs = functional.arguments.tensors
    before = _random_states(functional)
    with RandomLine() as drawn, contextlib.suppress(ExportError):
        _run(functional, inputs)
    if drawn.line is None and _random_states(functional) == before:
        return None
    return random_error(drawn.line)


def _begin_with_later_calls(
    functional: FunctionalModule, fresh: Tensors, after: Tensors, changes: Sequence[Change]
) -> None:
    """Let every call start with what the first one leaves, if a later call gives other results from the same states.

    The first may set a flag that makes later ones read a state; if each were a first call, none would read it.  From
    the initial states, a later call must give what the first one gives.

    Args:
        functional: the module.
        fresh: the outputs of its first call.
        after: the states after it.
        changes: everything that it changed.
    """
    kept = functional.stateful.kept
    later = dict(zip(functional.states, after.values(), strict=True))
    if not later or not _not_states(functional, changes):
        return
    begin = kept.contents()
    with contextlib.suppress(ExportError):  # the other calls report the problem of such a module
        as_first = _all_results(functional, later)
        with kept.suspended():
            _run(functional, functional.arguments.tensors)
        left = kept.contents()
        starts = initial_tensors(functional.attribute_states)
        if _different(_all_results(functional, later), as_first) and not _different(
            _all_results(functional, starts), {**fresh, **after}
        ):
            begin = left
    kept.put_back(begin)


def _all_results(functional: FunctionalModule, states: Mapping[str, Tensor]) -> Tensors:
    """The outputs for the example, and the next states."""
    outputs, after = functional.run(functional.arguments.tensors, states)
    return {**outputs, **after}


def _require_repeatable(
    functional: FunctionalModule, fresh: Tensors, after: Tensors, changes: Sequence[Change]
) -> None:
    """Require the same outputs after other calls, and after changes of the counters and lists that they changed.

    From the states `after` the first call, the next states must be the same, too; from the initial states, a reset
    every hundred calls would not show.  Each call starts with what is kept, like the call that the file repeats.
    """
    inputs, kept = functional.arguments.tensors, functional.stateful.kept
    changes = _not_states(functional, changes)
    calls: list[tuple[Mapping[str, Tensor], Tensors]] = [(inputs, fresh)]
    if changes:
        others = _other_inputs(inputs)
        try:
            calls += [(others, _run(functional, others)[0]), (inputs, fresh)]
        except ExportError:
            calls.append((inputs, fresh))

    def require(outputs: Callable[[], Tensors], wanted: Tensors) -> None:
        try:
            name = _different(outputs(), wanted)
        except ExportError as error:
            raise _dependence_problem("its outputs", changes) from error
        if name is not None:
            raise _random_problem(functional) or _dependence_problem(name, changes)

    later = dict(zip(functional.states, after.values(), strict=True))

    def run_later() -> Tensors:
        return _all_results(functional, later)

    then = run_later() if changes and later else {}
    with kept.restored(), kept.suspended():
        for tensors, wanted in calls:
            require(lambda tensors=tensors: _run(functional, tensors)[0], wanted)  # type: ignore[misc]
        numbers = counting(changes)
        count_to(numbers, None, 0)
        for _ in range(_AGAIN if then else 0):
            require(run_later, then)
        for number, more, exactly in _counts(functional) if numbers else ():
            count_to(numbers, number, more, exactly=exactly)
            require(lambda: _run(functional, inputs)[0], fresh)
            if then:
                count_to(numbers, number, more, exactly=exactly)
                require(run_later, then)
        if lengthen_lists(changes):
            require(lambda: _run(functional, inputs)[0], fresh)
    require_no_outside_reads(functional.stateful.inner, lambda: _different(_run(functional, inputs)[0], fresh))


def _counts(functional: FunctionalModule) -> Iterator[tuple[int | None, int, bool]]:
    """The values to set counters to, as arguments of `count_to`.

    Numbers in the module's code come before those in attributes.
    """
    yield from ((None, calls, False) for calls in range(1, _CALLS + 1))
    for number in _numbers(functional):
        yield from ((number, more, False) for more in (-1, 0, 1))
        yield from ((number, more, True) for more in (-1, 0))


def _numbers(functional: FunctionalModule) -> list[int]:
    """The numbers near which the module may do something else."""
    module = functional.stateful.inner
    seen = [*sorted(code_numbers(module)), *sorted(attribute_numbers(module))]
    new = [number for number in dict.fromkeys(seen) if number not in (0, *_OFTEN_COUNTED_TO)]
    return [0, *_OFTEN_COUNTED_TO, *new[:_MOST_NUMBERS]]


def _not_states(functional: FunctionalModule, changes: Sequence[Change]) -> list[Change]:
    """The changes of anything except attribute states and nn.LSTM's own attributes."""
    states = [state.table(functional.stateful.inner) for state in functional.attribute_states]
    held = [(table, state.attribute) for table, state in zip(states, functional.attribute_states, strict=True)]

    def is_state(change: Change) -> bool:
        table = change.part if isinstance(change.part, _CONTAINERS) else attributes_of(change.part)
        return any((change.key == name and table is own) or table is own.get(name) for own, name in held)

    return [change for change in changes if not is_state(change) and "._flat_weight" not in change.where]


def _other_inputs(inputs: Mapping[str, Tensor]) -> Tensors:
    """Inputs of the same shapes with other values."""
    if any(tensor.is_floating_point() for tensor in inputs.values()):
        return {name: tensor * 0.5 + 0.1 if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    return {name: tensor.flip(0) if tensor.dim() else tensor for name, tensor in inputs.items()}


def _random_states(functional: FunctionalModule) -> tuple[object, ...]:
    """The states of the random number generators that code may use: those of the process, and its own."""
    numbers = np.random.get_state()  # noqa: NPY002 - which users' code still draws from
    own = functional.stateful.kept.generator_states()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(numbers), own


def _dependence_problem(name: str, changes: Sequence[Change]) -> ExportError:
    places = list(dict.fromkeys(change.where for change in changes))
    places.sort(key=lambda where: not where.startswith("self."))
    where = ", ".join(places[:_MOST_NAMED]) or "an object outside of the module"
    verb = "depend" if name == "its outputs" else "depends"
    return ExportError(
        f"{name} {verb} on what earlier calls left in {where}, which a file cannot remember; keep a tensor or a tuple "
        "of tensors in an attribute of the module, of the same structure from call to call, or pass the state as an "
        "argument of forward and return it"
    )
