"""Norms, attributes and Python's numbers of float64 modules are as exact as float64 is."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.exporter.helpers import X, eager, made, nodes, signal

pytestmark = pytest.mark.sweep(3)


class Double(nn.Module):
    """A projected LSTM, which runs in float64, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 5, batch_first=True, proj_size=4)
        self.norm, self.plain = nn.LayerNorm(4), nn.LayerNorm((4,), eps=1e-3, elementwise_affine=False)
        self.batch_norm = nn.BatchNorm1d(4)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        nn.init.uniform_(self.batch_norm.running_var)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0]
        z = y.transpose(1, 2)
        numbers = 0.1 + y * 0.7 - (0.3 - y) / 1.1 + 0.9 / (y + 2.3) + (y * y + 1) ** 0.3 + torch.add(y, 0.2).sub(1e-9)
        return self.norm(y), self.plain(y), self.batch_norm(z), F.leaky_relu(z, 0.2), F.elu(z, 0.7), numbers, y * 0.5


class Numbers(Double):
    """Numbers of Python's that float32 does not hold, in each way that one is passed."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0]
        z, up = y.transpose(1, 2), y + 2
        written = y.clone().add_(0.1).mul_(0.7)
        written[:, 0] = 0.3
        return (
            *(y.clamp(-0.1, 0.1), y.clamp(max=0.1), F.hardtanh(y, -0.1, 0.1), y.clamp_min(0.1).clamp_max(0.3)),
            *(torch.where(y > 0, y, 0.1), torch.where(y > 0, 0.1, y), y.masked_fill(y > 0, 0.1), written),
            *(torch.full((4,), 0.1, dtype=y.dtype) * y, torch.full_like(y, 0.1) + y, y.new_full((4,), 0.1) + y),
            *(torch.add(y, z.transpose(1, 2), alpha=0.1), torch.lerp(y, up, 0.1), torch.addcmul(y, y, up, value=0.1)),
            *(torch.addcdiv(y, y, up, value=0.1), 0.3**y, up**0.3, y % 0.3, y // 0.3, torch.fmod(y, 0.3)),
            *(F.leaky_relu(y.clone(), 0.1, inplace=True), F.elu(y, 0.3), F.selu(y), F.celu(y, 0.3), F.softplus(y, 0.3)),
            *(F.softshrink(y, 0.1), F.threshold(y, 0.1, 0.3), F.hardsigmoid(y), F.hardswish(y), torch.log10(up)),
            *(F.group_norm(z, 2, eps=0.1), F.instance_norm(z, eps=0.1), F.rms_norm(y, (4,), eps=0.1), torch.log2(up)),
            *(
                F.normalize(y, eps=0.7),
                F.cosine_similarity(y, up, dim=-1, eps=0.1),
                torch.linspace(0.1, 0.7, 4, dtype=y.dtype) + y,
            ),
            *(y.norm(p=1.3, dim=-1), torch.nan_to_num(y, 0.1), torch.deg2rad(y), F.smooth_l1_loss(y, up, beta=0.1)),
            *(torch.sinc(y), torch.special.xlogy(up, 0.3)),
        )


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_numbers_are_doubles_wherever_they_are_passed(tmp_path: Path) -> None:
    module = Numbers().eval().double()
    file = made(module, (signal(2, 4)[0].double(),), X, tmp_path)
    x = signal(3, 7)[0].double()
    for place, (actual, expected) in enumerate(zip(file.run((x,)), eager(module, (x,)), strict=True)):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15, err_msg=str(place))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_eps_slopes_and_numbers_are_doubles(tmp_path: Path) -> None:
    module = Double().eval().double()
    file = made(module, (signal(2, 4)[0].double(),), X, tmp_path)
    x = signal(3, 7)[0].double()
    for actual, expected in zip(file.run((x,)), eager(module, (x,)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14)


def test_those_of_float32_are_operators_also_beside_doubles(tmp_path: Path) -> None:
    class Single(Double):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return *super().forward(x), F.elu(x.double(), 0.7) * 0.1

    file = made(Single(), signal(2, 4), X, tmp_path)
    np.testing.assert_allclose(file.run(signal(3, 7))[-1], eager(Single(), signal(3, 7))[-1], rtol=1e-13)
    operators = {node.op_type for node in nodes(file.proto)}
    assert {"LayerNormalization", "BatchNormalization", "LeakyRelu", "Elu"} <= operators


class Made(nn.Module):
    """Tensors of torch's default dtype, by each function that makes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.zeros(1, x.size(0), 5)
        y, _ = self.lstm(x, (h, torch.ones(1, x.size(0), 5)))
        numbers = torch.linspace(0.1, 0.7, 5) + torch.arange(0, 1, 0.2) + torch.eye(5)[1] + torch.tensor(0.1)
        steps = torch.arange(x.size(1)).unsqueeze(1) / 3 + torch.empty(5).fill_(0.3)
        return (
            y + torch.full((x.size(0), 1, 5), 0.1) + numbers + steps,
            torch.ones(x.size(0), 2),
            torch.scalar_tensor(0.1),
        )


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_by_default")
def test_tensors_of_the_default_dtype(tmp_path: Path) -> None:
    module = Made().eval()
    file = made(module, (signal(2, 4)[0].double(),), X, tmp_path)
    x = signal(3, 7)[0].double()
    for actual, expected in zip(file.run((x,)), eager(module, (x,)), strict=True):
        assert actual.dtype == expected.dtype == np.float64
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-15)
