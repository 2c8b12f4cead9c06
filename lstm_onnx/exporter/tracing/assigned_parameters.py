"""Tensors that a forward assigns in the place of a parameter, while it is traced.

DropConnect assigns ``dropout(weight_raw, p, self.training)`` to ``lstm.weight_hh_l0`` at each call.  In eval
mode dropout returns the parameter itself, which nn.Module takes; while it is traced, it returns another
tensor, which nn.Module refuses.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..copies.caller_state import replaced


@contextlib.contextmanager
def assigned_parameters() -> Iterator[None]:
    """Let modules of this thread take any tensor for a parameter.

    The caller must hold `torch_export.ONE_AT_A_TIME`.
    """
    own = nn.Module.__setattr__
    thread = threading.get_ident()

    def assign(module: nn.Module, name: str, value: Any) -> None:
        parameters = module.__dict__.get("_parameters") or {}
        if threading.get_ident() == thread and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            parameters.pop(name, None)  # as an attribute, it is found likewise
        own(module, name, value)

    with replaced(nn.Module, "__setattr__", assign):
        yield
