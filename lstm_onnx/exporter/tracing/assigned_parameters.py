"""Tensors that a forward assigns in the place of a parameter, while it is traced.

DropConnect assigns ``dropout(weight_raw, p, self.training)`` to ``lstm.weight_hh_l0`` at each call.  In eval
mode dropout returns the parameter itself, which nn.Module takes; while it is traced, it returns another
tensor, which nn.Module refuses.  Others assign to ``weight.data``, which leaves the graph.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ExportError
from ..user_code import user_line

_READ, _WRITE = torch.Tensor.data.__get__, torch.Tensor.data.__set__  # type: ignore[attr-defined]


class _DataOfParameters(TorchFunctionMode):
    """Reads the data of tensors within the graph.

    What is assigned to that of a recurrent module's parameter is ignored, as eager runs record its weights.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.recurrent = [part for part in module.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase))]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass everything else on."""
        if func == _READ:
            return args[0].detach()  # the same numbers, within the graph
        if func == _WRITE:
            if any(args[0] is parameter for part in self.recurrent for parameter in part.parameters()):
                return None
            raise ExportError(
                f"at {user_line()}: what is assigned to the data of a tensor has no place in a graph; compute a new "
                "tensor and use that, or do it before the export"
            )
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def assigned_parameters(module: nn.Module) -> Iterator[None]:
    """Let modules of this thread take any tensor for a parameter, and for the data of a recurrent module's.

    The caller must hold `torch_export.ONE_AT_A_TIME`.

    Args:
        module: the traced one.
    """
    own = nn.Module.__setattr__
    thread = threading.get_ident()

    def assign(module: nn.Module, name: str, value: Any) -> None:
        parameters = module.__dict__.get("_parameters") or {}
        if threading.get_ident() == thread and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            parameters.pop(name, None)  # as an attribute, it is found likewise
        own(module, name, value)

    setattr(nn.Module, "__setattr__", assign)  # noqa: B010 - mypy forbids the plain assignment
    try:
        with _DataOfParameters(module):
            yield
    finally:
        setattr(nn.Module, "__setattr__", own)  # noqa: B010
