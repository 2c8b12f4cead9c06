"""The classes that a module's own code names: in annotations, globals, closures and other such classes."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..copies.rebuilt_code import closure_values


def reachable_classes(module: nn.Module) -> dict[str, list[type]]:
    """The classes that the code of a module and its submodules can reach by a name, by their qualified names.

    Nothing is imported, and no code of theirs runs.  Those in the annotations of methods come first.
    """
    found: dict[type, None] = {}
    functions = list(dict.fromkeys(_functions(module)))
    for function in functions:
        for annotation in _annotations(function):
            _add(annotation, found)
    for function in functions:
        for value in (*closure_values(function), *function.__globals__.values()):
            if isinstance(value, type):
                _add(value, found)
    for part in {type(part) for part in module.modules()}:
        _add_nested(part, found)
    for function in functions:
        for cls in _in_imported_modules(function):
            _add(cls, found)
    by_name: dict[str, list[type]] = {}
    for cls in found:
        by_name.setdefault(cls.__qualname__, []).append(cls)
    return by_name


def _in_imported_modules(function: types.FunctionType) -> Iterator[type]:
    """Classes of modules that a function names, as in `states.RNNStates`: only those that hold plain data."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            yield from (inner for inner in list(vars(value).values()) if isinstance(inner, type) and _is_data(inner))


def _functions(module: nn.Module) -> Iterator[types.FunctionType]:
    """The functions of its and its submodules' classes, without torch's own."""
    for part in module.modules():
        own = [value for value in vars(part).values() if callable(value) and not isinstance(value, nn.Module)]
        classes = [cls for cls in type(part).__mro__ if not cls.__module__.startswith("torch.") and cls is not object]
        for value in (*own, *(value for cls in classes for value in vars(cls).values())):
            value = inspect.unwrap(value.fget if isinstance(value, property) and value.fget else value)
            value = getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType):
                yield value


def _annotations(owner: Any) -> Iterator[Any]:
    """Annotations, resolved where their names are known."""
    try:
        yield from typing.get_type_hints(owner).values()
    except Exception:  # noqa: BLE001 - of an annotation anything can be raised, such as a NameError of a local class
        yield from (value for value in getattr(owner, "__annotations__", {}).values() if not isinstance(value, str))


def _add(annotation: Any, found: dict[type, None]) -> None:
    """Add a class, those in its type arguments, and those of its fields."""
    todo = [annotation]
    while todo:
        value = todo.pop()
        if isinstance(value, type) and not typing.get_args(value):
            if value in found:
                continue
            found[value] = None
            _add_nested(value, found)
            if _is_data(value):
                todo += _annotations(value)
        todo += typing.get_args(value)


def _add_nested(cls: type, found: dict[type, None]) -> None:
    for value in list(vars(cls).values()):
        if isinstance(value, type) and value.__qualname__.startswith(f"{cls.__qualname__}."):
            _add(value, found)


def _is_data(cls: type) -> bool:
    """Whether it is a dataclass or a NamedTuple, or an enumeration."""
    named = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return named or dataclasses.is_dataclass(cls) or hasattr(cls, "__members__")
