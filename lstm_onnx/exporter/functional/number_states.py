"""Integers that a module keeps in attributes and updates, such as the next position in a ring buffer.

In a run they are Python ints, as in the module's own code; in a trace they are 0-d tensors.  The results are the same
as long as the code computes and indexes with them, and does not branch on them or loop over them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..copies.kept_values import Change
from ..node_names import state_names
from .attribute_states import AttributeState, owners_of, state_name

_READS = ("__bool__", "__int__", "__index__", "__float__", "__format__", "__array__", "item", "tolist", "numpy")


@dataclass(frozen=True)
class NumberState(AttributeState):
    """An attribute that holds an int.

    Attributes:
        as_tensor: whether it is a tensor in every run, not only in a trace.
    """

    as_tensor: bool = False

    def tensors(self, copy: nn.Module) -> list[Tensor] | None:
        """Its number as a tensor; None where it holds anything else."""
        value: Any = self.table(copy).get(self.attribute)
        if type(value) is int and -(2**63) <= value < 2**63:
            return [torch.tensor(value)]
        is_number = isinstance(value, Tensor) and value.dim() == 0 and value.dtype == torch.int64
        return [value] if is_number else None

    def write(self, copy: nn.Module, tensors: Sequence[Tensor]) -> None:
        """Replace its number."""
        (tensor,) = tensors
        real = type(tensor) is Tensor and not torch._is_functional_tensor(tensor)
        self.table(copy)[self.attribute] = int(tensor) if real and not self.as_tensor else tensor


def find_number_states(copy: nn.Module, changes: Sequence[Change]) -> tuple[NumberState, ...]:
    """The ints in attributes of modules, and of objects in them, that a call has changed."""
    places = {id(owner): (path, owners) for path, owners, owner in owners_of(copy)}
    found = []
    for change in changes:
        if id(change.part) in places and type(change.before) is int:
            path, owners = places[id(change.part)]
            key = path, (*owners, change.key), False
            names = state_names(state_name(key), 1)
            number, tree = (torch.tensor(change.before),), pytree.tree_structure(0)
            found.append(NumberState(key, tree, *names, number, number))
    return tuple(found)


@contextlib.contextmanager
def numbers_as_tensors(stateful: Any) -> Iterator[None]:
    """A context in which number states are tensors in every run, and reading one as a number raises an ExportError."""
    before = stateful.attribute_states
    stateful.attribute_states = tuple(
        replace(state, as_tensor=True) if isinstance(state, NumberState) else state for state in before
    )
    try:
        with _Unread():
            yield
    finally:
        stateful.attribute_states = before


class _Unread(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Refuse a call that turns a tensor into a Python int, and pass on all others."""
        if getattr(func, "__name__", "") in _READS and args and args[0].dim() == 0 and args[0].dtype == torch.int64:
            raise ExportError("the code reads a number")
        return func(*args, **(kwargs or {}))
