"""Weights that are computed at each call: DropConnect, parametrizations, pruning, clamping."""
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from .base import CASES, Net, case


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
