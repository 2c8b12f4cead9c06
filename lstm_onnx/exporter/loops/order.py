"""Reorders a trace so that loops can be recognised: first what depends on no step, then the steps.

Equal operators are merged only where they depend on no step; whatever uses an entry that a step picks gets a pick of
its own, just before it.  So the same operators follow each other in all steps.
"""

from __future__ import annotations

import enum
import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...onnxgraph.nodes import Walk
from ..aten import aten
from .program import PICKS, Leaf, Node, Sizes, Trace, all_of

MANY = 5
"""With at least this many selects along one axis, they count as steps: even the shortest trace has more, and a cell has
fewer gates."""
NUMBERS = (aten.item.default, aten._local_scalar_dense.default)
"""Operators that read a tensor's number."""


def inputs_of(node: Node) -> Iterator[Node]:
    """The nodes among an operator's arguments."""
    return all_of(Node, (node.args, node.kwargs))


class Alike(enum.Enum):
    """Which of the operators that depend on no step, but look like those of a step, belong to the first step.

    Its ``linear(h0)`` does; the unsqueeze that adds an axis to an initial state does not.
    """

    COUNTED = enum.auto()
    """Those that make the count of such operators a multiple of the number of steps."""
    ALL = enum.auto()
    NONE = enum.auto()


class Picks(enum.Enum):
    """Where an entry of a tensor is picked."""

    EACH = enum.auto()
    """Just before each use, by a pick of its own."""
    ONCE = enum.auto()
    """Before its first use, and later steps take it from there, as in a window that begins with zeros."""
    APART = enum.auto()
    """As `EACH`, but before all steps where it is the state before the first step: ``y = x[:, 0]``.

    The same holds for whatever else makes such a state, such as an axis that a cell's call adds.
    """


def ordered(trace: Trace, loops: int, *, unused: bool, alike: Alike, picks: Picks) -> Trace:
    """The trace without what its outputs do not need.

    Args:
        trace: in the order in which it ran.
        loops: the number of looped axes, whose sizes come first.
        unused: also keep operators that look like needed ones: the last step computes values for a step that does not
            follow.
        alike: what counts as part of the first step.
        picks: where steps pick the entries that they need.
    """
    nodes = _live(trace, unused=unused)
    numbers = _numbered(nodes)
    static = _static(nodes)
    picked: dict[Any, set[Node]] = {}
    for node in nodes:
        if node.target in PICKS and node not in static:
            picked.setdefault((_name(node.args[0], numbers), node.args[1]), set()).add(node)
    seeds = {node for group in picked.values() if len({numbers[node] for node in group}) >= MANY for node in group}
    steps = _in_steps(trace.sizes[:loops], nodes, seeds, alike)
    return _Rebuilding(nodes, numbers, seeds | _by_numbers(nodes, steps), steps, picks).of(trace)


def _by_numbers(nodes: list[Node], steps: set[Node]) -> set[Node]:
    """The numbers that steps read, and slices that end at one, since a Scan's results have one size in all steps."""
    numbers: set[Node] = set()
    found: set[Node] = set()
    for node in nodes:
        before = list(inputs_of(node))
        if node in steps and (node.target in NUMBERS or (before and numbers.issuperset(before))):
            numbers.add(node)
        elif node in steps and node.target is aten.slice.Tensor and not numbers.isdisjoint(before):
            found.add(node)
    return numbers | found


def _live(trace: Trace, *, unused: bool) -> list[Node]:
    walk = Walk(all_of(Node, trace.outputs))
    for node in walk:
        walk.add(inputs_of(node))
    live = walk.seen
    if unused:
        keys = {node.key() for node in live}
        # A select that nothing uses belongs to no step: it is the old row where a tensor is filled, `y[:, t] = h`.
        live |= {node for node in trace.nodes if node.key() in keys and node.target not in PICKS}
        for node in reversed(trace.nodes):
            if node in live:
                live.update(inputs_of(node))
    # All results of an operator with several, used or not.
    live |= {node for node in trace.nodes if node.target is operator.getitem and node.args[0] in live}
    return [node for node in trace.nodes if node in live]


def _numbered(nodes: list[Node]) -> dict[Node, int]:
    """A number for each value; equal ones have the same."""
    numbers: dict[Node, int] = {}
    known: dict[Any, int] = {}
    for node in nodes:
        key = (node.target, _name(node.args, numbers), _name(node.kwargs, numbers))
        numbers[node] = known.setdefault(key, len(known))
    return numbers


def _name(value: Any, numbers: dict[Node, int]) -> Any:
    if isinstance(value, Node):
        return ("node", numbers[value])
    if isinstance(value, tuple):
        return tuple(_name(part, numbers) for part in value)
    return (type(value).__name__, value)


def _static(nodes: list[Node]) -> set[Node]:
    """The nodes that depend on the inputs only by their sizes."""
    static: set[Node] = set()
    for node in nodes:
        fed = node.target is not aten.sym_size.int and any(
            leaf.input is not None for leaf in all_of(Leaf, (node.args, node.kwargs))
        )
        if not fed and all(before in static for before in inputs_of(node)):
            static.add(node)
    return static


def _in_steps(lengths: Sizes, nodes: list[Node], seeds: set[Node], alike: Alike) -> set[Node]:
    """The nodes that depend on what a step picks, and those that look like them."""
    steps = _after(nodes, seeds)
    if alike is Alike.NONE:
        return steps
    counts = Counter(key for node in nodes if node in steps for key in _keys(node))
    others: dict[Any, list[Node]] = {}
    for node in nodes:
        for key in _keys(node):
            if node not in steps and key in counts:
                others.setdefault(key, []).append(node)
    starts = set(seeds)
    for key, first in others.items():
        completed = any(counts[key] % size and (counts[key] + len(first)) % size == 0 for size in lengths)
        if alike is Alike.ALL or completed:
            starts.update(first)
    return _after(nodes, starts)


def _keys(node: Node) -> Iterator[Any]:
    """What a node has in common with similar ones, and with those that also have the same axes and sizes."""
    yield node.key()
    yield node.key(), tuple(all_of(int, node.args)), node.shape


def _after(nodes: list[Node], first: set[Node]) -> set[Node]:
    """Some nodes, and all that depend on them."""
    after: set[Node] = set()
    for node in nodes:
        if node in first or any(before in after for before in inputs_of(node)):
            after.add(node)
    return after


def _first_states(nodes: list[Node]) -> dict[Node, set[Node]]:
    """What operators of the first steps take where those of later steps take another operator's result."""
    groups: dict[Any, list[tuple[Node, Node]]] = {}
    for node in nodes:
        numbers = tuple(all_of(float, node.args))
        for place, value in enumerate(node.args):
            if isinstance(value, Node):
                groups.setdefault((node.key(), numbers, place), []).append((node, value))
    first: dict[Node, set[Node]] = {}
    for group in groups.values():
        usual, count = Counter(value.target for _, value in group).most_common(1)[0]
        lead = next(i for i, (_, value) in enumerate(group) if value.target == usual)
        if 0 < lead < MANY <= count:
            for node, value in group[:lead]:
                first.setdefault(node, set()).add(value)
    return first


class _Rebuilding:
    """Rebuilds a trace's nodes in another order."""

    def __init__(
        self, nodes: list[Node], numbers: dict[Node, int], seeds: set[Node], steps: set[Node], picks: Picks
    ) -> None:
        self.nodes, self.numbers, self.seeds, self.steps = nodes, numbers, seeds, steps
        self.once = picks is Picks.ONCE
        self.apart = _first_states(nodes) if picks is Picks.APART else {}
        self.early: dict[int, Node] = {}
        self.order: list[Node] = []
        self.new: dict[Any, Node] = {}

    def of(self, trace: Trace) -> Trace:
        states = {value for values in self.apart.values() for value in values}
        for state in (node for node in self.nodes if node in states):
            if self.numbers[state] not in self.early:
                self.early[self.numbers[state]] = self.remade(state)
        # What each step computes again from the same values goes before all steps.
        often = Counter(self.numbers[node] for node in self.nodes)
        before = [node for node in self.nodes if node not in self.steps]
        inside = [node for node in self.nodes if node in self.steps and node not in self.seeds]
        for node in (*(node for node in before if often[self.numbers[node]] >= MANY), *before, *inside):
            self.remade(node)
        outputs = self.remade(trace.outputs)
        return replace(trace, nodes=self.order, outputs=outputs)

    def remade(self, value: Any, given: Mapping[Node, Node] | None = None) -> Any:
        """Arguments with new nodes; `given` has those of some old ones."""
        if isinstance(value, tuple):
            return tuple(self.remade(part, given) for part in value)
        if not isinstance(value, Node):
            return value
        if given and value in given:
            return given[value]
        own_pick = value in self.seeds and not self.once
        name = value if value in self.steps and (own_pick or value not in self.seeds) else self.numbers[value]
        if name in self.new:
            return self.new[name]
        own = {state: self.early[self.numbers[state]] for state in self.apart.get(value, ()) if state in self.seeds}
        made = replace(value, args=self.remade(value.args, own), kwargs=self.remade(value.kwargs, own))
        self.order.append(made)
        if not own_pick:
            self.new[name] = made
        return made
