"""Makes ``torch.compiler.is_compiling()`` and the like return False in a trace, as they do when PyTorch runs a module.

A module may compute something else when it is compiled.  Exported is what it computes in eager mode.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import _symbolic_trace

from ..copies.caller_state import replaced
from ..user_code import is_user_code

_QUESTIONS: tuple[Any, ...] = (torch.compiler.is_compiling, torch.compiler.is_exporting, _symbolic_trace.is_fx_tracing)
"""Functions that torch's own code calls, too; it must get the true answer.  Others of this kind return False anyway."""
_OWN = {
    question.__name__: types.FunctionType(question.__code__, question.__globals__, question.__name__)
    for question in _QUESTIONS
}
_threads: list[int] = []


@contextlib.contextmanager
def eager_branches() -> Iterator[None]:
    """A context in which the user's code in this thread is told that it is not being compiled."""
    _threads.append(threading.get_ident())
    try:
        with contextlib.ExitStack() as stack:
            for question in _QUESTIONS:
                # Replace the code, since the user's file may have imported the function.
                code = _asked.__code__.replace(co_name=question.__name__)
                stack.enter_context(replaced(question, "__code__", code))
            yield
    finally:
        _threads.pop()


def _asked() -> bool:
    """Its code replaces that of torch's functions, and runs with the globals of torch's file."""
    from lstm_onnx.exporter.tracing.eager_branches import answer

    return answer()


def answer() -> bool:
    """What the function that calls this returns to its own caller."""
    question = sys._getframe(1)
    asking = question.f_back
    while asking is not None and asking.f_code.co_name in _OWN:  # torch has older names for some of them
        asking = asking.f_back
    users = asking is not None and is_user_code(asking.f_code.co_filename)
    if users and threading.get_ident() in _threads:
        return False
    own: bool = _OWN[question.f_code.co_name]()
    return own
