"""TorchScript's functions, such as those with ``@torch.jit.script``, in a trace.

Compiled, they turn sizes into numbers, and their loops into as many steps as the example has.  While a module is traced
the Python functions run that they were made from; trials still compare the file with the compiled ones.
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
    """Within it, this thread calls the Python function of each ScriptFunction that has kept it."""
    kind: Any = torch.jit.ScriptFunction
    own = vars(kind)["__call__"]  # not by getattr, which gives what does not bind
    thread = threading.get_ident()

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self, "_torchdynamo_inline", None)
        if function is None or threading.get_ident() != thread:
            return own.__get__(self)(*args, **kwargs)
        return function(*args, **kwargs)

    with replaced(kind, "__call__", call):
        yield
