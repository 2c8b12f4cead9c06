"""Hooks that record and hooks that change what comes out."""
# mypy: ignore-errors
# ruff: noqa: ARG002, ARG005 - hooks are called with what they do not use

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .base import LOG, TOTALS, Net, case


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
