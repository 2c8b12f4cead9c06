"""Finds the loops in traces of several lengths: a program that gives each of them when it is unrolled.

The traces are walked side by side.  Where they differ, a loop has ended there or before.  The search is heuristic:
what it finds is proven right afterwards (`proof`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from .program import (
    Affine,
    Carry,
    Element,
    Leaf,
    Loop,
    Node,
    NoState,
    NotRolled,
    Operator,
    Result,
    Trace,
    all_of,
    by_step,
    deepest,
)
from .unify import OTHER_LIST, Place, as_number, as_one, in_body

_Names = list[dict[Node, Any]]
"""The value in the program of each node of each trace."""
DIFFERENT = "the code does something else at another length"
_MOST_ATTEMPTS = 20_000
_SEVERAL = "a state is several tensors"
_MISALIGNED = {_SEVERAL, DIFFERENT}
"""Reasons that mean nothing where a step is wrongly assumed to begin in the middle of one."""
_NESTED = 12
"""The most loops, one after another, on one path of the search."""


class Search:
    """A search for the loops of traces.

    Args:
        traces: the first at base sizes, then one for each axis in which it is one larger, in order (`ordered`).
        loops: the number of looped axes, which come first.
        seconds: of CPU time after which it gives up.
        loose: see `Node.key`; used only to find the reason of a refusal.
    """

    def __init__(self, traces: Sequence[Trace], loops: int, seconds: float, *, loose: bool = False) -> None:
        self.traces, self.loops = list(traces), loops
        self.sizes = [trace.sizes for trace in traces]
        self.outside: list[Place] = [(None, sizes) for sizes in self.sizes]
        numbers: dict[Any, int] = {}
        self.keys = [
            [numbers.setdefault(node.key(loose=loose), len(numbers)) for node in trace.nodes] for trace in traces
        ]
        self.attempts = 0
        self.end = time.process_time() + seconds
        self.refusals: list[NotRolled] = []

    def run(self) -> tuple[tuple[Operator | Loop, ...], Any]:
        """The items of a program, and its outputs.

        Raises:
            NotRolled: none was found; the reason is from the path that got furthest.
        """
        count = len(self.traces)
        try:
            items, outputs = self._walk([0] * count, [{} for _ in range(count)], [], 0)
        except NotRolled as refusal:
            told = [item for item in [*self.refusals, refusal] if item.reason not in _MISALIGNED]
            # If steps differ, a loop over some of them still begins, and then the list of all steps differs.
            within = [item for item in told if item.reason != OTHER_LIST]
            raise deepest(within or told or [refusal]) from None
        return tuple(items), outputs

    def _refusal(self, reason: str, at: Sequence[int]) -> NotRolled:
        node = self.traces[0].nodes[at[0]] if at[0] < len(self.traces[0].nodes) else None
        return NotRolled(reason, None if node is None else node.line, at[0])

    def _resolve(self, value: Any, names: dict[Node, Any]) -> Any:
        if isinstance(value, Node):
            if value not in names:
                raise NotRolled("a value is used before it is computed")
            return names[value]
        if isinstance(value, tuple):
            return tuple(self._resolve(part, names) for part in value)
        return value

    def _walk(self, at: list[int], names: _Names, items: list[Any], low: int) -> tuple[list[Any], Any]:
        at, names, items = list(at), [dict(own) for own in names], list(items)
        while True:
            try:
                ended = [position == len(trace.nodes) for position, trace in zip(at, self.traces, strict=True)]
                if all(ended):
                    outputs = [self._resolve(trace.outputs, own) for trace, own in zip(self.traces, names, strict=True)]
                    return items, as_one(outputs, self.outside)
                self._require_alike(at, ended)
                items.append(self._operator(at, names, len(items)))
            except NotRolled as refusal:
                problem = self._refusal(refusal.reason, at)
                return self._rolled(at, names, items, low, problem)
            at = [i + 1 for i in at]

    def _require_alike(self, at: Sequence[int], ended: Sequence[bool]) -> None:
        if any(ended) or len({keys[i] for keys, i in zip(self.keys, at, strict=True)}) > 1:
            raise NotRolled(DIFFERENT)

    def _operator(self, at: Sequence[int], names: _Names, index: int) -> Operator:
        nodes = [trace.nodes[i] for trace, i in zip(self.traces, at, strict=True)]
        seen = [self._resolve((node.args, node.kwargs), own) for node, own in zip(nodes, names, strict=True)]
        args, kwargs = as_one(seen, self.outside)
        for node, own in zip(nodes, names, strict=True):
            own[node] = Result(index)
        first = nodes[0]
        return Operator(first.target, args, kwargs, index, first.shape, first.dtype, first.line, first.module)

    def _rolled(
        self, at: list[int], names: _Names, items: list[Any], low: int, problem: NotRolled
    ) -> tuple[list[Any], Any]:
        """A loop ended at or before `at`: try all loops that it may be."""
        self.refusals.append(problem)
        if sum(isinstance(item, Loop) for item in items) > _NESTED:
            raise problem
        for axis in self._axes(at):
            for start, period, count in self._candidates(at, axis, low):
                self.attempts += 1
                if self.attempts > _MOST_ATTEMPTS or time.process_time() > self.end:
                    raise NotRolled("there are too many ways in which it may be a loop", problem.line, problem.depth)
                back = at[0] - start
                begin = [i - back for i in at]
                kept = items[: len(items) - back]
                own = [_without(given, len(kept)) for given in names]
                more = sum(self.sizes[axis]) - sum(self.sizes[0])
                counts = [count + (more if i == axis else 0) for i in range(len(self.traces))]
                try:
                    loop = self._loop(begin, own, period, counts, len(kept))
                except NotRolled as refusal:
                    self.refusals.append(self._blamed(refusal, begin))
                    continue
                after = [first + period * times for first, times in zip(begin, counts, strict=True)]
                try:
                    return self._walk(after, own, [*kept, loop], after[0])
                except NotRolled:
                    continue
        raise problem

    def _axes(self, at: Sequence[int]) -> list[int]:
        """The traces that are longer along an axis, by index; those that differ here come first."""

        def key(trace: int) -> int | None:
            return self.keys[trace][at[trace]] if at[trace] < len(self.keys[trace]) else None

        return sorted(range(1, self.loops + 1), key=lambda trace: key(trace) == key(0))

    def _blamed(self, refusal: NotRolled, begin: Sequence[int]) -> NotRolled:
        line = refusal.line or self.traces[0].nodes[begin[0]].line
        return NotRolled(refusal.reason, line, begin[0] + 1)

    def _candidates(self, at: Sequence[int], axis: int, low: int) -> Iterator[tuple[int, int, int]]:
        """Start, period and number of steps of possible loops, the likeliest first."""
        a, b = self.keys[0], self.keys[axis]
        i, j = at[0], at[axis]
        more = sum(self.sizes[axis]) - sum(self.sizes[0])
        longest = (len(b) - j) - (len(a) - i)
        found: list[tuple[int, int, int, int]] = []
        for period in range(1, longest // more + 1):
            for before in range(i - low + 1):
                e, f = i - before, j - before
                if e - 2 * period < low:
                    break
                if a[e - 2 * period : e - period] != a[e - period : e] or len(b) < f + period * more:
                    continue
                if any(b[f + x] != b[f + x - period] for x in range(period * more)):
                    continue
                rest = f + period * more
                if before and e < len(a) and rest < len(b) and a[e] != b[rest]:
                    continue
                steps = 1
                while (
                    e - (steps + 1) * period >= low
                    and a[e - (steps + 1) * period : e - steps * period] == a[e - period : e]
                ):
                    steps += 1
                found += [(count, period, before, e - count * period) for count in range(steps, 1, -1)]
        own = self.sizes[0][axis - 1]
        found.sort(key=lambda entry: (abs(entry[0] - own), entry[1], entry[2]))
        for count, period, _, start in found:
            yield start, period, count

    def _loop(self, begin: Sequence[int], names: _Names, period: int, counts: Sequence[int], index: int) -> Loop:
        """A loop whose steps begin at these places.

        Raises:
            NotRolled: its steps differ.
        """
        order = [(t, step) for t, count in enumerate(counts) for step in range(count)]

        def node(t: int, step: int, position: int) -> Node:
            return self.traces[t].nodes[begin[t] + step * period + position]

        for t, step in order:
            for position in range(period):
                names[t][node(t, step, position)] = Element(index, position, step)
        places: list[Place] = [(step, self.sizes[t]) for t, step in order]
        body: list[Operator] = []
        for position in range(period):
            nodes = [node(t, step, position) for t, step in order]
            first = nodes[0]
            try:
                shape = _shape_of_all(nodes, places)
                seen = [
                    self._resolve((item.args, item.kwargs), names[t]) for item, (t, _) in zip(nodes, order, strict=True)
                ]
                args, kwargs = in_body(seen, places, index)
            except NotRolled as refusal:
                raise NotRolled(refusal.reason, first.line) from None
            body.append(Operator(first.target, args, kwargs, position, shape, first.dtype, first.line, first.module))
        for t, own in enumerate(names):
            made = {name: item for item, name in own.items()}
            for item in body:
                for carry in all_of(Carry, item.arguments):
                    self._require_same_form(carry, node(t, 0, carry.position), made, t)
        return Loop(index, as_number(counts, self.outside), tuple(body))

    def _require_same_form(self, carry: Carry, node: Node, made: dict[Any, Node], t: int) -> None:
        """Require the initial states of a carried value to have its shape and dtype."""
        if node.dtype == "several":
            raise NotRolled(_SEVERAL, node.line)
        for value in carry.initial:
            if isinstance(value, NoState):
                continue
            shape, dtype = self._form(value, made, t)
            if shape != node.shape or dtype != node.dtype:
                raise NotRolled(
                    "the state before the first step has a different shape or dtype than after it", node.line
                )

    def _form(self, value: Any, made: dict[Any, Node], t: int) -> tuple[Any, Any]:
        if isinstance(value, Leaf):
            if value.input is not None:
                return self.traces[t].inputs[value.input]
            tensor = self.traces[t].leaves[value.name]
            return tuple(tensor.shape), tensor.dtype
        if isinstance(value, Element) and isinstance(value.step, Affine):
            value = Element(value.loop, value.position, value.step.at(self.sizes[t]))
        if value in made:
            return made[value].shape, made[value].dtype
        raise NotRolled("a state is not a tensor before the first step")


def _shape_of_all(nodes: Sequence[Node], places: Sequence[Place]) -> Any:
    shape = as_one([item.shape for item in nodes], places)
    if by_step(shape):
        raise NotRolled("the size of a tensor grows from step to step")
    return shape


def _without(names: dict[Node, Any], kept: int) -> dict[Node, Any]:
    """`names` without those of operators from `kept` on."""
    return {node: name for node, name in names.items() if not (isinstance(name, Result) and name.index >= kept)}
