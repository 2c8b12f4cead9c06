"""Code that names float32, run in float64 (and code that names float64, in float32)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

import lstm_onnx
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.dtype_mode import DtypeMode
from lstm_onnx.exporter.functional.make_functional import make_functional

pytestmark = pytest.mark.sweep(27)

Forward = Callable[[Any, Tensor], Tensor]
TABLE = torch.linspace(0.1, 1.7, 6)


class Net(nn.Module):
    """An LSTM and a head, with a forward to be tried."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.table = TABLE  # neither parameter nor buffer: module.double() leaves it as it is
        self.tried = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.tried(self, x)


def hidden(net: Any, h: Tensor, x: Tensor) -> Tensor:
    return net.lstm(x, (h, h))[0]


def legacy(net: Any, x: Tensor) -> Tensor:
    return hidden(net, torch.FloatTensor(1, x.size(0), 6).fill_(0.1), x)


def factory(net: Any, x: Tensor) -> Tensor:
    return hidden(net, torch.full((1, x.size(0), 6), 0.1, dtype=torch.float32), x)


def cast(net: Any, x: Tensor) -> Tensor:
    return net.lstm(x.float())[0].to(torch.float32) * (x[..., :1] > 0).float()


def typed(net: Any, x: Tensor) -> Tensor:
    return net.lstm(x.type(torch.FloatTensor))[0].type("torch.FloatTensor") / 3


def in_place(net: Any, x: Tensor) -> Tensor:
    out = torch.zeros(x.size(0), x.size(1), 6, dtype=torch.float32)
    out[:, :] = net.lstm(x)[0]
    out.mul_(1 / 3)
    return out


def attribute(net: Any, x: Tensor) -> Tensor:
    return net.lstm(x)[0] * net.table


def one_hot(net: Any, x: Tensor) -> Tensor:
    return net.lstm(F.one_hot((x[..., 0] > 0).long(), 4).to(dtype=torch.float) / 3)[0]


def compared(net: Any, x: Tensor) -> Tensor:
    out = net.lstm(x)[0]
    return out / 3 if out.dtype == torch.float32 and x.dtype is torch.float32 else out


def from_numpy(net: Any, x: Tensor) -> Tensor:
    return net.lstm(x)[0] + torch.from_numpy(np.full(6, 0.1, np.float32))


FORWARDS = [legacy, factory, cast, typed, in_place, attribute, one_hot, compared, from_numpy]


def twice_as_precise(forward: Forward, x: Tensor) -> Tensor:
    """What the forward gives in float64, by a copy whose code does not name a dtype."""
    net = Net(forward).double()
    net.table = TABLE.double()
    lstm, x = net.lstm, x.double()
    h = torch.full((1, x.size(0), 6), float(np.float64(0.1)), dtype=torch.float64)
    plain = lstm(x)[0]
    results = {
        "legacy": lambda: lstm(x, (h, h))[0],
        "factory": lambda: lstm(x, (h, h))[0],
        "cast": lambda: plain * (x[..., :1] > 0),
        "typed": lambda: plain / 3,
        "in_place": lambda: plain / 3,
        "attribute": lambda: plain * net.table,
        "one_hot": lambda: lstm(F.one_hot((x[..., 0] > 0).long(), 4).double() / 3)[0],
        "compared": lambda: plain / 3,
        "from_numpy": lambda: plain + float(np.float32(0.1)),
    }
    return results[forward.__name__]()


class Scaled(nn.Module):
    """No parameter says in which dtype it computes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.float() * 0.1, x


def test_a_module_without_parameters_computes_in_the_dtype_that_it_was_converted_to() -> None:
    net, x = Scaled(), torch.randn(2, 3)
    functional = make_functional(net, bind_arguments(net, x, None), dtype=torch.float64)
    outputs, _ = functional.run(functional.arguments.tensors, {})
    for found, wanted in zip(outputs.values(), (x.double() * 0.1, x.double()), strict=True):
        assert found.dtype == torch.float64
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_code_that_names_float32_computes_in_float64(forward: Forward) -> None:
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    net = Net(forward).double()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), DtypeMode(torch.float32, torch.float64):
            result = net(x.double())
    finally:
        torch.set_default_dtype(default)
    assert result.dtype == torch.float64
    with torch.no_grad():
        expected = twice_as_precise(forward, x)
    assert torch.allclose(result, expected, rtol=0, atol=1e-14)


def test_without_it_such_code_fails_or_rounds() -> None:
    x = torch.randn(2, 5, 4).double()
    with pytest.raises((RuntimeError, ValueError)):
        Net(factory).double()(x)
    net = Net(in_place).double()
    assert net(x).dtype == torch.float32


def test_code_that_names_float64_computes_in_float32() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.zeros(1, x.size(0), 6, dtype=torch.float64)
        return net.lstm(x.double(), (h, h))[0]

    net = Net(forward).double()
    with torch.no_grad(), DtypeMode(torch.float64, torch.float32):
        result = copy.deepcopy(net).float()(torch.randn(2, 5, 4))
    assert result.dtype == torch.float32


def test_float16_code_that_goes_by_float32_computes_in_float64() -> None:
    x = torch.randn(2, 3, 4).half()
    with torch.no_grad(), DtypeMode(torch.float16, torch.float64):
        result = F.softmax(x.float(), -1).half()
    assert result.dtype == torch.float64
    assert torch.allclose(result, F.softmax(x.double(), -1), rtol=0, atol=1e-15)


def test_bits_and_integers_stay_what_they_are() -> None:
    with DtypeMode(torch.float32, torch.float64):
        assert float(torch.ones(2, dtype=torch.int32).view(torch.float32)[0]) == float(np.int32(1).view(np.float32))
        assert torch.ones(2).long().element_size() == 8
        assert torch.ones(2, dtype=torch.int16).dtype == torch.int16


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_such_modules_verify(forward: Forward, tmp_path: Any) -> None:
    net = Net(forward).eval()
    lstm_onnx.export(
        net,
        tmp_path / "m.onnx",
        example_inputs=(torch.randn(2, 5, 4),),
        dynamic_shapes={"x": {0: "batch", 1: "time"}},
    )
    report = lstm_onnx.verify(net, tmp_path / "m.onnx", mutants="none")
    assert report, str(report)
