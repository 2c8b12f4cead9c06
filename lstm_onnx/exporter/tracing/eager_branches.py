"""``torch.compiler.is_compiling()`` and its like in a module: False in a trace, as where PyTorch runs the module.

A module may compute something else when it is compiled.  What is exported is what it computes without.
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
"""torch's own code asks them, too, and must get the true answer; the other functions of this kind say False anyway."""
_OWN = {
    question.__name__: types.FunctionType(question.__code__, question.__globals__, question.__name__)
    for question in _QUESTIONS
}
_threads: list[int] = []


@contextlib.contextmanager
def eager_branches() -> Iterator[None]:
    """Within it, the user's code in this thread is told that nothing compiles it."""
    _threads.append(threading.get_ident())
    try:
        with contextlib.ExitStack() as stack:
            for question in _QUESTIONS:
                # Its code, as the user's file may hold the function itself.
                code = _asked.__code__.replace(co_name=question.__name__)
                stack.enter_context(replaced(question, "__code__", code))
            yield
    finally:
        _threads.pop()


def _asked() -> bool:
    """The code of a question; it runs with the globals of torch's file."""
    from lstm_onnx.exporter.tracing.eager_branches import answer

    return answer()


def answer() -> bool:
    """What the function that calls this answers to its own caller."""
    question = sys._getframe(1)
    asking = question.f_back
    while asking is not None and asking.f_code.co_name in _OWN:  # torch has older names for some of them
        asking = asking.f_back
    users = asking is not None and is_user_code(asking.f_code.co_filename)
    if users and threading.get_ident() in _threads:
        return False
    own: bool = _OWN[question.f_code.co_name]()
    return own
