"""Finds sizes at which a number computed from them is rounded to different integers in float32 and in double.

Wrong precision in ``math.floor(x.size(1) * 0.7)`` shows only at such sizes (90, 170, 180), so a file is tried there.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

Axis = tuple[str, int]
"""An input's name and one of its axes."""
MOST, _MOST_NEAREST = 2000, 500
"""The largest sizes that are considered; less for nearest neighbours, since each size has to be compared."""
_MOST_SIZES = 4
"""Only the first few sizes at which float32 and double are rounded differently are kept."""
_NEAREST = {"upsample_nearest": False, "_upsample_nearest_exact": True}
_ROUNDED: Mapping[str, Callable[[Any], Any]] = {
    "FloorToInt": np.floor,
    "CeilToInt": np.ceil,
    "TruncToInt": np.trunc,
    "RoundToInt": np.rint,
}
_COMPUTED: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "FloatTrueDiv": np.true_divide,
    **dict.fromkeys(("Pow", "PowByNatural", "FloatPow"), np.power),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), np.floor_divide),
    **dict.fromkeys(("Mod", "PythonMod"), np.mod),
}
"""Functions of two arguments; with more, they are applied to the result so far and the next one."""
_OF_ONE: Mapping[str, Callable[[Any], Any]] = {"Abs": np.abs, "OpaqueUnaryFn_sqrt": np.sqrt}


class _UnknownFunctionError(Exception):
    """The sympy expression has a function that is not evaluated here."""


def evaluated(expression: Any, values: Mapping[Any, Any], kind: type[np.floating[Any]]) -> Any:
    """The value of a sympy expression of sizes, computed in a floating-point type.

    Args:
        expression: has the symbols in `values`.
        values: an int64 array for each.
        kind: the type of what is not an integer.

    Raises:
        _UnknownFunctionError: it has a function that is not known here.
    """
    if expression.is_Symbol:
        if expression not in values:
            raise _UnknownFunctionError(str(expression))
        return values[expression]
    if expression.is_Integer:
        return np.int64(int(expression))
    if expression.is_Float or expression.is_Rational:
        return kind(float(expression))
    name = type(expression).__name__
    inner = [evaluated(argument, values, kind) for argument in expression.args]
    if name == "ToFloat":
        return inner[0].astype(kind)
    if name == "IntTrueDiv":
        return inner[0].astype(kind) / inner[1].astype(kind)
    if name in _ROUNDED:
        return _ROUNDED[name](inner[0]).astype(np.int64)
    if name in _OF_ONE:
        return _OF_ONE[name](inner[0])
    if name not in _COMPUTED:
        raise _UnknownFunctionError(name)
    return functools.reduce(_COMPUTED[name], inner)


def rounding_sizes(expression: Any, symbol: Any) -> tuple[int, ...]:
    """The first sizes at which an expression of one size gives different integers in float32 and in double."""
    sizes = np.arange(1, MOST + 1, dtype=np.int64)
    single, double = (at_sizes(expression, {symbol: sizes}, sizes.shape, kind) for kind in (np.float32, np.float64))
    return () if single is None or double is None else tuple(sizes[single != double][:_MOST_SIZES].tolist())


def nearest_sizes(before: Any, after: Any, factor: float | None, symbol: Any, *, exact: bool) -> tuple[int, ...]:
    """The first sizes at which float32 and exact arithmetic find different nearest neighbours.

    Args:
        before: the sympy expression of the axis's size, with one symbol.
        after: that of the interpolated size.
        factor: the scale factor; None if a size was given.
        symbol: the symbol.
        exact: whether the mode is "nearest-exact".
    """
    sizes = np.arange(1, _MOST_NEAREST + 1, dtype=np.int64)
    befores, afters = (at_sizes(item, {symbol: sizes}, sizes.shape, np.float64) for item in (before, after))
    if befores is None or afters is None:
        return ()
    triples = zip(sizes.tolist(), befores.tolist(), afters.tolist(), strict=True)
    found = (
        size
        for size, own, wanted in triples
        if min(own, wanted) > 0 and _neighbours_differ(own, wanted, factor, exact=exact)
    )
    return tuple(itertools.islice(found, _MOST_SIZES))


def at_sizes(
    expression: Any, values: Mapping[Any, Any], shape: tuple[int, ...], kind: type[np.floating[Any]]
) -> np.ndarray | None:
    """The value of an expression at each size; None where it cannot be evaluated.

    Args:
        expression: sympy's.
        values: of its symbols: a size, or an int64 array of `shape`.
        shape: of the result.
        kind: the type of what is not an integer.
    """
    try:
        with np.errstate(all="ignore"):
            return np.broadcast_to(evaluated(expression, values, kind), shape)
    except (_UnknownFunctionError, TypeError, ValueError, OverflowError):
        return None


def _neighbours_differ(own: int, wanted: int, factor: float | None, *, exact: bool) -> bool:
    scale = own / wanted if factor is None else 1.0 / factor
    twice = 2 * np.arange(min(wanted, MOST), dtype=np.int64) + exact
    index = (twice / 2).astype(np.float32)
    others = twice * own // (2 * wanted) if factor is None else np.floor(twice / (2 * factor))
    # As a product and as a quotient, since both are in use.
    forms = index * np.float32(scale), index / np.float32(1 / scale)
    return any(bool((np.minimum(np.floor(form), own - 1) != np.minimum(others, own - 1)).any()) for form in forms)


def all_rounding_sizes(
    program: torch.export.ExportedProgram,
    known: Mapping[Any, Axis],
    expression: Callable[[Any], Any],
    sizes_of: Callable[[Any], Iterable[Any]],
) -> tuple[tuple[Axis, tuple[int, ...]], ...]:
    """For each axis, the sizes at which some rounding in a traced program may differ.

    Args:
        program: with the tracer's shapes on its nodes.
        known: the axis of each symbol.
        expression: sympy's expression of a size.
        sizes_of: the symbolic sizes of a node's value.
    """
    found: dict[Axis, set[int]] = {}
    seen = set()
    for node in program.graph.nodes:
        for item in sizes_of(node.meta.get("val")):
            for part in expression(item).atoms(*_rounding_types()):
                if part not in seen and len(part.free_symbols & set(known)) == 1 == len(part.free_symbols):
                    seen.add(part)
                    (symbol,) = part.free_symbols
                    found.setdefault(known[symbol], set()).update(rounding_sizes(part, symbol))
        for symbol, sizes in _interpolated(node, known, expression):
            found.setdefault(known[symbol], set()).update(sizes)
    return tuple((axis, tuple(sorted(sizes))) for axis, sizes in found.items() if sizes)


def _rounding_types() -> tuple[Any, ...]:
    from torch.utils._sympy import functions

    return tuple(getattr(functions, name) for name in _ROUNDED)


def _interpolated(
    node: Any, known: Mapping[Any, Axis], expression: Callable[[Any], Any]
) -> Iterator[tuple[Any, tuple[int, ...]]]:
    name = getattr(node.target, "_opname", "")
    exact = next((value for prefix, value in _NEAREST.items() if name.startswith(prefix)), None)
    if exact is None:
        return
    shapes = [node.args[0].meta["val"].shape[2:], node.meta["val"].shape[2:]]
    given = node.args[2] if len(node.args) > 2 and isinstance(node.args[2], (list, tuple)) else None
    factors = given or [None] * len(shapes[0])
    for one, other, factor in zip(*shapes, factors, strict=True):
        before, after = expression(one), expression(other)
        symbols = before.free_symbols | after.free_symbols
        if len(symbols) == 1 and symbols <= set(known) and (factor is None or isinstance(factor, (int, float))):
            (symbol,) = symbols
            yield symbol, nearest_sizes(before, after, factor, symbol, exact=exact)
