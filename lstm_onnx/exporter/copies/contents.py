"""What containers, objects and classes hold: read, compared, and put back."""

from __future__ import annotations

import array
import collections
import contextlib
import contextvars
import operator
import sys
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .object_parts import attributes_of, slots_of

EMPTY = object()
"""Stands for a value that is absent."""
NUMBERS = (array.array, np.ndarray)
COPIED = frozenset({list, dict, set})
_SEQUENCES: tuple[Any, ...] = (list, collections.deque, bytearray)


@dataclass(frozen=True)
class Shared:
    """What a copy shares with its original: a class, a Python module, thread-local variables or a library's object.

    Attributes:
        owner: the class, module, variables or object.
        names: the attributes that code assigns; the others may be changed by other threads meanwhile.
    """

    owner: Any
    names: frozenset[str]

    @property
    def label(self) -> str:
        """Its name."""
        return str(getattr(self.owner, "__name__", type(self.owner).__name__))

    def content(self) -> dict[str, Any]:
        """Those attributes; a tensor among them is a state, which `select_states` looks for by itself."""
        own = vars(self.owner)
        held = {name: own[name] for name in self.names if name in own}
        return {name: value for name, value in held.items() if not isinstance(value, Tensor)}

    def set(self, name: str, value: Any) -> None:
        """Set an attribute, past what a user's metaclass does then."""
        if isinstance(self.owner, type):
            type.__setattr__(self.owner, name, value)
        else:
            setattr(self.owner, name, value)

    def restore(self, content: dict[str, Any]) -> None:
        """Give those attributes these values, and delete the others."""
        for name in self.content().keys() - content.keys():
            delattr(self.owner, name)
        for name, value in content.items():
            self.set(name, value)


@dataclass(frozen=True)
class Variable:
    """A variable of contextvars."""

    owner: contextvars.ContextVar[Any]
    label = "contextvars"

    def content(self) -> dict[str, Any]:
        """Its value, if it has any."""
        try:
            return {self.owner.name: self.owner.get()}
        except LookupError:
            return {}

    def set(self, _: str, value: Any) -> None:
        """Set it."""
        self.owner.set(value)

    def restore(self, content: dict[str, Any]) -> None:
        """Set it to its earlier value; it cannot be made to have none."""
        for name, value in content.items():
            self.set(name, value)


@dataclass(frozen=True)
class Environment:
    """The environment variables."""

    owner: Any
    label = "os.environ"

    def content(self) -> dict[str, Any]:
        """Their texts, of which equal ones are the same object."""
        return {name: sys.intern(text) for name, text in self.owner.items()}

    def set(self, name: str, value: str) -> None:
        """Set one."""
        self.owner[name] = value

    def restore(self, content: dict[str, Any]) -> None:
        """Set those that have changed."""
        for name in self.owner.keys() - content.keys():
            del self.owner[name]
        for name, text in content.items():
            if self.owner.get(name) != text:
                self.owner[name] = text


@dataclass(frozen=True)
class Weak:
    """A dictionary with weak keys or values, whose items can be set, but which has no other keys than its own."""

    owner: Any
    label = "a weak dictionary"

    def content(self) -> dict[Any, Any]:
        """Its items."""
        return dict(self.owner.data)

    def set(self, key: Any, value: Any) -> None:
        """Set one."""
        self.owner.data[key] = value

    def restore(self, content: dict[Any, Any]) -> None:
        """Give it its earlier items."""
        self.owner.data.clear()
        self.owner.data.update(content)


SHARED = (Shared, Variable, Environment, Weak)
"""What is read and written by methods of its own."""


def _base(part: Any) -> Any:
    """The built-in class of a container, whose methods have no side effects, as those of a user's class may."""
    return next(base for base in _SEQUENCES if isinstance(part, base))


def content_of(part: Any) -> Any:
    """The current contents of a part, for `restore`."""
    if type(part) in COPIED:  # the fast path: a module may hold a hundred thousand of them
        return part.copy()
    if isinstance(part, dict):
        return dict.copy(part)  # not a subclass's own `copy`
    if isinstance(part, _SEQUENCES):
        return list(_base(part).__iter__(part))
    if isinstance(part, set):
        return set(set.__iter__(part))
    if isinstance(part, NUMBERS):
        return part.tobytes()
    if isinstance(part, types.CellType):
        try:
            return (part.cell_contents,)
        except ValueError:
            return (EMPTY,)
    if isinstance(part, SHARED):
        return part.content()
    content = dict(attributes_of(part))
    for slot in slots_of(type(part)):
        with contextlib.suppress(AttributeError):  # an empty one
            content[slot.__name__] = slot.__get__(part)
    return content


def holds_same(one: Any, other: Any) -> bool:
    """Whether two contents hold the same objects."""
    if len(one) != len(other):
        return False
    if not one:
        return True
    if isinstance(one, bytes):
        return bool(one == other)
    if isinstance(one, set):
        return {id(item) for item in one} == {id(item) for item in other}
    if not isinstance(one, dict):
        return all(map(operator.is_, one, other))
    if all(map(operator.is_, one, other)):  # the fast path: a vocabulary is compared at each call
        return all(map(operator.is_, one.values(), other.values()))
    return _in_one_order(one, other) and all(other[key] is item for key, item in one.items())


def _in_one_order(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Whether two dicts of the same length have equal keys in the same order."""
    return all(key in {own: None} for own, key in zip(one, other, strict=True))


def restore(part: Any, content: Any) -> None:
    """Restore the contents of a part."""
    if isinstance(part, dict):
        base = collections.OrderedDict if isinstance(part, collections.OrderedDict) else dict
        base.clear(part)
        for key, item in content.items():
            base.__setitem__(part, key, item)
    elif isinstance(part, _SEQUENCES):
        sequence = _base(part)
        sequence.clear(part)
        sequence.extend(part, content)
    elif isinstance(part, set):
        set.clear(part)
        set.update(part, content)
    elif isinstance(part, types.CellType):
        if content[0] is EMPTY:
            del part.cell_contents
        else:
            part.cell_contents = content[0]
    elif isinstance(part, array.array):
        del part[:]
        part.frombytes(content)
    elif isinstance(part, np.ndarray):
        part[...] = np.frombuffer(content, part.dtype).reshape(part.shape)
    elif isinstance(part, SHARED):
        part.restore(content)
    else:
        _restore_attributes(part, content)


def _restore_attributes(part: Any, content: dict[str, Any]) -> None:
    slots = {slot.__name__: slot for slot in slots_of(type(part))}
    own = attributes_of(part)
    own.clear()
    own.update({name: item for name, item in content.items() if name not in slots})
    for name, slot in slots.items():
        if name in content:
            slot.__set__(part, content[name])
        else:
            with contextlib.suppress(AttributeError):  # it is empty
                slot.__delete__(part)


def set_item(part: Any, key: Any, value: Any) -> None:
    """Set an item of a container, an attribute or a variable."""
    if isinstance(part, types.CellType):
        part.cell_contents = value
    elif isinstance(part, SHARED):
        part.set(key, value)
    elif isinstance(part, dict):
        dict.__setitem__(part, key, value)
    else:
        slots = {slot.__name__: slot for slot in slots_of(type(part))}
        if key in slots:
            slots[key].__set__(part, value)
        else:
            attributes_of(part)[key] = value
