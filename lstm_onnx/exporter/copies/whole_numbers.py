"""Finds the integers that a module's code can see, near which it may do something else.

A call shows what the code does at one length, or at one value of a counter.  It does not show the effect of an
``if t == 40``, but the 40 is in the code, an attribute, a configuration or a default argument.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..copies.rebuilt_code import closure_values, constants, nested_codes
from ..user_code import is_library

_DEPTH = 3
_TABLES = ("_parameters", "_buffers", "_modules")
_MOST_ITEMS = 200


def code_numbers(module: nn.Module) -> set[int]:
    """The integers in functions that the module's classes define, its parts hold, or these name, and in defaults."""
    holders = (*_users_classes(module), *(part for part in module.modules() if not is_library(type(part).__module__)))
    todo: list[Any] = [item for holder in holders for item in vars(holder).values()]
    seen: set[int] = set()
    found: set[int] = set()
    while todo:
        function = _function(todo.pop())
        if function is None or id(function.__code__) in seen or is_library(str(function.__module__)):
            continue
        seen.add(id(function.__code__))
        found.update(_numbers((function.__defaults__, function.__kwdefaults__)))
        for code in nested_codes(function.__code__):
            found.update(number for item in constants(code) for number in _numbers(item))
            for name in code.co_names:
                value = function.__globals__.get(name)
                found.update(_numbers(value))
                todo.append(value)
        todo += closure_values(function)
    return found


def _users_classes(module: nn.Module) -> dict[type, None]:
    kinds = (owner for part in module.modules() for owner in type(part).__mro__)
    return dict.fromkeys(kind for kind in kinds if not is_library(kind.__module__))


def _function(value: Any) -> types.FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, types.FunctionType) else None


def attribute_numbers(module: nn.Module) -> set[int]:
    """The integers in the attributes of the user's modules, and in configurations that they hold."""
    found: set[int] = set()
    for kind in _users_classes(module):
        found.update(_numbers({name: value for name, value in vars(kind).items() if not callable(value)}))
    for part in module.modules():
        if is_library(type(part).__module__):
            continue
        found.update(_numbers({name: value for name, value in vars(part).items() if name not in _TABLES}))
    return found


def sizes_of_tensors(module: nn.Module) -> set[int]:
    """The sizes of the parameters and buffers of the user's modules."""
    parts = [part for part in module.modules() if not is_library(type(part).__module__)]
    tensors = [tensor for part in parts for tensor in (*part._parameters.values(), *part._buffers.values())]
    return {size for tensor in tensors if tensor is not None for size in tensor.shape}


def _numbers(value: Any, depth: int = _DEPTH) -> Iterator[int]:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value):
        yield int(value.real)
    if depth == 0 or isinstance(value, (Tensor, nn.Module, type, types.ModuleType)):
        return
    if isinstance(value, Mapping):
        value = [*value.values(), *value]
    elif dataclasses.is_dataclass(value) or isinstance(value, types.SimpleNamespace) or _is_plain(value):
        value = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, (tuple, list, set, frozenset)):
        for item in list(value)[:_MOST_ITEMS]:
            yield from _numbers(item, depth - 1)


def _is_plain(value: Any) -> bool:
    """Whether an object's class is a user's, such as a configuration's."""
    kind = type(value)
    return not is_library(kind.__module__) and kind.__module__ != "builtins" and not callable(value)
