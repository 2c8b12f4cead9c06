"""What modules hold: containers, objects, closures, replaced forwards, what code finds by name."""
# mypy: ignore-errors
# ruff: noqa: ARG005, S311 - hooks are called with what they do not use

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import logging
import random
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .base import CASES, Net, case


class AttributeDict(dict):
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class SelfDict(dict):
    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Names(list):
    separator = "."

    def __init__(self, items: Any, suffix: str) -> None:
        super().__init__(items)
        self.suffix = suffix


@dataclass
class Options:
    gain: float
    layers: list[int] = field(default_factory=list)


class Slotted:
    __slots__ = ("gain", "seen")

    def __init__(self) -> None:
        self.gain, self.seen = 2.0, []


class Configured(Net):
    def __init__(self, config: Any, gain: Callable[[Any], Any]) -> None:
        super().__init__()
        self.config, self.gain = config, gain

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain(self.config)


_CONFIGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "attribute dict": (lambda: AttributeDict(a=AttributeDict(gain=2.0)), lambda config: config.a.gain),
    "dict that is its attributes": (lambda: SelfDict(gain=2.0), lambda config: config.gain),
    "list subclass": (lambda: Names([1.0, 3.0], "x"), lambda config: config[1] * len(config.suffix)),
    "dataclass": (lambda: Options(2.0, [1]), lambda config: config.gain * config.layers[0]),
    "namespace": (lambda: argparse.Namespace(gain=2.0), lambda config: config.gain),
    "ordered dict": (lambda: collections.OrderedDict(b=1.0, gain=2.0), lambda config: next(reversed(config.values()))),
    "user dict": (lambda: collections.UserDict(gain=2.0), lambda config: config["gain"]),
    "chain map": (lambda: collections.ChainMap({"gain": 2.0}, {"b": 1}), lambda config: config["gain"]),
    "slots": (Slotted, lambda config: config.gain),
    "array": (lambda: np.array([2.0, 3.0], np.float32), lambda config: torch.from_numpy(config)),
    "mapping proxy": (lambda: types.MappingProxyType({"gain": 2.0}), lambda config: config["gain"]),
}
for _name, (_config, _gain) in _CONFIGS.items():
    CASES[f"held: {_name}"] = functools.partial(lambda config, gain: Configured(config(), gain), _config, _gain)


@case
def what_cannot_be_copied() -> nn.Module:
    class Holder(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()
            self.logger = logging.getLogger("held")
            self.file = open(__file__)  # noqa: SIM115
            self.items = (item for item in range(3))
            self.random, self.generator = random.Random(1), torch.Generator()
            self.numbers = np.random.default_rng(0)
            self.parent = weakref.ref(self)
            self.__dict__["proxy"] = weakref.proxy(self.head)  # else it would be a submodule
            self.local = threading.local()
            self.scale = lambda value: value * 2

        def forward(self, x: Tensor) -> Tensor:
            with self.lock:
                y = self.parent().lstm(x)[0]
            self.logger.debug("called")
            return self.scale(self.proxy(y))

    return Holder()


@case
def forward_of_the_instance() -> nn.Module:
    net = Net()
    own = net.forward
    net.forward = lambda x: own(x) * 2
    return net


@case
def forward_of_the_instance_as_a_method() -> nn.Module:
    net = Net()
    net.forward = types.MethodType(lambda self, x: self.lstm(x)[0], net)
    return net


@case
def forward_of_the_lstm_replaced() -> nn.Module:
    net = Net()
    own = net.lstm.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        y, states = own(*args, **kwargs)
        return y * 2, states

    net.lstm.forward = doubled
    return net


@case
def closure_over_the_module() -> nn.Module:
    net = Net()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return net(x) + 1

    return Outer()


@case
def partial_activation_and_shared_parts() -> nn.Module:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.again = nn.LSTM(4, 4, batch_first=True)
            self.into = nn.LazyLinear(4)
            self.act = functools.partial(F.leaky_relu, negative_slope=0.3)
            self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.act(self.first(self.into(x))[0]))[0] * self.mask

    net = Shared()
    net(torch.randn(2, 5, 3))
    return net


@case
def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        net = Net()
        net.gain = torch.tensor(2.0)
    net.register_forward_hook(lambda module, args, result: result * module.gain)
    return net


@case
def own_train_and_eval() -> nn.Module:
    class Frozen(Net):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.modes: list[bool] = []

        def train(self, mode: bool = True) -> None:  # returns nothing
            self.modes.append(mode)
            super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(super().forward(x))

    return Frozen()


@case
def attributes_that_are_found_by_code() -> nn.Module:
    class Finder(Net):
        def __init__(self) -> None:
            super().__init__()
            object.__setattr__(self, "extra", {"gain": torch.tensor(2.0)})

        def __getattr__(self, name: str) -> Any:
            with contextlib.suppress(AttributeError):
                return super().__getattr__(name)
            if name in self.__dict__.get("extra", {}):
                return self.__dict__["extra"][name]
            raise AttributeError(name)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.gain

    return Finder()


@functools.cache
def ramp(size: int) -> Tensor:
    return torch.linspace(0.0, 1.0, size)


class _UsesCache(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + ramp(2)


CASES["cached function"] = _UsesCache
