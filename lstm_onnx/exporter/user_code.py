"""Lines of the user's code: frames of files that belong to neither torch, numpy nor this package."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np
import torch

NUMBERS = (
    "the code depends on the numbers in a tensor (an if on a value, tolist(), int() or item() as a size), which a "
    "graph cannot follow; write it with tensor operations such as torch.where, and keep lengths a tensor"
)
_OURS = str(Path(__file__).parents[1]) + os.sep
_NOT_USERS = (_OURS, *(str(Path(str(library.__file__)).parent) + os.sep for library in (torch, np)))
_TYPED = ("<stdin>", "<string>", "<console>", "<python-input-", "<ipython-input-", "<doctest ")
"""What the file names of code start with that was typed in, or passed to python as text."""
_PYTHON = sysconfig.get_paths()["stdlib"]
_FRAME = re.compile(r'^\s*File "(.*?)", line (\d+), in ', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_GOES_ON = re.compile(r"(, but expected one of)?:$")
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "lstm_onnx"}
_ENTRIES = ("call_forward", "_traced_by", "export_module")
"""Functions of this package that call the user's forward; their callers are not part of it, but of what exports it."""


def user_line() -> str:
    """`stack_line`, or a phrase where there is none."""
    return format_place(stack_place())


def stack_line() -> str | None:
    """The innermost line of the user's forward on the stack, as ``file.py:12: code``; None outside of a forward."""
    place = stack_place()
    return None if place is None else format_line(*place)


def stack_place() -> tuple[str, int] | None:
    """The file and the number of `stack_line`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if is_user_code(code.co_filename):
            return code.co_filename, frame.f_lineno
        if code.co_name in _ENTRIES and code.co_filename.startswith(_OURS):
            return None
        frame = frame.f_back
    return None


def calling_line() -> str | None:
    """The line that called the caller of this function, if it is the user's code; else None."""
    frame = sys._getframe(2)
    return format_line(frame.f_code.co_filename, frame.f_lineno) if is_user_code(frame.f_code.co_filename) else None


def error_line(error: BaseException) -> str | None:
    """The innermost line of the user's code in an error's traceback, or in that of its cause; None if there is none."""
    return next((line for cause in causes(error) if (line := _innermost(cause.__traceback__)) is not None), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from or while handling, and so on.

    Not the error that the caller of lstm_onnx was handling already: one that tries a second export after a first one
    failed has the first one's error as the context of the second one's.
    """
    handling = set()  # the frames that still run
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        handling.add(frame)
        frame = frame.f_back
    current: BaseException | None = error
    while current is not None:
        yield current
        context = current.__context__
        if context is not None and context.__traceback__ is not None and context.__traceback__.tb_frame in handling:
            context = None
        current = current.__cause__ or context


def stack_trace_line(trace: str) -> str | None:
    """The innermost line of the user's code in the text of a traceback; None if there is none."""
    found = [(name, int(number)) for name, number in _FRAME.findall(trace) if is_user_code(name)]
    return format_line(*found[-1]) if found else None


def _innermost(trace: TracebackType | None) -> str | None:
    frames = [item for item in traceback.extract_tb(trace) if is_user_code(item.filename)]
    return format_line(frames[-1].filename, frames[-1].lineno or 0) if frames else None


def is_user_code(filename: str) -> bool:
    """Whether a file belongs to neither torch, numpy, Python's library nor this package."""
    if filename.startswith("<"):  # other names of that kind are of generated code
        return filename.startswith(_TYPED)
    if filename.startswith(_NOT_USERS):
        return False
    # Packages may be installed in a folder of Python's library.
    return not filename.startswith(_PYTHON) or "-packages" in filename


def is_library(name: str) -> bool:
    """Whether a module of this name belongs to Python's library, torch, numpy or this package."""
    return name.partition(".")[0] in _LIBRARIES


def format_line(filename: str, number: int) -> str:
    """A line as messages show it: ``file.py:12: code``."""
    code = linecache.getline(filename, number).strip().rstrip(":")
    return f"{Path(filename).name}:{number}: {code}" if code else f"{Path(filename).name}:{number}"


def format_place(place: tuple[str, int] | None) -> str:
    """`format_line` of a file and a line, or a phrase where there is none."""
    return "no line of Python" if place is None else format_line(*place)


def first_line(error: BaseException) -> str:
    """What another library's error says first, without colours and without what would go on in further lines."""
    rows = (_COLOUR.sub("", row).strip() for row in str(error).splitlines())
    row = next((row for row in rows if row), "")
    return _GOES_ON.sub("", row)
