"""What objects hold, without their classes' own code."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's attributes; not by getattr, which a user's class may define."""
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
    """The base class that determines what instances hold beside attributes: the first not written in Python."""
    return next(base for base in kind.__mro__ if not base.__flags__ & (1 << 9))  # Py_TPFLAGS_HEAPTYPE
