"""Rewrites blocks of statements so that both branches of an ``if`` on a value are computed.

What statements write is identified by its place (see `branch_statements`).
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Collection, Iterable

from .branch_conditions import HELPER, Conditionals, Names, as_condition, guarded
from .branch_statements import Branch, Statements, add_plain, note_written, placed, places_of
from .branch_syntax import is_flat, is_no_grad, is_pure, mask_of, raises


class Rewriter:
    """Rewrites blocks of statements.

    Args:
        function: all statements of the function.

    Attributes:
        names: makes names for the rewriter's own variables.
    """

    def __init__(self, function: Statements) -> None:
        self.names = Names()
        self._loads = _loads_in(function)
        nodes = [node for each in function for node in ast.walk(each)]
        self._unread = {node.id for node in nodes if isinstance(node, ast.Name)} - self._loads.keys()
        self._ended = [
            (each.end_lineno or 0, _loads_in([each])) for each in function if not any(map(_delays, ast.walk(each)))
        ]

    def block(self, statements: Statements) -> Statements:
        """Statements in which every ``if`` that can be rewritten is."""
        found: Statements = []
        for index, statement in enumerate(statements):
            rest = statements[index + 1 :]
            new = self.rewritten_if(statement, rest) if isinstance(statement, ast.If) else None
            if new is not None:
                found.append(new[0])
                continue
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(statement, name, None)
                if isinstance(inner, list) and not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                    setattr(statement, name, self.block(inner))
            found.append(Conditionals(self.names).visit(statement) if is_flat(statement) else statement)
        return found

    def rewritten_if(
        self, statement: ast.If, rest: Statements, known: list[Statements] | None = None
    ) -> tuple[ast.If, set[str]] | None:
        """A rewritten ``if``, and the places that it writes in place; None where it cannot be rewritten.

        Args:
            statement: the ``if``.
            rest: the statements after it.
            known: its branches to run where the truth is known; None rewrites them as blocks.
        """
        if raises(statement.body) or raises(statement.orelse):
            return None  # a check
        one, other = self.branch(statement.body), self.branch(statement.orelse)
        if one is not None and one.returned is not None and not statement.orelse:
            other = self.branch(rest)
        condition = as_condition(statement.test, self.names)
        if one is None or other is None or condition is None or not (one.body or other.body or one.returned):
            return None
        if (one.returned is None) != (other.returned is None):
            return None
        names = {*one.assigned, *one.written, *other.assigned, *other.written}
        if any("." in name and name.partition(".")[0] in names for name in names):
            return None
        self.names.count += 1
        asked, choice = self.names.fresh(), self.names.fresh()
        mask = None if statement.orelse or one.returned is not None else mask_of(statement)
        ended = [loads for end, loads in self._ended if end < statement.lineno]
        own = sum(ended, _loads_in([statement]))
        hidden = {name for name in names if self._loads[name] == own[name]}
        read = set(_loads_in([statement, *(rest if one.returned is not None else ())]))
        for branch in (one, other):  # what nothing reads, as in `_, n = x.shape`, needs no choice
            branch.assigned -= self._unread
        lines = _computed(one, other, asked, choice, self.names.fresh(), mask, statement, hidden, read)
        # Where its truth is known, the same branch runs as in PyTorch.
        rewritten = f"if {HELPER!r}.unknown({asked} := __test__):\n    pass\nelif {asked}:\n    pass\nelse:\n    pass"
        new = placed(ast.parse(rewritten).body, statement)[0]
        assert isinstance(new, ast.If)  # noqa: S101
        plain = new.orelse[0]
        assert isinstance(plain, ast.If)  # noqa: S101
        named = new.test.args[0]  # type: ignore[attr-defined]
        named.value = condition if known is None else guarded(condition)
        new.body = lines
        plain.body, plain.orelse = known or (self.block(statement.body), self.block(statement.orelse))
        return new, one.written | other.written

    def branch(
        self, statements: Statements, own: Iterable[str] = (), *, in_loop: bool = False, ends: bool = True
    ) -> Branch | None:
        """What statements do; None where they may do more than compute variables.

        Args:
            statements: of the branch.
            own: variables that are new at each iteration.
            in_loop: whether they may have break and continue.
            ends: whether the last one may be a return.
        """
        branch = Branch(assigned=set(own))
        for index, statement in enumerate(copy.deepcopy(statements)):
            branch.goes_on |= bool(branch.written)
            rest = statements[index + 1 :]
            if isinstance(statement, ast.Return) and ends and not rest:
                value = statement.value or ast.copy_location(ast.Constant(None), statement)
                if not is_pure(value):
                    return None
                branch.returned = guarded(value)
            elif isinstance(statement, ast.If) and ends and (both := self._returning(branch, statement, rest)):
                branch.returned = both
                return branch
            elif not (in_loop and isinstance(statement, (ast.Break, ast.Continue))):
                if not self._add(branch, statement, in_loop=in_loop):
                    return None
            else:
                branch.body.append(statement)
        return branch

    def _returning(self, branch: Branch, statement: ast.If, rest: Statements) -> ast.expr | None:
        """Add an ``if`` whose branches both return, the second one possibly after the ``if``; its result, or None."""
        bodies = [_folded(statement.body), _folded(statement.orelse or copy.deepcopy(rest))]
        if (statement.orelse and rest) or not all(map(_returns, bodies)):
            return None
        result = self.names.fresh()
        new = copy.deepcopy(statement)
        new.body, new.orelse = ([*body[:-1], _kept(body[-1], result)] for body in bodies)
        return ast.copy_location(ast.Name(result, ast.Load()), statement) if self._add(branch, new) else None

    def _add(self, branch: Branch, statement: ast.stmt, *, in_loop: bool = False) -> bool:
        """Add a statement to a branch; False where it may do more than compute variables."""
        if isinstance(statement, ast.If) and not raises(statement.body):
            return self._add_if(branch, statement, in_loop=in_loop)
        if isinstance(statement, (ast.For, ast.With)):
            return self._add_block(branch, statement, in_loop=in_loop)
        return add_plain(branch, statement)

    def _add_if(self, branch: Branch, statement: ast.If, *, in_loop: bool) -> bool:
        inner = [self.branch(body, in_loop=in_loop, ends=False) for body in (statement.body, statement.orelse)]
        new = None
        if all(inner):
            new = self.rewritten_if(statement, [], [each.body or [ast.Pass()] if each else [] for each in inner])
        if new is None or any(each is None for each in inner):
            return False
        for each in inner:
            if each is not None:
                note_written(branch, each.written, statement)
                branch.goes_on |= each.goes_on
        branch.body.append(new[0])
        branch.assigned |= {name for each in inner if each is not None for name in each.assigned}
        return True

    def _add_block(self, branch: Branch, statement: ast.For | ast.With, *, in_loop: bool) -> bool:
        """Add a loop, or a block without gradients."""
        targets: set[str] = set()
        if isinstance(statement, ast.For):
            found = places_of(statement.target)
            if statement.orelse or found is None or any("." in name for name in found) or not is_pure(statement.iter):
                return False
            targets, in_loop = found, True
            statement.iter = guarded(statement.iter)
        elif not all(map(is_no_grad, statement.items)):
            return False
        inner = self.branch(statement.body, targets, in_loop=in_loop, ends=False)
        if inner is None or (isinstance(statement, ast.For) and inner.assigned & inner.written):
            return False
        note_written(branch, inner.written, statement)
        branch.assigned |= inner.assigned
        branch.goes_on |= bool(inner.written)
        statement.body = inner.body
        branch.body.append(statement)
        return True


def _loads_in(statements: Statements) -> Counter[str]:
    """How often each variable is read, including by ``x += 1``."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    targets = [node.target for node in nodes if isinstance(node, ast.AugAssign)]
    read = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Load, ast.Del))]
    return Counter(node.id for node in (*read, *targets) if isinstance(node, ast.Name))


def _delays(node: ast.AST) -> bool:
    """Whether code in a node may run after the statement that it is in."""
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.GeneratorExp))


def _folded(statements: Statements) -> Statements:
    """Statements in which those after an ``if`` that returns are moved into its ``else``."""
    for index, statement in enumerate(statements):
        rest = statements[index + 1 :]
        if rest and isinstance(statement, ast.If) and not statement.orelse and _returns(statement.body):
            new = copy.deepcopy(statement)
            new.orelse = _folded(rest)
            return [*statements[:index], new]
    return statements


def _returns(body: Statements) -> bool:
    """Whether statements end with a return of a value, or with an ``if`` whose branches both do."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ast.If) and not raises(last.body):
        return _returns(last.body) and _returns(last.orelse)
    return isinstance(last, ast.Return) and last.value is not None


def _kept(last: ast.stmt, result: str) -> ast.stmt:
    """The last statement, a return, as an assignment to `result`."""
    if isinstance(last, ast.If):
        new = copy.deepcopy(last)
        new.body, new.orelse = ([*body[:-1], _kept(body[-1], result)] for body in (last.body, last.orelse))
        return new
    assert isinstance(last, ast.Return)  # noqa: S101
    assert last.value is not None  # noqa: S101
    return ast.copy_location(ast.Assign(targets=[ast.Name(result, ast.Store())], value=last.value), last)


def _computed(
    one: Branch,
    other: Branch,
    asked: str,
    choice: str,
    result: str,
    mask: ast.expr | None,
    at: ast.If,
    hidden: Collection[str],
    read: Collection[str],
) -> Statements:
    """Statements that compute both branches and choose between their results.

    The branches read the variables in `read`; nothing else reads those that are hidden.
    """
    written = sorted(one.written | other.written)
    names = sorted({*written, *one.assigned, *other.assigned})
    attributes = tuple(name for name in names if "." in name)
    after = names
    if one.returned is not None:  # nothing reads the variables afterwards
        names = [*names, result]
        after = [*(name for name in names if "." in name or name in written), result]

    def lines(text: str) -> Statements:
        return placed(ast.parse(text).body, at)

    def returned(branch: Branch) -> Statements:
        if branch.returned is None:
            return []
        return [ast.Assign(targets=[ast.Name(result, ast.Store())], value=branch.returned)]

    shown = tuple(sorted(read)) if one.goes_on or other.goes_on else ()
    begin = lines(f"{choice} = {HELPER!r}.begin({asked}, {tuple(written)!r}, {attributes!r}, {shown!r}, None)")
    if mask is not None:
        begin[0].value.args[-1] = guarded(copy.deepcopy(mask))  # type: ignore[attr-defined]
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
        *(line for name in after for line in lines(f"{name} = {choice}.value({name!r}, {name in hidden})")),
        *(lines(f"return {result}") if one.returned is not None else []),
    ]
