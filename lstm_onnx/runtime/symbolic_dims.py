"""Axes whose size is an expression of others: ``4*batch``, ``batch*time``, ``(time - 1)//2 + 1``."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from functools import cache

_LONGEST = 200
"""Characters of an expression; those that torch.export writes are far shorter."""
_NAME = re.compile(r"[^\W\d]\w*")
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
    if expression is None:
        return None
    try:
        return _value(expression, sizes)
    except (LookupError, ZeroDivisionError):
        return None


def names_in(dim: str) -> set[str]:
    """The axis names in an expression, or the name itself."""
    return set(_NAME.findall(dim))


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
