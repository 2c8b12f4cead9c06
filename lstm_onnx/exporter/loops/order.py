"""A trace in the order in which loops can be seen: first what depends on no step, then the steps.

Only what depends on no step is merged where it is equal; each use of what a step picks gets a pick of its own, just
before it is needed.  So the same operators follow each other in all steps.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...onnxgraph.nodes import Walk
from ..aten import aten
from .program import PICKS, Leaf, Node, Sizes, Trace, found

MANY = 5
"""So many picks along one axis are taken for those of steps; the shortest trace has more steps, a cell fewer gates."""


def inputs_of(node: Node) -> Iterator[Node]:
    """The nodes that an operator's arguments are."""
    return found(Node, (node.args, node.kwargs))


class Alike(enum.Enum):
    """Which of the operators that depend on no step, and are like a step's, are taken for those of the first step.

    The first step's ``linear(h0)`` is one, and the axis that an initial state gets is none.
    """

    COUNTED = enum.auto()
    """Those with which there are as many as steps."""
    ALL = enum.auto()
    NONE = enum.auto()


def ordered(trace: Trace, loops: int, *, unused: bool, alike: Alike) -> Trace:
    """The trace without what its outputs do not need.

    Args:
        trace: in the order in which it ran.
        loops: the number of looped axes, whose sizes come first.
        unused: also keep what is like something that is needed: the last step computes for a next one that never comes.
        alike: what is taken for part of the first step.
    """
    nodes = _live(trace, unused=unused)
    numbers = _numbered(nodes)
    static = _static(nodes)
    picks: dict[Any, set[Node]] = {}
    for node in nodes:
        if node.target in PICKS and node not in static:
            picks.setdefault((_name(node.args[0], numbers), node.args[1]), set()).add(node)
    seeds = {node for group in picks.values() if len({numbers[node] for node in group}) >= MANY for node in group}
    return _rebuilt(trace, nodes, numbers, seeds, _in_steps(trace.sizes[:loops], nodes, seeds, alike))


def _live(trace: Trace, *, unused: bool) -> list[Node]:
    walk = Walk(found(Node, trace.outputs))
    for node in walk:
        walk.add(inputs_of(node))
    live = walk.seen
    if unused:
        keys = {node.key() for node in live}
        live |= {node for node in trace.nodes if node.key() in keys}
        for node in reversed(trace.nodes):
            if node in live:
                live.update(inputs_of(node))
    # All results of an operator with several, used or not.
    live |= {node for node in trace.nodes if _is_part(node) and node.args[0] in live}
    return [node for node in trace.nodes if node in live]


def _is_part(node: Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem" and isinstance(node.args[0], Node)


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
    """What depends on no input but by its sizes."""
    static: set[Node] = set()
    for node in nodes:
        fed = node.target is not aten.sym_size.int and any(
            leaf.input is not None for leaf in found(Leaf, (node.args, node.kwargs))
        )
        if not fed and all(before in static for before in inputs_of(node)):
            static.add(node)
    return static


def _in_steps(lengths: Sizes, nodes: list[Node], seeds: set[Node], alike: Alike) -> set[Node]:
    """What depends on what a step picks, and what is like it."""
    steps = _after(nodes, seeds)
    if alike is Alike.NONE:
        return steps
    counts = Counter(node.key() for node in nodes if node in steps)
    others: dict[Any, list[Node]] = {}
    for node in nodes:
        if node not in steps and node.key() in counts:
            others.setdefault(node.key(), []).append(node)
    starts = set(seeds)
    for key, first in others.items():
        completed = any(counts[key] % size and (counts[key] + len(first)) % size == 0 for size in lengths)
        if alike is Alike.ALL or completed:
            starts.update(first)
    return _after(nodes, starts)


def _after(nodes: list[Node], first: set[Node]) -> set[Node]:
    """What depends on some nodes, with these."""
    after: set[Node] = set()
    for node in nodes:
        if node in first or any(before in after for before in inputs_of(node)):
            after.add(node)
    return after


def _rebuilt(trace: Trace, nodes: list[Node], numbers: dict[Node, int], seeds: set[Node], steps: set[Node]) -> Trace:
    order: list[Node] = []
    new: dict[Any, Node] = {}

    def remade(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(remade(part) for part in value)
        if not isinstance(value, Node):
            return value
        name = value if value in steps else numbers[value]
        if name in new:
            return new[name]
        made = replace(value, args=remade(value.args), kwargs=remade(value.kwargs))
        order.append(made)
        if value not in seeds:  # of which each use has its own
            new[name] = made
        return made

    for node in nodes:
        if node not in steps:
            remade(node)
    for node in nodes:
        if node in steps and node not in seeds:
            remade(node)
    outputs = remade(trace.outputs)
    return replace(trace, nodes=order, outputs=outputs)
