"""Loops that another tool has unrolled: the same nodes again for each step, in a chain of states.

The matrix of the states is found first: each of its products depends on the one before.  Where each step's nodes are
those of the step before with other values, one step tells what the whole chain computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ..onnxgraph import bodies_of
from ..onnxgraph.nodes import Walk
from .graph import Graph
from .plain import first_equal, form
from .steps import Step

_LEAST_STEPS = 3
_MOST_NODES = 200
"""Of a step; a larger one is not a recurrent cell."""


@dataclass(frozen=True)
class Chain:
    """The steps of an unrolled loop.

    Attributes:
        step: one of them; its `initial` are those of the chain.
        xs: the sequence's value of each step.
        hs: the states h before each step, and the last one.
        final: the last states, h first.
    """

    step: Step
    xs: tuple[str, ...]
    hs: tuple[str, ...]
    final: tuple[str, ...]


class _Values:
    """Who makes and who reads each value of a graph, and on what it depends."""

    def __init__(self, graph: Graph, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.nodes = graph.nodes
        # What is stored or the same at all sizes depends on nothing.
        self.place = {
            name: index for index, node in enumerate(graph.nodes) for name in node.output if name and name not in arrays
        }
        self.same = first_equal(arrays)
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(index)
        self.forms: dict[tuple[object, ...], NodeProto] = {}
        for node in graph.nodes:
            self.forms.setdefault(form(node, self.same), node)

    def depends(self, name: str, on: str) -> bool:
        """Whether a value is computed from another one."""
        first, walk = self.place.get(on, -1), Walk([name])
        for value in walk:
            if value == on:
                return True
            place = self.place.get(value, -1)
            if place > first:
                walk.add(self.nodes[place].input)
        return False

    def between(self, end: str, start: str) -> list[int] | None:
        """The nodes that a value is computed by from another one; None where they are too many."""
        found: set[int] = set()
        walk = Walk([end])
        for value in walk:
            place = self.place.get(value)
            if value == start or place is None or place in found or not self.depends(value, start):
                continue
            found.add(place)
            if len(found) > _MOST_NODES or any(bodies_of(self.nodes[place])):
                return None
            walk.add(self.nodes[place].input)
        return sorted(found)

    def made_of(self, ends: set[str], start: str) -> list[int]:
        """The nodes that compute values from another one and from stored values."""
        return sorted({index for end in ends for index in self.between(end, start) or []})


def chains(graph: Graph, arrays: Mapping[str, np.ndarray]) -> Iterator[Chain]:
    """The unrolled loops of a graph.

    Args:
        graph: it is not changed.
        arrays: its stored values.
    """
    values = _Values(graph, arrays)
    for name, array in arrays.items():
        readers = [node for node in graph.nodes if _is_product(node, name)]
        if array.ndim == 2 and array.dtype == np.float32 and len(readers) >= _LEAST_STEPS:
            hs = [str(node.input[0]) for node in readers]
            if all(values.depends(later, earlier) for earlier, later in itertools.pairwise(hs)):
                found = _chain(values, hs)
                if found is not None:
                    yield found


def _is_product(node: NodeProto, matrix: str) -> bool:
    return node.op_type in ("MatMul", "Gemm") and len(node.input) > 1 and node.input[1] == matrix


def _chain(values: _Values, hs: list[str]) -> Chain | None:
    """The chain whose states h are these before each step."""
    entries = [_entries(values, hs, number) for number in range(len(hs) - 1)]
    if any(item is None for item in entries):
        return None
    known = [item for item in entries if item is not None]
    xs = [item.x for item in known]
    matrix = known[1].matrix
    left = [str(node.input[0]) for node in values.nodes if _is_product(node, matrix) and str(node.input[0]) not in xs]
    if len(set(xs)) < len(xs) or len(left) != 1 or any(values.depends(x, hs[1]) for x in (*xs, *left)):
        return None
    xs += left
    cells = [item.cell for item in known]
    if cells[1] is None:
        return _followed(values, hs, xs, known[1].nodes, None)
    cells[0] = cells[0] or hs[0]
    return _followed(values, hs, xs, known[1].nodes, [str(cell) for cell in cells])


@dataclass(frozen=True)
class _Entries:
    """What a step takes: its part of the sequence, by the matrix that multiplies it, and its state beside h."""

    x: str
    matrix: str
    cell: str | None
    nodes: list[int]


def _entries(values: _Values, hs: list[str], number: int) -> _Entries | None:
    """What the step from one state h to the next one takes."""
    inner = values.between(hs[number + 1], hs[number])
    if not inner:
        return None
    made = {name for index in inner for name in values.nodes[index].output}
    outside = {str(name) for index in inner for name in values.nodes[index].input if name}
    outside -= made | {hs[number]} | values.arrays.keys()
    cells: set[str] = set()
    parts: set[str] = set()
    for name in outside:
        later = number > 0 and values.depends(name, hs[number - 1])
        (cells if later else parts).add(name)
    products = {(str(node.input[0]), str(node.input[1])) for name in parts for node in _products_of(values, name)}
    without = {name for name in parts if not _products_of(values, name)}
    if len(products) != 1 or len(cells | without) > 1 or (number > 0 and without):
        return None
    x, matrix = next(iter(products))
    nodes = sorted({*inner, *values.made_of(parts - without, x)})
    return _Entries(x, matrix, next(iter(cells | without), None), nodes)


def _products_of(values: _Values, name: str) -> list[NodeProto]:
    """The products with a stored matrix from which a value follows, the last ones on each way."""
    found: list[NodeProto] = []
    walk = Walk([name])
    for value in walk:
        if value not in values.place:
            continue
        node = values.nodes[values.place[value]]
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in values.arrays:
            found.append(node)
        elif len(walk.seen) < _MOST_NODES:
            walk.add(node.input)
    return found


def _followed(values: _Values, hs: list[str], xs: list[str], nodes: list[int], cells: list[str] | None) -> Chain | None:
    """The chain, if each step's nodes are those of the second one with other values."""
    body = [values.nodes[index] for index in nodes]
    after_cell: str | None = None
    last: dict[str, str] = {}
    for number in range(1, len(hs)):
        mapped = {**values.same, hs[1]: hs[number], xs[1]: xs[number]}
        if cells is not None:
            mapped[cells[1]] = cells[number] if number < len(cells) else last.get(str(after_cell), "")
        for node in body:
            other = values.forms.get(form(node, mapped))
            if other is None:
                return None
            mapped.update(zip(node.output, other.output, strict=True))
        if number + 1 < len(hs) and mapped[hs[2]] != hs[number + 1]:
            return None
        if cells is not None and number == 1:
            after_cell = cells[2] if len(cells) > 2 else None
            if after_cell is None or after_cell not in mapped:
                return None
        last = mapped
    end = (last[hs[2]],) if cells is None else (last[hs[2]], last[str(after_cell)])
    states = (hs[1],) if cells is None else (hs[1], cells[1])
    after = (hs[2],) if cells is None else (hs[2], str(after_cell))
    initial = (hs[0],) if cells is None else (hs[0], cells[0])
    step = Step(body[-1], body, values.arrays, xs[1], "", states, initial, after, end)
    return Chain(step, tuple(xs), (*hs, end[0]), end)
