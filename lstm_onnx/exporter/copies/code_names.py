"""Finds the names that the code of a forward can reach: global variables, and attributes of its classes.

A forward may write into a global list, or into a list of its class.  Only what a module's code can reach is copied
with it: a file's other globals may be whole data sets.
"""

from __future__ import annotations

import contextvars
import dis
import functools
import os
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...errors import ExportError
from ...onnxgraph.nodes import Walk
from ..user_code import is_library
from .rebuilt_code import closure_values, constants, nested_codes

ENTRIES = ("forward", "__call__", "__getattr__", "__getattribute__", "__setattr__")
"""Methods that are called although the code does not name them."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass
class CodeNames:
    """The names that code can reach.

    Attributes:
        attributes: all attribute names in it.
        tables: the globals of each file, by their id, and the names that the code reads from them.
        assigned: the ids of globals to which the code assigns.
        compared: classes named by functions that ask for the class of an object, also in containers that they name.
        functions: all functions of the code.
        shared: classes, Python modules, thread-local and environment variables that the functions name.
        stored: all attribute names that the code may set.
        held: what Python modules that the functions name hold, and what the functions of these name.
        outside: the ids of the functions of these Python modules, which are not copied.
    """

    attributes: set[str] = field(default_factory=set)
    tables: dict[int, tuple[dict[str, Any], set[str]]] = field(default_factory=dict)
    assigned: set[int] = field(default_factory=set)
    compared: list[type] = field(default_factory=list)
    functions: list[types.FunctionType] = field(default_factory=list)
    shared: list[Any] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)
    held: list[Any] = field(default_factory=list)
    outside: set[int] = field(default_factory=set)

    def add_outside(self, function: types.FunctionType, named: Sequence[Any], names: set[str]) -> list[Any]:
        """Add what a function names that is not copied, and return the functions among that.

        Args:
            function: the function.
            named: the values that it names.
            names: all names in it.
        """
        package = function.__globals__.get("__package__")
        imported = [sys.modules.get(place) for name in names for place in (name, f"{package}.{name}")]
        inside: list[Any] = []
        modules: Walk[types.ModuleType] = Walk(
            item for item in (*named, *imported) if isinstance(item, types.ModuleType)
        )
        for module in modules:
            inside += [vars(module)[name] for name in names & vars(module).keys()]
            modules.add(item for item in inside if isinstance(item, types.ModuleType))
        self.shared += [item for item in (*named, *inside) if _is_shared(item)]
        if "environ" in names:
            self.shared.append(os.environ)
        if id(function) in self.outside:
            inside += named
        functions = [other for item in inside for other in _functions(item)]
        self.outside.update(map(id, functions))
        self.held += [item for item in inside if not isinstance(item, (types.FunctionType, types.ModuleType, type))]
        return functions

    def require_uncompared(self, kind: type) -> None:
        """Refuse code that may compare a class with the copy's class, which is derived from it (ExportError)."""
        if any(kind is named for named in self.compared):
            raise ExportError(
                f"code asks for type(...) or __class__ and names {kind.__name__}, and the exported copy is an "
                f"instance of a class derived from it; use isinstance(..., {kind.__name__})"
            )


def code_names(module: nn.Module, hooks: Iterable[Any] = ()) -> CodeNames:
    """The names that the forward of a module, its submodules and their hooks, and `hooks`, can reach."""
    found = CodeNames()
    classes = {owner for part in module.modules() for owner in user_classes(type(part))}
    todo = [function for owner in classes for name in ENTRIES for function in _functions(vars(owner).get(name))]
    todo += [function for hook in hooks for function in _functions(hook)]
    for part in module.modules():
        for name, value in part.__dict__.items():
            todo += _functions(value)
            if name in HOOKS:
                todo += [function for hook in value.values() for function in _functions(hook)]
    owners: list[Any] = [*classes, *module.modules()]
    seen: set[tuple[int, int]] = set()
    while todo:
        function = todo.pop()
        table = function.__globals__
        if (key := (id(function.__code__), id(table))) in seen:  # in a copy of a copy, code has two tables
            continue
        seen.add(key)
        names = set(_names(function.__code__))
        names.update(item for name in names & table.keys() for item in _strings(table[name]))
        named = [*(table[name] for name in names & table.keys()), *closure_values(function)]
        if not names.isdisjoint(("type", "__class__")):
            attributes = [vars(owner)[name] for owner in owners for name in names & vars(owner).keys()]
            found.compared += [kind for value in (*named, *attributes) for kind in _classes(value)]
        found.functions.append(function)
        todo += found.add_outside(function, named, names)
        found.tables.setdefault(id(table), (table, set()))[1].update(names & table.keys())
        for item in (item for own in nested_codes(function.__code__) for item in dis.get_instructions(own)):
            if item.opname == "STORE_GLOBAL":
                found.assigned.add(id(table))
            elif item.opname in ("STORE_ATTR", "DELETE_ATTR"):
                found.stored.add(item.argval)
        if "setattr" in names:
            found.stored |= names
        todo += [other for value in closure_values(function) for other in _functions(value)]
        todo += [other for name in names & table.keys() for other in _functions(table[name])]
        for name in names - found.attributes:
            todo += [other for owner in classes for other in _functions(vars(owner).get(name))]
        found.attributes |= names
    return found


def user_classes(kind: type) -> list[type]:
    """The user's classes among the bases of an object's class and that class itself, the most basic first."""
    return [owner for owner in reversed(kind.__mro__) if not is_library(owner.__module__)]


def _classes(value: Any) -> list[type]:
    """A class, or those in a container, also as keys."""
    items = [*value, *value.values()] if isinstance(value, dict) else value
    found = list(items) if isinstance(value, (dict, list, tuple, set, frozenset)) else [value]
    return [item for item in found if isinstance(item, type)]


def _is_shared(value: Any) -> bool:
    """Whether a value is not copied, and has attributes to write, or a value of its own."""
    return isinstance(value, (type, types.ModuleType, threading.local, contextvars.ContextVar))


def _names(code: types.CodeType) -> Iterator[str]:
    for own in nested_codes(code):
        yield from own.co_names
        yield from _strings(list(constants(own)))


def _strings(value: Any) -> list[str]:
    """A string, or the strings in a tuple, list or set, since they may be names for getattr."""
    items = value if type(value) in (tuple, list, set, frozenset) else [value]
    return [item for item in items if isinstance(item, str)]


def _functions(value: Any, within: tuple[int, ...] = ()) -> Iterable[types.FunctionType]:
    """The user's functions that a value stands for: itself, an accessor's, or the methods of a class or object.

    Those in the closure of a library's function count, too; that function may itself be in it, as ``Tensor.__rsub__``.
    """
    if type(value) in weakref.ProxyTypes or id(value) in within:  # proxies forward everything to their referents
        return ()
    of = functools.partial(_functions, within=(*within, id(value)))
    if isinstance(value, types.FunctionType):
        wrapped = getattr(value, "__wrapped__", None)
        own = () if is_library(value.__globals__.get("__name__", "")) else (value,)
        inner = [] if own else [content for item in closure_values(value) for content in of(item)]
        return [*own, *inner, *(of(wrapped) if isinstance(wrapped, types.FunctionType) else ())]
    if isinstance(value, (types.MethodType, staticmethod, classmethod)):
        return of(value.__func__)
    if isinstance(value, property):
        return [function for part in (value.fget, value.fset) for function in of(part)]
    if isinstance(value, functools.partial):
        return of(value.func)
    if isinstance(value, (functools.cached_property, functools._lru_cache_wrapper)):
        return of(value.func if isinstance(value, functools.cached_property) else value.__wrapped__)
    kind = value if isinstance(value, type) else type(value)
    if is_library(kind.__module__) or issubclass(kind, nn.Module):
        return ()
    items = [item for owner in user_classes(kind) for item in vars(owner).values()]
    return [item for item in items if isinstance(item, types.FunctionType)]
