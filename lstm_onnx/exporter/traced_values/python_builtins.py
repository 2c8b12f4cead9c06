"""Replaces Python's ``len``, ``max``, ``min``, ``sum``, ``sorted``, ``int`` and ``range`` in a trace.

Python makes an int of what ``__len__``, ``__int__`` and ``__index__`` return, and ``max`` iterates over a tensor's
rows, so each of them would fix a size.  When the code calls one of them, the trace starts again with all of them
replaced.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, is_concrete_int

from ...errors import ExportError
from ..copies.caller_state import replaced
from ..user_code import is_user_code, user_line
from .each_number import EachNumber, EachNumbers, RetraceError, TracedArray, is_open_vector, one_number, only_each
from .ranges import List, Range, StandIn, SymbolicRange, is_symbolic
from .repeated_lists import RepeatedList, multiplied
from .value_branches import Branches

_MOST_RETRACES = 16
_CONSTRUCTORS = tuple(
    f"{kind}Tensor" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool", "Half", "BFloat16", "Float", "Double")
)
"""Old constructors of tensors from lists or sizes, which a torch function mode does not see."""


class Builtins:
    """Which of Python's functions are replaced in a trace.

    Attributes:
        everywhere: whether ``len``, ``sum`` and ``sorted`` are replaced in all files.
        branches: the ``if`` on values that are rewritten.
        remainders: whether both branches of an ``if`` on a size's remainder are computed.
        asked_remainders: whether there was any.
        raised: errors of the trace's own, which PyTorch would not raise; the user's code may catch them.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[int, str], dict[str, Any]] = {}
        self.everywhere = False
        self.branches = Branches()
        self.remainders, self.asked_remainders = True, False
        self.raised: list[Exception] = []
        self._retraces = 0
        self._max: Any = None

    def replace_more(self, retrace: RetraceError) -> bool:
        """Replace what an interrupted trace asks for; whether that is more than before."""
        table = retrace.table
        found = {} if table is None else {(id(table), name): table for name in retrace.names}
        more = retrace.branches or not self.everywhere or bool(found.keys() - self._tables.keys())
        self.everywhere = True
        self._tables |= found
        self._retraces += 1
        return more and self._retraces < _MOST_RETRACES

    def leave_remainders(self) -> bool:
        """Take the branch of the example's size, as of any other ``if`` on sizes; whether both were computed before."""
        left, self.remainders = self.remainders and self.asked_remainders, False
        self.branches = Branches()  # those on values are added again
        return left

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Replace them inside this context; in other threads they behave as Python's own."""
        with contextlib.ExitStack() as stack:
            for (_, name), table in self._tables.items():
                if name not in table:
                    table[name] = _IN_USER_CODE[name]
                    stack.callback(table.pop, name, None)
            others: list[tuple[Any, str, Any]] = [
                (torch.SymInt, "__int__", self._watched(torch.SymInt.__int__)),
                (torch.SymInt, "__index__", self._watched(torch.SymInt.__index__)),
                (torch.SymFloat, "__int__", self._watched(torch.SymFloat.__int__)),
                (torch.SymInt, "__mul__", multiplied(torch.SymInt.__mul__)),
                (torch.SymInt, "__rmul__", multiplied(torch.SymInt.__rmul__)),
                # A torch function mode does not see torch.from_numpy and tolist.
                (torch, "from_numpy", _from_numpy(torch.from_numpy)),
                (FakeTensor, "tolist", _tolist(FakeTensor.tolist)),
                *((torch, name, _constructor(getattr(torch, name))) for name in _CONSTRUCTORS),
                # numpy asks an array-like for its values, and a traced tensor has none.
                (np, "array", _array(np.array, copies=True)),
                (np, "asarray", _array(np.asarray)),
                (np, "arange", _arange(np.arange)),
                (np, "zeros", _filled(np.zeros, torch.zeros)),
                (np, "ones", _filled(np.ones, torch.ones)),
                # Python's own functions ask for the value of a size.
                (math, "sqrt", _of_size(math.sqrt, torch.sym_sqrt)),
                (math, "log", _of_size(math.log, _log)),
                (builtins, "divmod", _divmod),
                (builtins, "max", max),  # see `replace_extremes`
                (builtins, "min", min),
            ]
            if self.everywhere:
                others += [(builtins, name, value) for name, value in _EVERYWHERE.items()]
            for owner, name, value in others:
                stack.enter_context(replaced(owner, name, value))
            yield

    def _watched(self, own: Callable[[Any], int]) -> Callable[[Any], int]:
        """Start the trace again if the user's code makes an int or a range from a size."""
        thread = threading.get_ident()

        def to_int(number: Any) -> int:
            frame = sys._getframe(1)
            symbolic = not isinstance(number, torch.SymInt) or not is_concrete_int(number)
            users = threading.get_ident() == thread and is_user_code(frame.f_code.co_filename)
            if symbolic and users and (id(frame.f_globals), "int") not in self._tables:
                self.raised.append(error := RetraceError(frame))
                raise error
            try:
                return own(number)
            except GuardOnDataDependentSymNode as error:
                if users:
                    self.raised.append(error)
                raise

        return to_int

    def replace_extremes(self) -> None:
        """Replace ``max`` and ``min``, also after torch.export has replaced them."""
        if builtins.max is not self._max:
            self._max = _extreme("max", builtins.max)
            setattr(builtins, "max", self._max)  # noqa: B010 - mypy forbids the plain assignment
            setattr(builtins, "min", _extreme("min", builtins.min))  # noqa: B010


_OWN: dict[str, Callable[..., Any]] = {name: getattr(builtins, name) for name in ("len", "sum", "sorted", "enumerate")}


def _len(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim():
        return value.shape[0]
    if isinstance(value, list) and (each := only_each(value)) is not None:
        return each.tensor.shape[0]
    return _OWN["len"](value)


def _extreme(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    largest = name == "min"

    def extreme(*args: Any, **kwargs: Any) -> Any:
        if _OWN["len"](args) == 1:
            if is_open_vector(args[0]) and not kwargs:
                return getattr(args[0], name)()
            args = (_items(args[0]),)
            each = only_each(args[0])
            if _tuple_of_each(args[0]):
                _require_no_key({"key": own})
            if each is not None:
                _require_no_key(kwargs)
                return one_number(each, getattr(each.tensor, name)())
        elif any(isinstance(item, EachNumber) for item in args):
            _require_no_key(kwargs)
            return _extreme_of_each(args, largest=largest)
        return own(*args, **kwargs)

    return extreme


def _tuple_of_each(values: Any) -> tuple[Any, ...]:
    """The item of a list that holds one tuple with the numbers of all rows, as `enumerate` gives; else an empty one."""
    pair = values[0] if type(values) is list and _OWN["len"](values) == 1 else None
    return pair if type(pair) is tuple and any(isinstance(item, EachNumber) for item in pair) else ()


def _items(values: Any) -> Any:
    """What a generator or another iterator gives, as a list; anything else as it is."""
    return list(values) if hasattr(values, "__next__") else values


def _require_no_key(kwargs: dict[str, Any]) -> None:
    if kwargs.get("key") is not None:
        raise ExportError(
            f"at {user_line()}: the numbers of a tensor are compared one by one by a key function or in tuples, which "
            "a graph cannot do; use tensor operations, such as torch.max or torch.sort"
        )


def _extreme_of_each(args: tuple[Any, ...], *, largest: bool) -> Any:
    found, *others = sorted(args, key=lambda item: not isinstance(item, EachNumber))
    return functools.reduce(lambda one, other: one.clamped(other, largest=largest), others, found)


def _sum(values: Any, *args: Any, **kwargs: Any) -> Any:
    if is_open_vector(values) and not args and not kwargs:
        return values.sum()
    values = _items(values)
    each = only_each(values)
    if each is None:
        return _OWN["sum"](values, *args, **kwargs)
    return _OWN["sum"]([one_number(each, each.tensor.sum())], *args, **kwargs)


def _sorted(values: Any, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> Any:
    """As Python's own, which leaves equal items in their order; a key may compute with each number."""
    values = [EachNumber(values.tensor)] if isinstance(values, SymbolicRange) else list(values)
    each = only_each(values)
    pair = _tuple_of_each(values)
    if each is None and not pair:
        return _OWN["sorted"](values, key=key, reverse=reverse)
    by = values[0] if key is None else key(values[0])
    if not isinstance(by, EachNumber):
        _require_no_key({"key": key or sorted})
    order = torch.argsort(by.tensor, stable=True, descending=bool(reverse))
    if each is not None:
        return EachNumbers([each._with(each.tensor[order])])
    return [tuple(item._with(item.tensor[order]) if isinstance(item, EachNumber) else item for item in pair)]


def _enumerate(iterable: Any, start: int = 0) -> Any:
    """As Python's own; of numbers that are taken one by one, the places are such numbers too."""
    values = list(iterable) if is_open_vector(iterable) else iterable
    each = only_each(values)
    if each is None:
        return _OWN["enumerate"](values, start)
    return iter([(EachNumber(torch.arange(each.tensor.shape[0]) + start, each.checks), each)])


_EVERYWHERE: dict[str, Callable[..., Any]] = {"len": _len, "sum": _sum, "sorted": _sorted, "enumerate": _enumerate}


def _from_numpy(own: Callable[..., Any]) -> Callable[..., Any]:
    def from_numpy(array: Any) -> Any:
        return array.tensor.detach() if isinstance(array, TracedArray) else own(array)  # of the same memory

    return from_numpy


def _tolist(own: Callable[..., Any]) -> Callable[..., Any]:
    def tolist(tensor: Tensor) -> Any:
        numbers = own(tensor)
        return numbers if only_each(numbers) is None else EachNumbers(numbers)

    return tolist


def _constructor(own: Any) -> type:
    def __new__(_cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        traced = (RepeatedList, SymbolicRange, TracedArray)
        if len(args) == 1 and (isinstance(args[0], traced) or only_each(args[0]) is not None):
            return torch.tensor(args[0], dtype=own.dtype)
        if not kwargs and any(map(is_symbolic, args)):
            return torch.empty(args, dtype=own.dtype)
        return own(*args, **kwargs)

    # Tensor.type identifies the class by its full name.
    return StandIn(f"torch.{own.__name__}", (), {"kinds": (own,), "dtype": own.dtype, "__new__": __new__})


def _array(own: Callable[..., Any], *, copies: bool = False) -> Callable[..., Any]:
    def array(values: Any, *args: Any, **kwargs: Any) -> Any:
        each = only_each(values)
        if isinstance(values, SymbolicRange):
            values = TracedArray(values.tensor)
        elif is_symbolic(values):
            values = TracedArray(torch.scalar_tensor(values, dtype=torch.int64))
        found = values if each is None else TracedArray(each.tensor, each.checks)
        if not isinstance(found, TracedArray):
            return own(values, *args, **kwargs)
        dtype = args[0] if args else kwargs.get("dtype")
        if dtype is not None and np.dtype(dtype) != found.dtype:
            return found.astype(dtype)
        return found.copy() if copies else found

    return array


def _arange(own: Callable[..., Any]) -> Callable[..., Any]:
    def arange(*ends: Any, **kwargs: Any) -> Any:
        symbolic = not kwargs and any(map(is_symbolic, ends))
        return TracedArray(torch.arange(*ends)) if symbolic else own(*ends, **kwargs)

    return arange


def _filled(own: Callable[..., Any], fill: Callable[..., Tensor]) -> Callable[..., Any]:
    def filled(shape: Any, dtype: Any = float, *args: Any, **kwargs: Any) -> Any:
        sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
        if args or kwargs or not any(map(is_symbolic, sizes)):
            return own(shape, dtype, *args, **kwargs)
        return TracedArray(fill(tuple(sizes), dtype=torch.float64)).astype(dtype)

    return filled


def _of_size(own: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    def of_size(number: Any, *args: Any) -> Any:
        traced = is_symbolic(number) or isinstance(number, torch.SymFloat)
        return symbolic(number, *args) if traced else own(number, *args)

    return of_size


def _log(size: Any, *base: Any) -> Any:
    """The logarithm, computed with a tensor, since torch.export has no logarithm of a size."""
    found = torch.scalar_tensor(size, dtype=torch.float64).log().item()
    return found / math.log(*base) if base else found


def _divmod(a: Any, b: Any, own: Callable[..., Any] = divmod) -> Any:
    symbolic = any(is_symbolic(item) or isinstance(item, torch.SymFloat) for item in (a, b))
    return (a // b, a % b) if symbolic else own(a, b)


_to_int: Any = torch.sym_int
_to_float: Any = torch.sym_float


class _Int(builtins.int, metaclass=StandIn):
    """Python's int, which also takes traced numbers."""

    kinds = (builtins.int,)

    def __new__(cls, value: Any = 0, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, EachNumber):
            return value.truncated()
        if isinstance(value, torch.SymInt):
            return value
        if isinstance(value, torch.SymFloat):
            return _to_int(value)
        if isinstance(value, Tensor) and value.dim() == 0 and not value.is_floating_point():
            return value.item()
        return builtins.int(value, *args, **kwargs)


class _Float(builtins.float, metaclass=StandIn):
    """Python's float, which also takes sizes that are not fixed."""

    kinds = (builtins.float, torch.SymFloat)

    def __new__(cls, value: Any = 0.0) -> Any:
        symbolic = is_symbolic(value) or isinstance(value, torch.SymFloat)
        return _to_float(value) if symbolic else builtins.float(value)


_IN_USER_CODE: dict[str, Any] = {"int": _Int, "float": _Float, "range": Range, "list": List}
