"""Rewrites the body of a function that a branch of an ``if`` on a value calls."""

from __future__ import annotations

import ast
import copy

from .branch_conditions import guarded
from .branch_rewriter import Rewriter
from .branch_statements import Branch, Statements, add_plain, note_written, places_of
from .branch_syntax import is_no_grad, is_pure, raises


class FunctionRewriter:
    """Wraps what a function calls in checks, and refuses a function that may have side effects."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self._rewriter = Rewriter(function.body)
        own = function.args
        arguments = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
        names = {
            node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        self._own = names | {item.arg for item in arguments}

    def block(self, statements: Statements) -> Statements | None:
        """Statements with their calls checked; None where they may have side effects."""
        found: Statements = []
        for index, statement in enumerate(statements):
            new = self._statement(copy.deepcopy(statement), statements[index + 1 :])
            if new is None:
                return None
            found += new
        return found

    def _statement(self, statement: ast.stmt, rest: Statements) -> Statements | None:
        if isinstance(statement, (ast.Pass, ast.Break, ast.Continue, ast.Raise)):
            return [statement]
        if isinstance(statement, ast.Return) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Yield)
        ):
            holder = statement.value if isinstance(statement, ast.Expr) else statement
            value: ast.expr | None = holder.value  # type: ignore[union-attr]
            if value is not None:
                if not is_pure(value):
                    return None
                holder.value = guarded(value)  # type: ignore[union-attr]
            return [statement]
        if isinstance(statement, (ast.If, ast.For, ast.While, ast.With)) and not raises(statement.body):
            return self._nested(statement, rest)
        # All that it can name is new, or an argument, which is checked where it is written.
        branch = Branch(assigned=set(self._own))
        if not add_plain(branch, statement) or branch.written or any("." in name for name in branch.assigned):
            return None
        return branch.body

    def _nested(self, statement: ast.If | ast.For | ast.While | ast.With, rest: Statements) -> Statements | None:
        bodies = [self.block(statement.body), self.block(getattr(statement, "orelse", []))]
        if None in bodies:
            return None
        if isinstance(statement, ast.If):
            known = [body or [ast.Pass()] for body in bodies]
            new = self._rewriter.rewritten_if(statement, rest, known)
            if new is not None:
                before = Branch(assigned=set(self._own))
                note_written(before, new[1], statement)
                return None if before.written else [*before.body, new[0]]
        if isinstance(statement, ast.With):
            if not all(map(is_no_grad, statement.items)):
                return None
        else:
            asked = "iter" if isinstance(statement, ast.For) else "test"
            value = getattr(statement, asked)
            if not is_pure(value):
                return None
            setattr(statement, asked, guarded(value))
        if isinstance(statement, ast.For) and places_of(statement.target) is None:
            return None
        statement.body = bodies[0] or [ast.Pass()]
        if bodies[1]:
            statement.orelse = bodies[1]  # type: ignore[union-attr]
        return [statement]
