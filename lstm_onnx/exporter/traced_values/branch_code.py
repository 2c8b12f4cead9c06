"""Rewrites a function's code so that an ``if`` on a value computes both branches (see `value_branches`)."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable
from types import CodeType
from typing import Any

from ..copies.rebuilt_code import nested_codes
from .branch_conditions import HELPER
from .branch_functions import FunctionRewriter
from .branch_rewriter import Rewriter


def rewritten_branches(code: CodeType) -> CodeType | None:
    """The code of a function, rewritten; None where it has no such ``if``, or where its source is not known."""

    def rewrite(function: ast.FunctionDef) -> list[ast.stmt] | None:
        rewriter = Rewriter(function.body)
        new = rewriter.block(function.body)
        return new if rewriter.names.count else None

    return _rewritten(code, rewrite)


def guarded_code(code: CodeType) -> CodeType | None:
    """The code of a function that a branch calls, with its own calls checked.

    None where it may have side effects, or where its source is not known.
    """
    return _rewritten(code, lambda function: FunctionRewriter(function).block(function.body))


def with_helper(code: CodeType, helper: Any) -> CodeType:
    """Rewritten code, including the functions nested in it, that calls `helper`."""

    def replaced(item: Any) -> Any:
        if isinstance(item, CodeType):
            return with_helper(item, helper)
        return helper if isinstance(item, str) and item == HELPER else item

    return code.replace(co_consts=tuple(map(replaced, code.co_consts)))


def _rewritten(code: CodeType, rewrite: Callable[[ast.FunctionDef], list[ast.stmt] | None]) -> CodeType | None:
    name = code.co_filename
    linecache.checkcache(name)
    try:
        tree = ast.parse("".join(linecache.getlines(name)))
    except (SyntaxError, ValueError):
        return None
    found = next((node for node in ast.walk(tree) if _is_of(node, code)), None)
    if not isinstance(found, ast.FunctionDef) or any(
        isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(found)
    ):
        return None
    body = rewrite(found)
    if body is None:
        return None
    found.body = body
    try:
        whole = compile(ast.fix_missing_locations(tree), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    same = (code.co_qualname, code.co_firstlineno, code.co_freevars)
    codes = nested_codes(whole)
    return next((new for new in codes if (new.co_qualname, new.co_firstlineno, new.co_freevars) == same), None)


def _is_of(node: ast.AST, code: CodeType) -> bool:
    if not isinstance(node, ast.FunctionDef) or node.name != code.co_name:
        return False
    return min([node.lineno, *(item.lineno for item in node.decorator_list)]) == code.co_firstlineno
