"""The state of a rewrite (facts of the source's values, names in the streaming graph), and the operator registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from ..node import Node
from ..size import ONE, Size
from .counts import Count, Input, Stage, equal, span, total_multiple
from .errors import RefusedError
from .facts import Carry, Fact, Places, Shape, Static, Stream
from .graph import Graph, make_node_like
from .lengths import Lengths, count_by
from .source import Source

OTHER_AXES = "joins values that have time on different axes: every step is combined with every other"
TWO_AXES = "makes two axes with the number of time steps: every step is combined with every other"
AS_NUMBER = ("uses the number of time steps as a number", "a constant, or an input of its own")


@dataclass(frozen=True)
class Call(Node[Fact]):
    """A node of the source, and what is known about its inputs."""

    def fact(self, index: int) -> Fact | None:
        """The fact of an input; None if it is left out."""
        return self.facts[index] if index < len(self.facts) else None

    @property
    def streams(self) -> list[tuple[int, Stream]]:
        """The inputs that have steps, with their indices."""
        return [(place, fact) for place, fact in enumerate(self.facts) if isinstance(fact, Stream)]

    def constant(self, index: int) -> np.ndarray | None:
        """The content of a constant input."""
        fact = self.fact(index)
        return fact.array if isinstance(fact, Static) else None


Family = Callable[["Rewriter", Call], Sequence[Fact]]
FAMILIES: dict[str, Family] = {}
ANY_STATIC: set[str] = set()
"""Operators that accept a value whose equal steps are stored as one (`Static.repeated`)."""


def family(*op_types: str, repeated: bool = False) -> Callable[[Family], Family]:
    """Decorator: register the function for these operators."""

    def register(function: Family) -> Family:
        FAMILIES.update(dict.fromkeys(op_types, function))
        if repeated:
            ANY_STATIC.update(op_types)
        return function

    return register


def of_stream(function: Callable[[Rewriter, Call, Stream], Sequence[Fact]]) -> Family:
    """Decorator for a family's function of a first input with steps; without steps, the node stays unchanged."""

    def emit(p: Rewriter, call: Call) -> Sequence[Fact]:
        fact = call.fact(0)
        if isinstance(fact, Stream):
            return function(p, call, fact)
        if call.streams:
            raise RefusedError("has parameters that vary with time")
        return p.plain(call)

    return emit


@dataclass
class Rewriter:
    """One rewrite.

    Attributes:
        graph: the streaming graph.
        source: the whole-sequence graph.
        lengths: sizes that depend on the number of time steps.
        facts: of the source's values.
        names: of the source's values in the streaming graph, where they differ.
        multiple: the number of steps of which the source's sequences must be multiples.
        hop: the number of input steps that always give the same number of steps of every output.
    """

    graph: Graph
    source: Source
    lengths: Lengths
    facts: dict[str, Fact] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tainted: set[str] = field(default_factory=set)
    """Values that are computed from state inputs."""
    arrivals: dict[str, tuple[Count, ...]] = field(default_factory=dict)
    """Values that exist once these counts have a step: they are computed from the first step of a stream."""
    settled: int = 0
    """The number of input steps, besides `Count.settled`, after which a call is like all later ones."""
    chunk: int | None = None
    """The number of steps of which every chunk is a multiple; None for chunks of any length."""
    multiple: int = 1
    least: int = 1
    """The least number of steps of a sequence: with fewer, a value lacks a step that is read, or has another size."""
    table_rows: list[tuple[Count, int]] = field(default_factory=list)
    """Counts of steps that each read a row of a table, and its number of rows: a longer stream fails."""
    look_ahead: list[str] = field(default_factory=list)
    """Names of nodes that need later steps."""
    module: str = ""
    cropped: set[str] = field(default_factory=set)
    """Outputs of Slice nodes whose cut at the end was already made by the node before."""
    counts: list[Count] = field(default_factory=lambda: [Input()])
    """All counts of steps, the input's first, including those between the stages of one node."""
    _known: dict[Count, Count] = field(default_factory=dict)

    # --- facts ------------------------------------------------------------------------------------------------------

    def name(self, value: str) -> str:
        """The name in the streaming graph of a source's value; integers that depend on sizes are computed first."""
        fact = self.facts.get(value)
        if isinstance(fact, Static) and value not in self.names and (fact.quotient or fact.places) is not None:
            raise RefusedError(*AS_NUMBER)
        if isinstance(fact, Static) and fact.numbers is not None and value not in self.names:
            if any(self.lengths.depends(size) for size in fact.numbers):
                raise RefusedError(*AS_NUMBER)
            scalar = fact.shape == ()
            name = self.graph.integers(fact.numbers, scalar=scalar)
            if fact.dtype is not None and fact.dtype != np.int64:
                name = self.graph.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(fact.dtype))
            self.names[value] = name
        return self.names.get(value, value)

    def inputs(self, call: Call) -> list[str]:
        """The names of a node's inputs; empty for those that are left out."""
        return [self.name(value) if value else "" for value in call.node.input]

    def inferred(self, value: str) -> tuple[np.dtype[Any] | None, Shape | None]:
        """The dtype and the shape of a source's value by shape inference; None where they are not known."""
        return self.source.inferred.get(value, (None, None))

    def dtype(self, fact: Fact) -> np.dtype[Any]:
        """The dtype of a value.

        Raises:
            RefusedError: it is not known.
        """
        if fact.dtype is None:
            raise RefusedError("the dtype of its input is not known")
        return np.dtype(fact.dtype)

    def state_name(self, kind: str) -> str:
        """The name of a state of the node that is being rewritten: ``conv1.cache``."""
        return f"{self.module}.{kind}" if self.module else kind

    def count(self, count: Count) -> Count:
        """An equal count that already exists, or this one.

        Raises:
            RefusedError: its period is too long.
        """
        if isinstance(count, Stage) and (count.times, count.plus, count.at_end, count.by) == (1, 0, 0, 1):
            return count.source
        if not self.graph.ending and isinstance(count, Stage) and count.at_end > 0 and self._ends_early(count):
            count = replace(count, at_end=0)  # a stride drops what the end would add
        if count not in self._known:
            found = next((known for known in self.counts if equal(known, count)), None)
            if found is None:
                self.counts.append(count)
                if not self.graph.ending and not count.ends_early:
                    raise NeedsEndError
                if isinstance(count, Stage) and count.at_end > 0 and not count.ends_early:
                    self.look_ahead.append(self.graph.prefix)
            self._known[count] = found or count
        return self._known[count]

    def _ends_early(self, count: Count) -> bool:
        """Whether nothing is left to come at the end of a sequence, which is a multiple of `chunk`."""
        if self.chunk is None:
            return count.ends_early
        wholes = range(0, span(count).stop + lcm(count.period, self.chunk), self.chunk)
        return all(count.available(m) == count.total(m) for m in wholes)

    def count_of(self, size: Size) -> Count:
        """The count of a stream whose time axis has this size in the source.

        Raises:
            RefusedError: no stream has it, and the size is not a multiple of a floor of the number of time steps.
        """
        for fact in self.facts.values():
            if isinstance(fact, Stream) and fact.fold is None and fact.shape[fact.axis] == size:
                return fact.count
        made = count_by(self.lengths, size)
        if made is None:
            raise RefusedError(f"makes {size} steps, a number that no value before it has")
        for fact in self.facts.values():  # a cut of more steps than exist leaves none, which a size cannot express
            if isinstance(fact, Stream) and fact.fold is None:
                self.require_sized(fact.shape[fact.axis], fact.count)
        return self.count(made)

    def require_sized(self, size: Size, count: Count) -> None:
        """Refuse sequences for which this size differs from the number of steps of this count, such as below 0."""
        wrong = [m for m in span(count)[1:] if self.lengths.value(size, m) not in (None, count.total(m))]
        self.require_more_steps_than(max(wrong, default=0))

    def require_steps(self, count: Count, steps: int = 1) -> None:
        """Refuse sequences that are too short for a value of this count to have `steps` steps."""
        known = span(Stage(count, 1, 1 - steps))
        self.require_more_steps_than(max((m for m in known[1:] if count.total(m) < steps), default=0))

    def require_more_steps_than(self, steps: int) -> None:
        """Refuse shorter sequences when they end."""
        self.least = max(self.least, steps + 1)

    def crop_after(self, value: str, axis: int) -> tuple[str, int]:
        """The output of a Slice that is a value's only reader, and how many steps it cuts at the end; 0 if none does.

        It is needed since a convolution that is padded at both ends and then cut at the end has no look-ahead.
        """
        node, *others = self.source.consumers.get(value) or [NodeProto()]
        if others or value in self.source.outputs or node.op_type != "Slice" or node.input[0] != value:
            return "", 0
        facts = [self.facts.get(name) if name else None for name in node.input]
        found = [list(fact.array.reshape(-1)) if isinstance(fact, Static) and fact.array is not None else None
                 for fact in facts[1:]]  # fmt: skip
        if len(found) < 3 or any(item is None or len(item) != 1 for item in found):
            return "", 0
        start, stop, at, *step = (int(item[0]) for item in found if item is not None)
        if start == 0 and stop < 0 and at in (axis, axis - self.source.ranks.get(value, 0)) and step in ([], [1]):
            return str(node.output[0]), -stop
        return "", 0

    def arrives(self, value: str, *counts: Count) -> None:
        """Record that a value is computed from the first step of these counts."""
        self.arrivals[value] = tuple(dict.fromkeys((*self.arrivals.get(value, ()), *counts)))

    def require_arrived(self, counts: Sequence[Count], count: Count | None) -> None:
        """Refuse a value that may be needed before the steps from which it is computed; None is the first call."""
        for other in counts:
            for m in span(other, *([count] if count is not None else []))[1:]:
                if other.available(m) < 1 and (count is None or count.available(m) > 0):
                    raise RefusedError("needs the first step of a value that comes later than its own")

    def require_equal_totals(self, counts: list[Count]) -> None:
        """Refuse streams of different lengths; record if they are equal only for multiples, or from some length on."""
        multiple = total_multiple(counts)
        if multiple is None:
            raise RefusedError("joins sequences of different numbers of steps, or of different rates")
        self.multiple = lcm(self.multiple, multiple)
        sizes = [m for m in span(*counts)[1:] if m % multiple == 0]
        self.require_more_steps_than(max((m for m in sizes if len({c.total(m) for c in counts}) > 1), default=0))

    # --- emitting -----------------------------------------------------------------------------------------------------

    def own_name(self, value: str) -> str:
        """The name of the value that a node makes; an output's name is reserved for what the graph returns."""
        return self.graph.fresh(f"{value}/steps") if value in self.source.outputs else value

    def copy(self, call: Call, inputs: Sequence[str] | None = None, **changed: Any) -> None:
        """Emit the node with other inputs and attributes; None removes an attribute."""
        given = self.inputs(call) if inputs is None else inputs
        outputs = []
        for value in call.node.output:
            name = self.own_name(value) if value else ""
            if value:
                self.names[value] = name
            outputs.append(name)
        self.graph.nodes.nodes.append(make_node_like(call.node, given, outputs, **changed))

    def emitted(self, call: Call, name: str) -> None:
        """Let a value of the streaming graph replace the first output of the node."""
        self.names[call.node.output[0]] = name

    def target(self, shape: Sequence[Size], axis: int, size: int | str = -1) -> str:
        """A shape for Reshape or Expand whose time axis is `size`."""
        parts = [
            self.graph.number(size) if place == axis else self.graph.integers([dim]) for place, dim in enumerate(shape)
        ]
        known = [dim.number for dim in shape]
        if isinstance(size, int) and all(number is not None for place, number in enumerate(known) if place != axis):
            return self.graph.ints(*(size if place == axis else int(n or 0) for place, n in enumerate(known)))
        return self.graph.joined(parts, 0, "shape")

    def plain(self, call: Call) -> list[Fact]:
        """Copy a node whose inputs have no steps: its results are the same at every step, or those so far."""
        carry = any(isinstance(fact, Carry) for fact in call.given)
        self.copy(call)
        found: list[Fact] = []
        for value in call.node.output:
            dtype, shape = self.inferred(value)
            found.append(Carry(shape, dtype) if carry else Static(shape, dtype))
        return found

    def output_dtype(self, call: Call, place: int = 0) -> np.dtype[Any] | None:
        """The dtype of an output, from shape inference or the first stream."""
        dtype = self.inferred(call.node.output[place])[0]
        return dtype if dtype is not None else next((fact.dtype for _, fact in call.streams), None)

    def materialized(self, call: Call) -> Call:
        """The call with steps repeated that were stored as one, and with step numbers computed."""
        facts: list[Fact | None] = list(call.facts)
        for place, fact in enumerate(facts):
            if isinstance(fact, Static) and fact.places is not None:
                self.names[call.node.input[place]], facts[place] = self.numbered(fact, fact.places)
            if isinstance(fact, Static) and fact.repeated is not None:
                axis, count = fact.repeated
                shape = require_shape(fact)
                wanted = self.target(shape, axis, self.graph.at_least_one(count))
                value = call.node.input[place]
                self.names[value] = self.graph.add("Expand", self.name(value), wanted)
                self.facts[value] = facts[place] = Stream(shape, fact.dtype, axis, count)
        return replace(call, facts=tuple(facts))

    def numbered(self, fact: Static, places: Places) -> tuple[str, Stream]:
        """The numbers of the steps of this call."""
        size, g = require_shape(fact)[places.axis], self.graph
        count = self.count_of(size)
        g.used_positions = True
        # Added to a Range from 0, since ONNX Runtime turns a Gather by a Range into a Slice, which ends with the table.
        end = g.add("Squeeze", g.at_least_one(count), g.ints(0))
        x = g.add("Range", g.integers([Size.of(0)], scalar=True), end, g.integers([ONE], scalar=True))
        begin = g.before(count)
        if not g.is_exact(count):  # without a step, use the first number, a row that every table has
            begin = g.math("Mul", begin, g.math("Min", g.new(count), 1))
        x = g.add("Add", x, begin, hint="steps")
        if places.stride > 1:
            x = g.add("Mul", x, g.integers([Size.of(places.stride)], scalar=True))
        if places.offsets.ndim > 1:
            x = g.add("Reshape", x, g.ints(*(-1 if axis == places.axis else 1 for axis in range(places.offsets.ndim))))
        if places.offsets.any():
            x = g.add("Add", x, g.constant(places.offsets.astype(np.int64), "places"))
        if fact.dtype is not None and fact.dtype != np.int64:
            x = g.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(fact.dtype))
        return x, Stream(require_shape(fact), fact.dtype, places.axis, count)


class NeedsEndError(Exception):
    """The graph needs the input `last`."""


def require_shape(fact: Fact) -> Shape:
    """The axes of a value.

    Raises:
        RefusedError: they are not known.
    """
    if fact.shape is None:
        raise RefusedError("the shape of its input is not known")
    return fact.shape


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of an elementwise result.

    Raises:
        RefusedError: two sizes differ, and neither is 1.
    """
    rank = max(len(shape) for shape in shapes)
    found: list[Size] = []
    for back in range(rank, 0, -1):
        sizes = {shape[-back] for shape in shapes if len(shape) >= back} - {ONE}
        if len(sizes) > 1:
            raise RefusedError(f"joins axes of the sizes {' and '.join(sorted(map(str, sizes)))}")
        found.append(sizes.pop() if sizes else ONE)
    return tuple(found)


def require_static(call: Call, what: str) -> None:
    """Refuse a node if any input but the first varies with time; `what` names it, such as "kernel"."""
    if any(not isinstance(fact, Static) for fact in call.given[1:]):
        raise RefusedError(f"has a {what} that varies with time")


def require_no_carry(call: Call) -> None:
    """Refuse to join steps with a value that is only known at the last one."""
    if any(isinstance(fact, Carry) for fact in call.given):
        raise RefusedError(
            "joins every step with a value that is only known at the last one",
            "a value of each step, or return it besides the steps",
        )


def stored(array: np.ndarray) -> Static:
    """The fact of a constant."""
    numbers = None
    if array.dtype.kind in "iu" and array.ndim <= 1 and array.size <= 64:
        numbers = tuple(Size.of(int(value)) for value in array.reshape(-1))
    fill = None
    if array.size and array.dtype.kind in "fiub" and prod(array.shape) < 2**20:
        first = array.reshape(-1)[0]
        fill = float(first) if bool((array == first).all()) else None
    return Static(tuple(map(Size.of, array.shape)), array.dtype, numbers, array, fill)
