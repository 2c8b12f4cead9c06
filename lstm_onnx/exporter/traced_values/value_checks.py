"""Checks of numbers that only raise an error: ``assert (x > 0).all()``, or ``if x.isnan().any(): raise ValueError``.

A graph cannot raise an error that depends on values, and where PyTorch raises none, such a check changes nothing.
So in a trace the check counts as passed, and its line is reported to the user.  An ``if`` with any other effect is
not a check.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import itertools
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, cast

import torch

from ...errors import ExportError
from ..user_code import format_line, is_user_code

_TORCH = torch.__file__.removesuffix("__init__.py")
_MACHINERY = tuple(
    _TORCH + name
    for name in ("_", "fx", "export", "onnx", "overrides", "utils/_", "nn/modules/module.py", "autograd", "library")
)
"""Parts of torch that trace or dispatch, and check nothing of the user's."""
_LEAVES = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom, ast.Await)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp)
_INNER = (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)
_MANAGERS = {
    *("no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "autocast", "device"),
    *("record_function", "profile", "catch_warnings", "nullcontext"),
}
"""Context managers that suppress no error."""
_ANSWERS = (AttributeError, LookupError, TypeError)
"""Errors that Python itself may catch and interpret, as ``getattr`` does with an AttributeError."""
_ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)
"""Errors that end a loop."""
_JUMPS = ("POP_JUMP", "JUMP_IF", "COPY", "EXTENDED_ARG", "NOT_TAKEN")
_Place = tuple[int, int, int, int]
"""A place in code: its first and last line, first and last column."""


@dataclass(frozen=True)
class Check:
    """A condition on numbers that only decides whether an error is raised.

    `passed` is the truth value with which no error is raised; `line` is the user's line.
    """

    passed: bool
    line: str


def find_check(frame: FrameType | None) -> Check | None:
    """The check in the innermost frame that is not torch's machinery, where a value's truth is asked for.

    The position of the frame's instruction in the source tells which condition it is.  None where it is not a check:
    the code does anything but raise, or an error that it raises may be caught.

    Args:
        frame: of the function that was called to get the truth value.
    """
    while frame is not None and not _checks(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return None
    passed, kinds = _passed_at(frame), _raised_at(frame)
    if passed is None or any(_is_any(kind, _ENDS) for kind in kinds):
        return None
    uncaught = all(_is_any(kind, (Exception,)) and not _is_any(kind, _ANSWERS) for kind in kinds)
    line = None
    caller: FrameType | None = frame
    while caller is not None and not caller.f_code.co_filename.startswith(_OURS):
        user = is_user_code(caller.f_code.co_filename)
        if user and ((caller is not frame and _caught_at(caller)) or (not uncaught and _is_asked_by_python(caller))):
            return None
        if user and line is None:
            line = format_line(caller.f_code.co_filename, caller.f_lineno)
        caller = caller.f_back
        while caller is not None and caller.f_code.co_filename.startswith(_FORWARDS):
            caller = caller.f_back
    return Check(passed, line or format_line(frame.f_code.co_filename, frame.f_lineno))


def is_assert_caught(frame: FrameType | None) -> bool:
    """Whether an AssertionError of a function that is called in a frame may be caught in the user's code."""
    return any(map(_caught_at, _users_frames(frame)))


def _users_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of the user's forward, the innermost first."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS) and not name.startswith(_FORWARDS):
            return
        if is_user_code(name):
            yield frame
        frame = frame.f_back


def require_no_identity(frame: FrameType | None) -> None:
    """Refuse code that asks by ``is`` whether a number, or something computed from it, is True or False.

    Args:
        frame: of the function that made the number.

    Raises:
        ExportError: it asks, by ``is`` or by ``match``.
    """
    line = identity_line(frame)
    if line is not None:
        raise ExportError(
            f"at {line}: in a trace, neither item() nor a comparison with its result returns True or False itself, so "
            "`is` and match never succeed; test it with if, or use torch.where"
        )


def identity_line(frame: FrameType | None) -> str | None:
    """The user's line that asks whether a number, or what it computes from that, is True or False itself."""
    return next(filter(None, map(_identity_at, _users_frames(frame))), None)


def _identity_at(frame: FrameType) -> str | None:
    """The line of a function that asks this of what it computes from the value of its current instruction."""
    place, tree = _place(frame), _statements(frame.f_code.co_filename)
    if place is None or tree is None:
        return None
    path = list(_path(tree, place))
    function = next((node for node in reversed(path) if isinstance(node, _FUNCTIONS)), tree)
    nodes = list(ast.walk(function))
    names = {name for node in path for name in _assigned(node)}
    while more := {
        name for node in nodes if not names.isdisjoint(_names(node)) for name in _assigned(node) if name not in names
    }:
        names |= more
    for node in nodes:
        for asked in _asked_for_identity(node):
            if _contains(_place_of(asked), place) or (isinstance(asked, ast.Name) and asked.id in names):
                return format_line(frame.f_code.co_filename, asked.lineno)
    return None


def _assigned(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    single = isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and isinstance(node.target, ast.Name)
    return [node.target.id] if single else []  # type: ignore[attr-defined]


def _asked_for_identity(node: ast.AST) -> list[ast.expr]:
    """What a comparison by ``is`` or a ``match`` compares with True or False."""
    if isinstance(node, ast.Match):
        patterns = [item for case in node.cases for item in ast.walk(case.pattern)]
        singles = (item.value for item in patterns if isinstance(item, ast.MatchSingleton))
        return [node.subject] if any(value is not None for value in singles) else []
    if not isinstance(node, ast.Compare) or not any(isinstance(item, (ast.Is, ast.IsNot)) for item in node.ops):
        return []
    sides = [node.left, *node.comparators]
    fixed = [side for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, bool)]
    return [side for side in sides if side not in fixed] if fixed else []


_OURS = str(__file__).rpartition("exporter")[0]
_FORWARDS = tuple(
    _OURS + f"exporter/{name}.py"
    for name in (
        *("opaque/operators", "traced_values/branch_effects", "traced_values/constants"),
        *("traced_values/function_mode", "traced_values/python_builtins", "tracing/scripted_functions"),
    )
)
"""Files of this package that call back into the user's code."""


def _checks(code: CodeType) -> bool:
    name = code.co_filename
    if name == torch.__file__:
        return code.co_name not in ("__bool__", "__torch_function__")
    return not name.startswith((_OURS, *_MACHINERY, "<frozen"))


def _passed_at(frame: FrameType) -> bool | None:
    place = _place(frame)
    statements = _statements(frame.f_code.co_filename)
    if place is None or statements is None:
        return None
    statement = _statement_at(statements, place)
    if isinstance(statement, ast.Assert):
        wanted = True
    elif isinstance(statement, ast.If) and (_only_raises(statement.body) or _only_raises(statement.orelse)):
        wanted = not _only_raises(statement.body)
    else:
        return None
    whole = place == _place_of(statement)  # pytest rewrites an assert into statements that all have its position
    passed = wanted if whole else _wanted_of(statement.test, place, wanted)
    return None if passed is None or _is_caught(statements, place, frame) else passed


def _caught_at(frame: FrameType) -> bool:
    """Whether an error that a call in this frame raises may be caught in the frame; True if its source is not known."""
    place, statements = _place(frame), _statements(frame.f_code.co_filename)
    return place is None or statements is None or _is_caught(statements, place, frame)


def _raised_at(frame: FrameType) -> list[Any]:
    """The classes of the errors that a check in a frame may raise; None for one that is not known."""
    place, statements = _place(frame), _statements(frame.f_code.co_filename)
    statement = None if place is None or statements is None else _statement_at(statements, place)
    if not isinstance(statement, ast.If):
        return [AssertionError]
    body = statement.body if _only_raises(statement.body) else statement.orelse
    raised = [node.exc for item in body for node in ast.walk(item) if isinstance(node, ast.Raise)]
    found = [_named(item.func if isinstance(item, ast.Call) else item, frame) for item in raised]
    return [type(item) if isinstance(item, BaseException) else item for item in found]


def _named(expression: ast.expr | None, frame: FrameType) -> Any:
    """The value of a name, or of an attribute of one, in a running frame; None where that is not known."""
    if isinstance(expression, ast.Attribute):
        return getattr(_named(expression.value, frame), expression.attr, None)
    if not isinstance(expression, ast.Name):
        return None
    tables = (frame.f_locals, frame.f_globals, vars(builtins))
    return next((table[expression.id] for table in tables if expression.id in table), None)


def _is_any(kind: Any, errors: tuple[type[BaseException], ...]) -> bool:
    return isinstance(kind, type) and issubclass(kind, errors)


def _is_asked_by_python(frame: FrameType) -> bool:
    """Whether a frame runs a property or a special method, whose errors Python itself may catch and interpret.

    An AttributeError in them gives ``getattr`` its default, an IndexError in ``__getitem__`` ends a loop.
    """
    code = frame.f_code
    if code.co_name.startswith("__") and code.co_name.endswith("__"):
        return code.co_name not in ("__call__", "__init__")
    owner = frame.f_locals.get(next(iter(code.co_varnames), ""))
    for kind in type(owner).__mro__:
        found = vars(kind).get(code.co_name)
        getter = getattr(found, "fget", None) or getattr(found, "func", None)  # of a property, a cached_property
        if getattr(getter, "__code__", None) is code:
            return True
    return False


def _place(frame: FrameType) -> _Place | None:
    """The place of the expression whose value the current instruction uses, or of the instruction if it is a call."""
    instructions = _instructions(frame.f_code)
    # During a call, the offset may be that of the call's inline cache.
    index = sum(item.offset <= frame.f_lasti for item in instructions) - 1
    # In Python 3.11 a jump has the position of its whole statement; the instruction before it made the condition.
    while index > 0 and instructions[index].opname.startswith(_JUMPS):
        index -= 1
    at = instructions[index].positions
    return None if at is None or None in at else cast(_Place, tuple(at))


@functools.lru_cache(maxsize=64)
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return list(dis.get_instructions(code))


def _place_of(node: ast.stmt | ast.expr) -> _Place:
    return node.lineno, node.end_lineno or node.lineno, node.col_offset, node.end_col_offset or 0


@functools.lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _statements(filename: str) -> ast.Module | None:
    linecache.checkcache(filename)
    return _parsed("".join(linecache.getlines(filename)))


def _contains(outer: _Place, inner: _Place) -> bool:
    return (outer[0], outer[2]) <= (inner[0], inner[2]) and (inner[1], inner[3]) <= (outer[1], outer[3])


def _path(tree: ast.AST, place: _Place) -> Iterator[ast.AST]:
    """The nodes that contain a place, the outermost first."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.stmt, ast.expr)):
            if _contains(_place_of(child), place):
                yield child
                yield from _path(child, place)
                return
        elif isinstance(child, (ast.excepthandler, ast.match_case, ast.withitem, ast.comprehension, ast.keyword)):
            inner = list(_path(child, place))
            if inner:
                yield child
                yield from inner
                return


def _statement_at(tree: ast.Module, place: _Place) -> ast.stmt | None:
    """The innermost statement that contains a place; None if the place is in a function nested in that statement."""
    node = next((node for node in reversed(list(_path(tree, place))) if isinstance(node, (ast.stmt, *_INNER))), None)
    return node if isinstance(node, ast.stmt) else None


def _wanted_of(test: ast.expr, place: _Place, wanted: bool) -> bool | None:
    """The truth value that the part of a condition at `place` must have for the condition to be `wanted`."""
    while True:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            wanted = not wanted
            if place == _place_of(test):
                return wanted  # `not x` as a value asks for the truth of x at the position of the whole expression
            test = test.operand
        elif place == _place_of(test):
            return wanted
        elif isinstance(test, ast.BoolOp):
            inner = next((value for value in test.values if _contains(_place_of(value), place)), None)
            if inner is None or any(map(_writes, test.values[test.values.index(inner) + 1 :])):
                return None  # PyTorch might compute the operands that this truth value skips
            test = inner
        elif isinstance(test, ast.NamedExpr) and _contains(_place_of(test.value), place):
            test = test.value
        elif isinstance(test, ast.Call) and _is_bool(test) and _contains(_place_of(test.args[0]), place):
            test = test.args[0]
        else:
            return None


def _writes(value: ast.expr) -> bool:
    """Whether an expression assigns a variable, or calls a method that writes in place."""
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    return any(isinstance(node, ast.NamedExpr) for node in ast.walk(value)) or any(
        isinstance(call, ast.Attribute) and call.attr.endswith("_") and not call.attr.startswith("_") for call in calls
    )


def _is_bool(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "bool" and len(call.args) == 1 and not call.keywords


def _only_raises(body: list[ast.stmt]) -> bool:
    """Whether statements always end in an error."""
    if not body or not isinstance(body[-1], ast.Raise) or any("Stop" in name for name in _names(body[-1])):
        return False  # StopIteration ends a loop
    return not any(isinstance(node, (*_LEAVES, ast.Try)) for statement in body for node in ast.walk(statement))


def _is_caught(tree: ast.Module, place: _Place, frame: FrameType) -> bool:
    """Whether an error raised at a place may be caught in the same function."""
    path = list(_path(tree, place))
    functions = [index for index, node in enumerate(path) if isinstance(node, _FUNCTIONS)]
    own = path[functions[-1] if functions else 0 :]
    return any(_catches(node, inner, frame) for node, inner in itertools.pairwise(own))


def _catches(node: ast.AST, inner: ast.AST, frame: FrameType) -> bool:
    """Whether a statement may catch an error raised in `inner`, a part of it."""
    if isinstance(node, ast.Try):
        tried = inner in node.body and not all(_only_raises(handler.body) for handler in node.handlers)
        return tried or _leaves(node.finalbody)
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return inner in node.body and not all(_lets_through(item.context_expr, frame) for item in node.items)
    return type(node).__name__ == "TryStar"


def _names(node: ast.AST) -> list[str]:
    return [item.id for item in ast.walk(node) if isinstance(item, ast.Name)]


def _leaves(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, _LEAVES) for statement in body for node in ast.walk(statement))


def _lets_through(manager: ast.expr, frame: FrameType) -> bool:
    called = manager.func if isinstance(manager, ast.Call) else manager
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    found = _named(called, frame)
    # An instance counts like its class; nothing is known of the user's own classes of these names.
    own = getattr(found, "__module__", "") or ""
    return name in _MANAGERS and own.partition(".")[0] in ("torch", "contextlib", "warnings")
