"""Numbers of a traced tensor that Python code takes one by one: ``lengths.tolist()``, ``[n // 2 for n in lengths]``.

Such a list holds one item, an `EachNumber`, which stands for the numbers of all rows and computes with all of them at
once.  An index of the list takes the number of one row.  Anything but arithmetic on one number at a time cannot be
expressed in a graph and is refused.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from ...errors import ExportError
from ..user_code import NUMBERS, is_user_code, user_line
from .value_checks import find_check

Number = (int, float, torch.SymInt, torch.SymFloat)


def _as_python(number: Any) -> Any:
    """A numpy number as a Python number."""
    return number.item() if isinstance(number, np.number) else number


def _refusal() -> ExportError:
    return ExportError(
        f"at {user_line()}: the code depends on the numbers in a tensor, which it takes one by one (a loop, tolist(), "
        "numpy()), and does more with them than arithmetic; write it with tensor operations, such as torch.where, "
        "and keep lengths a tensor"
    )


def _numpy_refusal() -> ExportError:
    return ExportError(f"at {user_line()}: numpy computes outside of the graph; use torch's operations instead")


def _method(function: Callable[[Any, Any], Any], *, swapped: bool = False) -> Any:
    def method(self: Any, other: Any) -> Any:
        return self._combined(function, other, swapped=swapped)

    return method


def _rounding(function: Callable[[Tensor], Tensor]) -> Any:
    def method(self: Any) -> Any:
        return self._with(function(self.tensor))

    return method


def _whole(function: Callable[[Tensor], Tensor]) -> Any:
    def method(self: Any) -> Any:
        return EachNumber(function(self.tensor).to(torch.int64), self.checks)

    return method


class _TracedNumbers:
    """Numbers of a traced tensor that Python code computes with.

    Args:
        tensor: all of them, ``(rows,)``.
        checks: called with the user's line wherever a check of numbers counts as passed.
    """

    __hash__ = None  # type: ignore[assignment]
    _refused: Callable[[], ExportError]

    def __init__(self, tensor: Tensor, checks: Callable[[str], None] | None = None) -> None:
        self.tensor, self.checks = tensor, checks

    def _with(self, tensor: Tensor) -> Self:
        return type(self)(tensor, self.checks)

    __add__, __radd__ = _method(operator.add), _method(operator.add, swapped=True)
    __sub__, __rsub__ = _method(operator.sub), _method(operator.sub, swapped=True)
    __mul__, __rmul__ = _method(operator.mul), _method(operator.mul, swapped=True)
    __floordiv__, __truediv__, __neg__ = _method(operator.floordiv), _method(operator.truediv), _rounding(operator.neg)

    def __getattr__(self, name: str) -> NoReturn:
        """Raise an ExportError; an AttributeError for Python's own protocols."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._refused()


class RetraceError(ExportError):
    """The trace has to start again with more functions replaced: Python's own would fix a size.

    Args:
        frame: of the user's code that calls ``int``; None if it concerns only functions that are replaced in all
            files.
        names: of Python's functions to replace in that code.
        branches: whether the code of an ``if`` on a value was rewritten.
    """

    def __init__(self, frame: FrameType | None = None, *names: str, branches: bool = False) -> None:
        while frame is not None and not is_user_code(frame.f_code.co_filename):
            frame = frame.f_back
        super().__init__(f"at {user_line()}: {NUMBERS}")
        self.table = None if frame is None else frame.f_globals
        self.names = names or ("int", "float", "range")
        self.branches = branches


class EachNumber(_TracedNumbers):
    """The number of each row: int64, or float64 for Python's floats."""

    __array_ufunc__ = None
    _refused = staticmethod(_refusal)

    def __init__(self, tensor: Tensor, checks: Callable[[str], None] | None = None) -> None:
        super().__init__(tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64), checks)

    def _combined(self, function: Callable[[Any, Any], Any], other: Any, *, swapped: bool = False) -> EachNumber:
        other = _as_python(other)
        if not isinstance(other, (*Number, EachNumber)):
            raise _refusal()
        if isinstance(other, EachTensor):
            return other._combined(function, self, swapped=not swapped)
        value = other.tensor if isinstance(other, EachNumber) else other
        one = self.tensor
        if function is operator.truediv or isinstance(value, (float, torch.SymFloat)):
            one = one.to(torch.float64)  # as Python computes
        return self._with(function(value, one) if swapped else function(one, value))

    __mod__ = _method(operator.mod)
    __abs__ = _rounding(torch.abs)
    __floor__, __ceil__, __round__ = _whole(torch.floor), _whole(torch.ceil), _whole(torch.round)

    def truncated(self) -> EachNumber:
        """The result of ``int``."""
        return EachNumber(self.tensor.to(torch.int64), self.checks)

    def clamped(self, number: Any, *, largest: bool) -> EachNumber:
        """The smaller of each number and `number` (with `largest`), or the larger."""
        if isinstance(number, EachNumber):
            return self._with((torch.minimum if largest else torch.maximum)(self.tensor, number.tensor))
        return self._with(self.tensor.clamp(max=number) if largest else self.tensor.clamp(min=number))

    def item(self) -> EachNumber:
        """As for a numpy number."""
        return self

    def _compared(self, _: Any) -> _Comparison:
        return _Comparison(self.checks)

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _compared  # type: ignore[assignment]

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise _refusal()

    __bool__ = __index__ = __float__ = __complex__ = __len__ = __iter__ = __getitem__ = __array__ = _refuse
    __pow__ = __rpow__ = __rfloordiv__ = __rtruediv__ = __rmod__ = __format__ = _refuse

    def __int__(self) -> NoReturn:
        """Have Python's int replaced."""
        raise RetraceError(sys._getframe(1))

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> NoReturn:
        """Raise an ExportError."""
        raise _refusal()


class EachTensor(EachNumber):
    """The number of each row as a tensor without axes, which computes in its own dtype, as torch does."""

    def __init__(self, tensor: Tensor, checks: Callable[[str], None] | None = None) -> None:
        _TracedNumbers.__init__(self, tensor, checks)

    def _combined(self, function: Callable[[Any, Any], Any], other: Any, *, swapped: bool = False) -> EachNumber:
        other = _as_python(other)
        if not isinstance(other, (*Number, EachNumber)):
            raise _refusal()
        value: Any = other.tensor if isinstance(other, EachNumber) else other
        if isinstance(other, EachNumber) and not isinstance(other, EachTensor):
            # Beside a Python number, a tensor keeps its dtype.
            keeps = self.tensor.is_floating_point() or not value.is_floating_point()
            value = value.to(self.tensor.dtype if keeps else torch.get_default_dtype())
        return self._with(function(value, self.tensor) if swapped else function(self.tensor, value))

    def item(self) -> EachNumber:
        """A Python number, as for a tensor with one element."""
        return EachNumber(self.tensor, self.checks)

    def long(self) -> EachTensor:
        """As of a tensor."""
        return self._with(self.tensor.to(torch.int64))

    def cpu(self) -> EachTensor:
        """As of a tensor."""
        return self

    detach = cpu


class _Comparison:
    """The result of comparing each number with another; only a check may ask for its truth."""

    def __init__(self, checks: Callable[[str], None] | None) -> None:
        self.checks = checks

    def __bool__(self) -> bool:
        """The truth value with which a check passes."""
        check = find_check(sys._getframe(1))
        if check is None:
            raise ExportError(f"{_refusal()}; for any() or all() of comparisons, write (lengths < 3).any()")
        if self.checks is not None:
            self.checks(check.line)
        return check.passed


class EachNumbers(list[EachNumber]):
    """The list of one `EachNumber` that ``tolist()`` returns: an index takes the number of one row."""

    def __getitem__(self, index: Any) -> Any:
        """As for the list of all numbers."""
        each = only_each(self)
        if each is None:  # further items were added
            return super().__getitem__(index)
        if isinstance(index, EachNumber):
            return each._with(each.tensor[index.tensor])
        if not isinstance(index, slice):
            return one_number(each, each.tensor[index])
        tensor = each.tensor.flip(0) if index == slice(None, None, -1) else each.tensor[index]
        return EachNumbers([each._with(tensor)])


def one_number(each: EachNumber, found: Tensor) -> Any:
    """One number: a Python number or a tensor, whichever the numbers of the rows are."""
    return found.to(each.tensor.dtype) if isinstance(each, EachTensor) else found.item()


def only_each(values: Any) -> EachNumber | None:
    """The item of a list (or object array) that holds one `EachNumber`; None for anything else."""
    if type(values) in (list, tuple, EachNumbers) and values.__len__() == 1:
        item = next(iter(values))
        return item if isinstance(item, EachNumber) else None
    return None


class TracedArray(_TracedNumbers):
    """Stands for ``numpy()`` of a traced tensor: it computes with the tensor, and forward may return it."""

    _refused = staticmethod(_numpy_refusal)

    def tolist(self) -> EachNumbers:
        """As of an array."""
        self._require_vector()
        return EachNumbers([EachNumber(self.tensor, self.checks)])

    def _require_vector(self) -> None:
        if not is_open_vector(self.tensor):
            raise self._refused()

    def __iter__(self) -> Any:
        """As for an array: its integers compute as Python's do, its float32 numbers as torch's do."""
        self._require_vector()
        each = EachTensor if self.tensor.is_floating_point() else EachNumber
        return iter([each(self.tensor, self.checks)])

    def astype(self, dtype: Any, **_: Any) -> TracedArray:
        """As of an array."""
        kind = torch.from_numpy(np.empty(0, np.dtype(dtype))).dtype
        return self._with(self.tensor.to(kind, copy=True))

    def copy(self) -> TracedArray:
        """As of an array."""
        return self._with(self.tensor.clone())

    @property
    def shape(self) -> Any:
        """As of an array."""
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of an array."""
        return np.dtype(str(self.tensor.dtype).removeprefix("torch."))

    def max(self) -> Any:
        """As of an array."""
        return self.tensor.max().item()

    def min(self) -> Any:
        """As of an array."""
        return self.tensor.min().item()

    def __setitem__(self, index: Any, value: Any) -> None:
        """As for an array, which writes into the tensor's memory."""
        found, numbers = (item.tensor if isinstance(item, TracedArray) else item for item in (index, value))
        self.tensor[found] = numbers

    def __getitem__(self, index: Any) -> Any:
        """As for an array: with an index that reorders it, or one number, which computes like Python's."""
        if isinstance(index, TracedArray):
            return self._with(self.tensor[index.tensor])
        if type(index) is int and self.tensor.dim() == 1 and self.tensor.dtype is torch.int64:
            return self.tensor[index].item()
        if index == slice(None, None, -1):
            return self._with(self.tensor.flip(0))
        raise _refusal()

    def argsort(self, *args: Any, **kwargs: Any) -> TracedArray:
        """As of an array."""
        if args or set(kwargs) - {"kind"}:
            raise _refusal()
        return self._with(torch.argsort(self.tensor, stable=True))

    def __array_function__(self, func: Any, _types: Any, args: Any, kwargs: Any) -> Any:
        """numpy's functions that are known here.

        Raises:
            ExportError: another one.
        """
        if func is np.argsort and args[0] is self:
            return self.argsort(*args[1:], **kwargs)
        if func is np.sort and args == (self,) and not kwargs:
            return self._with(torch.sort(self.tensor, stable=True)[0])
        if func is np.flip and args == (self,) and not kwargs:
            return self[::-1]
        if func in (np.max, np.amax, np.min, np.amin) and args == (self,) and not kwargs:
            return self.max() if func in (np.max, np.amax) else self.min()
        raise _numpy_refusal()

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an ExportError."""
        raise _numpy_refusal()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> TracedArray:
        """numpy's arithmetic and roundings.

        Raises:
            ExportError: another function.
        """
        if method != "__call__" or kwargs:
            raise _numpy_refusal()
        if ufunc in _UNARY and inputs == (self,):
            return self._with(_UNARY[ufunc](self.tensor))
        if ufunc in _BINARY and len(inputs) == 2:
            first = inputs[0] is self
            return self._combined(_BINARY[ufunc], inputs[1] if first else inputs[0], swapped=not first)
        raise _numpy_refusal()

    def _combined(self, function: Any, other: Any, *, swapped: bool) -> TracedArray:
        other = other.tensor if isinstance(other, TracedArray) else _as_python(other)
        if not isinstance(other, (*Number, Tensor)) or isinstance(other, bool):
            raise _numpy_refusal()
        tensor = self.tensor
        if not tensor.is_floating_point() and (
            function is operator.truediv or isinstance(other, (float, torch.SymFloat))
        ):
            tensor = tensor.to(torch.float64)  # as numpy does
        if function in (torch.maximum, torch.minimum):
            other = torch.as_tensor(other)
        return self._with(function(other, tensor) if swapped else function(tensor, other))


_BINARY: dict[Any, Callable[..., Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.floor_divide: operator.floordiv,
    np.maximum: torch.maximum,
    np.minimum: torch.minimum,
}
_UNARY: dict[Any, Callable[..., Any]] = {
    np.ceil: torch.ceil,
    np.floor: torch.floor,
    np.rint: torch.round,
    np.trunc: torch.trunc,
    np.negative: operator.neg,
    np.absolute: torch.abs,
}


def is_open_vector(value: Any) -> bool:
    """Whether a value is a traced tensor of one axis whose size is not fixed."""
    return isinstance(value, FakeTensor) and value.dim() == 1 and not isinstance(value.shape[0], int)
