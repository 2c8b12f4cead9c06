"""Reads what a trace decided by sizes: each comparison, its outcome, and the sizes at which the outcome changes.

A forward's ``if x.shape[1] > 200`` is run once, at the traced sizes, and only the branch taken then is in the graph.
torch records each such comparison; from them follow the sizes at which an exported file must be tried.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sympy import Integer  # type: ignore[import-untyped]
from sympy.core.relational import Relational  # type: ignore[import-untyped]
from torch.utils._sympy.functions import Max, Min, Mod, PythonMod

from ...metadata import Metadata
from .roundings import Axis, all_rounding_sizes, at_sizes

LARGEST_SIZE = 1_000_000
"""The largest size at which decisions are evaluated; axes are rarely longer, and no trial runs anything longer."""
_EACH_UP_TO = 16
_GROWTH = 1.4
_MOST_CHANGES = 6
"""How many changes are enough for a comparison that keeps changing, such as of a size modulo a number."""
_EVERY_UP_TO, _MOST_POINTS = 100_000, 64
"""A comparison is computed for every size up to here, and this many of its changes are examined one by one."""
_FIRST_VALUES = 64
_LAYOUT = ("contiguous", "non_overlapping", "_strides")
"""Parts of the names of torch's functions that compare sizes to find the layout of a tensor in memory."""


@dataclass(frozen=True)
class Decision:
    """A comparison of sizes that the traced code made.

    `expression` is a relation of symbols that holds at the traced sizes (sympy's); `symbols` maps its symbols to axes;
    `line` is the line of the user's code that led to it, None where that is not known.  `choice` says that the graph
    has only one side; if it is False, the graph computes both (``max(time, 20)``).  `direct` says that the comparison
    itself is in that line, and not in a torch function that the line calls; `inner` says that torch compared them to
    find the layout of a tensor in memory, which changes no values.
    """

    expression: Any
    symbols: Mapping[Any, Axis]
    line: str | None
    choice: bool = True
    inner: bool = False
    direct: bool = False

    def holds(self, sizes: Mapping[Axis, int]) -> bool:
        """Whether its outcome at these sizes is the traced one; True where it cannot be evaluated."""
        values = {symbol: Integer(sizes[axis]) for symbol, axis in self.symbols.items() if axis in sizes}
        try:
            return bool(self.expression.xreplace(values) != False)  # noqa: E712 - sympy's own false
        except (ZeroDivisionError, AssertionError):  # torch's functions assert that nothing is negative
            return True

    @property
    def of_remainder(self) -> bool:
        """Whether it compares the remainder of a division."""
        return bool(self.expression.has(Mod, PythonMod))

    def side(self, sizes: Mapping[Axis, int]) -> int:
        """-1, 0 or 1 for less, equal and greater."""
        values = {symbol: Integer(sizes[axis]) for symbol, axis in self.symbols.items()}
        try:
            difference = float(self.expression.lhs.xreplace(values)) - float(self.expression.rhs.xreplace(values))
        except (TypeError, ZeroDivisionError, ValueError, OverflowError, AssertionError):
            return 0  # undefined at these sizes, such as a division by 0
        return (difference > 0) - (difference < 0)


@dataclass(frozen=True)
class RecurrentSize:
    """The number of steps, or of rows, that a call of a recurrent module gets.

    `path` is the module's, and `call` counts its calls; `what` is "steps" or "rows"; `expression` (sympy's) has the
    symbols of `symbols`, and others where the number depends on the values in a tensor.
    """

    path: str
    call: int
    what: str
    expression: Any
    symbols: Mapping[Any, Axis]

    @property
    def is_data(self) -> bool:
        """Whether it depends on the values in a tensor."""
        return len(self.symbols) < len(self.expression.free_symbols)

    def at(self, sizes: Mapping[Axis, int]) -> int:
        """The number of steps or rows at these sizes."""
        values = {symbol: Integer(sizes[axis]) for symbol, axis in self.symbols.items()}
        try:
            return int(self.expression.xreplace(values))
        except (TypeError, ZeroDivisionError, ValueError, AssertionError):
            return 0


@dataclass(frozen=True)
class SizeFacts:
    """All that tracing found out about sizes.

    `texts` are the user's lines that turn a size into text; `roundings` are, by axis, sizes at which a rounding may
    differ; `sorts` are the user's lines with sorts that are not stable; `each` says that Python code took the numbers
    of a tensor one by one; `looped` are the axes of Python loops, and `lengths` are lengths at which the loops' code
    may do something else.
    """

    decisions: tuple[Decision, ...] = ()
    recurrent: tuple[RecurrentSize, ...] = ()
    texts: tuple[str, ...] = ()
    roundings: tuple[tuple[Axis, tuple[int, ...]], ...] = ()
    sorts: tuple[str, ...] = ()
    each: bool = False
    looped: tuple[Axis, ...] = ()
    lengths: tuple[int, ...] = ()

    def known_of(self, axes: Collection[Axis]) -> SizeFacts:
        """The facts about `axes` only; steps that depend on other axes count as data."""
        decisions = [item for item in self.decisions if set(item.symbols.values()) <= set(axes)]
        recurrent = [
            replace(item, symbols={symbol: axis for symbol, axis in item.symbols.items() if axis in axes})
            for item in self.recurrent
        ]
        roundings = tuple((axis, sizes) for axis, sizes in self.roundings if axis in axes)
        return replace(self, decisions=tuple(decisions), recurrent=tuple(recurrent), roundings=roundings)


def size_facts(
    program: torch.export.ExportedProgram, axes: Mapping[str, Axis], lines: Mapping[str, str], operator: Any
) -> SizeFacts:
    """Read a traced program.

    Args:
        program: with the tracer's shapes on its nodes.
        axes: each axis by torch's name for it, ``L['tensors'][0].size()[1]``.
        lines: the user's line for a comparison, by the comparison's text.
        operator: the opaque recurrent operator.
    """
    values = [node.meta.get("val") for node in program.graph.nodes]
    environment = next((value.fake_mode.shape_env for value in values if hasattr(value, "fake_mode")), None)
    if environment is None:
        return SizeFacts()
    known = _symbols(environment, axes)
    return SizeFacts(
        (*_guards(environment, known, lines), *_turns(values, environment, known)),
        tuple(_recurrent_sizes(program, environment, known, operator)),
        roundings=all_rounding_sizes(program, known, lambda size: _expression(size, environment), _sizes_of),
    )


def _symbols(environment: Any, axes: Mapping[str, Axis]) -> dict[Any, Axis]:
    """The axis of each symbol; any one of them where several axes became one size."""
    known: dict[Any, Axis] = {}
    for symbol, sources in environment.var_to_sources.items():
        root = environment.replacements.get(symbol, symbol)
        for source in sources:
            # A method in some versions of torch, an attribute in others.
            text = source.name() if callable(source.name) else source.name
            if text in axes and root.is_symbol:
                known.setdefault(root, axes[text])
    return known


def _guards(environment: Any, known: Mapping[Any, Axis], lines: Mapping[str, str]) -> Iterator[Decision]:
    seen = set()
    for guard in environment.guards:
        line = lines.get(str(guard.expr))
        for relation in guard.expr.atoms(Relational):
            expression = relation.xreplace(environment.replacements)
            if not isinstance(expression, Relational) or expression in seen:
                continue
            seen.add(expression)
            place = str(guard.sloc)  # as (path/net.py:12 in forward)
            for decision in _decision(expression, known, line, choice=True):
                yield replace(
                    decision,
                    inner=any(word in place for word in _LAYOUT),
                    direct=line is not None and f"{line.partition(': ')[0]} in " in place,
                )


def _decision(expression: Any, known: Mapping[Any, Axis], line: str | None, *, choice: bool) -> Iterator[Decision]:
    symbols = {symbol: known[symbol] for symbol in expression.free_symbols if symbol in known}
    if symbols and len(symbols) == len(expression.free_symbols):
        yield Decision(expression, symbols, line, choice)


def _turns(values: Iterable[Any], environment: Any, known: Mapping[Any, Axis]) -> Iterator[Decision]:
    """Decisions about which argument of a maximum or minimum of sizes it equals."""
    seen = set()
    for value in values:
        for size in _sizes_of(value):
            expression = _expression(size, environment)
            for turn in expression.atoms(Max, Min):
                first, *rest = turn.args
                for other in rest:
                    relation = first >= other
                    if isinstance(relation, Relational) and relation not in seen:
                        seen.add(relation)
                        yield from _decision(relation, known, None, choice=False)


def _sizes_of(value: Any) -> Iterator[torch.SymInt]:
    for item in value if isinstance(value, (tuple, list)) else (value,):
        for size in item.shape if isinstance(item, torch.Tensor) else (item,):
            if isinstance(size, torch.SymInt):
                yield size


def _expression(size: Any, environment: Any) -> Any:
    """A size as a sympy expression of the remaining symbols."""
    return Integer(size) if isinstance(size, int) else size.node.expr.xreplace(environment.replacements)


def _recurrent_sizes(
    program: torch.export.ExportedProgram, environment: Any, known: Mapping[Any, Axis], operator: Any
) -> Iterator[RecurrentSize]:
    for node in program.graph.nodes:
        if node.target is not operator:
            continue
        arguments = node.normalized_arguments(program.graph_module, normalize_to_only_use_kwargs=True)
        given = arguments.kwargs if arguments is not None else node.kwargs
        shape = given["x"].meta["val"].shape
        steps, rows = (1, 0) if given["batch_first"] else (0, 1)
        for what, axis in (("steps", steps), ("rows", rows)):
            expression = _expression(shape[axis], environment)
            if expression.is_Integer or (expression.is_symbol and expression in known):
                continue  # fixed, and it ran; or an axis of an input, which is never empty
            symbols = {symbol: known[symbol] for symbol in expression.free_symbols if symbol in known}
            found = RecurrentSize(given["module"], given["call"], what, expression, symbols)
            if found.is_data and environment.bound_sympy(expression).lower >= 1:
                continue  # such as the longest of the lengths
            yield found


def axis_of(size: torch.SymInt, axes: Mapping[str, Axis]) -> Axis | None:
    """The axis of an input whose size a traced size is; None where it is computed from sizes.

    Args:
        size: while or after it is traced.
        axes: each axis by what torch calls it.
    """
    node: Any = size.node
    return _symbols(node.shape_env, axes).get(_expression(size, node.shape_env))


def axis_names(metadata: Metadata) -> dict[Axis, str]:
    """The name in the file of each dynamic axis of the forward's inputs; those that follow from others have none."""
    return {
        (spec.name, axis): dim
        for spec in metadata.inputs
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str) and dim.isidentifier()
    }


def changes(decision: Decision, axis: Axis, sizes: Mapping[Axis, int]) -> list[int]:
    """The sizes n of an axis at which a comparison's outcome differs from that at n - 1; others are as in `sizes`."""

    def side(size: int) -> int:
        return decision.side({**sizes, axis: size})

    found: list[int] = []
    before, last = 1, side(1)
    points = {*_scanned(), *(() if decision.inner else _changes_at_every_size(decision, axis, sizes))}
    for point in sorted(points):
        now = side(point)
        while now != last and len(found) < _MOST_CHANGES:
            found.append(_first_change(side, before, point, last))
            before, last = found[-1], side(found[-1])
        if len(found) == _MOST_CHANGES or (point > _EACH_UP_TO and _repeats(decision, found, side, sizes[axis])):
            break
        before, last = point, now
    return found


def _scanned() -> Iterator[int]:
    point = 1
    while point < LARGEST_SIZE:
        point = point + 1 if point < _EACH_UP_TO else min(int(point * _GROWTH), LARGEST_SIZE)
        yield point


def _changes_at_every_size(decision: Decision, axis: Axis, sizes: Mapping[Axis, int]) -> set[int]:
    """The first sizes at which a comparison changes, each with the size before; they may be inexact.

    A scan in larger steps would miss a window, such as that of ``(n - 140) ** 2 < 4``.
    """
    every = np.arange(1, _EVERY_UP_TO + 1, dtype=np.int64)
    values = {symbol: every if own == axis else np.int64(sizes[own]) for symbol, own in decision.symbols.items()}
    left, right = (
        at_sizes(item, values, every.shape, np.float64) for item in (decision.expression.lhs, decision.expression.rhs)
    )
    if left is None or right is None:
        return set()
    sides = np.sign(np.nan_to_num(left.astype(np.float64) - right))
    points = every[1:][np.diff(sides) != 0][:_MOST_POINTS].tolist()
    return {size for point in points for size in (point - 1, point)}


def _repeats(decision: Decision, found: list[int], side: Callable[[int], int], own: int) -> bool:
    """Whether a comparison of a remainder was seen with both outcomes, so that later changes are like these.

    They are seen above the example's size, too, to which the axis may be bounded below.
    """
    return decision.of_remainder and len(found) > 1 and any(side(size) == 0 for size in found if size > own)


def _first_change(side: Callable[[int], int], low: int, high: int, at_low: int) -> int:
    """A size above `low` at which `side` changes, found by bisection; `side` differs at `low` and at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if side(middle) == at_low else (low, middle)
    return high


@dataclass(frozen=True)
class Bound:
    """The least size of an axis; if the axis is None, no such bound is enough."""

    axis: Axis | None = None
    least: int = 1


def least_steps(recurrent: RecurrentSize, sizes: Mapping[Axis, int], limits: Mapping[Axis, int]) -> Bound | None:
    """The bound that leaves a call of a recurrent module at least one step or row; None if all sizes do.

    Args:
        recurrent: the number of steps or rows.
        sizes: the example's, at which there is one.
        limits: the least size asked of each axis.
    """
    axes = set(recurrent.symbols.values())
    if recurrent.is_data or len(axes) != 1:
        return Bound()
    (axis,) = axes
    first, own = limits.get(axis, 1), sizes[axis]
    tried = (*range(first, max(first + _FIRST_VALUES, own + 1)), 2 * own)
    empty = [size for size in tried if recurrent.at({**sizes, axis: size}) < 1]
    if not empty:
        return None
    return Bound(axis, max(empty) + 1) if max(empty) < own else Bound()
