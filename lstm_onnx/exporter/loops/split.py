"""Splits a loop over several recurrences that feed each other only within a step into one loop for each."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..aten import aten
from ..opaque.recurrent_module import RecurrentModule
from .canonical import RECURRENT
from .cells import RecurrentCall, call_of, is_read, is_result
from .program import Affine, Carry, Element, Here, Loop, Operator, Program, all_of

_Moved = dict[int, tuple[int, int]]
"""The new place of each position of a body: a loop and a position in it."""


def split(program: Program, modules: Mapping[str, RecurrentModule]) -> tuple[Program, dict[int, RecurrentCall]]:
    """The program with its loops split wherever that gives recurrent calls, and those calls by loop."""
    fresh = 1 + max((item.index for item in program.items), default=0)
    items: list[Operator | Loop] = []
    moves: dict[int, _Moved] = {}
    for item in program.items:
        if not isinstance(item, Loop):
            items.append(item)
            continue
        loops, moved = _best(item, fresh, modules)
        fresh += 2 * len(item.body) + 2
        items += loops
        if moved:
            moves[item.index] = moved
    changed = replace(program, items=tuple(items)).moved(moves)
    return changed, {loop.index: call for loop in changed.loops if (call := call_of(loop, modules)) is not None}


def _best(loop: Loop, first: int, modules: Mapping[str, RecurrentModule]) -> tuple[list[Loop], _Moved]:
    """The split of a loop that gives most recurrent calls; the loop itself where no split gives any."""
    best: tuple[list[Loop], _Moved] = ([loop], {})
    most = 0
    for before in (False, True):
        loops, moved = _apart(loop, first, before=before)
        calls = sum(call_of(part, modules) is not None for part in loops)
        if calls > most:
            best, most = (loops, moved), calls
    return best


def _apart(loop: Loop, first: int, *, before: bool) -> tuple[list[Loop], _Moved]:
    """A loop for each recurrence, in order, and loops between them for what is part of no recurrence.

    What a recurrence reads is in its loop or, with `before`, in a separate loop before it; what no recurrence reads
    comes last.
    """
    after = _readers(loop)
    reach = [set(own) for own in after]
    for middle in range(len(reach)):
        for own in reach:
            if middle in own:
                own |= reach[middle]
    size = range(len(loop.body))
    group = [min([i, *(j for j in reach[i] if i in reach[j])]) for i in size]
    cores = sorted({g for i, g in enumerate(group) if i in reach[i]}, key=lambda g: sum(g in reach[o] for o in size))
    order = {core: 2 * number + 1 for number, core in enumerate(cores)}
    last = 2 * len(cores)
    place: dict[int, int] = {}
    for i in reversed(size):
        place[i] = order[group[i]] if group[i] in order else min((place[j] for j in after[i]), default=last)
        if before and group[i] not in order and not _brings(loop, i, after):
            place[i] -= place[i] % 2
    carried = {carry.position for carry in loop.carries}
    # The results of an operator stay with it.  So do those of a call whose axis of length 1 was removed, unless a later
    # step reads them: then they stay with their readers.
    for i in size:
        source = loop.body[i].args[0] if loop.body[i].args else None
        if not isinstance(source, Here) or place[i] <= place[source.position]:
            continue
        of_several = loop.body[i].target is operator.getitem
        if of_several or (is_result(loop, loop.body[i]) and place[source.position] % 2 and i not in carried):
            place[i] = place[source.position]
    if any(place[carry.position] != place[item.index] for item in loop.body for carry in all_of(Carry, item.arguments)):
        return [loop], {}  # a result is read by later steps of another part
    moved: _Moved = {}
    for number in range(last + 1):
        for at, i in enumerate([i for i in size if place[i] == number]):
            moved[i] = (first + number, at)
    return _loops(loop, moved), moved


def _brings(loop: Loop, position: int, after: list[set[int]]) -> bool:
    """Whether a position only picks a step's entry, or only adds the axis of length 1 that a call needs."""
    item = loop.body[position]
    adds = item.target is aten.unsqueeze.default and any(loop.body[j].target is RECURRENT for j in after[position])
    if adds:
        return True
    return is_read(item) and all(_brings(loop, j, after) or loop.body[j].target is RECURRENT for j in after[position])


def _readers(loop: Loop) -> list[set[int]]:
    """The positions that read each position; a reader of an earlier step's value counts as read by it, too."""
    after: list[set[int]] = [set() for _ in loop.body]
    for item in loop.body:
        for here in all_of(Here, item.arguments):
            after[here.position].add(item.index)
        for carry in all_of(Carry, item.arguments):
            after[carry.position].add(item.index)
            after[item.index].add(carry.position)
    return after


def _loops(loop: Loop, moved: _Moved) -> list[Loop]:
    sizes = len(loop.count.sizes) if isinstance(loop.count, Affine) else 0
    loops = []
    for index in sorted({index for index, _ in moved.values()}):

        def own(value: Any, index: int = index) -> Any:
            if isinstance(value, Here):
                where, at = moved[value.position]
                return Here(at) if where == index else Element(where, at, Affine(1, (0,) * sizes, 0))
            if isinstance(value, Carry):
                return replace(value, position=moved[value.position][1])
            return None

        members = sorted((at, i) for i, (where, at) in moved.items() if where == index)
        loops.append(Loop(index, loop.count, tuple(loop.body[i].mapped(own, at) for at, i in members)))
    return loops
