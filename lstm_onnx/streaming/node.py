"""A node with what is known about its inputs, as both following time and rewriting for chunks read it.

`Call` is the argument of an operator's function, which `operator` registers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from ..symbolic_dims import names_in
from .fact import Axis, Fact, Names, axis_of
from .size import Size

F = TypeVar("F")


@dataclass(frozen=True)
class Node(Generic[F]):
    """A node of a graph.

    Attributes:
        node: the node.
        attributes: those that are numbers, strings or lists of them.
        facts: what is known about its inputs; None for those that are left out.
    """

    node: NodeProto
    attributes: Mapping[str, Any]
    facts: tuple[F | None, ...]

    @property
    def op(self) -> str:
        """The operator."""
        return str(self.node.op_type)

    def has(self, index: int) -> bool:
        """Whether input `index` is present."""
        return index < len(self.facts) and self.facts[index] is not None

    @property
    def given(self) -> list[F]:
        """The facts of the inputs that are present."""
        return [fact for fact in self.facts if fact is not None]

    def numbers(self, index: int) -> tuple[Size, ...] | None:
        """The integers in input `index`, which may depend on sizes of axes; None where they are not known."""
        return getattr(self.facts[index], "numbers", None) if index < len(self.facts) else None

    def integers(self, index: int, attribute: str = "", *, default: Iterable[int] | None = None) -> list[int] | None:
        """The constant integers in input `index` or, in older operator sets, in an attribute; otherwise None.

        `default` is returned where the input is left out.
        """
        stored = self.attributes.get(attribute)
        if stored:
            return [stored] if isinstance(stored, int) else list(stored)
        if default is not None and not self.has(index):
            return list(default)
        numbers = self.numbers(index)
        values = [size.number for size in numbers or () if size.number is not None]
        return None if numbers is None or len(values) < len(numbers) else values

    def operands(self) -> list[tuple[Size, ...]] | None:
        """The operands of an elementwise operator on known integers, for each element of its result; otherwise None."""
        given = [self.numbers(place) for place in range(len(self.facts))]
        known = [values for values in given if values is not None]
        count = max(map(len, known), default=0)
        if len(known) < max(len(given), 1) or any(len(values) not in (1, count) for values in known):
            return None
        return list(zip(*(values * count if len(values) == 1 else values for values in known), strict=True))

    def gathered(self) -> tuple[Size, ...] | None:
        """The result of a Gather from known integers; None where the data or the indices are not known."""
        numbers, places = self.numbers(0), self.integers(1)
        if numbers is None or places is None or any(not -len(numbers) <= place < len(numbers) for place in places):
            return None
        return tuple(numbers[place] for place in places)

    def sliced(self) -> tuple[Size, ...] | None:
        """The result of a Slice of known integers; None where the data or the bounds are not known."""
        numbers, starts, ends = self.numbers(0), self.integers(1, "starts"), self.integers(2, "ends")
        steps = self.integers(4, default=[1])
        if numbers is None or not (starts and ends and steps and steps[0]):
            return None
        return numbers[slice(starts[0], ends[0], steps[0])]

    def concatenated(self) -> tuple[Size, ...] | None:
        """The result of a Concat of known integers; None where an input is anything else."""
        parts = [self.numbers(place) for place in range(len(self.facts))]
        known = [part for part in parts if part is not None]
        return tuple(size for part in known for size in part) if parts and len(known) == len(parts) else None


_SMALL = 64
"""Integer constants of at most this many elements (shapes, axes, counts) are known by value."""


@dataclass(frozen=True)
class Meeting:
    """Where and how steps of a dynamic axis are combined; `by_hand` if a state input takes part in it."""

    node: str
    op_type: str
    how: str
    by_hand: bool = False

    def __str__(self) -> str:
        """As in ``conv/Conv (Conv) computes one step from several``."""
        at = f"{self.node} ({self.op_type})" if self.node and self.node != self.op_type else self.op_type
        return f"{at} {self.how}"


class Findings:
    """What is found while time is followed through a graph; the operators' functions add to it.

    Attributes:
        facts: of the values, by name.
        meetings: where steps of a dynamic axis are combined, by the axis's name.
        recurrent: the dynamic axes along which recurrent nodes run, and whether one of these starts from state inputs.
        backwards: the first recurrent node that goes backwards along each dynamic axis, by the axis's name.
        per_call: a recurrent node whose states advance by one step at each call, however many steps the call has.
        from_the_end: a recurrent node with carried states that runs backwards through a fixed number of steps.
        by_hand: the first node that uses a state other than as a recurrent node's initial state.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Fact] = {}
        self.meetings: dict[str, Meeting] = {}
        self.recurrent: dict[str, bool] = {}
        self.backwards: dict[str, Meeting] = {}
        self.per_call: Meeting | None = None
        self.from_the_end: Meeting | None = None
        self.by_hand: Meeting | None = None
        self._same: dict[str, str] = {}

    def same(self, one: str, other: str) -> None:
        """Record that two dynamic axes must have the same size."""
        a, b = self.first_name(one), self.first_name(other)
        if a != b:
            self._same[max(a, b)] = min(a, b)

    def first_name(self, name: str) -> str:
        """The common name of all dynamic axes that must have the same size."""
        while name in self._same:
            name = self._same[name]
        return name

    def first_names(self, names: Collection[str]) -> Names:
        """`names`, each replaced by the common name of its axis."""
        return frozenset(map(self.first_name, names))

    def meet(self, node: Node[Fact], names: Collection[str], how: str) -> None:
        """Record that a node combines steps of these dynamic axes; the first node of each axis is kept."""
        by_hand = any(fact.states for fact in node.given)
        found = Meeting(str(node.node.name), node.op, how, by_hand)
        if by_hand and names:
            self.by_hand = self.by_hand or found
            return
        for name in names:
            self.meetings.setdefault(name, found)

    def handled(self, node: Node[Fact]) -> None:
        """Record that a node processes a state input."""
        self.by_hand = self.by_hand or Meeting(
            str(node.node.name), node.op, "uses a state other than as a recurrent node's initial state", by_hand=True
        )

    @staticmethod
    def axes(name: str, shape: Any) -> tuple[Axis, ...] | None:
        """The axes of a value of this shape; an axis without a name gets a unique one."""
        if shape is None:
            return None
        sizes = [Size.of(f"{name}.{axis}") if dim is None else _size(dim) for axis, dim in enumerate(shape)]
        return tuple(map(axis_of, sizes))


@dataclass(frozen=True)
class Call(Node[Fact]):
    """A node, as passed to its operator's function."""

    opset: int
    findings: Findings

    def fact(self, index: int) -> Fact:
        """The `Fact` of input `index`; a constant of unknown shape if it is left out."""
        found = self.facts[index] if index < len(self.facts) else None
        return found or Fact()

    def meet(self, names: Collection[str], how: str) -> None:
        """Record that this node combines steps of these dynamic axes."""
        self.findings.meet(self, names, how)


Operator = Callable[[Call], Sequence[Fact]]
OPERATORS: dict[str, Operator] = {}


def operator(*op_types: str) -> Callable[[Operator], Operator]:
    """Decorator: register the function for these operators."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


def stored(tensor: TensorProto) -> Fact:
    """The `Fact` of a stored tensor: its sizes, and its values if they are a few integers."""
    axes = tuple(axis_of(Size.of(int(dim))) for dim in tensor.dims)
    whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    numbers: tuple[Size, ...] | None = None
    count = int(np.prod(list(tensor.dims), dtype=np.int64))
    if whole and len(tensor.dims) <= 1 and 0 <= count <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
        numbers = tuple(Size.of(int(value)) for value in numpy_helper.to_array(tensor).reshape(-1))
    return Fact(axes, numbers=numbers)


def _size(dim: int | str) -> Size:
    """A size as written in a file; ``2*time`` is not an axis, but depends on time."""
    if isinstance(dim, str) and not dim.isidentifier() and names_in(dim):
        return Size.computed(dim, *map(Size.of, sorted(names_in(dim))))
    return Size.of(dim)
