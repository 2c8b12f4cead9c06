"""Records the side effects of a forward and undoes them after each call.

A module may append to a list, count its calls, or leave its last activation in an attribute, and so may its
hooks.  A file remembers none of that: each call starts from what the module held when it was exported,
and `attribute_states` turns the attributes on which the outputs depend into inputs.
"""

from __future__ import annotations

import collections
import contextlib
import operator
import types
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .contents import COPIED, EMPTY, NUMBERS, SHARED, content_of, holds_same, restore, set_item
from .generators import GENERATORS, generator_state
from .object_parts import attributes_of

_LONGER = 64
"""The factor by which lists are lengthened, to see whether the outputs depend on them."""
_PLAIN = (bool, int, float, str, bytes, type(None))
_SEQUENCES: tuple[Any, ...] = (list, collections.deque, bytearray)
_ITEMS = (dict, set, *_SEQUENCES)
_SIZED: tuple[Any, ...] = (str, bytes, tuple, list, set, dict)


@dataclass(frozen=True)
class Change:
    """Something that a call has changed.

    Attributes:
        part: the container, object or cell.
        key: of its item or attribute; None if the part changed as a whole.
        before: the value before the call; for an attribute that was not set, the class's number of that name.
        where: the place, as the user would write it.
        after: the value after the call.
    """

    part: Any
    key: Any
    before: Any
    where: str
    after: Any = None


class KeptValues:
    """What the code of a copied module may write into.

    Args:
        module: the copy.
        mutable: the containers, objects and cells that were copied with it, and what its code may write into that is
            shared with the original.
    """

    def __init__(self, module: nn.Module, mutable: Sequence[Any]) -> None:
        self._module = module
        tables = {
            id(table)
            for part in module.modules()
            for name, table in vars(part).items()
            if isinstance(table, dict) and not table and name.endswith(("_hooks", "_with_kwargs", "_always_called"))
        }
        self._generators = [part for part in mutable if isinstance(part, GENERATORS)]
        self._parts = [part for part in mutable if id(part) not in tables and not isinstance(part, GENERATORS)]
        self._parts += [_Attributes(part) for part in self._parts if isinstance(part, _ITEMS) and _has_own(part)]
        self._suspended = False

    def generator_states(self) -> list[object]:
        """The states of the random number generators, which nothing restores."""
        return list(map(generator_state, self._generators))

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A context at whose end everything is restored, unless `suspended`."""
        if self._suspended:
            yield
            return
        before = self.contents()
        try:
            yield
        finally:
            self.put_back(before)

    def contents(self) -> list[Any]:
        """The current contents of everything, for `put_back`."""
        return list(map(content_of, self._parts))

    def put_back(self, contents: Sequence[Any]) -> None:
        """Restore the contents of everything."""
        for part, content, _ in self._changed(contents):
            restore(part, content)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """A context in which `restored` does nothing, so that a call finds what the one before it has left."""
        before, self._suspended = self._suspended, True
        try:
            yield
        finally:
            self._suspended = before

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Change]]:
        """A context that fills a list with what was changed when it ends."""
        before = self.contents()
        changes: list[Change] = []
        yield changes
        changed = list(self._changed(before))
        names = self._names() if changed else {}
        for part, content, now in changed:
            changes += _changes(part, content, now, names)

    def _changed(self, before: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
        """Each part that holds other objects than before, with its contents then and now."""
        for part, content in zip(self._parts, before, strict=True):
            now = part if type(part) in COPIED else content_of(part)
            if not holds_same(now, content):
                yield part, content, now

    def _names(self) -> dict[int, str]:
        """The places of the parts in the module, by their ids."""
        names: dict[int, str] = {}
        owners = {id(attributes_of(part)): id(part) for part in self._parts if isinstance(part, _Attributes)}
        for path, module in self._module.named_modules():
            prefix = f"self.{path}" if path else "self"
            names[id(module)] = prefix
            attributes = sorted(vars(module).items(), key=lambda item: item[0].startswith("_"))
            todo = [(f"{prefix}.{name}", item) for name, item in attributes]
            while todo:
                where, item = todo.pop()
                if id(item) in names or isinstance(item, nn.Module):
                    continue
                names[id(item)] = where
                if (proxy := owners.get(id(attributes_of(item)))) is not None:
                    names[proxy] = where
                if isinstance(item, (dict, list, tuple)):
                    items = item.items() if isinstance(item, dict) else enumerate(item)
                    todo += [(f"{where}[{key!r}]", value) for key, value in items if not isinstance(value, _PLAIN)]
                else:
                    todo += [(f"{where}.{name}", value) for name, value in attributes_of(item).items()]
        return names


class _Attributes:
    """The attributes of an instance of a class derived from dict, list or another container."""

    def __new__(cls, owner: Any) -> Any:
        """One of a class of the same name, with the same numbers."""
        names = {name for base in type(owner).__mro__ for name in vars(base)}
        numbers = {name: found for name in names if (found := _number_of_class(type(owner), name)) is not None}
        new: Any = object.__new__(type(type(owner).__name__, (_Attributes,), numbers))
        object.__setattr__(new, "__dict__", attributes_of(owner))
        return new


def _number_of_class(kind: type, name: Any) -> Any:
    """A class attribute that is a number, which an instance has until it sets its own; None where there is none."""
    found = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    return found if type(found) in (int, float) else None


def _has_own(part: Any) -> bool:
    own = attributes_of(part)
    return own is not part and type(part) not in _ITEMS and hasattr(part, "__dict__")


def counting(changes: Sequence[Change]) -> list[Change]:
    """The changes that may continue from call to call: of counters, of stored sizes, of lists that grow."""
    # A counter that is absent before the first call begins at 0.
    found = [
        replace(change, before=type(change.after)("0"))
        if change.before is None and (_is_number(change.after) or _is_text(change.after))
        else change
        for change in changes
    ]
    return [
        change for change in found if isinstance(change.part, NUMBERS) or _rate(change.before, change.after) is not None
    ]


def count_to(changes: Sequence[Change], number: int | None, more: int, *, exactly: bool = False) -> None:
    """Set each counter to its value after several calls that each change it as the first one did.

    Args:
        changes: what `counting` gives.
        number: as many calls as bring the counter near this number; None for no calls but `more`.
        more: further calls.
        exactly: set a counter to `number` plus `more` steps, even if calls like the first one skip that value.
    """
    for change in changes:
        if isinstance(change.part, NUMBERS):
            restore(change.part, change.before)
            numbers = np.asarray(change.part)
            if numbers.dtype.kind in "iufc":
                numbers += np.array((number or 0) + more).astype(numbers.dtype)
            continue
        start, step = _rate(change.before, change.after) or (0, 1)
        calls = more if number is None else int((number - start) // step) + more
        value = _after_calls(change.before, change.after, max(calls, 0))
        if exactly and number is not None and (_is_number(change.before) or _is_text(change.before)):
            value = type(change.before)(number + more * step)
        if change.key is None:
            restore(change.part, value)
        else:
            set_item(change.part, change.key, value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or isinstance(value, (np.integer, np.floating))


def _is_text(value: Any) -> bool:
    """Whether it is the text of a whole number, as in an environment variable."""
    return type(value) is str and value.removeprefix("-").isdecimal()


def _rate(before: Any, after: Any) -> tuple[Any, Any] | None:
    """The first value of a number or a size, and how much a call adds; None where a call adds nothing."""
    if _is_number(before):
        step = after - before if _is_number(after) else 0
        return before, step if np.isfinite(step) and step else 1
    if _is_text(before) and _is_text(after):
        return int(before), int(after) - int(before) or 1
    if not isinstance(before, _SIZED) or not isinstance(after, _SIZED):
        return None
    if len(after) > len(before):
        return (len(before), len(after) - len(before)) if _goes_on(before, after) else None
    if len(after) < len(before) or not isinstance(before, (tuple, list)):
        return None
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one is not other]
    return next((rate for pair in changed if (rate := _rate(*pair)) is not None), None)


def _after_calls(before: Any, after: Any, calls: int) -> Any:
    """The value after this many calls, if each changes it as the first one did."""
    if _is_number(before):
        start, step = _rate(before, after) or (before, 1)
        return start + calls * step
    if _is_text(before) and _is_text(after):
        return str(int(before) + calls * (int(after) - int(before)))
    if not isinstance(before, _SIZED) or not isinstance(after, _SIZED):
        return before
    if len(after) <= len(before):
        if not isinstance(before, (tuple, list)) or len(after) < len(before):
            return before
        items = [_after_calls(one, other, calls) for one, other in zip(before, after, strict=True)]
        if isinstance(before, list):
            return items
        return before if isinstance(before, torch.Size) else tuple.__new__(type(before), items)
    if isinstance(before, (set, dict)):
        new = [key for key in after if key not in before]
        places = [(key, call) for call in range(calls) for key in new]
        keys = [key + len(new) * call if type(key) is int else (key, call) if call else key for key, call in places]
        if isinstance(before, set):
            return before | set(keys)
        return {**before, **dict(zip(keys, [after[key] for key in new] * calls, strict=True))}
    return before + after[len(before) :] * calls


def _goes_on(before: Any, after: Any) -> bool:
    """Whether a sequence that became longer starts with its old items."""
    if isinstance(before, (str, bytes)):
        return type(after) is type(before) and after[: len(before)] == before
    if isinstance(before, set):
        return isinstance(after, set) and before <= after
    return type(after) is type(before) and all(map(operator.is_, before, after))


def lengthen_lists(changes: Sequence[Change]) -> bool:
    """Repeat the items of each list that was changed; False if there is none."""
    lists = [change.part for change in changes if change.key is None and isinstance(change.part, list)]
    for part in lists:
        list.extend(part, list(part) * _LONGER)
    return bool(lists)


def _changes(part: Any, before: Any, now: Any, names: dict[int, str]) -> list[Change]:
    own = names.get(id(part))
    if isinstance(part, types.CellType):
        return [Change(part, "cell_contents", before[0], "a variable of the function around a hook or lambda", now[0])]
    if not isinstance(before, dict):
        return [Change(part, None, before, own or f"a {type(part).__name__} outside of the module", copy(now))]
    keys = [key for key in {**before, **now} if before.get(key, EMPTY) is not now.get(key, EMPTY)]
    if not keys:  # only their order changed
        return [Change(part, None, before, own or "a dict outside of the module")]
    grown = []
    if isinstance(part, dict):
        where = own or ("a global variable" if "__builtins__" in part else "a dict outside of the module")
        places = {key: f"{where}[{key!r}]" if own else where for key in keys}
        if len(now) > len(before) and "__builtins__" not in part:
            grown = [Change(part, None, before, where, dict(dict.items(now)))]
    else:
        name = part.label if isinstance(part, SHARED) else getattr(part, "__name__", type(part).__name__)
        places = {key: f"{own or name}.{key}" if isinstance(key, str) else own or name for key in keys}
        before = {**{key: _number_of_class(type(part), key) for key in keys}, **before}
    return grown + [Change(part, key, before.get(key), places[key], now.get(key)) for key in keys]
