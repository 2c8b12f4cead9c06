"""Chooses each value after the two branches of an ``if`` on a value by its condition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import guard_or_false
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..user_code import user_line
from .branch_effects import branch_error
from .remainders import RemainderTruth, chosen_number, chosen_tensor
from .unequal_sizes import chosen_of_sizes

Condition = Tensor | RemainderTruth
_sym_ite: Any = torch.sym_ite
_KINDS: dict[str, tuple[tuple[type, ...], torch.dtype]] = {
    "bool": ((bool, torch.SymBool), torch.bool),
    "int": ((int, torch.SymInt), torch.int64),
    "float": ((float, torch.SymFloat), torch.float64),
}
"""The types of each kind of Python number, and the dtype that holds them exactly."""


class BranchValues:
    """Chooses between values, and knows which ones the module keeps from call to call.

    Attributes:
        others: what checked functions can name besides their arguments.
    """

    def __init__(self, stateful: Any) -> None:
        self._stateful = stateful
        self._chosen: list[tuple[Tensor, int, str]] = []
        self.others: list[Any] = []

    @property
    def held(self) -> nn.Module:
        """The module that is traced."""
        module: nn.Module = self._stateful.inner
        return module

    def require_state(self, owner: Any, place: str, value: Any) -> None:
        """Refuse to set an attribute that is not a state: the example left it unchanged, or the value has no tensor.

        Raises:
            ExportError: it is not a state.
        """
        name = place.rpartition(".")[2]
        tables = [vars(owner), owner._buffers] if isinstance(owner, nn.Module) else [getattr(owner, "__dict__", {})]
        if not any(name == key and any(table is own for own in tables) for table, key in self._states()):
            if not all(isinstance(item, (Tensor, int)) for item in pytree.tree_leaves(value)):
                raise branch_error(f"sets {place} to something other than tensors", "keep tensors in it")
            raise _unseen(f"sets {place}")

    def kept_values(self) -> list[Any]:
        """The tensors, lists and dicts that the module keeps from call to call, except known states."""
        states = [table[key] for table, key in self._states() if key in table]
        own = {id(item) for item in reachable(states)}
        return [item for item in reachable([self.held]) if id(item) not in own]

    def require_no_state(self, value: Any, place: str, kept: Iterable[Any]) -> None:
        """Refuse to write into what the module keeps from call to call, unless it is a known state.

        Args:
            value: what is written.
            place: its name.
            kept: `kept_values` before the branch; inside it, copies replace what it writes.

        Raises:
            ExportError: it is not.
        """
        memory = value.untyped_storage()._cdata if isinstance(value, Tensor) else None
        for item in kept:
            shared = memory is not None and isinstance(item, Tensor) and item.untyped_storage()._cdata == memory
            if item is value or shared:
                raise _unseen(f"writes into {place}")

    def _states(self) -> list[tuple[dict[str, Any], str]]:
        return [(state.table(self.held), state.attribute) for state in self._stateful.attribute_states]

    def merged(self, condition: Condition | None, one: Any, other: Any) -> Any:
        """One of two values, which may be tuples or lists of tensors; the first one where there is no condition.

        Raises:
            ExportError: they differ in more than the numbers of their tensors.
        """
        if one is other:
            return one
        leaves, structure = pytree.tree_flatten(one)
        others, own = pytree.tree_flatten(other)
        if structure != own:
            lists = isinstance(one, list) and isinstance(other, list)
            raise branch_error(
                "gives a list of a different length than the other one"
                if lists
                else "gives something of a different type than the other one"
            )
        return pytree.tree_unflatten(list(map(self._merged_leaf, [condition] * len(leaves), leaves, others)), structure)

    def _merged_leaf(self, condition: Condition | None, one: Any, other: Any) -> Any:
        if one is other:
            return one
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            return _merged_number(condition, one, other)
        alike = one.dtype == other.dtype and one.dim() == other.dim()
        result: Tensor | None = None
        if isinstance(condition, RemainderTruth):
            result = chosen_tensor(condition, one, other) if alike else None
        elif alike and all(guard_or_false(a == b) for a, b in zip(one.shape, other.shape, strict=True)):
            result = one if condition is None else torch.where(condition, one, other)
        elif alike and condition is not None:
            result = chosen_of_sizes(condition, one, other)
        if result is None:
            raise branch_error("gives a tensor of a different shape or dtype than the other one")
        line = user_line()
        self._chosen += [(tensor, tensor._version, line) for tensor in (result, one, other)]
        return result

    def require_unwritten(self) -> None:
        """Refuse a later write in place into one of two tensors that was chosen: in PyTorch they share memory.

        Raises:
            ExportError: there is such a tensor.
        """
        for tensor, version, line in self._chosen:
            if tensor._version != version:
                raise ExportError(
                    f"at {line}: an if on a value chooses between tensors of which one is written in place later, and "
                    "who shares its memory depends on the value; write into a copy: x = x.clone() after the if"
                )


def reachable(values: Iterable[Any]) -> Iterator[Any]:
    """The tensors, lists and dicts among values, also inside containers and the attributes of modules."""
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if isinstance(value, Tensor):
            yield value
        elif id(value) not in seen and isinstance(value, (dict, list, tuple, set, nn.Module)):
            seen.add(id(value))
            if isinstance(value, nn.Module):
                todo += vars(value).values()
                continue
            yield value
            if isinstance(value, tuple):  # not by its own iteration: a packed sequence would compute its fields
                todo += (*tuple.__iter__(value), *getattr(value, "__dict__", {}).values())
            else:
                todo += value.values() if isinstance(value, dict) else value


def _merged_number(condition: Condition | None, one: Any, other: Any) -> Any:
    """One of two Python objects, which are identical or numbers of one kind.

    Raises:
        ExportError: they are something else.
    """
    if type(one) is type(other) and isinstance(one, (bool, int, float, str)) and repr(one) == repr(other):
        return one
    if (
        isinstance(one, float) and isinstance(other, float) and one == other == 0
    ):  # the tracer does not distinguish the two constants
        raise branch_error("gives -0.0 and the other one 0.0", "make them tensors")
    kinds = list(map(_kind_of, (one, other)))
    if set(kinds) == {"int", "float"}:
        raise branch_error("gives an int and the other one a float", "write both as floats, such as 1.0")
    if "" in kinds or kinds[0] != kinds[1] or condition is None:
        raise branch_error("gives a different Python number or object than the other one", "make both tensors")
    if isinstance(condition, RemainderTruth):
        if kinds[0] == "int":
            return chosen_number(condition, one, other)
        condition = condition.tensor
    dtype = _KINDS[kinds[0]][1]
    first, second = _as_tensor(one, dtype), _as_tensor(other, dtype)
    # A Python number follows other rules of type promotion than a tensor does.
    return torch.where(condition, first, second).item()


def _kind_of(item: Any) -> str:
    return next((kind for kind, (types, _) in _KINDS.items() if isinstance(item, types)), "")


def _as_tensor(number: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(number, torch.SymBool):
        return torch.scalar_tensor(_sym_ite(number, 1, 0), dtype=torch.int64) != 0
    return torch.scalar_tensor(number, dtype=dtype)


def _unseen(what: str) -> ExportError:
    return branch_error(
        f"{what}, which the module keeps from call to call, and which the example inputs leave unchanged",
        "pass example inputs with which it changes, or pass it as an argument of forward and return it",
    )
