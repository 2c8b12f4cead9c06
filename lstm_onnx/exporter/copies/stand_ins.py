"""Stand-ins for objects that a copy of a module can neither copy nor share with the original."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from ...errors import ExportError
from ..user_code import user_line


def kept_results(function: Any, results: dict[Any, Any]) -> Any:
    """A function that caches its results as functools.cache does, except for arguments that have no hash."""

    @functools.wraps(function)
    def cached(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(kwargs.items()))
        try:
            known = key in results
        except TypeError:  # an argument has no hash
            return function(*args, **kwargs)
        if not known:
            results[key] = function(*args, **kwargs)
        return results[key]

    return cached


_ITERATORS = ("builtins", "itertools", "array", "_collections")
"""Python modules of the classes of Python's own iterators."""


class HeldIterator:
    """Replaces an iterator that a module holds."""

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        return self

    def send(self, _: Any) -> Any:
        """Refuse as `__next__` does."""
        return next(self)

    def __next__(self) -> Any:
        """Refuse to take an item."""
        raise ExportError(
            f"at {user_line()}: forward takes the next item of an iterator that the module holds, so each call "
            "gets another one, which a file cannot do; keep the items in a list, and count calls in an attribute"
        )


def instead_of(iterator: Any) -> Any:
    """A `HeldIterator` in place of one of Python's own iterators; others, such as files, are shared."""
    return HeldIterator() if type(iterator).__module__ in _ITERATORS else iterator


def in_order(kind: type, items: list[Any]) -> type:
    """A set class that iterates over copies in the order of the originals, which for modules depends on addresses.

    Args:
        kind: the class of the original.
        items: the copies.
    """
    places = {id(item): place for place, item in enumerate(items)}
    base: Any = set if issubclass(kind, set) else frozenset

    def ordered(own: Any) -> Iterator[Any]:
        return iter(sorted(base.__iter__(own), key=lambda item: places.get(id(item), len(places))))

    return type(kind.__name__, (kind,), {"__iter__": ordered, "__module__": kind.__module__})


def keep(_held: Any, _reference: Any) -> None:
    """Do nothing: a weak reference whose callback is a partial of this keeps the first argument alive."""
