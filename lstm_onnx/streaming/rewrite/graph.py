"""Builds the streaming graph: nodes, states, counts of steps, and numbers that depend on the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ...onnxgraph.builder import Nodes, unique_name
from ...onnxgraph.nodes import needed_nodes, outer_values, rename_values
from ..size import Size
from .counts import Count, Gate, Least, Stage
from .errors import RefusedError
from .facts import Shape

END = 2**62
"""A bound of Slice beyond every axis."""


@dataclass(frozen=True)
class State:
    """A state input and the output that is its next value.

    Attributes:
        shape: its axes; only the batch is dynamic.
        fill: its initial value.
    """

    name: str
    after: str
    dtype: np.dtype[Any]
    shape: Shape
    fill: float = 0.0


@dataclass
class Graph:
    """A graph that is being built.

    Attributes:
        opset: of the model.
        ending: whether the graph has the input `last`, and calls may have no steps.
        sizes: for each name of a dynamic axis that is not time, an input and its axis.
        taken: the names of all values so far.
        prefix: the name of the node that is being rewritten.
        last_name: of the input that is 1 in the call that ends the sequence.
        steps_name: of the state that counts the steps of the input.
        used_begun: whether the call that has the first step of the input differs from later ones.
        steady: whether every chunk is a multiple of the graph's period, so that each gives the same number of steps.
    """

    opset: int
    ending: bool
    sizes: Mapping[str, tuple[str, int]]
    taken: set[str] = field(default_factory=set)
    nodes: Nodes = field(default_factory=Nodes)
    states: list[State] = field(default_factory=list)
    prefix: str = ""
    last_name: str = "last"
    steps_name: str = "steps"
    used_steps: bool = False
    used_positions: bool = False
    used_begun: bool = False
    step_input: tuple[str, int] = ("", 0)
    batch: Size | None = None
    steady: bool = False
    _made: dict[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose names that no value has."""
        self.last_name, self.steps_name = self.fresh("last"), self.fresh("steps")

    # --- names and nodes ----------------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """A name like this one that no value has."""
        return unique_name(name, self.taken)

    def add(self, op: str, *inputs: str, hint: str = "", **attributes: Any) -> str:
        """Add a node with one output, shared by equal calls; returns the output."""
        key = (op, inputs, tuple(sorted((name, str(value)) for name, value in attributes.items())))
        if key not in self._made:
            name = self.fresh(f"{self.prefix}/{hint or op}" if self.prefix else hint or op)
            self._made[key] = self.nodes.one(op, *inputs, name=name, **attributes)
        return self._made[key]

    def constant(self, array: np.ndarray, hint: str = "constant") -> str:
        """An initializer, shared by equal arrays."""
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            self._made[key] = self.nodes.constant(self.fresh(hint), array)
        return self._made[key]

    def ints(self, *values: int) -> str:
        """A 1-D int64 initializer; not named as those of an exported file, where ``ints/2_2`` holds two numbers."""
        return self.constant(np.array(values, np.int64), "integers/" + "_".join(map(str, values)))

    def number(self, value: int | str) -> str:
        """One int64 of shape (1,)."""
        return value if isinstance(value, str) else self.ints(value)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def cut(self, x: str, axis: int, start: int | str, stop: int | str, hint: str = "") -> str:
        """``x[start:stop]`` along an axis."""
        return self.add("Slice", x, self.number(start), self.number(stop), self.ints(axis), hint=hint)

    def joined(self, parts: Sequence[str], axis: int, hint: str = "") -> str:
        """Concatenated along an axis."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis, hint=hint)

    def length(self, x: str, axis: int) -> str:
        """The size of an axis, of shape (1,)."""
        if self.opset >= 15:
            return self.add("Shape", x, start=axis, end=axis + 1, hint="length")
        return self.cut(self.add("Shape", x), 0, axis, axis + 1, "length")

    def padded(self, x: str, axis: int, rank: int, amount: int | str, fill: float, dtype: np.dtype[Any]) -> str:
        """More entries at the end of an axis.

        The Pad has no input `axes`: ONNX Runtime moves a Transpose past such a Pad as if it had all axes.
        """
        if isinstance(amount, int):
            pads = [0] * 2 * rank
            pads[rank + axis] = amount
            where = self.ints(*pads)
        else:
            after = [self.ints(*[0] * (rank - 1 - axis))] if axis < rank - 1 else []
            where = self.joined([self.ints(*[0] * (rank + axis)), amount, *after], 0, "pads")
        return self.add("Pad", x, where, self.constant(fill_value(fill, dtype)), hint="padded")

    def total(self, x: str, axis: int) -> str:
        """The sum along an axis, with keepdims."""
        return self.add("ReduceSum", x, self.ints(axis), keepdims=1, hint="sum")

    # --- integers that depend on the batch ----------------------------------------------------------------------------

    def integers(self, numbers: Iterable[Size], *, scalar: bool = False) -> str:
        """An int64 tensor of these sizes, which do not depend on the number of time steps."""
        sizes = list(numbers)
        if all(size.number is not None for size in sizes):
            values = np.array([size.number for size in sizes], np.int64)
            return self.constant(values.reshape(()) if scalar else values, "int" if scalar else "ints")
        vector = self.joined([self._size(size) for size in sizes], 0, "shape")
        return self.add("Squeeze", vector, self.ints(0)) if scalar else vector

    def _size(self, size: Size) -> str:
        if size.number is not None:
            return self.ints(size.number)
        total = ""
        for symbols, factor in sorted(size.terms):
            part = self.ints(factor) if factor != 1 or not symbols else ""
            for symbol in symbols:
                if symbol not in self.sizes:
                    raise RefusedError(f"the size {size} is not that of an input's axis")
                value = self.length(*self.sizes[symbol])
                part = self.add("Mul", part, value) if part else value
            total = self.add("Add", total, part) if total else part
        return total

    # --- states -----------------------------------------------------------------------------------------------------

    def state(self, name: str, dtype: np.dtype[Any], shape: Shape, fill: float = 0.0, after: str = "") -> State:
        """A new state.

        Raises:
            RefusedError: one of its axes is dynamic and not the batch.
        """
        for size in shape:
            if size.number is None and (self.batch is None or not size.names <= self.batch.names):
                raise RefusedError(
                    f"would keep steps of shape ({', '.join(map(str, shape))}), and a state has no dynamic axis "
                    "but the batch",
                    "a model whose other axes have a fixed size, since they are not in dynamic_shapes",
                )
        found = self.fresh(name)
        after = self.fresh(after or f"{found}_next")
        state = State(found, after, np.dtype(dtype), shape, fill)
        self.states.append(state)
        return state

    def feed(self, state: State, value: str) -> None:
        """Make `value` the next value of a state."""
        self.nodes.add("Identity", value, name=self.fresh(f"{state.after}/Identity"), outputs=[state.after])

    # --- counts -----------------------------------------------------------------------------------------------------

    def is_exact(self, count: Count) -> bool:
        """Whether a call's tensor has exactly the steps of the call, of which there is always at least one."""
        return self.steady or (count.is_input and not self.ending)

    def new(self, count: Count) -> str:
        """The number of steps in this call, of shape (1,)."""
        if count.is_input:
            return self.length(*self.step_input)
        if self.steady:
            times = self.math("Mul", self.length(*self.step_input), count.rate.numerator)
            return times if count.rate.denominator == 1 else self._top("Div", times, count.rate.denominator)
        both = self._given(count)
        return self._top("Sub", self._top("Slice", both, 1), self._top("Slice", both, 0), hint="new")

    def before(self, count: Count) -> str:
        """The number of steps before this call, of shape (1,)."""
        return self._top("Slice", self._given(count), 0)

    def at_least_one(self, count: Count) -> str:
        """The number of steps of the tensor in this call, which is 1 if there are none."""
        return self.new(count) if self.is_exact(count) else self._top("Max", self.new(count), 1)

    def started(self) -> str:
        """1 if the input had a step before this call, otherwise 0."""
        return self._top("Slice", self._begun(), 0, hint="started")

    def starts(self) -> str:
        """1 in the call that has the first step of the input, otherwise 0."""
        return self._top("Sub", self._top("Slice", self._begun(), 1), self.started(), hint="starts")

    def _begun(self) -> str:
        self.used_begun = True
        return self._top("Min", self._fed(), 1, hint="begun")

    def any_new(self, count: Count) -> str:
        """Whether this call has a step, a bool of shape (1,)."""
        return self._top("Greater", self.new(count), 0)

    def last(self) -> str:
        """1 in the call that ends the sequence, otherwise 0."""
        return self.last_name

    def math(self, op: str, *values: int | str) -> str:
        """Arithmetic on numbers of shape (1,)."""
        if op in ("Add", "Sub") and values[1] == 0:
            return self.number(values[0])
        if op == "Add" and values[0] == 0:
            return self.number(values[1])
        if op == "Mul" and 1 in values:
            return self.number(values[0] if values[1] == 1 else values[1])
        return self._top(op, *values)

    def _top(self, op: str, *values: int | str, hint: str = "", **attributes: Any) -> str:
        """Add a node that computes counts, and so belongs to no node of the source."""
        prefix, self.prefix = self.prefix, "steps"
        try:
            if op == "Slice":
                vector, place = values
                return self.add("Slice", self.number(vector), self.ints(int(place)), self.ints(int(place) + 1),
                                self.ints(0))  # fmt: skip
            return self.add(op, *map(self.number, values), hint=hint, **attributes)
        finally:
            self.prefix = prefix

    def _fed(self) -> str:
        """The steps of the input before this call, and including it."""
        self.used_steps = True
        before = self._top("Slice", self.steps_name, 0)
        return self._top("Concat", before, self._top("Add", before, self.length(*self.step_input)), axis=0, hint="fed")

    def _given(self, count: Count) -> str:
        """The steps before this call, and including it, counted as none before the first step of the input."""
        vector = self._vector(count)
        return self._top("Mul", vector, self._begun()) if count.at_start else vector

    def _vector(self, count: Count) -> str:
        """The same, with padding that exists before the first step."""
        if isinstance(count, Stage):
            return self._stage_vector(count)
        if isinstance(count, Gate):
            vector = self._vector(count.source)
            enough = self._top("GreaterOrEqual", vector, count.need)
            enough = self._top("Cast", enough, to=TensorProto.INT64)
            return self._top("Mul", enough, self._top("Add", vector, count.plus))
        if isinstance(count, Least):
            return self._top("Min", *(self._vector(source) for source in count.sources))
        return self._fed()

    def _stage_vector(self, count: Stage) -> str:
        vector = self.math("Mul", self._vector(count.source), count.times)
        more: int | str = count.plus
        if count.at_end:
            at_end = self._top("Concat", 0, self.last(), axis=0, hint="ending")
            more = self._top("Mul", at_end, count.at_end)
            if count.plus:
                more = self._top("Add", more, count.plus)
        vector = self.math("Add", vector, more)
        if count.plus < 0 or count.plus + count.at_end < 0:
            vector = self._top("Max", vector, 0)
        return vector if count.by == 1 else self._top("Div", vector, count.by)

    # --- the end ----------------------------------------------------------------------------------------------------

    def prune(self, outputs: Iterable[str]) -> None:
        """Remove nodes and initializers that nothing uses."""
        self.nodes.nodes, needed = needed_nodes(self.nodes.nodes, outputs)
        self.nodes.initializers = {name: array for name, array in self.nodes.initializers.items() if name in needed}

    def without_identities(self, ends: set[str]) -> None:
        """Remove each Identity that only renames a node's result to one of these outputs."""
        inside = {name for node in self.nodes.nodes for name in outer_values(node)}
        made = {name for node in self.nodes.nodes for name in node.output} - ends - inside
        renamed: dict[str, str] = {}
        kept = []
        for node in self.nodes.nodes:
            if node.op_type == "Identity" and node.output[0] in ends and node.input[0] in made - renamed.keys():
                renamed[node.input[0]] = node.output[0]
            else:
                kept.append(node)
        rename_values(kept, renamed)
        self.nodes.nodes[:] = kept


def fill_value(fill: float, dtype: np.dtype[Any]) -> np.ndarray:
    """A scalar of a dtype; for an integer dtype, minus infinity is its least value."""
    if dtype.kind in "iu" and fill == -np.inf:
        return np.array(np.iinfo(dtype).min, dtype)
    return np.array(fill, dtype)


def make_node_like(node: NodeProto, inputs: Sequence[str], outputs: Sequence[str], **changed: Any) -> NodeProto:
    """A copy of a node with other inputs, outputs and attributes; None removes an attribute."""
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.extend(outputs)
    kept = [item for item in copy.attribute if item.name not in changed]
    del copy.attribute[:]
    copy.attribute.extend(kept)
    copy.attribute.extend(helper.make_attribute(name, value) for name, value in changed.items() if value is not None)
    return copy
