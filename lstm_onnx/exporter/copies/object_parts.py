"""Reads what objects hold without running the code of their classes."""

from __future__ import annotations

import collections
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from ..user_code import is_library

_NEW = (object, types.SimpleNamespace)
"""Base classes whose instances hold nothing but attributes."""
_PLAIN_MODULES = frozenset(
    {"argparse", "types", "collections", "torch.utils.hooks"}
    | {f"torch.nn.utils.{name}" for name in ("weight_norm", "spectral_norm", "prune")}
)
"""Library modules whose classes are copied like the user's own."""
_CONTAINERS = (dict, list, set, collections.deque, bytearray)
_DEPTH, _MOST_ITEMS = 3, 1000
_VIEWS: dict[type, Callable[[Any], Any]] = {
    types.MappingProxyType: types.MappingProxyType,
    **{
        type(view(kind())): view
        for kind in (dict, collections.OrderedDict)
        for view in (kind.keys, kind.values, kind.items)
    },
}
VIEWS = tuple(_VIEWS)
"""Classes of dict views, such as that of ``self.layers.values()``."""


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's attributes, without getattr, which a user's class may override."""
    try:
        own: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return own


def slots_of(kind: type) -> Iterator[types.MemberDescriptorType]:
    """The ``__slots__`` of a class and of its base classes."""
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            yield from (item for item in vars(base).values() if isinstance(item, types.MemberDescriptorType))


def base_of(kind: type) -> type:
    """The base class that determines what instances hold besides attributes: the first not written in Python."""
    return next(base for base in kind.__mro__ if not base.__flags__ & (1 << 9))  # Py_TPFLAGS_HEAPTYPE


def viewed(view: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The dict behind a view (an instance of one of `VIEWS`), and how to make such a view of another dict."""
    (shown,) = gc.get_referents(view)  # its attribute `mapping` is a proxy
    return shown, _VIEWS[type(view)]


def is_copied(value: Any, packages: frozenset[str]) -> bool:
    """Whether an object is copied, like the user's own, rather than shared with the original, like a library's.

    Args:
        value: the object.
        packages: top-level packages whose classes are the user's, even if they are installed.
    """
    kind = type(value)
    if hasattr(kind, "__del__") or base_of(kind) not in _NEW:
        return False  # the finalizer of a copy could close what it shares with the original
    module = kind.__module__
    package = module.partition(".")[0]
    if module in _PLAIN_MODULES or package in packages:
        return True
    if package in sys.stdlib_module_names:
        return False
    # The user's code has many top-level modules if its folder is not a package.
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if "-packages" not in file and not is_library(module):
        return True
    return any(isinstance(item, torch.Tensor) for item in attributes_of(value).values())


def mutable_parts(values: Iterable[Any], packages: frozenset[str]) -> list[Any]:
    """The containers and the user's objects among values, and inside of these; see `is_copied`."""
    found: dict[int, Any] = {}
    todo = [(value, _DEPTH) for value in values]
    for value, depth in todo:
        if id(value) in found or isinstance(value, (type, types.ModuleType, torch.nn.Module, torch.Tensor)):
            continue
        if isinstance(value, _CONTAINERS) or (hasattr(value, "__dict__") and is_copied(value, packages)):
            found[id(value)] = value
        elif not isinstance(value, tuple):
            continue
        items = [*dict.values(value)] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        if depth and len(items) <= _MOST_ITEMS:
            todo += [(item, depth - 1) for item in (*items, *attributes_of(value).values())]
    return list(found.values())
