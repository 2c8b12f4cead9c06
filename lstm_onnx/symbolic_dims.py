"""Axes whose size is an expression of others: ``4*batch``, ``batch*time``, ``(time - 1)//2 + 1``."""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Callable, Mapping
from functools import cache

Limit = tuple[int, int | None]
"""The least and the largest size of an axis; None where there is no largest."""
ANY_SIZE: Limit = (1, None)
_LONGEST = 200
"""Characters of an expression; those that torch.export writes are far shorter."""
_MOST_LEAST = 2**12
_NAME = re.compile(r"[^\W\d]\w*(?:\.\w+)*")
"""Some tools number their axes: ``DynamicDimension.0``."""
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def size_of(dim: str, sizes: Mapping[str, int]) -> int | None:
    """The size of an axis whose name or expression is `dim`; None where `sizes` lack a name in it."""
    known = sizes.get(dim)
    if known is not None or dim.isidentifier():
        return known
    expression = _parsed(dim)
    try:
        return None if expression is None else _value(expression, sizes)
    except (LookupError, ZeroDivisionError):
        return None


def clamped(size: int, limit: Limit) -> int:
    """`size`, or the nearest that the limit allows."""
    least, largest = limit
    return max(least, size if largest is None else min(size, largest))


def names_in(dim: str) -> set[str]:
    """The axis names in an expression, or the name itself."""
    return set(_NAME.findall(dim))


def renamed(dim: str, names: Mapping[str, str]) -> str:
    """A name or an expression with other names of the axes; one that `names` does not have stays."""
    return _NAME.sub(lambda found: names.get(found[0], found[0]), dim)


def is_expression(dim: object) -> bool:
    """Whether `dim` is an expression of axis names that `size_of` can compute, and no name."""
    if not isinstance(dim, str) or dim.isidentifier() or not names_in(dim):
        return False
    expression = _parsed(dim)
    try:
        return expression is not None and _value(expression, dict.fromkeys(names_in(dim), 1)) is not None
    except LookupError:
        return False
    except ZeroDivisionError:
        return True


def with_names(dim: str, names: Mapping[str, str]) -> str:
    """`dim` with other axis names in it; those may be expressions."""
    if dim in names:
        return names[dim]

    def named(match: re.Match[str]) -> str:
        name = names.get(match.group(), match.group())
        return name if name.isidentifier() else f"({name})"

    return _NAME.sub(named, dim)


def without_quotients(dim: str) -> str:
    """`dim` with quotients that leave no rest gone: ``(time*batch)//time`` and ``(8*batch)//8`` are ``batch``."""
    expression = _parsed(dim) if "//" in dim else None
    if expression is None:
        return dim
    cancelled = _Cancelled()
    found = ast.unparse(cancelled.visit(copy.deepcopy(expression)))
    return found.replace(" * ", "*").replace(" // ", "//") if cancelled.count else dim


def least_size(dim: str, axis: str) -> int:
    """The least size of `axis` at which `dim`, an expression of it alone, is 1 or more; 1 where none is found."""
    return next((size for size in range(1, _MOST_LEAST) if (size_of(dim, {axis: size}) or 0) >= 1), 1)


class _Cancelled(ast.NodeTransformer):
    """Divides by an axis or a number that is a factor of what is divided; an axis has 1 entry or more."""

    def __init__(self) -> None:
        self.count = 0

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        found = _divided(node.left, node.right) if isinstance(node.op, ast.FloorDiv) else None
        if found is None:
            return node
        self.count += 1
        return found


def _divided(node: ast.expr, divisor: ast.expr) -> ast.expr | None:
    """A product one of whose factors, or a sum all of whose terms, the divisor divides; None for others."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Add, ast.Sub)):
        left, right = _divided(node.left, divisor), _divided(node.right, divisor)
        if isinstance(node.op, ast.Mult):
            if left is not None:
                return _product(left, node.right)
            return None if right is None else _product(node.left, right)
        return None if left is None or right is None else ast.BinOp(left, node.op, right)
    if isinstance(node, ast.Name) and isinstance(divisor, ast.Name):
        return ast.Constant(1) if node.id == divisor.id else None
    numbers = isinstance(node, ast.Constant) and isinstance(divisor, ast.Constant)
    if not numbers or type(node.value) is not int or type(divisor.value) is not int or divisor.value == 0:  # type: ignore[attr-defined]
        return None
    quotient, rest = divmod(node.value, divisor.value)  # type: ignore[attr-defined]
    return None if rest else ast.Constant(quotient)


def _product(one: ast.expr, other: ast.expr) -> ast.expr:
    parts = [part for part in (one, other) if not (isinstance(part, ast.Constant) and part.value == 1)]
    return parts[0] if len(parts) == 1 else ast.BinOp(one, ast.Mult(), other) if parts else one


@cache
def _parsed(text: str) -> ast.expr | None:
    if len(text) > _LONGEST:
        return None
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """The value of sums, differences, products and integer quotients; LookupError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, sizes)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    raise LookupError(ast.dump(node))
