"""Finds the sizes at which an exported file is right: it runs on both sides of each decision about a size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ..copies.whole_numbers import attribute_numbers, code_numbers
from ..functional.functional_module import FixedSizeError
from ..tracing.size_decisions import LARGEST_SIZE, Decision, changes
from .causes import holds, importance, is_users, reason, refusal
from .limits import Limits, refusal_notes
from .row_order import require_row_order
from .shape_trial import RIGHT, UNRUN, WRONG, Outcome, ShapeTrial, Sizes

_LONG = 509
"""A size far above those of most examples; it shows what grows with the size or is carried from call to call."""
_LONG_COST, _MOST_COST = 2 * 10**9, 10**11
"""The most multiplications of the long case (a fraction of a second), and of a case for a decision (seconds)."""
_MOST_STEPS = 100_000
_EACH_BELOW = 16
_MOST_VARIED, _MANY = 2, 67
"""The most sizes of a decision at which the other axes are varied, and the most elements that these get."""
_SORT_NOTE = (
    "state inputs and outputs may be in the order of this sort, which is stable in the file; PyTorch does not define "
    "the order of equal numbers"
)
_TEXT_NOTE = "the module's code turns a size into text; a file cannot do that, so no result may depend on the text"


def run_shape_trial(trial: ShapeTrial, limits: Limits) -> tuple[str, ...]:
    """Run a file beside its module, narrow `limits` to where it is right, and return notes for the user.

    Raises:
        ExportError: the file fails, or gives shapes, dtypes or clearly different numbers than the module, at sizes that
            no limit excludes.
    """
    grown = {name: trial.own[name] + 1 + index for index, name in enumerate(trial.names)}
    _require(trial, limits.all_within(grown))
    _find_least(trial, limits)
    outcomes = [_require(trial, limits.all_within(sizes)) for sizes in _others(trial)]
    if any(outcome.kind == UNRUN for outcome in outcomes):  # it may take only multiples of a number
        for factor in (2, 3):
            _require(trial, limits.all_within({name: factor * size for name, size in trial.own.items()}))
    for name, decision, at in _decided(trial):
        _try_decision(trial, limits, name, decision, at)
    others = _other_branches(trial, limits)
    if trial.facts.texts or others:
        inner = trial.functional.stateful.inner
        seen = sorted(code_numbers(inner) | attribute_numbers(inner))
        numbers = list(dict.fromkeys((*trial.numbers_in_code(), *seen)))
        _try_numbers(trial, limits, numbers)
        _try_other_branches(trial, limits, others, numbers)
    untried = tuple(_try_lengths(trial, limits))
    _try_roundings(trial, limits)
    require_row_order(trial, limits.all_within)
    _try_long(trial, limits)
    if not trial.ran and trial.functional.arguments.sizes:
        return ("the file was not tested at other shapes: the module itself fails at all of those tried",)
    if any(limits.least[name] > size for name, size in trial.own.items()):
        raise FixedSizeError(f"the file is only right at sizes above the example's: {'; '.join(limits.notes)}")
    sorts = trial.facts.sorts[:1] if trial.metadata.origins else ()
    return (
        *limits.notes,
        *untried,
        *(f"{line}: {_TEXT_NOTE}" for line in trial.facts.texts),
        *(f"{line}: {_SORT_NOTE}" for line in sorts),
        *refusal_notes(trial, limits),
    )


def _others(trial: ShapeTrial) -> Iterator[Sizes]:
    """Each size doubled, the example's, small and large swapped."""
    own, names = trial.own, trial.names
    yield {name: 2 * own[name] + 3 - index for index, name in enumerate(names)}
    yield own
    grown = sorted((own[name] + 2 + index for index, name in enumerate(names)), reverse=True)
    yield dict(zip(sorted(names, key=own.__getitem__), grown, strict=True))


def _require(
    trial: ShapeTrial, sizes: Sizes, decision: Decision | None = None, outcome: Outcome | None = None
) -> Outcome:
    """Run at sizes at which the file must not be wrong; `outcome` is that of other inputs at these sizes."""
    outcome = outcome or trial.at(sizes)
    if outcome.kind == WRONG:
        unexplained = None if is_users(trial, sizes, decision) else sizes
        raise FixedSizeError(refusal(trial, sizes, outcome, decision), _blamed(trial, sizes), unexplained=unexplained)
    return outcome


def _blamed(trial: ShapeTrial, sizes: Sizes) -> set[tuple[str, int]]:
    """The axes that must keep their own size for the file to be right at these sizes."""
    changed = [name for name in trial.names if sizes[name] != trial.own[name]]
    names = {name for name in changed if trial.at({**sizes, name: trial.own[name]}).kind == RIGHT}
    return {axis for axis, name in trial.axes.items() if name in names}


def _find_least(trial: ShapeTrial, limits: Limits) -> None:
    """The least size of each axis, and then of all together, from which on the file is right."""
    for name in trial.names:
        start = {**trial.own, name: limits.within(name, 1)}
        if trial.at(start).kind != RIGHT and trial.at(trial.own).kind == RIGHT:
            _raise_to_right(trial, limits, name)
    together = limits.all_within(dict.fromkeys(trial.names, 1))
    if trial.at(together).kind != WRONG:
        return
    for name in reversed(trial.names):
        for size in range(together[name] + 1, min(trial.own[name], together[name] + _EACH_BELOW) + 1):
            if trial.at({**together, name: size}).kind == RIGHT:
                limits.raise_least(name, size, reason(trial, together, trial.at(together)))
                return
    raise FixedSizeError(refusal(trial, together, trial.at(together), None))


def _raise_to_right(trial: ShapeTrial, limits: Limits, name: str) -> None:
    own, least = trial.own[name], limits.least[name]
    below = {size: trial.at({**trial.own, name: size}) for size in range(least, min(own, least + _EACH_BELOW))}
    # Excluded are sizes at which the module runs and the file is wrong.  Of those at which the module does not run,
    # only the ones below the first at which it does are: it may take only every fourth size.
    refused = [size for size, outcome in below.items() if outcome.kind == WRONG]
    first = max(refused, default=least - 1) + 1
    while first in below and below[first].kind != RIGHT:
        first += 1
    if first not in below and first < own:
        low, first = first - 1, own
        while first - low > 1:
            middle = (low + first) // 2
            if trial.at({**trial.own, name: middle}).kind == RIGHT:
                first = middle
            else:
                low = middle
    if first > least:
        last = {**trial.own, name: first - 1}
        limits.raise_least(name, first, reason(trial, last, trial.at(last)))


def _decided(trial: ShapeTrial) -> Iterator[tuple[str, Decision, list[int]]]:
    """Each decision, once for each of its axes, with the sizes at which it changes; the user's own come first."""
    own = trial.axis_sizes(trial.own)
    for decision in sorted(trial.facts.decisions, key=importance):
        for axis in dict.fromkeys(decision.symbols.values()):
            if axis in trial.axes:
                yield trial.axes[axis], decision, changes(decision, axis, own)


def _try_decision(trial: ShapeTrial, limits: Limits, name: str, decision: Decision, sizes: list[int]) -> None:
    """Run on both sides of each size at which a decision changes."""
    alone = len({trial.axes.get(axis) for axis in decision.symbols.values()}) == 1
    for size in sizes:
        largest = limits.largest[name]
        if size < limits.least[name] or (largest is not None and size > largest + 1):
            continue
        near = (size,) if decision.inner else (size - 1, size, size + 1, size + size // 2 + 2)
        around = [n for n in near if n == limits.within(name, n)]
        outcomes = {n: _tried(trial, limits, name, n, decision, alone=alone) for n in around}
        beyond = [outcome for n, outcome in outcomes.items() if n >= size]
        ends = alone and size > trial.own[name] and _is_last(trial, name, decision, size)
        if ends and beyond and all(item.kind == UNRUN for item in beyond) and _fails_from(trial, name, size):
            limits.lower_largest(name, size - 1, reason(trial, {**trial.own, name: size}, beyond[0]))
        kept = alone and not decision.inner and limits.least[name] < size
        if kept and trial.cost({**trial.own, name: size}) <= _MOST_COST:
            limits.add_boundary(name, size)


def _fails_from(trial: ShapeTrial, name: str, size: int) -> bool:
    """Whether the module does not run at some further sizes either."""
    further = (size + 1, size + 2, 2 * size + 1)
    return all(trial.at({**trial.own, name: number}).kind == UNRUN for number in further)


def _is_last(trial: ShapeTrial, name: str, decision: Decision, size: int) -> bool:
    """Whether a decision has the traced outcome below a size and never from it on, unlike one about a remainder."""
    traced = partial(holds, trial, decision, name)
    return traced(size - 1) and not any(map(traced, (*range(size, size + _EACH_BELOW), 2 * size, 4 * size + 1)))


def _tried(trial: ShapeTrial, limits: Limits, name: str, size: int, decision: Decision, *, alone: bool) -> Outcome:
    """One size near a decision; see `_try_decision`."""
    if size != limits.within(name, size):
        return Outcome(RIGHT)  # a limit was found meanwhile
    sizes = limits.all_within({**trial.own, name: size})
    against = decision.choice and not decision.holds(trial.axis_sizes(sizes))
    most = max(_MOST_COST if against else _LONG_COST, 4 * trial.cost(trial.own))
    if trial.cost(sizes) > most or size > max(_MOST_STEPS, 4 * trial.own[name]):
        if against and alone and _is_last(trial, name, decision, size):
            line = f" at {decision.line}" if decision.line else ""
            limits.lower_largest(
                name, size - 1, f"the module's code depends on the size{line}, and trials at larger sizes take too long"
            )
        return Outcome(RIGHT)
    outcome = trial.at(sizes)
    if outcome.kind == WRONG and alone and size < trial.own[name]:
        limits.raise_least(name, size + 1, reason(trial, sizes, outcome))
        return outcome
    return _require(trial, sizes, decision if against else None)


def _other_branches(trial: ShapeTrial, limits: Limits) -> list[tuple[str, int]]:
    """Sizes, each of one axis, at which the user's code takes a branch that was not traced."""
    own = trial.axis_sizes(trial.own)
    return [
        (trial.axes[axis], size)
        for decision in trial.facts.decisions
        if decision.choice and decision.direct
        for axis in dict.fromkeys(decision.symbols.values())
        if axis in trial.axes
        for size in changes(decision, axis, own)[:_MOST_VARIED]
        if size == limits.within(trial.axes[axis], size) and not decision.holds({**own, axis: size})
    ]


def _try_other_branches(
    trial: ShapeTrial, limits: Limits, branches: list[tuple[str, int]], numbers: Sequence[int]
) -> None:
    """Vary the sizes in branches that were not traced, where the file is right so far.

    Such branches may depend on the other axes, as in ``x.shape == (4, 61, 3)``, or on a remainder.
    """
    further = 1 + max((number for number in numbers if number <= _MANY), default=1)
    for name, size in branches:
        for others in (dict.fromkeys(trial.names, 1), dict.fromkeys(trial.names, _MANY)):
            _require_cheap(trial, limits.all_within({**others, name: size}))
        _try_numbers(trial, limits, numbers, {name: size})
        for more in range(1, further):
            if size + more == limits.within(name, size + more):
                _require_cheap(trial, limits.all_within({**trial.own, name: size + more}))


def _try_numbers(trial: ShapeTrial, limits: Limits, numbers: Sequence[int], given: Mapping[str, int] = {}) -> None:
    """Try sizes that are numbers in the module's code or its attributes, as long as all of them take seconds.

    The code may compare a size with one in a branch that was not traced, which the sizes `given` lead into, or compare
    the text of a size with it.
    """
    spent = 0
    own = {**trial.own, **given}
    for size in numbers:
        for name in trial.names:
            for near in (size, size + 1):
                if name not in given and near > 1 and near == limits.within(name, near) and spent <= _MOST_COST:
                    spent += min(trial.cost({**own, name: near}), _LONG_COST)
                    _require_cheap(trial, limits.all_within({**own, name: near}))


def _try_lengths(trial: ShapeTrial, limits: Limits) -> Iterator[str]:
    """Try lengths at which the code of a Python loop may do something else; yield a note of those that take too long.

    All steps get different values: those of a resized example repeat, and would hide that a wrong step is used.
    """
    for name in dict.fromkeys(trial.axes[axis] for axis in trial.facts.looped if axis in trial.axes):
        spent = longest = 0
        untried: list[int] = []
        for size in trial.facts.lengths:
            sizes = {**trial.own, name: size}
            if size != limits.within(name, size):
                continue
            if not _is_cheap(trial, sizes):
                spent += trial.cost(sizes)
            if spent > _MOST_COST:
                untried.append(size)
                continue
            longest = max(longest, size)
            outcome = trial.with_other_rows(sizes)
            _require(trial, sizes, outcome=None if outcome.kind == UNRUN else outcome)
        if further := sorted(size for size in untried if size > longest):
            yield (
                f"{name} was tried only up to {longest}, since more takes too long, and the module's loop may do "
                f"something else near {further[0]}, a number in its code; if so, bound the axis with torch.export.Dim"
            )


def _try_roundings(trial: ShapeTrial, limits: Limits) -> None:
    """Try sizes at which a number that is computed from them may be rounded differently."""
    for axis, sizes in trial.facts.roundings:
        name = trial.axes[axis]
        for size in sizes:
            if size == limits.within(name, size):
                at = limits.all_within({**trial.own, name: size})
                _require_cheap(trial, at)
                if trial.cost(at) <= _MOST_COST:
                    limits.add_boundary(name, size)


def _is_cheap(trial: ShapeTrial, sizes: Sizes) -> bool:
    return trial.cost(sizes) <= max(_LONG_COST, 4 * trial.cost(trial.own))


def _require_cheap(trial: ShapeTrial, sizes: Sizes) -> None:
    if _is_cheap(trial, sizes):
        _require(trial, sizes)


def _try_long(trial: ShapeTrial, limits: Limits) -> None:
    """Try sizes far above the example's, one axis at a time, as long as that is cheap."""
    for name in trial.names:
        size = limits.within(name, min(_LONG, LARGEST_SIZE, _LONG_COST // trial.cost({**trial.own, name: 1})))
        if size > 2 * trial.own[name]:
            outcome = _require(trial, limits.all_within({**trial.own, name: size}))
            if outcome.kind == UNRUN and (multiple := size - size % trial.own[name]) != size:
                _require(trial, limits.all_within({**trial.own, name: multiple}))
