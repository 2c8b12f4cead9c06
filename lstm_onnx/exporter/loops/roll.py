"""Rolls up a module's Python loops over dynamic axes: from traces at a few lengths to a program that is proven."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import ExportError
from ..functional.functional_module import FunctionalModule
from ..opaque.recurrent_module import RecurrentModule
from .detect import busiest_line, nested_loops, shortened_axis
from .emit import RolledModule
from .handwritten import with_recurrent_operators
from .order import Alike, Picks, ordered
from .program import Affine, Leaf, Loop, NotRolled, Program, Sizes, Trace, deepest, refused
from .proof import is_proven, unrolled
from .search import DIFFERENT, Search
from .split import split
from .trace import places_of, sizes_to_trace, trace_at

_TRACING_SECONDS, _SEARCHING_SECONDS = 60.0, 14.0
"""Seconds of CPU time for all traces, and for all searches.  Traces are few, so even a long step on a slow machine
succeeds; a search may be hopeless, and nobody should wait long for its refusal."""
_MOST_AXES = 3
_NO_LOOP = "there is no loop over the axis"
_MANY = 60
"""With this many more entries, the line of a loop is called more often than any other."""
_FLAT = "the inner loop must be one call, such as one of nn.LSTM, with the outer axis as part of the batch"


@dataclass(frozen=True)
class RolledUp:
    """A module whose loops were rolled up.

    Attributes:
        program: the proven program: every trace is an unrolled form of it.
        module: the module to trace: the program with its loops split.
        recurrent_modules: by path, including those for hand-written cells.
        checks: the user's lines with checks of numbers that are not in the program.
    """

    program: Program
    module: RolledModule
    recurrent_modules: Mapping[str, RecurrentModule]
    checks: tuple[str, ...]


def rolled_up(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> RolledUp | None:
    """A module with its Python loops rolled up; None where nothing repeats along one of the axes.

    Args:
        functional: the module.
        loops: the axes over which it may loop.
        sizes: a size for each dynamic axis, 2 or more.

    Raises:
        ExportError: no proof was found of what a loop computes, or the module cannot be traced even at fixed lengths;
            the message has the line and the reason.
    """
    try:
        if len(loops) > 1 and (problem := _nested(functional, loops, sizes)) is not None:
            raise problem
        rolled = None
        if len(loops) <= _MOST_AXES:
            rolled = _rolled(functional, loops, sizes, time.process_time() + _TRACING_SECONDS)
    except NotRolled as refusal:
        if refusal.reason != _NO_LOOP:
            refusal = _nested(functional, loops, sizes) or _shortened(functional, loops, sizes) or refusal
            raise refused(refusal) from None
    if rolled is None and (problem := _shortened(functional, loops, sizes)) is not None:
        raise refused(problem)
    return rolled


def _rolled(
    functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int], end: float
) -> RolledUp | None:
    others = {name: size for name, size in sizes.items() if name not in loops}
    axes = (*loops, *others)
    places = places_of(functional, axes)
    lengths, checks = sizes_to_trace(functional, loops, others)

    def trace(own: Sizes) -> Trace:
        if time.process_time() > end:
            raise NotRolled("tracing the loop takes too long; use fewer operations in each step, or export one step")
        # Messages have the lines of the first trace.
        return trace_at(functional, dict(zip(axes, own, strict=True)), axes, lines=own == lengths[0])

    traces = [trace(lengths[0])]
    for number, own in enumerate(lengths[1:]):
        traces.append(trace(own))
        if number < len(loops) and len(traces[-1].nodes) == len(traces[0].nodes):
            return None  # nothing is repeated along this axis
    program = _found(traces, axes, len(loops), places)
    traces += [_first_that_runs(_of_several_steps(program, candidates), trace) for candidates in checks]
    for item in traces:
        if not is_proven(program, item):
            at = ", ".join(f"{name} {size}" for name, size in zip(axes, item.sizes, strict=True))
            raise NotRolled(f"at {at} the code does something else than at other lengths", _first_line(program))
    used = {leaf.name for leaf in program.all_of(Leaf)}
    program = replace(program, leaves={name: tensor for name, tensor in program.leaves.items() if name in used})
    simple, modules = with_recurrent_operators(program, functional.recurrent_modules)
    apart, calls = split(simple, modules)
    for size in (3, 6):
        at_sizes = tuple(size + i for i in range(len(axes)))
        if unrolled(apart, at_sizes) != unrolled(simple, at_sizes):
            raise NotRolled("its loops cannot be taken apart", _first_line(program))
    least = tuple(functional.arguments.limits.get(name, (1, None))[0] for name in axes)
    module = RolledModule(apart, functional.stateful.inner, calls, least)
    return RolledUp(program, module.eval(), modules, traces[0].checks)


def _of_several_steps(program: Program, candidates: Sequence[Sizes]) -> Sequence[Sizes]:
    """The sizes at which each loop has several steps: what a single step picks looks like the whole axis in a trace."""
    counts = [loop.count for loop in program.loops if isinstance(loop.count, Affine)]
    return [own for own in candidates if all(count.at(own) > 1 for count in counts)] or candidates


def _first_that_runs(candidates: Sequence[Sizes], trace: object) -> Trace:
    problem: Exception | None = None
    for own in candidates:
        try:
            return trace(own)  # type: ignore[operator,no-any-return]
        except ExportError as error:
            problem = error
    raise NotRolled(f"the module runs at too few lengths: {problem}")


def _found(traces: Sequence[Trace], axes: tuple[str, ...], loops: int, places: tuple[tuple[int, int], ...]) -> Program:
    """The program that a search finds; preferably one whose loops have at least one step at every length."""
    found: list[tuple[int, bool, Program]] = []
    refusals: list[NotRolled] = []
    end = time.process_time() + _SEARCHING_SECONDS
    ways = [(*way, Picks.EACH) for way in itertools.product((False, True), Alike)]
    others = itertools.product((False, True), (Alike.COUNTED,), (Picks.APART, Picks.ONCE))
    for unused, alike, picks in (*ways, *others):
        left = max(1.0, end - time.process_time())
        own = [ordered(trace, loops, unused=unused, alike=alike, picks=picks) for trace in traces]
        search = Search(own, loops, left / 3)
        try:
            items, outputs = search.run()
        except NotRolled as refusal:
            refusals.append(refusal)
            continue
        program = _without_unread(Program(items, outputs, traces[0].structure, traces[0].leaves, axes, places))
        if not program.loops:
            refusals.append(NotRolled(_NO_LOOP))
            continue
        missing = sum(min(0, getattr(loop.count, "const", 0)) for loop in program.loops)
        found.append((missing, not unused, program))
        if not missing:
            break
    if not found:
        told = [refusal for refusal in refusals if refusal.reason != DIFFERENT]
        raise deepest(told) if told else _explained(traces, loops, deepest(refusals))
    return max(found, key=lambda entry: entry[:2])[2]


def _without_unread(program: Program) -> Program:
    """The program without loops that nothing reads, such as those for unused results of a cell."""
    read = {loop for loop, _ in program.reads()}
    return replace(program, items=tuple(i for i in program.items if not isinstance(i, Loop) or i.index in read))


def _explained(traces: Sequence[Trace], loops: int, refusal: NotRolled) -> NotRolled:
    """The refusal or, where it says only that lengths differ, that of a search that compares less strictly."""
    for alike in Alike:
        own = [ordered(trace, loops, unused=False, alike=alike, picks=Picks.EACH) for trace in traces]
        try:
            Search(own, loops, 1.0, loose=True).run()
        except NotRolled as other:
            if other.reason != DIFFERENT:
                return other
    return refusal


def _first_line(program: Program) -> str | None:
    return next((loop.line for loop in program.loops if loop.line), None)


def _nested(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> NotRolled | None:
    """The refusal of a module whose loops are nested."""
    nested = nested_loops(functional, loops, sizes)
    if nested is None:
        return None
    one, other = nested
    what = f"{one} within a loop over {one}" if one == other else f"{one} and {other} within one another"
    return NotRolled(f"it loops over {what}; {_FLAT}", busiest_line(functional, sizes))


def _shortened(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> NotRolled | None:
    """The refusal of a module with a loop over an axis that was made shorter before."""
    name = shortened_axis(functional, loops, sizes)
    if name is None:
        return None
    what = f"it makes a step for several entries of {name}; export what is before the loop as one module, and the loop"
    longer = {**sizes, name: functional.arguments.within(name, sizes[name] + _MANY)}
    what = f"{what} as another, whose input has one entry for each step; or, if it is an if that leaves steps out"
    how = "compute all and choose, as in torch.where(torch.arange(x.shape[1])[t] % 3 == 0, new, old)"
    return NotRolled(f"{what}, {how}", busiest_line(functional, longer))
