"""The code of a function with its ``if`` on values written so that both branches are computed (`value_branches`)."""

from __future__ import annotations

import ast
import copy
import itertools
import linecache
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType

from ..copies.rebuilt_code import nested_codes
from .branch_syntax import EXPRESSIONS, TELLERS, is_flat, is_item, is_pure, mask_of, only_tells, raises

HELPER = "lstm_onnx.exporter.traced_values.value_branches.Helper"
"""The constant in rewritten code for which it gets what it calls."""


def rewritten_branches(code: CodeType) -> CodeType | None:
    """The code of a function, rewritten; None where it has no such ``if``, or where its source is not known."""
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
    rewriter = _Rewriter()
    found.body = rewriter.block(found.body)
    if not rewriter.count:
        return None
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


@dataclass
class _Branch:
    """The statements of a branch: the variables that they assign, those that they write in place, and a return."""

    body: list[ast.stmt] = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    returned: ast.expr | None = None
    goes_on: bool = False
    """Whether it computes anything after it wrote in place."""


class _Rewriter:
    """Rewrites blocks of statements.

    Attributes:
        count: how many conditions were rewritten.
    """

    def __init__(self) -> None:
        self.count = 0
        self._numbers = itertools.count()

    def block(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        """Statements with all ``if`` rewritten that can be."""
        found: list[ast.stmt] = []
        for index, statement in enumerate(statements):
            rest = statements[index + 1 :]
            new = self._if(statement, rest) if isinstance(statement, ast.If) else None
            if new is not None:
                found.append(new)
                continue
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(statement, name, None)
                if isinstance(inner, list) and not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                    setattr(statement, name, self.block(inner))
            found.append(_Conditionals(self).visit(statement) if is_flat(statement) else statement)
        return found

    def fresh(self) -> str:
        """The name of a variable that nobody uses."""
        return f"__lstm_onnx_{next(self._numbers)}__"

    def _if(self, statement: ast.If, rest: list[ast.stmt]) -> ast.If | None:
        if raises(statement.body) or raises(statement.orelse):
            return None  # a check
        one, other = self._branch(statement.body), self._branch(statement.orelse)
        if one is not None and one.returned is not None and not statement.orelse:
            other = self._branch(rest)
        condition = _condition(statement.test, self)
        if one is None or other is None or condition is None or not (one.body or other.body or one.returned):
            return None
        if (one.returned is None) != (other.returned is None):
            return None
        if one.assigned & one.written or other.assigned & other.written:
            return None
        self.count += 1
        asked, choice = self.fresh(), self.fresh()
        mask = None if statement.orelse or one.returned is not None else mask_of(statement)
        lines = _computed(one, other, asked, choice, self.fresh(), mask, statement)
        # Where its truth is known, the branch is taken that PyTorch takes.
        rewritten = f"if {HELPER!r}.unknown({asked} := __test__):\n    pass\nelif {asked}:\n    pass\nelse:\n    pass"
        new = _placed(ast.parse(rewritten).body, statement)[0]
        assert isinstance(new, ast.If)  # noqa: S101
        known = new.orelse[0]
        assert isinstance(known, ast.If)  # noqa: S101
        named = new.test.args[0]  # type: ignore[attr-defined]
        named.value = condition
        new.body = lines
        known.body, known.orelse = self.block(statement.body), self.block(statement.orelse)
        return new

    def _branch(self, statements: list[ast.stmt]) -> _Branch | None:
        """What statements do; None where they may do more than compute variables."""
        branch = _Branch()
        for index, statement in enumerate(copy.deepcopy(statements)):
            branch.goes_on |= bool(branch.written)
            if isinstance(statement, ast.Return) and statement.value is not None and index == len(statements) - 1:
                if not is_pure(statement.value):
                    return None
                branch.returned = _guarded(statement.value)
            elif isinstance(statement, ast.If) and not raises(statement.body):
                inner = [self._branch(statement.body), self._branch(statement.orelse)]
                new = self._if(statement, [])
                if new is None or any(each is None or each.returned is not None for each in inner):
                    return None
                branch.body.append(new)
                for each in inner:
                    branch.assigned |= each.assigned if each else set()
                    branch.written |= each.written if each else set()
            elif not _add(branch, statement):
                return None
        return branch


def _add(branch: _Branch, statement: ast.stmt) -> bool:
    """Add a plain statement to a branch; False where it is none."""
    if isinstance(statement, (ast.Pass, ast.Import)) or only_tells(statement):
        return not isinstance(statement, ast.Import) or all(item.name in TELLERS for item in statement.names)
    if isinstance(statement, ast.Assert) or (isinstance(statement, ast.If) and not statement.orelse):
        branch.body.append(statement)  # a check
        return True
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)) and statement.value is not None:
        targets, value = [statement.target], statement.value
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return _add_call(branch, statement, statement.value)
    else:
        return False
    if not is_pure(value):
        return False
    for target in targets:
        in_place = isinstance(statement, ast.AugAssign)
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and is_pure(target.slice):
            branch.written.add(target.value.id)
            target.slice = _guarded(target.slice)
        elif isinstance(target, ast.Name):
            (branch.written if in_place else branch.assigned).add(target.id)
        elif all(isinstance(node, (ast.Tuple, ast.Name, ast.Store)) for node in ast.walk(target)):
            branch.assigned |= {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        else:
            return False
    statement.value = _guarded(value)
    branch.body.append(statement)
    return True


def _add_call(branch: _Branch, statement: ast.Expr, call: ast.Call) -> bool:
    """Add ``x.masked_fill_(mask, 0)``."""
    method = call.func
    if not isinstance(method, ast.Attribute) or not isinstance(method.value, ast.Name):
        return False
    if method.attr.startswith("_") or not method.attr.endswith("_") or not all(map(is_pure, _arguments(call))):
        return False
    call.args = [_guarded(item) for item in call.args]
    for item in call.keywords:
        item.value = _guarded(item.value)
    branch.written.add(method.value.id)
    branch.body.append(statement)
    return True


def _computed(
    one: _Branch, other: _Branch, asked: str, choice: str, result: str, mask: ast.expr | None, at: ast.If
) -> list[ast.stmt]:
    """Both branches, and what is chosen of them."""
    written = sorted(one.written | other.written)
    names = sorted({*written, *one.assigned, *other.assigned})
    if one.returned is not None:
        names = [*names, result]

    def lines(text: str) -> list[ast.stmt]:
        return _placed(ast.parse(text).body, at)

    def returned(branch: _Branch) -> list[ast.stmt]:
        if branch.returned is None:
            return []
        return [ast.Assign(targets=[ast.Name(result, ast.Store())], value=branch.returned)]

    shown = bool(one.goes_on or other.goes_on)
    begin = lines(f"{choice} = {HELPER!r}.begin({asked}, {tuple(written)!r}, {shown}, None)")
    if mask is not None:
        begin[0].value.args[-1] = _guarded(copy.deepcopy(mask))  # type: ignore[attr-defined]
    return [
        *begin,
        *(line for name in written for line in lines(f"{name} = {choice}.at_first({name!r})")),
        *one.body,
        *returned(one),
        *lines(f"{choice}.then()"),
        *(line for name in names for line in lines(f"{name} = {choice}.again({name!r})")),
        *other.body,
        *returned(other),
        *lines(f"{choice}.end()"),
        *(line for name in names for line in lines(f"{name} = {choice}.value({name!r})")),
        *(lines(f"return {result}") if one.returned is not None else []),
    ]


def _placed(statements: list[ast.stmt], place: ast.stmt) -> list[ast.stmt]:
    """Statements of ours, at a place of the user's code."""
    for statement in statements:
        for node in ast.walk(statement):
            ast.copy_location(node, place)
    return statements


def _condition(test: ast.expr, rewriter: _Rewriter) -> ast.expr | None:
    """A condition that gives a tensor where its truth is unknown; None where it has effects."""
    if not all(isinstance(node, EXPRESSIONS) for node in ast.walk(test)):
        return None
    return _as_value(copy.deepcopy(test), rewriter)


def _as_value(test: ast.expr, rewriter: _Rewriter) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        new: ast.expr = _call("negated", _as_value(test.operand, rewriter))
    elif isinstance(test, ast.BoolOp):
        new = _as_value(test.values[0], rewriter)
        for value in test.values[1:]:
            name = rewriter.fresh()
            last = _as_value(value, rewriter)
            plain = ast.BoolOp(test.op, [ast.Name(name, ast.Load()), copy.deepcopy(last)])
            # PyTorch may not compute the last one.
            kind = "both" if isinstance(test.op, ast.And) else "either"
            joined = _call(kind, ast.Name(name, ast.Load()), _call("entered"), _guarded(last))
            asked = ast.NamedExpr(ast.Name(name, ast.Store()), new)
            new = ast.IfExp(_call("unknown", asked), joined, plain)
    elif isinstance(test, ast.Call) and not test.keywords and is_item(test):
        new = _call("item", test.func.value)  # type: ignore[attr-defined]
    elif isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "bool" and test.args:
        new = _call("truth", _as_value(test.args[0], rewriter))
    elif isinstance(test, ast.Compare):
        test.left = _as_value(test.left, rewriter)
        test.comparators = [_as_value(item, rewriter) for item in test.comparators]
        return test
    else:
        return test
    for node in ast.walk(new):
        if isinstance(node, ast.expr) and not hasattr(node, "lineno"):
            ast.copy_location(node, test)
    return new


class _Conditionals(ast.NodeTransformer):
    """Rewrites ``a if condition else b``."""

    def __init__(self, rewriter: _Rewriter) -> None:
        self._rewriter = rewriter

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Compute both where the condition is unknown."""
        condition = _condition(node.test, self._rewriter)
        if condition is None or not is_pure(node.body) or not is_pure(node.orelse):
            self.generic_visit(node)
            return node
        self._rewriter.count += 1
        name = self._rewriter.fresh()
        parts = [_guarded(copy.deepcopy(part)) for part in (node.body, node.orelse)]
        chosen = _call("chosen", _call("entered"), ast.Name(name, ast.Load()), *parts)
        node.test, asked = ast.Name(name, ast.Load()), ast.NamedExpr(ast.Name(name, ast.Store()), condition)
        return ast.copy_location(ast.IfExp(_call("unknown", asked), chosen, node), node)

    def _left(self, node: ast.AST) -> ast.AST:
        return node

    visit_Lambda = visit_GeneratorExp = visit_ListComp = visit_SetComp = visit_DictComp = _left  # noqa: N815


class _Guards(ast.NodeTransformer):
    """Has each function checked that an expression calls."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Check the function."""
        self.generic_visit(node)
        owner = getattr(node.func, "value", None)
        if isinstance(owner, ast.Constant) and owner.value == HELPER:
            return node
        node.func = ast.copy_location(_call("calling", node.func), node.func)
        return node


def _guarded(value: ast.expr) -> ast.expr:
    found: ast.expr = _Guards().visit(value)
    return found


def _call(name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Constant(HELPER), name, ast.Load()), list(args), [])


def _arguments(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args
    yield from (item.value for item in call.keywords)
