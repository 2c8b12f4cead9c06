"""Rewrites conditions and expressions so that a truth value that is unknown is a tensor (see `branch_code`)."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Iterator

from .branch_syntax import EXPRESSIONS, is_item, is_pure

HELPER = "lstm_onnx.exporter.traced_values.value_branches.Helper"
"""The constant in rewritten code that is replaced by the helper it calls."""


class Names:
    """Makes names of variables that are not in use.

    Attributes:
        count: how many conditions were rewritten.
    """

    def __init__(self) -> None:
        self.count = 0
        self._numbers = itertools.count()

    def fresh(self) -> str:
        """Another one."""
        return f"__lstm_onnx_{next(self._numbers)}__"


def as_condition(test: ast.expr, names: Names) -> ast.expr | None:
    """A condition that gives a tensor where its truth is unknown; None where it has side effects."""
    if not all(isinstance(node, EXPRESSIONS) for node in ast.walk(test)):
        return None
    return _as_value(copy.deepcopy(test), names)


def _as_value(test: ast.expr, names: Names) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        new: ast.expr = helper_call("negated", _as_value(test.operand, names))
    elif isinstance(test, ast.BoolOp):
        new = _as_value(test.values[0], names)
        for value in test.values[1:]:
            name = names.fresh()
            last = _as_value(value, names)
            plain = ast.BoolOp(test.op, [ast.Name(name, ast.Load()), copy.deepcopy(last)])
            # PyTorch may not compute the last one.
            kind = "both" if isinstance(test.op, ast.And) else "either"
            joined = helper_call(kind, ast.Name(name, ast.Load()), helper_call("entered"), guarded(last))
            asked = ast.NamedExpr(ast.Name(name, ast.Store()), new)
            new = ast.IfExp(helper_call("unknown", asked), joined, plain)
    elif isinstance(test, ast.Call) and not test.keywords and is_item(test):
        new = helper_call("item", test.func.value)  # type: ignore[attr-defined]
    elif isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "bool" and test.args:
        new = helper_call("truth", _as_value(test.args[0], names))
    elif isinstance(test, ast.Compare):
        if not any(isinstance(item, (ast.Is, ast.IsNot)) for item in test.ops):  # no tensor is True itself
            test.left = _as_operand(test.left, names)
            test.comparators = [_as_operand(item, names) for item in test.comparators]
        return test
    else:
        return test
    for node in ast.walk(new):
        if isinstance(node, ast.expr) and not hasattr(node, "lineno"):
            ast.copy_location(node, test)
    return new


def _as_operand(value: ast.expr, names: Names) -> ast.expr:
    """An operand of a comparison: for ``a and b`` it is one of the two values, not a truth value."""
    return value if isinstance(value, ast.BoolOp) else _as_value(value, names)


class Conditionals(ast.NodeTransformer):
    """Rewrites ``a if condition else b``."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Compute both values where the condition is unknown."""
        condition = as_condition(node.test, self._names)
        if condition is None or not is_pure(node.body) or not is_pure(node.orelse):
            self.generic_visit(node)
            return node
        self._names.count += 1
        name = self._names.fresh()
        parts = [guarded(copy.deepcopy(part)) for part in (node.body, node.orelse)]
        chosen = helper_call("chosen", helper_call("entered"), ast.Name(name, ast.Load()), *parts)
        node.test, asked = ast.Name(name, ast.Load()), ast.NamedExpr(ast.Name(name, ast.Store()), condition)
        return ast.copy_location(ast.IfExp(helper_call("unknown", asked), chosen, node), node)

    def _left(self, node: ast.AST) -> ast.AST:
        return node

    visit_Lambda = visit_GeneratorExp = visit_ListComp = visit_SetComp = visit_DictComp = _left  # noqa: N815


class _Guards(ast.NodeTransformer):
    """Wraps every function that an expression calls in a check."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Wrap the function of a call."""
        self.generic_visit(node)
        if not _is_ours(node):
            node.func = ast.copy_location(helper_call("calling", node.func), node.func)
        return node


def _is_ours(call: ast.Call) -> bool:
    owner = getattr(call.func, "value", None)
    if isinstance(call.func, ast.Call):
        return _is_ours(call.func)
    return isinstance(owner, ast.Constant) and owner.value == HELPER


def guarded(value: ast.expr) -> ast.expr:
    """The expression with every function that it calls wrapped in a check."""
    found: ast.expr = _Guards().visit(value)
    return found


def helper_call(name: str, *args: ast.expr) -> ast.Call:
    """A call of a method of the helper."""
    return ast.Call(ast.Attribute(ast.Constant(HELPER), name, ast.Load()), list(args), [])


def arguments(call: ast.Call) -> Iterator[ast.expr]:
    """The arguments of a call."""
    yield from call.args
    yield from (item.value for item in call.keywords)
