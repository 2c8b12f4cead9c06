"""Tracebacks of our errors for who calls this package: lines of their own code, and none of ours or of torch."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

from .errors import LSTMOnnxError

P = ParamSpec("P")
T = TypeVar("T")

_LIBRARIES = sys.stdlib_module_names | {"lstm_onnx", "numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch"}


def short_tracebacks(function: Callable[P, T]) -> Callable[P, T]:
    """Let errors of ours show the line that called `function`, and the user's lines that a cause was raised in.

    The message says what is wrong and where; the frames between, some forty, and torch's own errors hide it.  Calls
    from within the package, as the command line makes, keep all frames for ``--debug``.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except LSTMOnnxError as error:
            if _is_of_a_library(sys._getframe(1)):
                raise
            _shorten_cause(error)
            raise error.with_traceback(None)  # noqa: B904 - its own cause stays

    return called


def _shorten_cause(error: LSTMOnnxError) -> None:
    """Keep of a cause what the user's own code raised."""
    cause = error.__cause__
    lines = None if cause is None else _of_the_user(cause.__traceback__)
    if cause is None or lines is None or type(cause).__module__.partition(".")[0] == "torch":
        error.__cause__ = None  # which hides the context, too
        return
    cause.__cause__ = None
    cause.__traceback__ = lines


def _of_the_user(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of libraries; None where there are no others."""
    if traceback is None:
        return None
    following = _of_the_user(traceback.tb_next)
    if _is_of_a_library(traceback.tb_frame):
        return following
    return TracebackType(following, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def _is_of_a_library(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name != "__main__" and name.partition(".")[0] in _LIBRARIES
