"""The interface of operator functions: `Call` is their argument; `operator` registers one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from .fact import Fact, axis_of
from .node import Node
from .size import Size

if TYPE_CHECKING:
    from .follow import Follower

_SMALL = 64
"""Integer constants of at most this many elements (shapes, axes, counts) are followed by value."""


@dataclass(frozen=True)
class Meeting:
    """Where steps of an open axis meet, and how; `by_hand` where a state input takes part in it."""

    node: str
    op_type: str
    how: str
    by_hand: bool = False

    def __str__(self) -> str:
        """As in ``conv/Conv (Conv) computes one step from several``."""
        at = f"{self.node} ({self.op_type})" if self.node and self.node != self.op_type else self.op_type
        return f"{at} {self.how}"


@dataclass(frozen=True)
class Call(Node[Fact]):
    """A node, as passed to its operator's function."""

    opset: int
    follower: Follower

    def fact(self, index: int) -> Fact:
        """The `Fact` of input `index`; a constant of unknown shape if it is left out."""
        found = self.facts[index] if index < len(self.facts) else None
        return found or Fact()

    def meet(self, names: Collection[str], how: str) -> None:
        """Record that this node computes across steps of these open axes."""
        self.follower.meet(self, names, how)


Operator = Callable[[Call], Sequence[Fact]]
OPERATORS: dict[str, Operator] = {}


def operator(*op_types: str) -> Callable[[Operator], Operator]:
    """Decorator: register the function for these operators."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


def stored(tensor: TensorProto) -> Fact:
    """The `Fact` of a stored tensor: its sizes, and its values if they are a few integers."""
    axes = tuple(axis_of(Size.of(int(dim))) for dim in tensor.dims)
    whole = tensor.data_type in (TensorProto.INT64, TensorProto.INT32)
    numbers: tuple[Size, ...] | None = None
    count = int(np.prod(list(tensor.dims), dtype=np.int64))
    if whole and len(tensor.dims) <= 1 and 0 <= count <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
        numbers = tuple(Size.of(int(value)) for value in numpy_helper.to_array(tensor).reshape(-1))
    return Fact(axes, numbers=numbers)
