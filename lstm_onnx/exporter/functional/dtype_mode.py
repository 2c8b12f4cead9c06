"""Runs code that names dtypes explicitly in another precision.

A module's rounding is measured against a float64 copy.  ``module.double()`` converts the
parameters; a forward that writes ``x.float()``, ``torch.zeros(..., dtype=torch.float32)`` or
``torch.FloatTensor(...)`` would still compute in float32, or fail where the two meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

_CASTS: Mapping[Any, torch.dtype] = {
    Tensor.float: torch.float32,
    Tensor.double: torch.float64,
    Tensor.half: torch.float16,
    Tensor.bfloat16: torch.bfloat16,
}
_LEGACY_TYPES = {
    torch.float32: ("FloatTensor", torch.FloatTensor),
    torch.float64: ("DoubleTensor", torch.DoubleTensor),
    torch.float16: ("HalfTensor", torch.HalfTensor),
    torch.bfloat16: ("BFloat16Tensor", torch.BFloat16Tensor),
}
"""What ``tensor.type(...)`` accepts besides dtypes: names that follow ``torch.``, and types."""
_REINTERPRETS = (Tensor.view, torch.Tensor.view_as)
"""``tensor.view(dtype)`` reads the same bytes as another dtype, which is not a cast."""
_PLAIN = frozenset({int, float, bool, type(None)})
_GET_DTYPE = Tensor.dtype.__get__  # type: ignore[attr-defined]


class DtypeMode(TorchFunctionMode):
    """A mode in which `native` and float32 (or float64) mean `target`, for torch's functions and for tensors.

    A tensor of a replaced dtype, wherever it comes from, is converted when a function first takes it; from then on its
    copy replaces it, including changes in place.  ``tensor.dtype`` returns `native`, so that code that compares dtypes
    takes the same branch as in the original.

    Args:
        native: the module's own dtype.
        target: the dtype to compute in.
    """

    def __init__(self, native: torch.dtype, target: torch.dtype) -> None:
        super().__init__()
        self.native, self.target = native, target
        self.replaced = {native, torch.float32, torch.float64} - {target}
        if target == torch.float32:
            self.replaced -= {torch.float16, torch.bfloat16}
        self._copies: Any = WeakIdKeyDictionary()
        names = {dtype: _LEGACY_TYPES[dtype] for dtype in self.replaced if dtype in _LEGACY_TYPES}
        self._strings = {f"torch.{device}{name}" for name, _ in names.values() for device in ("", "cuda.")}
        self._types = tuple(kind for _, kind in names.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func` with every replaced dtype, and every tensor of such a dtype, converted."""
        if func == _GET_DTYPE:
            found = func(*args)
            return self.native if found in (self.target, *self.replaced) else found
        if _CASTS.get(func) in self.replaced:
            func, args = Tensor.to, (args[0], self.target)
        names_dtypes = func not in _REINTERPRETS
        args = tuple([self._exchanged(item, names_dtypes) for item in args])
        named = {key: self._exchanged(item, names_dtypes) for key, item in kwargs.items()} if kwargs else {}
        return func(*args, **named)

    def _exchanged(self, item: Any, names_dtypes: bool) -> Any:
        if type(item) in _PLAIN:  # the fast path
            return item
        if isinstance(item, Tensor):
            return self._copy(item)
        if isinstance(item, torch.dtype):
            return self.target if names_dtypes and item in self.replaced else item
        if isinstance(item, str):
            return self.target if item in self._strings else item
        if any(item is kind for kind in self._types):
            return self.target
        if type(item) in (tuple, list):
            return type(item)(self._exchanged(entry, names_dtypes) for entry in item)
        return item

    def _copy(self, tensor: Tensor) -> Tensor:
        # The mode is off inside __torch_function__: this is the true dtype.
        if tensor.dtype not in self.replaced:
            return tensor
        if tensor not in self._copies:
            self._copies[tensor] = tensor.detach().to(self.target)
        copy: Tensor = self._copies[tensor]
        return copy
