"""The time axis followed through an ONNX graph: do steps meet anywhere but in states?

Every value's axes are followed from the model's inputs on, by the names of their sizes.  An operator that
passes handles each entry of an open axis by itself (an activation, a product with a weight); one that
does not (a convolution, a mean over time, a flip) is noted for that axis, the first of each with its
reason.  Recurrent nodes that start from state inputs tell which open axes are time.  An operator that is
not known is taken for one that does not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..onnxgraph import attributes_of, bodies_of, nodes_of, shape_of
from .fact import NONE, Axis, Fact, Names, axis_of, names_of
from .size import Size

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_SMALL = 64
"""Integers up to which a constant's numbers are kept: shapes, axes, counts."""


@dataclass(frozen=True)
class Meeting:
    """Where steps of an open axis meet, and how; `by_hand` where a state input takes part in it."""

    node: str
    op_type: str
    how: str
    by_hand: bool = False

    def __str__(self) -> str:
        """As in ``conv/Conv (Conv) computes one step from several``."""
        at = f"{self.node} ({self.op_type})" if self.node and self.node != self.op_type else self.op_type
        return f"{at} {self.how}"


@dataclass(frozen=True)
class TimeAxis:
    """What following the time axis gave.

    Attributes:
        names: the open axes that are time; none where a call is a step, whatever its size.
        meeting: where steps of one of them first meet outside of the states; None where none do.
        by_hand: where state inputs go through other operators than recurrent ones, so that the graph
            does not tell whether chunks give what the whole gives; None where none do.
    """

    names: Names
    meeting: Meeting | None = None
    by_hand: Meeting | None = None


@dataclass(frozen=True)
class Call:
    """A node as its operator's function sees it."""

    node: NodeProto
    op_type: str
    attributes: Mapping[str, Any]
    inputs: tuple[Fact | None, ...]
    opset: int
    follower: Follower

    def fact(self, index: int) -> Fact:
        """Input `index`; a constant of unknown shape where it is left out."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return found or Fact()

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    @property
    def given(self) -> list[Fact]:
        """The inputs that are there."""
        return [fact for fact in self.inputs if fact is not None]

    def integers(self, index: int) -> list[int] | None:
        """Input `index` where it is constant integers."""
        found = self.fact(index).numbers if self.has(index) else None
        numbers = [size.number for size in found] if found is not None else [None]
        return None if None in numbers else [number for number in numbers if number is not None]

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value."""
        return self.attributes.get(name, default)

    def meet(self, names: Collection[str], how: str) -> None:
        """Note that steps of these open axes meet here."""
        self.follower.meet(self, names, how)


Operator = Callable[[Call], Sequence[Fact]]
OPERATORS: dict[str, Operator] = {}


def operator(*op_types: str) -> Callable[[Operator], Operator]:
    """Register the function of these operators."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


class Follower:
    """A walk over one graph."""

    def __init__(self, model: ModelProto, states: Mapping[str, str], lengths: Collection[str]) -> None:
        self.opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
        self.shapes = {
            item.name: shape_of(item.type)
            for item in (*model.graph.value_info, *model.graph.output)
            if item.type.tensor_type.HasField("shape")
        }
        self.facts: dict[str, Fact] = {}
        self.meetings: dict[str, Meeting] = {}
        self.recurrent: dict[str, bool] = {}
        """Open axes that recurrent nodes go along, and whether one of these starts from state inputs."""
        self.per_call: Meeting | None = None
        """A recurrent node whose states go on by one step at each call, however many steps the call has."""
        self.by_hand: Meeting | None = None
        self._same: dict[str, str] = {}
        self._graph = model.graph
        self._states = dict(states)
        self._lengths = frozenset(lengths)

    def same(self, one: str, other: str) -> None:
        """Two names of open axes that have to be of one size."""
        a, b = self.first_name(one), self.first_name(other)
        if a != b:
            self._same[max(a, b)] = min(a, b)

    def first_name(self, name: str) -> str:
        """One name for all open axes that have to be of one size."""
        while name in self._same:
            name = self._same[name]
        return name

    def alike(self, names: Collection[str]) -> Names:
        """`names` by their first names."""
        return frozenset(map(self.first_name, names))

    def meet(self, call: Call, names: Collection[str], how: str) -> None:
        """Note that steps of these open axes meet in a node, unless it was noted of an earlier one."""
        by_hand = any(fact.states for fact in call.given)
        found = Meeting(str(call.node.name), call.op_type, how, by_hand)
        if by_hand and names:
            self.by_hand = self.by_hand or found
            return
        for name in names:
            self.meetings.setdefault(name, found)

    def handled(self, call: Call) -> None:
        """Note that a state input goes through this node."""
        self.by_hand = self.by_hand or Meeting(
            str(call.node.name), call.op_type, "uses a state otherwise than as a recurrent node's start", by_hand=True
        )

    def result(self) -> TimeAxis:
        """Walk the graph, and sum up."""
        constants = {tensor.name for tensor in self._graph.initializer}
        for tensor in self._graph.initializer:
            self.facts[tensor.name] = stored(tensor)
        for value in self._graph.input:
            if value.name not in constants:
                self.facts[value.name] = self._input(value.name, shape_of(value.type))
        for node in self._graph.node:
            self._follow(node)
        self._outputs()
        with_states = {name for name, stateful in self.recurrent.items() if stateful}
        time = self.alike(with_states or self.recurrent or self._everywhere())
        met = next((found for name, found in self.meetings.items() if self.first_name(name) in time), None)
        if met is None and time:
            met = self.per_call
        known = frozenset().union(*(fact.open for fact in self.facts.values()), time)
        names = frozenset(name for name in known if self.first_name(name) in time)
        return TimeAxis(names, met, self.by_hand if time else None)

    def _everywhere(self) -> Names:
        """The open axes that every input has beside the batch, which is the states' own: cut along them a call changes.

        One that some inputs have, such as the steps of an encoder that each step of a decoder looks at, is not time.
        """
        constants = {tensor.name for tensor in self._graph.initializer}
        values = [value.name for value in self._graph.input if value.name not in constants]
        batch = self.alike(frozenset().union(*(self.facts[name].open for name in values if name in self._states)))
        found = [self.facts[name] for name in values if name not in self._states]
        axes = [self.alike(fact.open) - batch for fact in found if fact.axes != ()]
        return frozenset.intersection(*axes) if axes else NONE

    def _input(self, name: str, shape: Any) -> Fact:
        if name in self._states:
            return Fact(self.axes(name, shape), NONE, varies=True, states=frozenset({name}))
        return Fact(self.axes(name, shape), NONE, varies=True, lengths=name in self._lengths)

    @staticmethod
    def axes(name: str, shape: Any) -> tuple[Axis, ...] | None:
        """The axes of a value of this shape; an axis without a name gets one of its own."""
        if shape is None:
            return None
        return tuple(axis_of(Size.of(dim if dim is not None else f"{name}.{axis}")) for axis, dim in enumerate(shape))

    def _follow(self, node: NodeProto) -> None:
        facts = tuple(self.facts.get(name, Fact()) if name else None for name in node.input)
        call = Call(node, node.op_type, attributes_of(node), facts, self.opset, self)
        known = OPERATORS.get(node.op_type) if node.domain in _DOMAINS else None
        try:
            results = list(known(call)) if known is not None else self._unknown(call)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            results = self._unknown(call)  # a node that lacks what its operator needs: another tool's mistake
        for index, name in enumerate(node.output):
            if name:
                # What an operator's function leaves unsaid is as that of an operator that is not known.
                self.facts[name] = results[index] if index < len(results) else self._spread(call, name)

    def _unknown(self, call: Call) -> list[Fact]:
        reached = frozenset().union(*(fact.open for fact in call.given), *(fact.last for fact in call.given))
        inner = [self.facts[name] for name in outer_values(call.node) if name in self.facts]
        reached |= frozenset().union(*(fact.open | fact.last for fact in inner))
        if any(fact.varies for fact in (*call.given, *inner)):
            call.meet(
                {name for fact in (*call.given, *inner) for name in fact.open},
                "is not known to keep the steps of a sequence apart",
            )
        return [self._spread(call, name, inner) for name in call.node.output]

    def _spread(self, call: Call, name: str, inner: Sequence[Fact] = ()) -> Fact:
        """What may come out of an operator that is not known."""
        facts = [*call.given, *inner]
        spans = frozenset().union(*(fact.open for fact in facts)) if facts else NONE
        shape = self.shapes.get(name)
        axes = self.axes(name, shape) if shape is not None and all(dim is not None for dim in shape) else None
        joined = join(facts)
        positions = joined.positions if joined.varies else joined.positions | spans
        return replace(joined, axes=axes, spans=spans, positions=positions, numbers=None)

    def _outputs(self) -> None:
        """What the graph hands out, other than states, may not tell how long a call was."""
        for output in self._graph.output:
            fact = self.facts.get(output.name)
            if fact is None or output.name in self._states.values():
                continue
            producer = next((node for node in self._graph.node if output.name in node.output), NodeProto())
            call = Call(producer, producer.op_type or "the output", {}, (fact,), self.opset, self)
            if fact.depends_on_sizes or fact.positions:
                call.meet(fact.depends_on_sizes | fact.positions, f"makes {output.name} of the number of steps")
            if fact.states and output.name not in self._states.values():
                self.handled(call)


def join(facts: Sequence[Fact]) -> Fact:
    """What several values have in common once they are computed with; without axes and numbers."""

    def every(pick: Callable[[Fact], Names]) -> Names:
        return frozenset().union(*(pick(fact) for fact in facts)) if facts else NONE

    varying = [fact for fact in facts if fact.varies]
    return Fact(
        varies=bool(varying),
        last=every(lambda fact: fact.last),
        states=every(lambda fact: fact.states),
        sized=every(lambda fact: fact.depends_on_sizes),
        positions=every(lambda fact: fact.positions),
        lengths=bool(varying) and all(fact.lengths for fact in varying),
    )


def stored(tensor: TensorProto) -> Fact:
    """A stored tensor's fact: its sizes, and its numbers where they are a few integers."""
    axes = tuple(axis_of(Size.of(int(dim))) for dim in tensor.dims)
    whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    numbers: tuple[Size, ...] | None = None
    count = int(np.prod(list(tensor.dims), dtype=np.int64))
    if whole and len(tensor.dims) <= 1 and 0 <= count <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
        numbers = tuple(Size.of(int(value)) for value in numpy_helper.to_array(tensor).reshape(-1))
    return Fact(axes, numbers=numbers)


def outer_values(node: NodeProto) -> list[str]:
    """The values that the bodies of a node take from the graph around it."""
    found: list[str] = []
    for body in bodies_of(node):
        own = _defined(body)
        used = [name for inner in nodes_of(body.node) for name in inner.input]
        found += [name for name in (*used, *(value.name for value in body.output)) if name and name not in own]
    return list(dict.fromkeys(found))


def _defined(body: GraphProto) -> set[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    for inner in nodes_of(body.node):
        own |= set(inner.output)
        for deeper in bodies_of(inner):
            own |= {value.name for value in deeper.input} | {tensor.name for tensor in deeper.initializer}
    return own


def follow_time(model: ModelProto, states: Mapping[str, str], lengths: Collection[str] = ()) -> TimeAxis:
    """Follow the time axis through a model.

    Args:
        model: the model; shapes within (``value_info``) help where an operator is not known.  Its
            functions have to be inlined.
        states: which output feeds which state input at the next call.
        lengths: the inputs that are lengths of sequences.

    Returns:
        Which open axes are time, and where their steps meet outside of the states.
    """
    from . import operators  # noqa: F401 - they register themselves

    return Follower(model, states, lengths).result()


__all__ = ["Call", "Follower", "Meeting", "TimeAxis", "follow_time", "join", "names_of", "operator", "stored"]
