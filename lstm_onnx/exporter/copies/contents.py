"""What containers, objects and classes hold: read, compared, and put back."""

from __future__ import annotations

import array
import collections
import contextlib
import operator
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
    """What a copy shares with its original: a class, a Python module or thread-local variables.

    Attributes:
        owner: the class, module or variables.
        names: the attributes that code assigns; the others may be changed by other threads meanwhile.
    """

    owner: Any
    names: frozenset[str]

    def content(self) -> dict[str, Any]:
        """Those attributes; a tensor among them is a state, which `select_states` looks for by itself."""
        own = vars(self.owner)
        held = {name: own[name] for name in self.names & own.keys()}
        return {name: value for name, value in held.items() if not isinstance(value, Tensor)}

    def set(self, name: str, value: Any) -> None:
        """Set an attribute, past what a user's metaclass does then."""
        if isinstance(self.owner, type):
            type.__setattr__(self.owner, name, value)
        else:
            setattr(self.owner, name, value)


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
    if isinstance(part, Shared):
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
    elif isinstance(part, Shared):
        for name in part.content().keys() - content.keys():
            delattr(part.owner, name)
        for name, value in content.items():
            part.set(name, value)
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
    elif isinstance(part, Shared):
        part.set(key, value)
    elif isinstance(part, dict):
        dict.__setitem__(part, key, value)
    else:
        slots = {slot.__name__: slot for slot in slots_of(type(part))}
        if key in slots:
            slots[key].__set__(part, value)
        else:
            attributes_of(part)[key] = value
