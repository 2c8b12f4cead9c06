"""What a forward leaves behind: lists that grow, counters, caches, states after training."""
# mypy: ignore-errors
# ruff: noqa: ARG005 - hooks are called with what they do not use

from __future__ import annotations

import argparse
import array
import collections
import copy
import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import CASES, LOG, SCALE, Net, case


@dataclasses.dataclass(slots=True)
class Slots:
    calls: int


class Named(dict):
    last = None


class Leaves(Net):
    def __init__(self, leave: Callable[[Any, Tensor, Tensor], None], **attributes: Any) -> None:
        super().__init__()
        self.leave = leave
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        self.leave(self, x, y)
        return self.head(y)


def _left(name: str, leave: Callable[[Any, Tensor, Tensor], None], **attributes: Any) -> None:
    def make() -> nn.Module:
        net = Leaves(leave, **{key: copy.copy(value) for key, value in attributes.items()})
        net(torch.randn(7, 6, 3))
        return net

    CASES[name] = make


_left("a list grows", lambda net, x, y: net.seen.append(y), seen=[])
_left("a list is replaced", lambda net, x, y: setattr(net, "seen", [*net.seen, y.mean()]), seen=[])
_left("a dict gets tensors and sizes", lambda net, x, y: net.seen.update(y=y, size=x.shape), seen={})
_left("a count", lambda net, x, y: setattr(net, "calls", net.calls + 1), calls=0)
_left("a size", lambda net, x, y: setattr(net, "batch", x.shape[0]), batch=None)
_left("a string", lambda net, x, y: setattr(net, "phase", net.phase + "x"), phase="")
_left("a tuple", lambda net, x, y: setattr(net, "kept", (y, y.shape[1], None)), kept=None)
_left("a tensor with a graph", lambda net, x, y: setattr(net, "attention", y.softmax(-1)), attention=None)
_left("a deque", lambda net, x, y: net.last.append(y), last=collections.deque(maxlen=2))
_left("a default dict", lambda net, x, y: net.by_size[str(y.dim())].append(y), by_size=collections.defaultdict(list))
_left("a set", lambda net, x, y: net.shapes.add(y.dim()), shapes=set())
_left("a counter", lambda net, x, y: net.counts.update(["calls"]), counts=collections.Counter())
_left("a namespace", lambda net, x, y: setattr(net.args, "last", y), args=argparse.Namespace(last=None))
_left("a simple namespace", lambda net, x, y: net.s.seen.append(y), s=types.SimpleNamespace(seen=[]))
_left("an array", lambda net, x, y: net.ranks.append(x.dim()), ranks=array.array("q", [1]))
_left("a numpy array", lambda net, x, y: net.calls.__iadd__(1), calls=np.zeros(2, np.int64))
_left("an order", lambda net, x, y: net.by_use.move_to_end("a"), by_use=collections.OrderedDict(a=1, b=2))
_left("slots", lambda net, x, y: setattr(net.slots, "calls", net.slots.calls + 1), slots=Slots(0))
_left("an attribute of a dict", lambda net, x, y: setattr(net.named, "last", y), named=Named())


class ClassList(Net):
    seen: list[Any] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.seen.append(y.shape)
        LOG.append(y)
        return y * SCALE


CASES["a list of the class"] = ClassList
NAMES = ["sizes"]


class NamedLists(ClassList):
    shapes: list[Any] = []  # noqa: RUF012
    sizes: list[Any] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        y = Net.forward(self, x)
        for name in ("seen", "shapes"):
            getattr(self, name).append(y.shape)
        for name in NAMES:
            getattr(self, name).append(y.shape[0])
        return y


CASES["lists of the class by their names"] = NamedLists


@case
def state_after_training() -> nn.Module:
    class Trained(Net):
        hidden: Any = None

        def forward(self, x: Tensor) -> Tensor:
            if self.hidden is None or self.hidden[0].shape[1] != x.shape[0]:
                self.hidden = x.new_zeros(1, x.shape[0], 4), x.new_zeros(1, x.shape[0], 4)
            y, self.hidden = self.lstm(x, self.hidden)
            return self.head(y)

    net = Trained()
    net(torch.randn(9, 5, 3)).sum().backward()
    return net


@case
def cache_of_what_is_computed_once() -> nn.Module:
    class Cached(Net):
        table: Any = None

        def forward(self, x: Tensor) -> Tensor:
            if self.table is None:
                self.table = torch.linspace(1.0, 2.0, 2)
            return super().forward(x) * self.table + self.offset

        @functools.cached_property
        def offset(self) -> Tensor:
            return torch.ones(2)

    return Cached()
