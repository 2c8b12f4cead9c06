"""The one place where ONNX Runtime is called and its errors are mapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import RunError
from .float64 import NOT_ON_CPU, REMEDY, is_float64_error
from .ort_messages import first_line
from .providers import ort_errors
from .shutdown import calls_onnxruntime

T = TypeVar("T")


def call(path: str, function: Callable[..., T], *arguments: object) -> T:
    """``function(*arguments)``, which runs the model of the file `path`.

    Raises:
        RunError: ONNX Runtime failed while running, or memory ran out.
    """
    try:
        return function(*arguments)
    except MemoryError as error:
        raise RunError("ran out of memory while running", path=path, hint="pass less at a time") from error
    except ort_errors() as error:
        raise run_error(path, error) from error


calls_onnxruntime(call)


def run_error(path: str, error: BaseException) -> RunError:
    """The error to raise for one of `ort_errors`."""
    if is_float64_error(error):
        return RunError(NOT_ON_CPU, path=path, hint=REMEDY)
    failure = RunError(f"ONNX Runtime failed while running: {first_line(error)}", path=path)
    failure.ort_message = first_line(error)
    return failure
