"""Where in the user's code something happened: the frame that is neither torch's nor ours."""

from __future__ import annotations

import linecache
import sys
import traceback
from pathlib import Path
from types import FrameType, TracebackType

import torch

_OURS = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)
_NOT_USERS = (_OURS, _TORCH, "<")


def _is_users(filename: str) -> bool:
    return not filename.startswith(_NOT_USERS) and "importlib" not in filename


def user_line() -> str:
    """The innermost line of the user's code on the stack, as ``file.py:12: code``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return _shown(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return "no line of Python"


def line_of(error: BaseException) -> str | None:
    """The innermost line of the user's code in an error's traceback (or that of its cause); None without one."""
    found = None
    current: BaseException | None = error
    while current is not None and found is None:
        found = _innermost(current.__traceback__)
        current = current.__cause__ or current.__context__
    return found


def _innermost(trace: TracebackType | None) -> str | None:
    frames = [item for item in traceback.extract_tb(trace) if _is_users(item.filename)]
    return _shown(frames[-1].filename, frames[-1].lineno or 0) if frames else None


def _shown(filename: str, number: int) -> str:
    code = linecache.getline(filename, number).strip()
    return f"{Path(filename).name}:{number}: {code}" if code else f"{Path(filename).name}:{number}"
