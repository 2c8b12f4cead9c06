"""Finds the line of a module's code after which two runs of it branch differently."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import sys
from collections.abc import Callable
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any

from ..copies.rebuilt_code import constants
from ..user_code import format_line, is_user_code

_MOST_STEPS = 200_000
"""The most instructions of the user's code that are recorded; a loop over time may execute any number."""
Step = tuple[CodeType, int, int]


def numbers_in_code(run: Callable[[], Any]) -> list[int]:
    """The integers in the user's code that a run executes: constants, and those in strings other than docstrings."""
    codes = dict.fromkeys(code for code, _, _ in _steps(run))
    items = (item for code in codes for item in constants(code) if item is not _docstring(code))
    return sorted({number for item in items for number in _numbers(item)})


def _docstring(code: CodeType) -> str | None:
    return FunctionType(code, {}, closure=tuple(CellType() for _ in code.co_freevars)).__doc__ or None


def _numbers(item: Any) -> list[int]:
    if isinstance(item, str):
        return [int(word) for word in re.findall(r"\d{1,6}", item)]
    return [item] if type(item) is int else []


def diverging_line(one: Callable[[], Any], other: Callable[[], Any]) -> str | None:
    """The line of the user's code after which two runs differ, as ``file.py:12: if short > 0``.

    None where they never differ, or differ from the start.  A run that raises ends there.
    """
    first, second = _steps(one), _steps(other)
    before: Step | None = None
    for step, twin in zip(first, second, strict=False):
        if step[:2] != twin[:2]:
            return None if before is None else format_line(before[0].co_filename, before[2])
        before = step
    return None


def new_branch_line(one: Callable[[], Any], other: Callable[[], Any]) -> str | None:
    """The line of the user's code from which a run takes a branch that another run never takes; None if there is none.

    For runs that repeat lines a different number of times, such as loops over sequences of different lengths.
    """
    known = {(before[:2], after[:2]) for before, after in itertools.pairwise(_steps(one))}
    before: Step | None = None
    for step in _steps(other):
        if before is not None and (before[:2], step[:2]) not in known and step[0] is before[0]:
            return format_line(before[0].co_filename, before[2])
        before = step
    return None


def _steps(run: Callable[[], Any]) -> list[Step]:
    """Every instruction of the user's code that a run executes: its code object, offset and line."""
    steps: list[Step] = []

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        if not is_user_code(frame.f_code.co_filename):
            return None
        frame.f_trace = traced  # otherwise Python 3.13 ignores the next line
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and len(steps) < _MOST_STEPS:
            steps.append((frame.f_code, frame.f_lasti, frame.f_lineno))
        return traced

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # finalizers of other objects might run in between
    sys._getframe().f_trace_opcodes = True  # Python 3.12 reports instructions only if a frame asked before settrace
    sys.settrace(traced)
    try:
        with contextlib.suppress(Exception):  # a run that raises has steps, too
            run()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return steps
