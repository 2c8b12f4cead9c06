"""PyTorch's run in the model's precision, made to round the way its float64 run does.

A module may round on the way: to bfloat16, by ``round``, by a cast to integers or by a comparison.  Where a number
lies at the edge between two roundings, PyTorch's two precisions may be on different sides of it.  That is a whole unit
of the rounding, which says nothing of float32's error: as a bound it would allow a file without the rounding.  A right
file may be on the other side as well, which `jumps` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_NARROW = (torch.float16, torch.bfloat16)
_WHOLE = ("round", "floor", "ceil", "trunc", "sign", "floor_divide")
"""Operators of aten whose results are whole numbers."""


class Roundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, what operators round to is kept in `found`, or is as it was in another run of the same module.

    Args:
        native: the module's own dtype, to which every number is rounded.
        as_in: the other run; a result that is the next one to its result, up or down, is replaced by that.
    """

    def __init__(self, native: torch.dtype, as_in: Roundings | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.native = native
        self.found: list[Tensor] = []
        self._narrow = [dtype for dtype in _NARROW if dtype != native]
        self._others: Iterator[Tensor] | None = None if as_in is None else iter(as_in.found)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`; what it rounds is recorded or replaced."""
        result = func(*args, **(kwargs or {}))
        unit = self._unit(func, args, kwargs or {}, result)
        if unit is None:
            return result
        if self._others is None:
            self.found.append(result.detach().clone())
            return result
        other = next(self._others, None)
        if other is None or (other.shape, other.dtype.is_floating_point) != (
            result.shape,
            result.dtype.is_floating_point,
        ):
            return result
        other = other.to(result)
        return torch.where(unit(result, other), other, result)

    def _unit(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Whether two results of an operator are next to each other; None of one that does not round."""
        if not (isinstance(result, Tensor) and args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            return None
        name = func.overloadpacket.__name__
        if result.dtype == torch.bool:
            return torch.ne
        if name == "_to_copy" and result.dtype in self._narrow:
            limits = torch.finfo(result.dtype)
            return lambda one, other: torch.isclose(one, other, limits.eps, limits.eps * limits.tiny)
        if name in _WHOLE or (name == "_to_copy" and not result.is_floating_point()):
            unit = 10.0 ** -kwargs.get("decimals", 0)
            return lambda one, other: torch.isclose(one.double(), other.double(), 0, 1.001 * unit)
        return None
