"""What a branch of an ``if`` on a value may do: call LSTMs and the user's code, write into its own, leave numbers."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, eager, made, signal

pytestmark = pytest.mark.sweep(54)

Forward = Callable[..., Any]
CHOSEN: list[Forward] = []
REFUSED: list[tuple[Forward, str]] = []


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, y: Tensor, factor: float = 1.0) -> Tensor:
        parts = []
        for step in range(2):
            z = y + step
            if z.sum() > 1:
                z = z * 0.5
            parts.append(z)
        first = torch.zeros_like(y)
        first[:, 0] = 1
        return self.gru(torch.stack(parts).sum(0) + first)[0] * factor


class Own(nn.GRU):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        if x.sum() > 1:
            return super().forward(x * 2, hx)
        y, h = super().forward(x, hx)
        return y + 1, h


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, y: Tensor) -> Tensor:
        self.count += 1
        return y


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.other = nn.GRU(3, 4, batch_first=True)
        self.cell = nn.LSTMCell(3, 4)
        self.own = Own(3, 4, batch_first=True)
        self.block, self.counting = Block(), Counting()
        self.register_buffer("scale", torch.ones(4))

    def encoded(self, x: Tensor) -> Tensor:
        self.other.flatten_parameters()
        return self.other(x)[0]

    @staticmethod
    def with_resets(x: Tensor, starts: Tensor, state: tuple[Tensor, Tensor], lstm: nn.LSTM) -> tuple[Tensor, Any]:
        if torch.all(starts == 0.0):
            y, state = lstm(x, state)
            return y, state
        found = []
        for step, start in zip(x.unbind(1), starts.unbind(1), strict=True):
            kept = (1.0 - start).view(1, -1, 1)
            y, state = lstm(step.unsqueeze(1), (kept * state[0], kept * state[1]))
            found += [y]
        return torch.cat(found, 1), state


def chosen(forward: Forward) -> Forward:
    CHOSEN.append(forward)
    return forward


def refused(reason: str) -> Callable[[Forward], Forward]:
    def add(forward: Forward) -> Forward:
        REFUSED.append((forward, reason))
        return forward

    return add


@chosen
def one_of_two(self: Base, x: Tensor) -> Tensor:
    if x.sum() > 0:
        y, _ = self.lstm(x)
    else:
        y = self.encoded(-x)
    return y


@chosen
def again(self: Base, x: Tensor) -> tuple[Tensor, Tensor]:
    y, (h, c) = self.lstm(x)
    if x.mean() > 0.5:
        y, (h, c) = self.lstm(x / 2, (h, c))
    return y, h + c


@chosen
def in_a_step(self: Base, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.shape[0], 4)
    found = []
    for t in range(x.shape[1]):
        if x[:, t].max() > 0.3:
            h, c = self.cell(x[:, t], (h, c))
        found.append(h)
    return torch.stack(found, 1)


@chosen
def normalized(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if y.norm(dim=-1).mean() > 0.3:
        y = nn.functional.normalize(y, dim=-1)
    return y


@chosen
def own_code(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if y.sum() > 0:
        y = self.block(y, factor=2.0)
    return y


@chosen
def own_forward(self: Base, x: Tensor) -> Tensor:
    y, _ = self.own(x)
    if x.mean() < 0.1:
        y = y + self.own(x / 2)[0]
    return y


@chosen
def packed(self: Base, x: Tensor) -> Tensor:
    lengths = (x[:, :, 0] > 0).sum(1)
    y = x.new_zeros(*x.shape[:2], 4)
    if lengths.max() > 0:
        steps = pack_padded_sequence(x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(steps)[0], batch_first=True, total_length=x.shape[1])
    return y


@chosen
def sorted_by_hand(self: Base, x: Tensor) -> Tensor:
    lengths = (x[:, :, 0] > 0).sum(1).clamp(min=1)
    if lengths.min() == x.shape[1]:
        y = self.lstm(x)[0]
    else:
        found, order = torch.sort(lengths, descending=True)
        _, back = torch.sort(order)
        steps = pack_padded_sequence(x.index_select(dim=0, index=order), found, batch_first=True)
        y = pad_packed_sequence(self.lstm(steps)[0], batch_first=True)[0][back]
        if y.shape[1] != x.shape[1]:
            y = torch.cat([y, y.new_zeros(y.shape[0], x.shape[1] - y.shape[1], 4)], 1)
    return y


@chosen
def padded_back(self: Base, x: Tensor) -> tuple[Tensor, Tensor]:
    lengths = (x[:, :, 0] > 0).sum(1).clamp(min=1)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y = z = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
    missing = x.shape[1] - y.shape[1]
    if missing > 0:
        y = nn.functional.pad(y, (0, 0, 0, missing), value=2.0)
    return y, z * 2 if missing == 0 else nn.functional.pad(z, (0, 0, 0, missing))


@chosen
def padded_unless_equal(self: Base, x: Tensor) -> list[Tensor]:
    lengths = (x[:, :, 0] > 0).sum(1).clamp(min=1)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y = z = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
    if not (y.shape[1] == x.shape[1]):  # noqa: SIM201
        y = nn.functional.pad(y, (0, 0, 0, x.shape[1] - y.shape[1]), value=2.0)
    if not z.shape[1] >= x.shape[1]:
        z = nn.functional.pad(z, (0, 0, 0, x.shape[1] - z.shape[1]))
    return [y, z]


@chosen
def with_resets(self: Base, x: Tensor) -> Tensor:
    state = (x.new_zeros(1, x.shape[0], 4), x.new_zeros(1, x.shape[0], 4))
    y, (h, _) = self.with_resets(x, (x[:, :, 0] > 1.2).float(), state, self.lstm)
    return y + h.transpose(0, 1)


@chosen
def returns_early(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.max() > 2:
        return y * 2
    if x.max() > 1:
        return y * 3
    if x.max() > 0.5:
        return y * 5
    return -y


@chosen
def lists(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    found = same = [y]
    named = {"y": y}
    if x.sum() > 0:
        found.append(y * 2)
        named["y"] = y + 1
    else:
        found += [-y]
    return torch.stack(same).sum(0) + named["y"]


@chosen
def numbers(self: Base, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, _ = self.lstm(x)
    factor, count, large = 1.0, 0, False
    if y.sum().item() > 0.5:
        factor, large = x.max().item(), True
    for limit in range(3):
        if x.abs().max() > limit:
            count += 1
    if large and x.max() > 1:
        y = y + 1
    return y * factor, (x > 0).sum() * count, y.mean() / 3 + factor / 3


@chosen
def own_writes(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        with torch.no_grad():
            z = torch.zeros_like(y)
            z[:, 0] = y[:, -1]
            z += 1
        y = y + z
    return y


@pytest.mark.parametrize("forward", CHOSEN)
@pytest.mark.parametrize("sign", [1, -1])
def test_each_value_takes_its_branch(forward: Any, sign: int, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    result = made(module, [sign * signal(2, 4)[0].abs()], X, tmp_path)
    for batch, time in ((2, 4), (1, 1), (3, 6)):
        (x,) = signal(batch, time)
        for values in (x, -x, 0.1 * x, x * 0, x + 2, x - 2):
            require_equal(result.run((values.clone(),)), eager(module, (values.clone(),)))


def require_equal(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    for own, right in zip(found, wanted, strict=True):
        assert own.dtype == right.dtype
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-5)


@refused("calls Counting, which may do more")
def with_a_counter(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if y.sum() < 0:
        y = self.counting(y)
    return y


@refused("calls Counting, which may do more")
def with_a_counter_further_in(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if y.sum() < -100:
        y = y * 2
        if x.dim() == 3:
            y = self.counting(y)
    return y


def doubled(y: Tensor) -> Tensor:
    y *= 2
    return y


@refused("writes into y, which shares its memory with something that existed before")
def with_a_write_elsewhere(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    z = y
    if x.sum() > 0:
        z = doubled(y) + 1
    return y + z


@refused("writes into z, which shares its memory")
def with_a_view(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        z = y[:, :1]
        z += 1
    return y


@refused("a list of a different length")
def with_a_longer_list(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    found = [y]
    if x.sum() > 0:
        found.append(y)
    return torch.stack(found).sum(0)


@refused("writes into found, which is the same object as same")
def with_a_list_of_two_names(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    found = same = [y]
    if x.sum() > 0:
        found[0] = y * 2
        y = same[0] + 1
    return y + found[0]


@refused("indexes by numbers")
def with_changed_indices(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    order = y.sum((1, 2)).argsort()
    order += (x.sum((1, 2)) > 100).to(order.dtype)
    if x.sum() > 0:
        y = y[order]
    return y


@refused("indexes by numbers")
def with_indices_of_another_axis(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    order = y.mean((0, 1)).argsort()
    if x.sum() > 0:
        y = torch.cat([y, y], 2).index_select(2, order)
    return y


@refused("a tensor of a different shape")
def with_sizes_of_another_condition(self: Base, x: Tensor) -> Tensor:
    lengths = (x[:, :, 0] > 0).sum(1).clamp(min=1)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
    if y.shape[1] > 1:
        y = nn.functional.pad(y, (0, 0, 0, x.shape[1] - y.shape[1]))
    return y


@refused("a different Python number or object")
def with_none(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    factor = None
    if x.sum() > 0:
        factor = 2.0
    return y if factor is None else y * factor


@pytest.mark.parametrize(("forward", "reason"), REFUSED)
def test_other_effects_are_refused(forward: Any, reason: str, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    with pytest.raises(ExportError, match=f"at test_branch_effects.py:[0-9]+: .*{reason}"):
        made(module, [signal(2, 4)[0].abs()], X, tmp_path)


def test_a_module_that_only_the_other_branch_calls_verifies(tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": one_of_two})()
    made(module, signal(2, 4), X, tmp_path)
    assert lstm_onnx.verify(module, tmp_path / "made.onnx", mutants="none")
