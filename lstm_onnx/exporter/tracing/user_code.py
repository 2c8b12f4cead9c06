"""Where in the user's code something happened: the frame that is neither torch's nor ours."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import FrameType, TracebackType

import torch

_OURS = str(Path(__file__).parents[2])
_NOT_USERS = (_OURS, str(Path(torch.__file__).parent), "<")
_PYTHON = sysconfig.get_paths()["stdlib"]
_FRAME = re.compile(r'^\s*File "(.*?)", line (\d+), in ', re.MULTILINE)
_ENTRIES = ("called", "_exported")
"""Functions of ours that call the user's forward; what lies above them on the stack is not the user's code."""


def user_line() -> str:
    """`stack_line`, or words for where there is none."""
    return stack_line() or "no line of Python"


def stack_line() -> str | None:
    """The innermost line of the user's forward on the stack, as ``file.py:12: code``; None outside of one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            return shown(code.co_filename, frame.f_lineno)
        if code.co_name in _ENTRIES and code.co_filename.startswith(_OURS):
            return None
        frame = frame.f_back
    return None


def calling_line() -> str | None:
    """The line that called the caller of this, where that is the user's own code; None otherwise."""
    frame = sys._getframe(2)
    return shown(frame.f_code.co_filename, frame.f_lineno) if is_users(frame.f_code.co_filename) else None


def line_of(error: BaseException) -> str | None:
    """The innermost line of the user's code in an error's traceback (or that of its cause); None without one."""
    found = None
    current: BaseException | None = error
    while current is not None and found is None:
        found = _innermost(current.__traceback__)
        current = current.__cause__ or current.__context__
    return found


def traced_line(trace: str) -> str | None:
    """The innermost line of the user's code in a traceback's text, as torch notes one of each node; None without."""
    found = [(name, int(number)) for name, number in _FRAME.findall(trace) if is_users(name)]
    return shown(*found[-1]) if found else None


def _innermost(trace: TracebackType | None) -> str | None:
    frames = [item for item in traceback.extract_tb(trace) if is_users(item.filename)]
    return shown(frames[-1].filename, frames[-1].lineno or 0) if frames else None


def is_users(filename: str) -> bool:
    """Whether a file holds code of the user's own, or of packages other than torch and this one."""
    if filename.startswith(_NOT_USERS):
        return False
    # Python's own library; packages that are installed beneath it are somebody's code.
    return not filename.startswith(_PYTHON) or "-packages" in filename


def shown(filename: str, number: int) -> str:
    """A line as messages have it: ``file.py:12: code``."""
    code = linecache.getline(filename, number).strip().rstrip(":")
    return f"{Path(filename).name}:{number}: {code}" if code else f"{Path(filename).name}:{number}"
