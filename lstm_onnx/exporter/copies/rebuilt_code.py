"""Makes functions with the same code and other variables, and classes with other methods."""

from __future__ import annotations

import contextlib
import dis
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ..user_code import is_library

ATOMIC = frozenset({type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, torch.dtype})
"""Types of immutable values."""


def rebuilt_function(
    function: types.FunctionType, table: dict[str, Any] | None = None, closure: tuple[types.CellType, ...] | None = None
) -> types.FunctionType:
    """A function with the same code and other globals or another closure."""
    new = types.FunctionType(
        function.__code__,
        function.__globals__ if table is None else table,
        function.__name__,
        function.__defaults__,
        function.__closure__ if closure is None else closure,
    )
    new.__kwdefaults__ = function.__kwdefaults__
    new.__dict__.update(function.__dict__)
    new.__module__, new.__qualname__ = function.__module__, function.__qualname__
    new.__doc__ = function.__doc__
    return new


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions and classes within it."""
    yield code
    for item in code.co_consts:
        if isinstance(item, types.CodeType):
            yield from nested_codes(item)


def constants(code: types.CodeType) -> Iterator[Any]:
    """The constants in a function's code; the items of tuples, sets and slices also by themselves."""
    yield from _each(code.co_consts)
    # Since Python 3.14, an instruction may hold a small integer itself.
    yield from (item.arg for item in dis.get_instructions(code) if item.opname == "LOAD_SMALL_INT")


def _each(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, slice):
            yield from (item.start, item.stop, item.step)
        elif isinstance(item, (tuple, frozenset)):
            yield from _each(item)
        else:
            yield item


def closure_values(function: types.FunctionType) -> list[Any]:
    """The values of the variables that a function closes over, except those that are not assigned yet."""
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def derived_class(kind: type, namespace: dict[str, Any], bases: Iterable[type] = ()) -> type:
    """A class of the same name derived from a user's class and from `bases`, made without running the user's code.

    ``__init_subclass__`` and metaclasses often add each class to a registry, which belongs to the caller.
    """
    make: Any = type.__new__
    namespace = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, **namespace}
    if all(is_library(base.__module__) for base in kind.__mro__ if "__init_subclass__" in vars(base)):
        plain: type = make(type(kind), kind.__name__, (kind, *bases), namespace)
        return plain
    new: type = make(type(kind), kind.__name__, (nn.Module,), namespace)
    new.__bases__ = (kind, *bases)
    return new


def keeps_anything(function: types.FunctionType, seen: frozenset[int] = frozenset()) -> bool:
    """Whether a function has variables or default arguments that it could write into."""
    kept = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *closure_values(function)]
    if set(function.__code__.co_freevars) - {"__class__"} and not is_library(function.__globals__.get("__name__", "")):
        return True
    seen |= {id(function)}
    for item in kept:
        if isinstance(item, types.FunctionType):
            if id(item) not in seen and keeps_anything(item, seen):
                return True
        elif type(item) not in ATOMIC and not isinstance(item, (type, types.BuiltinFunctionType)):
            return True
    return False
