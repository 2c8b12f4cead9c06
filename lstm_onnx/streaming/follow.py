"""Follows the time axis through an ONNX graph: are steps combined anywhere but in states?

The axes of every value are followed from the model's inputs, by the names of their sizes.  Some operators
compute each entry of a dynamic axis separately (an activation, a product with a weight).  Of those that do
not (a convolution, a mean over time, a flip), the first for each axis is recorded, with the reason; an
unknown operator counts as one of these.  Recurrent nodes that start from state inputs show which dynamic
axes are time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnx import ModelProto, NodeProto

from ..onnxgraph import attributes_of, outer_values, shape_of
from ..onnxgraph.load import opset_of
from ..onnxgraph.nodes import inputs_of
from ..onnxgraph.recurrent import GATES
from . import operators  # noqa: F401 - importing them registers them
from .fact import NONE, Fact, Names, join, open_names
from .node import OPERATORS, Call, Findings, Meeting, stored

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_RECURRENT = (*GATES, "Scan")


@dataclass(frozen=True)
class TimeAxis:
    """The result of following the time axis.

    Attributes:
        names: the dynamic axes that are time; none if a call is one step, whatever its size.
        meeting: where steps of one of them are first combined outside of the states; None if nowhere.
        by_hand: where state inputs go through operators other than recurrent ones, so that the graph
            does not show whether chunks give the same as the whole; None if nowhere.
        recurrent: the dynamic axes along which recurrent nodes run, in groups of equal sizes.
        backwards: the first recurrent node that goes backwards along each dynamic axis, by the axis's name.
    """

    names: Names
    meeting: Meeting | None = None
    by_hand: Meeting | None = None
    recurrent: tuple[Names, ...] = ()
    backwards: Mapping[str, Meeting] = field(default_factory=dict)


class Follower(Findings):
    """A traversal of one graph."""

    def __init__(self, model: ModelProto, states: Mapping[str, str], lengths: Collection[str]) -> None:
        super().__init__()
        self.opset = opset_of(model) or 1
        self.shapes = {
            item.name: shape_of(item.type)
            for item in (*model.graph.value_info, *model.graph.output)
            if item.type.tensor_type.HasField("shape")
        }
        self._graph = model.graph
        self._inputs = inputs_of(model.graph)
        self._states = dict(states)
        self._lengths = frozenset(lengths)

    def result(self) -> TimeAxis:
        """Traverse the graph and return the result."""
        for tensor in self._graph.initializer:
            self.facts[tensor.name] = stored(tensor)
        for value in self._inputs:
            self.facts[value.name] = self._input(value.name, shape_of(value.type))
        for node in self._graph.node:
            self._follow(node)
        self._outputs()
        with_states = {name for name, stateful in self.recurrent.items() if stateful}
        time = self.first_names(with_states or self.recurrent or self._everywhere())
        met = next((found for name, found in self.meetings.items() if self.first_name(name) in time), None)
        if met is None and time:
            met = self.per_call or self._apart(time)
        met = met or self.from_the_end
        known = time | open_names(self.facts.values())
        alike = {first: frozenset(name for name in known if self.first_name(name) == first) for first in time}
        recurrent = tuple(alike.get(name, frozenset({name})) for name in self.first_names(self.recurrent))
        first = {self.first_name(name): found for name, found in reversed(self.backwards.items())}
        backwards = {name: first[self.first_name(name)] for name in known if self.first_name(name) in first}
        return TimeAxis(NONE.union(*alike.values()), met, self.by_hand if time else None, recurrent, backwards)

    def _apart(self, time: Names) -> Meeting | None:
        """The first node that runs along steps of no input, such as those that a condition selects."""
        names = [value.name for value in self._inputs if value.name not in self._states]
        if any(self.first_names(self.facts[name].open) & time for name in names):
            return None
        node = next((node for node in self._graph.node if node.op_type in _RECURRENT), NodeProto())
        return Meeting(str(node.name), str(node.op_type), "runs along an axis that no input has")

    def _everywhere(self) -> Names:
        """The dynamic axes that every input has, except the batch, which states have, too.

        One that only some inputs have, such as the steps of an encoder that a decoder attends to, is not time.
        """
        names = [value.name for value in self._inputs]
        batch = self.first_names(open_names(self.facts[name] for name in names if name in self._states))
        found = [self.facts[name] for name in names if name not in self._states]
        axes = [self.first_names(fact.open) - batch for fact in found if fact.axes != ()]
        return frozenset.intersection(*axes) if axes else NONE

    def _input(self, name: str, shape: Any) -> Fact:
        state = name in self._states
        states = frozenset({name}) if state else NONE
        return Fact(self.axes(name, shape), varies=True, states=states, lengths=not state and name in self._lengths)

    def _follow(self, node: NodeProto) -> None:
        facts = tuple(self.facts.get(name, Fact()) if name else None for name in node.input)
        call = Call(node, attributes_of(node), facts, self.opset, self)
        known = OPERATORS.get(node.op_type) if node.domain in _DOMAINS else None
        try:
            results = list(known(call)) if known is not None else self._unknown(call)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            results = self._unknown(call)  # the node lacks something that its operator needs: another tool's mistake
        for index, name in enumerate(node.output):
            if name:
                # Outputs about which an operator's function says nothing are as those of an unknown operator.
                self.facts[name] = results[index] if index < len(results) else self._spread(call, name)

    def _unknown(self, call: Call) -> list[Fact]:
        inner = [self.facts[name] for name in outer_values(call.node) if name in self.facts]
        facts = [*call.given, *inner]
        if any(fact.varies for fact in facts):
            call.meet(open_names(facts), "is not known to compute each step of a sequence separately")
        return [self._spread(call, name, inner) for name in call.node.output]

    def _spread(self, call: Call, name: str, inner: Sequence[Fact] = ()) -> Fact:
        """The most general fact for the outputs of an unknown operator."""
        facts = [*call.given, *inner]
        spans = open_names(facts)
        shape = self.shapes.get(name)
        axes = self.axes(name, shape) if shape is not None and all(dim is not None for dim in shape) else None
        joined = join(facts)
        positions = joined.positions if joined.varies else joined.positions | spans
        return replace(joined, axes=axes, spans=spans, positions=positions, numbers=None)

    def _outputs(self) -> None:
        """Require that outputs other than states do not depend on how long a call was."""
        for output in self._graph.output:
            fact = self.facts.get(output.name)
            if fact is None or output.name in self._states.values():
                continue
            own = NodeProto(op_type="the output")
            producer = next((node for node in self._graph.node if output.name in node.output), own)
            call = Call(producer, {}, (fact,), self.opset, self)
            if fact.depends_on_sizes or fact.positions:
                call.meet(fact.depends_on_sizes | fact.positions, f"computes {output.name} from the number of steps")
            if fact.states:
                self.handled(call)


def follow_time(model: ModelProto, states: Mapping[str, str], lengths: Collection[str] = ()) -> TimeAxis:
    """Follow the time axis through a model.

    Args:
        model: the model, with its functions inlined; shapes of intermediate values (``value_info``) help where an
            operator is not known.
        states: each state input, with the output that is its next value.
        lengths: the inputs that are lengths of sequences.

    Returns:
        Which dynamic axes are time, and where their steps are combined outside of the states.
    """
    return Follower(model, states, lengths).result()
