"""Lengths at which a module with a loop may do something else: near the whole numbers that its code can see.

A trace shows what the code does at a few lengths.  None of them shows an ``if t == 40``, but the 40 is in the code, in
an attribute, in a configuration or in the default of a helper's argument.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..copies.rebuilt_code import closure_values, constants, nested_codes
from ..user_code import is_library

LARGEST = 1000
"""Larger numbers are not tried as lengths."""
_MOST_STEPS = 8000
"""The most steps, over all lengths, that are tried for numbers that are not in the code itself."""
_DEPTH = 3
_TABLES = ("_parameters", "_buffers", "_modules")
_MOST_ITEMS = 200


def lengths_to_try(module: nn.Module) -> list[int]:
    """Each number, that number plus 1 and plus 2; those from the code come first."""
    code = _around(_in_code(module))
    found = list(code)
    steps = 0
    for length in _around(_in_attributes(module)):
        if length not in code:
            steps += length
            found += [length] if steps <= _MOST_STEPS else []
    return found


def _around(numbers: Iterable[int]) -> list[int]:
    return sorted({number + more for number in numbers if 0 < number <= LARGEST for more in (0, 1, 2)})


def _users_classes(module: nn.Module) -> dict[type, None]:
    kinds = (owner for part in module.modules() for owner in type(part).__mro__)
    return dict.fromkeys(kind for kind in kinds if not is_library(kind.__module__))


def _in_code(module: nn.Module) -> set[int]:
    """Whole numbers in the functions that the module's classes define and that these name, and in their defaults."""
    todo: list[Any] = [item for kind in _users_classes(module) for item in vars(kind).values()]
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


def _function(value: Any) -> types.FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, types.FunctionType) else None


def _in_attributes(module: nn.Module) -> set[int]:
    """Whole numbers that the user's modules hold, in configurations within, and in the shapes of their tensors."""
    found: set[int] = set()
    for kind in _users_classes(module):
        found.update(_numbers({name: value for name, value in vars(kind).items() if not callable(value)}))
    for part in module.modules():
        if is_library(type(part).__module__):
            continue
        found.update(_numbers({name: value for name, value in vars(part).items() if name not in _TABLES}))
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                found.update(tensor.shape)
    return found


def _numbers(value: Any, depth: int = _DEPTH) -> Iterator[int]:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value):
        yield int(value.real)
    if depth == 0 or isinstance(value, (Tensor, nn.Module, type, types.ModuleType)):
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    elif dataclasses.is_dataclass(value) or isinstance(value, types.SimpleNamespace) or _is_plain(value):
        value = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, (tuple, list, set, frozenset)):
        for item in list(value)[:_MOST_ITEMS]:
            yield from _numbers(item, depth - 1)


def _is_plain(value: Any) -> bool:
    """Whether an object is of a class of the user's, such as a configuration."""
    kind = type(value)
    return not is_library(kind.__module__) and kind.__module__ != "builtins" and not callable(value)
