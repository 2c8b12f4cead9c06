"""What torch says while it traces: its remarks kept quiet, and its notes on sizes listened to."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from .tracing.user_code import calling_line, stack_line


class _OwnRemarks(logging.Filter):
    """Drops what this thread's trace logs below errors; other threads' records pass as they would."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes on to the handlers."""
        return record.thread != self.thread and record.levelno >= self.level


class Guards(_OwnRemarks):
    """Listens to torch's symbolic shapes for the lines at which sizes are compared, or become constants.

    torch logs this while the user's code is on the stack.  `lines` maps what torch calls the axis,
    ``L['args'][0].size()[1]``, to the line at which it became a constant; `decided` the text of a
    comparison to the line that first led to it; `texts` are the lines that make text of a size.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.sources: dict[str, str] = {}
        self.lines: dict[str, str] = {}
        self.decided: dict[str, str] = {}
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Take in the record, and drop it where it is ours."""
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
        return super().filter(record)


_GUARDS = "torch.fx.experimental.symbolic_shapes"
_REMARKING = ("torch.onnx", "torch._export.non_strict_utils", "torch.export._trace", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """torch's own remarks on what it does: warnings and log lines."""
    with contextlib.ExitStack() as stack:
        for name in _REMARKING:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def texts_noted(lines: list[str]) -> Iterator[None]:
    """Note the user's lines that make text of a size, by an f-string or str(): a comparison of it leaves no trace."""
    kind: Any = torch.SymInt
    thread = threading.get_ident()
    own = {name: getattr(kind, name) for name in ("__str__", "__repr__")}

    def noted(name: str) -> Any:
        def made(size: Any) -> str:
            line = calling_line() if threading.get_ident() == thread else None
            if line is not None:
                lines.append(line)
            return str(own[name](size))

        return made

    for name in own:
        setattr(kind, name, noted(name))
    try:
        yield
    finally:
        for name, method in own.items():
            setattr(kind, name, method)


@contextlib.contextmanager
def listening() -> Iterator[Guards]:
    """What torch notes of sizes, and none of it in the log."""
    logger = logging.getLogger(_GUARDS)
    level = logger.level
    guards = Guards(logger.getEffectiveLevel())
    logger.addFilter(guards)
    logger.setLevel(logging.INFO)
    try:
        yield guards
    finally:
        logger.setLevel(level)
        logger.removeFilter(guards)
