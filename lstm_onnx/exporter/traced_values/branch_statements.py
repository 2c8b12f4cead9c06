"""Finds what a statement of a branch assigns, and what it writes in place.

Both are identified by a place: the name of a variable, or of an attribute such as ``self.h``.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass, field

from .branch_conditions import HELPER, arguments, guarded, helper_call
from .branch_syntax import TELLERS, is_pure, only_tells, place_of, written_by

Statements = list[ast.stmt]


@dataclass
class Branch:
    """The statements of a branch, the places that they assign or write in place, and what they return."""

    body: Statements = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    returned: ast.expr | None = None
    goes_on: bool = False
    """Whether anything is computed after a write in place."""


def add_plain(branch: Branch, statement: ast.stmt) -> bool:
    """Add a statement that contains no other statements."""
    if isinstance(statement, (ast.Pass, ast.Import)) or only_tells(statement):
        return not isinstance(statement, ast.Import) or all(item.name in TELLERS for item in statement.names)
    if isinstance(statement, ast.Assert) or (isinstance(statement, ast.If) and not statement.orelse):
        if not is_pure(statement.test):
            return False
        statement.test = guarded(statement.test)
        branch.body.append(statement)  # a check
        return True
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)) and statement.value is not None:
        targets, value = [statement.target], statement.value
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return _add_call(branch, statement, statement.value)
    else:
        return isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    if not is_pure(value):
        return False
    assigned: set[str] = set()
    for target in targets:
        if isinstance(target, ast.Subscript) or isinstance(statement, ast.AugAssign):
            if not _note_target(branch, target, statement, itself=isinstance(statement, ast.AugAssign)):
                return False
            continue
        found = places_of(target)
        if found is None:
            return False
        assigned |= found
    _note_within(branch, value, statement)
    branch.assigned |= assigned
    statement.value = guarded(value)
    branch.body.append(statement)
    return True


def _add_call(branch: Branch, statement: ast.Expr, call: ast.Call) -> bool:
    """Add ``x.masked_fill_(mask, 0)``, ``found.append(x)``, or a call whose result is not used."""
    if not all(map(is_pure, arguments(call))):
        return False
    _write_as_method(call)
    method = call.func
    if isinstance(method, ast.Attribute) and written_by(method.attr):
        if not _note_target(branch, method.value, statement, itself=True):
            return False
        call.args = [guarded(item) for item in call.args]
        for item in call.keywords:
            item.value = guarded(item.value)
    elif is_pure(call):
        statement.value = guarded(call)
    else:
        return False
    branch.body.append(statement)
    return True


def _note_within(branch: Branch, value: ast.expr, statement: ast.stmt) -> None:
    """Note what calls within an expression write: ``x.float().masked_fill_(mask, 0)`` may write into x."""
    for node in ast.walk(value):
        if not isinstance(node, ast.Call):
            continue
        _write_as_method(node)
        if isinstance(node.func, ast.Attribute) and written_by(node.func.attr):
            place = _root_of(node.func.value)
            if place is not None and node.func.attr.endswith("_"):
                note_written(branch, [place], statement)
                branch.goes_on = True
                node.func = ast.copy_location(helper_call("in_place", node.func), node.func)


def _write_as_method(call: ast.Call) -> None:
    """Rewrite ``torch.clamp_(x, 0)`` as ``x.clamp_(0)``."""
    function = call.func
    named = isinstance(function, ast.Attribute) and written_by(function.attr) and ast.unparse(function.value) == "torch"
    if isinstance(function, ast.Attribute) and named and call.args:
        function.value = call.args.pop(0)


def _root_of(value: ast.expr) -> str | None:
    """The place at the start of a chain of indices and methods, since these may return its memory."""
    while True:
        if isinstance(value, ast.Subscript):
            value = value.value
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            value = value.func.value
        else:
            return place_of(value)


def _note_target(branch: Branch, target: ast.expr, statement: ast.stmt, *, itself: bool = False) -> bool:
    """Note what is written in place, the target itself or an item of it; False where its place is not known.

    A branch works on a shallow copy of a list or a dict that existed before: its items are not copied.
    """
    inner = [target, getattr(target, "value", None)] if itself else [getattr(target, "value", None)]
    parts = [part for part in inner if isinstance(part, ast.Subscript)]
    while isinstance(target, ast.Subscript):
        if not is_pure(target.slice):
            return False
        target.slice = guarded(target.slice)
        target = target.value
    place = place_of(target)
    if place is None:
        return False
    note_written(branch, [place], statement)
    for part in parts:
        asked = f"{HELPER!r}.holds({place}) and {HELPER!r}.require_own({ast.unparse(part)}, {ast.unparse(part)!r})"
        branch.body += placed(ast.parse(asked).body, statement)
    return True


def note_written(branch: Branch, places: Collection[str], statement: ast.stmt) -> None:
    """Note what a statement writes in place; that it was created in the branch is checked when that runs."""
    for place in sorted(places):
        if place in branch.assigned:
            branch.body += placed(ast.parse(f"{HELPER!r}.require_own({place}, {place!r})").body, statement)
        else:
            branch.written.add(place)


def places_of(target: ast.expr) -> set[str] | None:
    """The places that an assignment sets; None for other targets."""
    if isinstance(target, ast.Tuple):
        found = list(map(places_of, target.elts))
        return None if None in found else {name for each in found for name in each or ()}
    place = place_of(target)
    return None if place is None else {place}


def placed(statements: Statements, place: ast.stmt) -> Statements:
    """Generated statements, with the source position of a statement of the user's."""
    for statement in statements:
        for node in ast.walk(statement):
            ast.copy_location(node, place)
    return statements
