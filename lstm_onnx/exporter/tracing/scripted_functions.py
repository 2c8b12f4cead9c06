"""Runs TorchScript functions, such as those with ``@torch.jit.script``, as Python in a trace.

Compiled, they turn sizes into numbers, and their loops into as many steps as the example has.  So in a trace the Python
functions run from which they were compiled; trials still compare the file with the compiled ones.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from ..copies.caller_state import replaced


@contextlib.contextmanager
def scripted_functions_in_python() -> Iterator[None]:
    """A context in which this thread calls the Python function of each ScriptFunction that still has it."""
    kind: Any = torch.jit.ScriptFunction
    own = vars(kind)["__call__"]  # getattr would return a bound method
    thread = threading.get_ident()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self, "_torchdynamo_inline", None)
        if function is None or threading.get_ident() != thread:
            return own.__get__(self)(*args, **kwargs)
        return function(*args, **kwargs)

    with replaced(kind, "__call__", call):
        yield
