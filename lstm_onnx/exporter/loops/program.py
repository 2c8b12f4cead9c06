"""The data types of this package: a trace at fixed lengths, a program with loops of any length, and a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...errors import ExportError

Kind = TypeVar("Kind")
Sizes = tuple[int, ...]
"""The size of each dynamic axis, in the order of `Program.axes`."""
PICKS = (torch.ops.aten.select.int, torch.ops.aten.slice.Tensor)
"""Operators that take one or some entries of a tensor, as a step does with its input."""


@dataclass(frozen=True)
class Leaf:
    """A tensor that no operator computes: ``input 0``, a parameter or buffer by its full name, or a constant."""

    name: str

    @property
    def input(self) -> int | None:
        """The input's number; None for a tensor that is not an input."""
        return int(self.name.removeprefix("input ")) if self.name.startswith("input ") else None


@dataclass(frozen=True)
class NoState:
    """The zeros from which a recurrent module starts when it is called without a state."""


@dataclass(eq=False, repr=False)
class Node:
    """One operator of a trace, in canonical form.

    `shape` has the traced sizes, also of dynamic axes; `dtype` of anything but a tensor is the type's name.  `line` is
    the line of the user's code.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    shape: Any
    dtype: Any
    line: str | None = None
    module: str = ""

    def __repr__(self) -> str:
        """Without its arguments, which would print their own arguments again for each use."""
        return f"<{self.target} {self.shape}>"

    def key(self, *, loose: bool = False) -> tuple[Any, ...]:
        """What an operator has in common in all steps of a loop: all but its numbers and where its values come from.

        Args:
            loose: ignore which parameters and modules it uses, so that a search reaches the place where they differ.
        """
        # A state may be an input in the first step and a computed value in later ones; but all steps pick their
        # entries from one and the same input.
        named = self.target in PICKS
        outline = _outline(self.args, loose, named), _outline(self.kwargs, loose, named)
        return (str(self.target), *outline, str(self.dtype), len(self.shape or ()))


def _outline(value: Any, loose: bool, named: bool) -> Any:
    if isinstance(value, (Node, NoState)):
        return "value"
    if isinstance(value, Leaf):
        return "value" if loose or (value.input is not None and not named) else value.name
    if isinstance(value, tuple):
        parts = tuple(_outline(part, loose, named) for part in value)
        values = all(isinstance(part, (Node, Leaf)) for part in value)
        return ("values",) if values and len(parts) > LONG_LIST else parts
    if (isinstance(value, int) and not isinstance(value, bool)) or loose:
        return type(value).__name__
    return type(value).__name__, "" if isinstance(value, float) else str(value)


LONG_LIST = 4
"""A list of more tensors may have one for each step; lists of gates are shorter."""


@dataclass
class Trace:
    """A module's graph at some lengths of the looped axes.

    Attributes:
        nodes: in the order in which they ran.
        outputs: what the module returns: nodes, leaves and numbers.
        structure: pytree's description of it.
        leaves: parameters, buffers and constants by name.
        sizes: the lengths.
        inputs: shape and dtype of each input.
        checks: the user's lines of checks of numbers that are not in the trace.
    """

    nodes: list[Node]
    outputs: tuple[Any, ...]
    structure: Any
    leaves: dict[str, Tensor]
    sizes: Sizes
    inputs: list[tuple[tuple[int, ...], Any]]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Affine:
    """An integer: `step` times the number of the step, plus each size times its factor in `sizes`, plus `const`.

    `product` adds a multiple of the product of two sizes, such as batch and time: the factor and both indices.
    """

    step: int
    sizes: Sizes
    const: int
    product: tuple[int, int, int] | None = None

    def at(self, sizes: Sequence[Any], step: Any = 0) -> Any:
        """Its value; `sizes` and `step` may be symbolic."""
        total: Any = self.const
        for factor, size in zip(self.sizes, sizes, strict=True):
            if factor:
                total = total + (size if factor == 1 else factor * size)
        if self.product is not None:
            factor, one, two = self.product
            total = total + factor * (sizes[one] * sizes[two])
        return total + self.step * step if self.step else total

    def at_first(self) -> Affine:
        """Without the part that grows with the step."""
        return Affine(0, self.sizes, self.const, self.product)

    def plus(self, number: int) -> Affine:
        """A number more."""
        return Affine(self.step, self.sizes, self.const + number, self.product)


@dataclass(frozen=True)
class Result:
    """The value of an operator outside of all loops."""

    index: int


@dataclass(frozen=True)
class Element:
    """The value at a position of a loop's body in one of its steps; `step` is a number or an `Affine`."""

    loop: int
    position: int
    step: Any


@dataclass(frozen=True)
class Here:
    """Within a body: the value at a position, in this step."""

    position: int


@dataclass(frozen=True)
class Carry:
    """Within a body: a position's value `back` steps ago; `initial` holds those before the first step, oldest first."""

    position: int
    back: int
    initial: tuple[Any, ...]


@dataclass(frozen=True)
class Run:
    """Part of a list: the values at the (loop, position) pairs of `block`, in every `by`-th of the steps from `start`.

    There are `count` such steps; `by` may be negative.
    """

    block: tuple[tuple[int, int], ...]
    start: Any
    by: int
    count: Any


@dataclass(frozen=True)
class Listed:
    """A list whose length depends on the sizes of the axes: runs of a loop's values, and single values."""

    pieces: tuple[Any, ...]


@dataclass(frozen=True)
class Operator:
    """An operator in a program; its arguments are values of the program."""

    target: Any
    args: Any
    kwargs: Any
    index: int
    shape: Any
    dtype: Any
    line: str | None = None
    module: str = ""

    @property
    def arguments(self) -> tuple[Any, Any]:
        """The positional ones and those by name."""
        return self.args, self.kwargs

    def mapped(self, change: Callable[[Any], Any], index: int | None = None) -> Operator:
        """The operator with changed arguments (see `mapped`) and, if `index` is given, another index."""
        args, kwargs = mapped(self.arguments, change)
        return replace(self, args=args, kwargs=kwargs, index=self.index if index is None else index)


@dataclass(frozen=True)
class Loop:
    """A body that is run `count` times (a number or an `Affine`)."""

    index: int
    count: Any
    body: tuple[Operator, ...]

    @property
    def line(self) -> str | None:
        """The first line of the user's code in it."""
        return next((item.line for item in self.body if item.line), None)

    @property
    def carries(self) -> list[Carry]:
        """What its steps take from earlier steps, without duplicates."""
        return list(dict.fromkeys(carry for item in self.body for carry in all_of(Carry, item.arguments)))

    def reached(self, values: Iterable[Any], ends: Callable[[Operator], bool] = lambda _: False) -> set[int]:
        """The positions from which some values are computed within one step.

        Args:
            values: arguments in the body.
            ends: whether to stop at an operator and not follow its arguments.
        """
        positions: set[int] = set()
        todo = list(values)
        while todo:
            for here in all_of(Here, todo.pop()):
                if here.position not in positions:
                    positions.add(here.position)
                    item = self.body[here.position]
                    todo += [] if ends(item) else [item.arguments]
        return positions


@dataclass(frozen=True)
class Program:
    """Operators and loops in order.

    Attributes:
        items: the operators and loops.
        outputs: what the module returns.
        structure: pytree's description of it.
        leaves: parameters, buffers and constants by name.
        axes: the names of the dynamic axes, the looped ones first.
        places: where the size of each is found: an input's number and one of its axes.
    """

    items: tuple[Operator | Loop, ...]
    outputs: Any
    structure: Any
    leaves: dict[str, Tensor]
    axes: tuple[str, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Its loops, in order."""
        return tuple(item for item in self.items if isinstance(item, Loop))

    @property
    def results(self) -> dict[int, Operator]:
        """The operators outside of loops, by their index."""
        return {item.index: item for item in self.items if isinstance(item, Operator)}

    @property
    def operators(self) -> Iterator[Operator]:
        """All operators, in loops and outside of them."""
        for item in self.items:
            yield from item.body if isinstance(item, Loop) else (item,)

    def all_of(self, kind: type[Kind]) -> Iterator[Kind]:
        """All parts of arguments and outputs that are of a kind."""
        return all_of(kind, (self.outputs, *(item.arguments for item in self.operators)))

    def reads(self) -> Iterator[tuple[int, int]]:
        """The loop and position of each value of a loop that is read outside of the loop."""
        for element in self.all_of(Element):
            yield element.loop, element.position
        for run in self.all_of(Run):
            yield from run.block

    def moved(self, moves: Mapping[int, Mapping[int, tuple[int, int]]]) -> Program:
        """The program with some positions moved: by loop and position, the new loop and position to read."""

        def change(value: Any) -> Any:
            if isinstance(value, Element) and value.loop in moves:
                return Element(*moves[value.loop][value.position], value.step)
            if isinstance(value, Run):
                block = tuple(moves[loop][at] if loop in moves else (loop, at) for loop, at in value.block)
                return replace(value, block=block)
            return None

        items = tuple(
            replace(item, body=tuple(part.mapped(change) for part in item.body))
            if isinstance(item, Loop)
            else item.mapped(change)
            for item in self.items
        )
        return replace(self, items=items, outputs=mapped(self.outputs, change))


def all_of(kind: type[Kind], value: Any) -> Iterator[Kind]:
    """All parts of arguments that are of a kind."""
    if isinstance(value, kind):
        yield value
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from all_of(kind, part)
    elif isinstance(value, Carry):
        yield from all_of(kind, value.initial)
    elif isinstance(value, Listed):
        yield from all_of(kind, value.pieces)
    elif isinstance(value, Element):
        yield from all_of(kind, value.step)
    elif isinstance(value, Run):
        yield from all_of(kind, (value.start, value.count))


def positions_in(value: Any) -> set[int]:
    """The positions of the body that arguments read, in this step or an earlier one."""
    return {here.position for here in all_of(Here, value)} | {carry.position for carry in all_of(Carry, value)}


def by_step(value: Any) -> bool:
    """Whether a number in arguments grows with the step."""
    return any(number.step for number in all_of(Affine, value))


def takes_step(value: Any) -> bool:
    """Whether arguments use the number of the step itself, and not only to say which step of an earlier loop."""
    if isinstance(value, tuple):
        return any(map(takes_step, value))
    return not isinstance(value, Element) and by_step(value)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Arguments in which each part is replaced by what `change` returns for it, unless that is None."""
    new = change(value)
    if new is not None:
        return new
    if isinstance(value, tuple):
        return tuple(mapped(part, change) for part in value)
    if isinstance(value, Carry):
        return replace(value, initial=mapped(value.initial, change))
    if isinstance(value, Listed):
        return Listed(mapped(value.pieces, change))
    return value


class NotRolled(Exception):  # noqa: N818 - for the search it is not an error
    """No loop could be proven equal to the unrolled code.

    Args:
        reason: what prevents it, as a clause.
        line: the user's line at which it shows.
        depth: how far the search got; the refusal of the furthest path says most.
    """

    def __init__(self, reason: str, line: str | None = None, depth: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.line, self.depth = reason, line, depth


def deepest(refusals: Iterable[NotRolled]) -> NotRolled:
    """The refusal of the path that got furthest."""
    return max(refusals, key=lambda refusal: (refusal.depth, refusal.line is not None))


_ADVICE = (
    "write the step so that it is the same in all steps (torch.where in place of an if, an index that grows by 1), "
    "use nn.LSTM or nn.GRU, or export a single step and keep the loop outside"
)


def refused(refusal: NotRolled) -> ExportError:
    """The refusal as an error for the user."""
    at = f"at {refusal.line}: " if refusal.line else ""
    problem = f"a Python loop over a dynamic axis cannot be exported as a loop: {refusal.reason}"
    return ExportError(f"{at}{problem}; {_ADVICE}")
