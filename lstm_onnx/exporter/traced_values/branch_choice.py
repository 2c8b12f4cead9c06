"""Chooses between the variables and attributes that both branches of an ``if`` on a value leave."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError
from .branch_effects import branch_error
from .branch_values import BranchValues, Condition, reachable
from .remainders import RemainderTruth

_MISSING = object()
_NUMBERS = (bool, int, float, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)


class Choice:
    """Two branches, one of which a condition selects.

    Args:
        values: of the trace.
        leave: called with this object once both branches are computed.
        condition: a tensor; None if both branches give the same result wherever the second one is taken.
        written: the places that a branch writes in place.
        attributes: the attributes among the places, set or written in place.
        before: all variables before the branches.
        shown: the variables that a branch may read after it wrote.
    """

    def __init__(
        self,
        values: BranchValues,
        leave: Callable[[Choice], None],
        condition: Condition | None,
        written: tuple[str, ...],
        attributes: tuple[str, ...],
        before: dict[str, Any],
        shown: tuple[str, ...],
    ) -> None:
        self._values, self._leave = values, leave
        self._condition, self._written, self._before = condition, written, before
        self._owners = {place: _owner(before, place) for place in attributes}
        self._attributes = self._read()
        self._then: dict[str, Any] = {}
        self._else: dict[str, Any] = {}
        for name in written:
            self._require_writable(name)
            self._require_alone(name, shown)
        self._copies = [self._copied(), self._copied()]
        self._globals = sys._getframe(2).f_globals
        self._there = list(reachable([before, values.held]))
        self._kept = values.kept_values() if written else []

    def _read(self) -> dict[str, Any]:
        """The attributes as they are now."""
        return {place: getattr(owner, place.rpartition(".")[2]) for place, owner in self._owners.items()}

    def _at_begin(self, place: str) -> Any:
        return self._attributes[place] if place in self._attributes else self._before.get(place, _MISSING)

    def _copied(self) -> dict[str, Any]:
        return {name: _copy(self._at_begin(name)) for name in self._written}

    def _require_writable(self, name: str) -> None:
        value = self._at_begin(name)
        if type(value) not in (list, dict) and not isinstance(value, (Tensor, *_NUMBERS)):
            raise branch_error(f"writes into {name}, which is not a tensor")

    def _require_alone(self, name: str, shown: tuple[str, ...]) -> None:
        """Refuse to write into a copy of something that may be read under another name."""
        value = self._at_begin(name)
        if isinstance(value, _NUMBERS):
            return
        seen = {other: item for other, item in self._before.items() if other in shown}
        roots = [seen, *(vars(item) for item in seen.values() if isinstance(item, nn.Module))]
        for other, found in [item for table in roots for item in table.items()]:
            for item in reachable([found]):
                if item is value:
                    if other not in (name, name.rpartition(".")[2], name.partition(".")[0]):
                        raise branch_error(f"writes into {name}, which is the same object as {other}")
                elif isinstance(value, Tensor) and isinstance(item, Tensor) and _memory(item) == _memory(value):
                    raise branch_error(f"writes into {name}, which shares its memory with {other}")

    def require_own(self, value: Any, place: str) -> None:
        """Refuse to write into something that existed before the branch.

        Raises:
            ExportError: it was.
        """
        if isinstance(value, _NUMBERS):
            return
        frame = {name: item for name, item in self._globals.items() if isinstance(item, (Tensor, list, dict))}
        there = itertools.chain(self._there, reachable([frame, *self._values.others]))
        if isinstance(value, Tensor):
            memory = _memory(value)
            if any(isinstance(item, Tensor) and _memory(item) == memory for item in there):
                raise branch_error(
                    f"writes into {place}, which shares its memory with something that existed before the if"
                )
        elif type(value) not in (list, dict) or any(item is value for item in there):
            raise branch_error(f"writes into {place}, which existed before the if")

    def at_first(self, name: str) -> Any:
        """The value with which the first branch starts, of a place that is written in place."""
        return self._copies[0][name]

    def then(self) -> None:
        """The first branch is computed."""
        self._then = {**sys._getframe(1).f_locals, **self._read()}

    def again(self, name: str) -> Any:
        """The value of a place with which the second branch starts."""
        if name in self._copies[1]:
            return self._copies[1][name]
        found = self._at_begin(name)
        return self._then.get(name, _MISSING) if found is _MISSING else found

    def end(self) -> None:
        """The second branch is computed."""
        self._else = {**sys._getframe(1).f_locals, **self._read()}
        self._leave(self)

    def value(self, name: str, hidden: bool) -> Any:
        """The value of a place after both branches; `hidden` if it is a variable that only they read."""
        one, other = self._then.get(name, _MISSING), self._else.get(name, _MISSING)
        if one is _MISSING or other is _MISSING:
            return other if one is _MISSING else one
        own = self._at_begin(name)
        if name in self._written and isinstance(own, (Tensor, list, dict)):
            # The object itself, which others may share, and then the place.
            contents = [each[name] for each in self._copies]
            self._write(name, own, contents)
            one, other = (own if each is copy else each for each, copy in zip((one, other), contents, strict=True))
        if one is not other and name in self._owners:
            self._values.require_state(self._owners[name], name, one)
        if hidden and name not in self._written and isinstance(one, Tensor) and isinstance(other, Tensor):
            try:
                return self._values.merged(self._condition, one, other)
            except ExportError as error:
                return _Unmerged(error)
        return self._values.merged(self._condition, one, other)

    def _write(self, name: str, own: Any, contents: list[Any]) -> None:
        """Write what the branches made of the copies back into the originals."""
        if isinstance(own, Tensor):
            if any(a is not b and a != b for each in contents for a, b in zip(each.shape, own.shape, strict=True)):
                raise branch_error(f"changes the shape of {name}")
            self._values.require_no_state(own, name, self._kept)
            condition = self._condition.tensor if isinstance(self._condition, RemainderTruth) else self._condition
            merged = contents[0] if condition is None else torch.where(condition, contents[0], contents[1])
            own.copy_(merged)
            return
        self._values.require_no_state(own, name, self._kept)
        found = self._values.merged(self._condition, *contents)
        own.clear()
        (own.update if isinstance(own, dict) else own.extend)(found)


class _Unmerged:
    """Stands for two tensors between which no choice is possible; using it raises the error."""

    def __init__(self, error: ExportError) -> None:
        vars(self)["error"] = error

    @classmethod
    def __torch_function__(cls, _func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse it as an argument."""
        for item in pytree.tree_leaves((args, kwargs)):
            if isinstance(item, cls):
                raise vars(item)["error"]

    def _use(self, *_: Any) -> Any:
        raise vars(self)["error"]

    __getattr__ = __getitem__ = __setitem__ = __iter__ = __len__ = __bool__ = __call__ = _use
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _use
    __lt__ = __le__ = __gt__ = __ge__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __and__ = __or__ = _use


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return value.copy() if type(value) in (list, dict) else value


def _owner(variables: dict[str, Any], place: str) -> Any:
    """The object whose attribute a place is, if setting that attribute has no other effect.

    Raises:
        ExportError: it may have one, or there is no such attribute yet.
    """
    root, *path = place.split(".")
    owner = variables.get(root, _MISSING)
    for name in path[:-1]:
        owner = getattr(owner, name, _MISSING)
    own = getattr(type(owner), path[-1], None)
    # Not a module constant: torch.export replaces nn.Module.__setattr__ during a trace.
    setters: tuple[Any, ...] = (object.__setattr__, nn.Module.__setattr__)
    if type(owner).__setattr__ not in setters or hasattr(own, "__set__"):
        raise branch_error(f"sets {place}, which may do more than store a value")
    if not hasattr(owner, path[-1]):
        raise branch_error(f"sets {place}, which does not exist before the if; set it in __init__")
    return owner
