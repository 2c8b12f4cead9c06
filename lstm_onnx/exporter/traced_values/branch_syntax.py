"""Reads from the syntax of an ``if`` and its branches what has side effects and what a mask selects."""

from __future__ import annotations

import ast

_TOLD = ("print", "breakpoint")
TELLERS = ("warnings", "logging", "logger", "log", "pdb", "ipdb")
"""Functions that only show something to a person."""
EXPRESSIONS = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Attribute, ast.Subscript, ast.Slice, ast.Name),
    *(ast.Constant, ast.Tuple, ast.List, ast.Starred, ast.keyword, ast.IfExp, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.boolop, ast.expr_context),
)
"""The syntax nodes that a condition may contain."""
_MORE = (ast.ListComp, ast.GeneratorExp, ast.comprehension, ast.Dict)
"""Further ones that an expression of a branch may contain."""
_WRITING = frozenset({"append", "extend", "insert", "update"})
"""Methods that write into a list or a dict."""


def is_pure(value: ast.expr) -> bool:
    """Whether an expression has no side effects but those of calls, which are checked when they are made."""
    for node in ast.walk(value):
        if not isinstance(node, (*EXPRESSIONS, *_MORE)) or (
            isinstance(node, ast.keyword) and node.arg in (None, "out", "inplace")
        ):
            return False
    return True


def written_by(method: str) -> bool:
    """Whether a method changes its object: ``masked_fill_`` of a tensor, ``append`` of a list."""
    return method in _WRITING or (method.endswith("_") and not method.startswith("_"))


def place_of(target: ast.expr) -> str | None:
    """The name of a variable, or of an attribute such as ``self.h``; None for anything else."""
    root = target
    while isinstance(root, ast.Attribute):
        root = root.value
    return ast.unparse(target) if isinstance(root, ast.Name) else None


def is_no_grad(item: ast.withitem) -> bool:
    """Whether a context manager is ``torch.no_grad()``."""
    return item.optional_vars is None and ast.unparse(item.context_expr) == "torch.no_grad()"


def only_tells(statement: ast.stmt) -> bool:
    """Whether a statement only shows something to a person: a print, a warning, a docstring."""
    if not isinstance(statement, ast.Expr):
        return False
    call = statement.value
    if not isinstance(call, ast.Call):
        return isinstance(call, ast.Constant)
    root = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    if not isinstance(root, ast.Name):
        return False
    return root.id in (_TOLD if root is call.func else TELLERS)


def raises(body: list[ast.stmt]) -> bool:
    """Whether statements end with a raise."""
    return bool(body) and isinstance(body[-1], ast.Raise)


def is_flat(statement: ast.stmt) -> bool:
    """Whether a statement has no statements within it."""
    return isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr))


def is_item(call: ast.Call) -> bool:
    """Whether a call is ``x.item()``."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "item" and not call.args


def mask_of(statement: ast.If) -> ast.expr | None:
    """The mask of a condition ``mask.any()``, if the body changes only what the mask selects."""
    test = statement.test
    while (
        isinstance(test, ast.Call)
        and len(test.args) == 1
        and isinstance(test.func, ast.Name)
        and test.func.id == "bool"
    ):
        test = test.args[0]
    if isinstance(test, ast.Call) and is_item(test):
        test = test.func.value  # type: ignore[attr-defined]
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Gt, ast.NotEq)):
        zero = test.comparators[0]
        if not isinstance(zero, ast.Constant) or zero.value != 0:
            return None
        test, name = test.left, "sum"
        if isinstance(test, ast.Call) and is_item(test):
            test = test.func.value  # type: ignore[attr-defined]
    else:
        name = "any"
    if not isinstance(test, ast.Call) or not isinstance(test.func, ast.Attribute) or test.func.attr != name:
        return None
    owner = test.func.value
    if isinstance(owner, ast.Name) and owner.id == "torch":
        mask = test.args[0] if len(test.args) == 1 else None
    else:
        mask = None if test.args else owner
    if mask is None or test.keywords or not is_pure(mask):
        return None
    return mask if all(_changes_selected(item, ast.dump(mask)) for item in statement.body) else None


def _changes_selected(statement: ast.stmt, mask: str) -> bool:
    """Whether a statement changes only what a mask selects, and so nothing where it selects nothing."""
    if isinstance(statement, (ast.Assign, ast.AugAssign)):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        if isinstance(target, ast.Subscript):
            parts = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
            others = [part for part in parts if not isinstance(part, ast.Slice) and not _is_constant(part, ..., None)]
            return len(others) == 1 and ast.dump(others[0]) == mask
        if isinstance(statement, ast.AugAssign) or not isinstance(target, ast.Name):
            return False  # y += y.masked_fill(mask, 0) adds y where the mask selects nothing
        return _selects(statement.value, "masked_fill", target.id, mask)
    written = statement.value if isinstance(statement, ast.Expr) else None
    return written is not None and _selects(written, "masked_fill_", None, mask)


def _selects(value: ast.expr, method: str, name: str | None, mask: str) -> bool:
    """Whether a value is ``name.masked_fill(mask, ...)`` or ``torch.where(mask, ..., name)``."""
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.keywords:
        return False
    owner = value.func.value
    if not isinstance(owner, ast.Name) or not value.args or ast.dump(_widened(value.args[0])) != mask:
        return False
    if owner.id == "torch" and value.func.attr == "where" and len(value.args) == 3:
        last = value.args[2]
        return name is not None and isinstance(last, ast.Name) and last.id == name
    return value.func.attr == method and name in (None, owner.id)


def _widened(mask: ast.expr) -> ast.expr:
    """A mask without the axes of size 1 that were added to it."""
    if isinstance(mask, ast.Call) and isinstance(mask.func, ast.Attribute) and mask.func.attr == "unsqueeze":
        return _widened(mask.func.value)
    if isinstance(mask, ast.Subscript):
        parts = mask.slice.elts if isinstance(mask.slice, ast.Tuple) else [mask.slice]
        if all(_is_constant(part, ..., None) or ast.unparse(part) == ":" for part in parts):
            return _widened(mask.value)
    return mask


def _is_constant(node: ast.expr, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)
