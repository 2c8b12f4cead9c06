"""Suppresses torch's warnings and log records in a trace, and reads from them what torch decides by sizes."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import uninteresting_files

from ..copies.caller_state import replaced
from ..user_code import calling_line, stack_line


class GuardLog(logging.Filter):
    """Reads torch's log of symbolic shapes for the lines at which sizes are compared, or become constants.

    torch logs these while the user's code is on the stack.  This thread's records are dropped; those of other threads
    pass as before.

    Attributes:
        sources: torch's name of each symbol's axis, such as ``L['args'][0].size()[1]``.
        lines: by that name, the line at which the axis became a constant.
        decided: by the text of a comparison, the line that first led to it.
        texts: lines that convert a size to text.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level, self.thread = level, threading.get_ident()
        self.sources: dict[str, str] = {}
        self.lines: dict[str, str] = {}
        self.decided: dict[str, str] = {}
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Read the record; returns whether it goes on to the handlers."""
        if record.thread == self.thread and isinstance(record.args, tuple) and len(record.args) > 2:
            symbol = str(record.args[0])
            if str(record.msg).startswith("create_symbol"):
                self.sources[symbol] = str(record.args[2])
            elif str(record.msg).startswith("set_replacement") and symbol in self.sources:
                line = stack_line()
                if line is not None:
                    self.lines.setdefault(self.sources[symbol], line)
            elif "[guard added]" in str(record.msg):
                line = stack_line()
                if line is not None:
                    self.decided.setdefault(str(record.args[1]), line)
        return record.thread != self.thread and record.levelno >= self.level


_GUARDS = "torch.fx.experimental.symbolic_shapes"
_NOISY_LOGGERS = (
    *("torch.onnx", "torch._export.non_strict_utils", "torch.export._trace", "torch._subclasses.fake_tensor"),
    *("onnxscript", "onnx_ir", "torch.__trace"),
)


@contextlib.contextmanager
def suppress_torch_output() -> Iterator[None]:
    """A context without the warnings and log records of torch and its ONNX exporter."""
    with contextlib.ExitStack() as stack:
        for name in _NOISY_LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def record_strings(sizes: list[str], numbers: dict[str, None]) -> Iterator[None]:
    """Record the user's lines that turn a size or a number into text: the tracer does not see comparisons of text."""
    thread = threading.get_ident()

    def recording(own: Callable[[Any], str]) -> Callable[[Any], str]:
        def convert(number: Any) -> str:
            line = calling_line() if threading.get_ident() == thread else None
            if line is not None and isinstance(number, torch.SymInt):
                sizes.append(line)
            elif line is not None:
                numbers[line] = None
            return own(number)

        return convert

    with contextlib.ExitStack() as stack:
        for kind in (torch.SymInt, torch.SymFloat, torch.SymBool):
            for name in ("__str__", "__repr__"):
                stack.enter_context(replaced(kind, name, recording(getattr(kind, name))))
        yield


@contextlib.contextmanager
def record_guards(through: Collection[str] = ()) -> Iterator[GuardLog]:
    """Read torch's log of symbolic shapes, without showing it.

    Args:
        through: files between the user's code and torch's in a call; torch says that a comparison is in the innermost
            frame that is neither in its own files nor in these.
    """
    files = uninteresting_files()
    added = set(through) - files
    files.update(added)
    logger = logging.getLogger(_GUARDS)
    level = logger.level
    guards = GuardLog(logger.getEffectiveLevel())
    logger.addFilter(guards)
    logger.setLevel(logging.INFO)
    try:
        yield guards
    finally:
        logger.setLevel(level)
        logger.removeFilter(guards)
        files.difference_update(added)
