"""The file of a bare nn.LSTM becomes an nn.LSTM, which is exported to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.exporter.lstm_with_lengths import LSTMWithLengths

SIZES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"num_layers": 3, "bidirectional": True, "batch_first": True, "dropout": 0.2}, {"opset": 22}),
    ({"bias": False, "num_layers": 2}, {"lengths": True, "opset": 14}),
    ({"proj_size": 2, "bidirectional": True}, {}),
    ({"proj_size": 3, "num_layers": 2, "batch_first": True}, {"lengths": True}),
    ({"dtype": torch.float64, "proj_size": 2, "bias": False}, {}),
    ({"dtype": torch.float64, "bias": False}, {"lengths": True}),
    ({"proj_size": 3, "num_layers": 2, "bidirectional": True}, {"projection": "fold"}),
    ({"dtype": torch.float16}, {}),
    ({"hidden_size": 20, "input_size": 30}, {"precision": "float16"}),
)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:dropout option")


def drawn_lstm(seed: int, **sizes: Any) -> nn.LSTM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.LSTM(**{"input_size": 4, "hidden_size": 5, **sizes}).eval()


def round_trip(lstm: nn.LSTM, folder: Path, options: dict[str, Any]) -> tuple[Any, bool]:
    """The module of its file, and whether that is exported to the same bytes."""
    first, second = folder / "first.onnx", folder / "second.onnx"
    lstm_onnx.export(lstm, first, **options)
    module = lstm_onnx.to_torch(first)
    lstm_onnx.export(module, second, **{name: value for name, value in options.items() if name != "lengths"})
    return module, first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("sizes", "options"), SIZES)
def test_it_is_an_lstm_with_the_same_numbers_and_exports_to_the_same_bytes(tmp_path: Path, sizes: Any, options: Any):
    lstm = drawn_lstm(0, **sizes)
    module, same = round_trip(lstm, tmp_path, options)
    inner = module.lstm if options.get("lengths") else module
    assert type(inner) is nn.LSTM
    assert type(module) is (LSTMWithLengths if options.get("lengths") else nn.LSTM)
    assert not any(part.training for part in module.modules())
    assert (inner.dropout, inner.batch_first) == (lstm.dropout, lstm.batch_first)
    assert same
    x = torch.linspace(-1, 1, 6 * lstm.input_size).reshape(2, 3, -1).to(lstm.weight_ih_l0.dtype)
    near = 5e-3 if options.get("precision") else 1e-6
    assert torch.allclose(inner(x)[0], lstm(x)[0], atol=near)
    if not lstm.proj_size and not options.get("precision"):
        pairs = zip(inner.parameters(), lstm.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_a_folded_projection_is_divided_again(tmp_path: Path):
    lstm = drawn_lstm(1, proj_size=3, bidirectional=True)
    lstm_onnx.export(lstm, tmp_path / "m.onnx", projection="fold")
    module = lstm_onnx.to_torch(tmp_path / "m.onnx")
    x = torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(0))
    assert module.proj_size == 3
    assert torch.allclose(module(x)[0], lstm(x)[0], atol=1e-5)


def test_lengths_are_packed_sequences(tmp_path: Path):
    lstm = drawn_lstm(2, bidirectional=True)
    lstm_onnx.export(lstm, tmp_path / "m.onnx", lengths=True)
    module = lstm_onnx.to_torch(tmp_path / "m.onnx")
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    output, (hn, cn) = module(x, torch.tensor([2, 5, 3]))
    run = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").run(
        {"input": x.numpy(), "lengths": np.array([2, 5, 3], np.int32)}
    )
    for name, tensor in {"output": output, "hn": hn, "cn": cn}.items():
        np.testing.assert_allclose(tensor.detach().numpy(), run[name], atol=1e-6)
    assert not output[2:, 0].any()
    whole, _ = module(x)
    assert torch.equal(whole, lstm(x)[0])


def test_gradients_are_the_original_ones(tmp_path: Path):
    lstm = drawn_lstm(3, num_layers=2, proj_size=2, dtype=torch.float64)
    module, _ = round_trip(lstm, tmp_path, {})
    x = torch.randn(4, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one in (lstm, module.train()):
        one(x)[0].square().sum().backward()
    for (name, mine), theirs in zip(module.named_parameters(), lstm.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-9), name


def test_a_trained_one_has_a_digest_of_its_own(tmp_path: Path):
    lstm = drawn_lstm(4, proj_size=2)
    module, same = round_trip(lstm, tmp_path, {})
    assert same
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    lstm_onnx.export(module, tmp_path / "trained.onnx")
    digests = [
        lstm_onnx.load(tmp_path / name, provider="cpu").metadata.digest for name in ("first.onnx", "trained.onnx")
    ]
    assert digests[0] != digests[1]


def test_a_trained_one_is_folded_anew(tmp_path: Path):
    lstm = drawn_lstm(7, proj_size=2)
    module, same = round_trip(lstm, tmp_path, {"projection": "fold"})
    assert same
    with torch.no_grad():
        module.weight_hr_l0.mul_(2)
    lstm_onnx.export(module, tmp_path / "trained.onnx", projection="fold")
    x = torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(0))
    found = lstm_onnx.load(tmp_path / "trained.onnx", provider="cpu").run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(found, module(x)[0].detach().numpy(), atol=1e-6)


def test_hooks_of_a_module_with_lengths_are_not_lost(tmp_path: Path):
    module, _ = round_trip(drawn_lstm(5), tmp_path, {"lengths": True})
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(lstm_onnx.ExportError, match="pass example_inputs"):
        lstm_onnx.export(module, tmp_path / "hooked.onnx")


def drawn(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes and options."""
    rng = np.random.default_rng([77, number])
    hidden = int(rng.integers(2, 12))
    sizes = {
        "input_size": int(rng.integers(1, 9)),
        "hidden_size": hidden,
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.random() < 0.7),
        "batch_first": bool(rng.random() < 0.5),
        "bidirectional": bool(rng.random() < 0.5),
        "proj_size": int(rng.integers(1, hidden)) if rng.random() < 0.4 else 0,
        "dropout": float(rng.choice([0, 0.3])),
        "dtype": (torch.float32, torch.float64, torch.float16)[int(rng.choice(3, p=[0.7, 0.2, 0.1]))],
    }
    options: dict[str, Any] = {"lengths": bool(rng.random() < 0.4), "opset": int(rng.integers(14, 24))}
    options["projection"] = str(rng.choice(["scan", "fold"]))
    if sizes["dtype"] == torch.float32 and rng.random() < 0.2:
        options["precision"] = "float16"
    return sizes, options


@pytest.mark.parametrize("number", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 200))])
def test_drawn_lstms_give_the_same_bytes(tmp_path: Path, number: int):
    sizes, options = drawn(number)
    assert round_trip(drawn_lstm(number, **sizes), tmp_path, options)[1]
