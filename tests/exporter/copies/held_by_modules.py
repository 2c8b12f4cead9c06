"""Modules that hold things: hooks, recorders, objects, closures, caches, weights that are computed at each call.

Each is made by a function without arguments and takes x (batch, time, 3).
"""
# nn.Module's call is typed as Any
# mypy: ignore-errors
# ruff: noqa: ARG002, ARG005, S311 - hooks are called with what they do not use

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
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
from torch.nn.utils import parametrizations, parametrize, prune

CASES: dict[str, Callable[[], nn.Module]] = {}
LOG: list[Any] = []
TOTALS = {"calls": 0}
SCALE = torch.tensor(0.5)


def case(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    CASES[make.__name__.strip("_").replace("_", " ")] = make
    return make


class Net(nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


# Hooks


@case
def hook_of_a_list_of_the_module() -> nn.Module:
    net = Net()
    net.seen = []
    net.head.register_forward_hook(lambda module, args, result: net.seen.append(result.detach()))
    net(torch.randn(2, 5, 3))
    return net


@case
def hook_of_a_dict_in_a_closure_on_the_lstm() -> nn.Module:
    net, found = Net(), {}
    net.lstm.register_forward_hook(lambda module, args, result: found.__setitem__("h", result[1][0]))
    net(torch.randn(2, 5, 3))
    return net


@case
def hook_that_counts_in_a_variable() -> nn.Module:
    net, calls = Net(), 0

    def count(module: nn.Module, args: Any) -> None:
        nonlocal calls
        calls += 1

    net.register_forward_pre_hook(count)
    return net


@case
def hook_with_a_default_argument() -> nn.Module:
    net = Net()

    def record(module: nn.Module, args: Any, result: Any, shapes: list[Any] = []) -> None:  # noqa: B006
        shapes.append(result.shape)

    net.head.register_forward_hook(record)
    return net


@case
def hook_into_a_global() -> nn.Module:
    net = Net()

    def record(module: nn.Module, args: Any, result: Any) -> None:
        LOG.append(result)
        TOTALS["calls"] += 1

    net.head.register_forward_hook(record)
    return net


class Recorder:
    def __init__(self) -> None:
        self.shapes: list[Any] = []
        self.by_module: dict[nn.Module, Any] = {}
        self.calls = 0

    def __call__(self, module: nn.Module, args: Any, result: Any) -> None:
        self.shapes.append(args[0].shape)
        self.by_module[module] = result
        self.calls += 1


@case
def hook_of_an_object() -> nn.Module:
    net = Net()
    recorder = Recorder()
    net.lstm.register_forward_hook(recorder)
    net.head.register_forward_hook(recorder)
    net(torch.randn(2, 5, 3))
    return net


@case
def hooks_that_change_what_comes_out() -> nn.Module:
    net = Net()
    gain = nn.Parameter(torch.tensor(3.0))
    net.lstm.register_forward_hook(lambda module, args, result: (result[0] * gain, result[1]))
    net.head.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    net.head.register_forward_hook(lambda module, args, kwargs, result: result.tanh(), with_kwargs=True)
    net.register_forward_hook(lambda module, args, result: result - 1, always_call=True)
    net.lstm.register_forward_pre_hook(lambda module, args, kwargs: ((args[0] * 2,), kwargs), with_kwargs=True)
    return net


@case
def backward_and_state_dict_hooks() -> nn.Module:
    net = Net()
    net.register_full_backward_hook(lambda module, inputs, outputs: LOG.append(inputs))
    net.lstm.register_full_backward_pre_hook(lambda module, outputs: LOG.append(outputs))
    net.register_state_dict_post_hook(lambda module, state, prefix, local: state.clear())
    net.lstm.weight_hh_l0.register_hook(lambda gradient: gradient * 0)
    return net


@case
def hook_that_is_a_method_of_the_module() -> nn.Module:
    class Hooked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = None
            self.handle = self.lstm.register_forward_hook(self.keep)

        def keep(self, module: nn.Module, args: Any, result: Any) -> Any:
            self.last = result[0]
            return result[0] * 2, result[1]

    net = Hooked()
    net(torch.randn(3, 2, 3))
    return net


# What a forward leaves behind


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


class _ClassList(Net):
    seen: list[Any] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.seen.append(y.shape)
        LOG.append(y)
        return y * SCALE


CASES["a list of the class"] = _ClassList


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


# Weights that are computed


class WeightDrop(nn.Module):
    """Computes a weight from a raw one, and writes it into the module at each call."""

    def __init__(self, write: Callable[[nn.LSTM, Tensor], None], compute: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        raw = self.lstm.weight_hh_l0
        del self.lstm._parameters["weight_hh_l0"]
        self.weight_hh_l0_raw = nn.Parameter(raw.data)
        self.write, self.compute = write, compute

    def forward(self, x: Tensor) -> Tensor:
        self.write(self.lstm, self.compute(self.weight_hh_l0_raw, self.training))
        return self.lstm(x)[0]


def _assigned(lstm: nn.LSTM, weight: Tensor) -> None:
    lstm.weight_hh_l0 = weight


def _in_table(lstm: nn.LSTM, weight: Tensor) -> None:
    lstm._parameters["weight_hh_l0"] = weight


def _flat(lstm: nn.LSTM, weight: Tensor) -> None:
    lstm.weight_hh_l0 = weight
    lstm._flat_weights = [getattr(lstm, name) for name in lstm._flat_weights_names]


def _wrapped(lstm: nn.LSTM, weight: Tensor) -> None:
    lstm.weight_hh_l0 = nn.Parameter(weight.detach())


def _dropped(weight: Tensor, training: bool) -> Tensor:
    return F.dropout(weight, 0.5, training)


def _scaled(weight: Tensor, training: bool) -> Tensor:
    return F.dropout(weight, 0.5, training) * 0.5


for _write in (_assigned, _in_table, _flat, _wrapped):
    for _compute in (_dropped, _scaled):
        for _run in (False, True):

            def _make(write: Any = _write, compute: Any = _compute, run: bool = _run) -> nn.Module:
                net = WeightDrop(write, compute)
                if run:
                    net(torch.randn(2, 5, 3))
                return net

            CASES[f"weight{_write.__name__}{_compute.__name__}{' run' if _run else ''}"] = _make


@case
def weight_drop_as_in_language_models() -> nn.Module:
    class Dropped(nn.Module):
        def __init__(self, module: nn.Module, names: list[str]) -> None:
            super().__init__()
            self.module, self.names = module, names
            for name in names:
                weight = getattr(module, name)
                delattr(module, name)
                self.register_parameter(f"{name}_raw", nn.Parameter(weight.data))
                setattr(module, name, weight.clone())
            module.flatten_parameters = self.nothing

        def nothing(self) -> None:
            """In the place of flatten_parameters."""

        def forward(self, x: Tensor) -> Any:
            for name in self.names:
                raw = getattr(self, f"{name}_raw")
                setattr(self.module, name, F.dropout(raw, 0.5, True) if self.training else raw.clone() * 2)
            return self.module(x)[0]

    return Dropped(nn.LSTM(3, 4, batch_first=True), ["weight_hh_l0", "weight_ih_l0"])


class _SwapsData(nn.LSTM):
    """Drops its weights for the length of a call."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        raw = self.weight_hh_l0.data.clone()
        self.weight_hh_l0.data = F.dropout(raw, 0.5, self.training) * 0.5
        result = super().forward(x, hx)
        self.weight_hh_l0.data = raw
        return result


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh() * 2


def _layers() -> dict[str, Callable[[], nn.Module]]:
    return {
        "LSTM": lambda: nn.LSTM(3, 4, batch_first=True),
        "GRU": lambda: nn.GRU(3, 4, batch_first=True),
        "RNN": lambda: nn.RNN(3, 4, batch_first=True),
    }


class First(nn.Module):
    """The first result of a recurrent module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


CASES["weight whose data is swapped"] = lambda: First(_SwapsData(3, 4, batch_first=True))


@case
def weights_of_a_head_that_are_clamped_and_wrapped_again() -> nn.Module:
    class Clamped(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.head.weight = nn.Parameter(self.head.weight.clamp(-0.1, 0.1))
            return super().forward(x)

    return Clamped()


_CHANGES: dict[str, Callable[[nn.Module, str], Any]] = {
    "own parametrization": lambda part, name: parametrize.register_parametrization(part, name, Symmetric()),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "pruned": lambda part, name: prune.l1_unstructured(part, name, amount=0.4),
}
for _kind, _layer in _layers().items():
    for _change in _CHANGES:
        if _kind != "LSTM" and _change not in ("own parametrization", "weight norm", "pruned"):
            continue

        def _make(layer: Any = _layer, change: str = _change) -> nn.Module:
            part = layer()
            _CHANGES[change](part, "weight_hh_l0")
            return First(part)

        CASES[f"{_change} of {_kind}"] = _make


@case
def parametrized_head_and_cell() -> nn.Module:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)
            self.head = nn.Linear(4, 2)
            parametrize.register_parametrization(self.cell, "weight_hh", Symmetric())
            parametrizations.weight_norm(self.cell, "weight_ih")
            parametrizations.spectral_norm(self.head)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x[:, 0])[0])

    return Cell()


# What modules hold


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
