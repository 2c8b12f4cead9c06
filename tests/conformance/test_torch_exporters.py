"""Files that PyTorch's own exporters make: inspected, checked, run and streamed beside the modules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.inspect import inspect

pytestmark = pytest.mark.sweep(4)

SIZE, H = 4, 3
OPSETS = (11, 14, 17)
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two-way": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "deep": {"num_layers": 3, "bias": False},
}
SIZES = ((5, 2), (1, 1), (1, 3), (7, 1), (9, 4))
"""(time, batch); what is exported is the first."""
ATOL = 2e-6
STATES = {"h0": "hn", "c0": "cn"}


class Stateful(nn.Module):
    """nn.LSTM with its states as inputs and outputs of their own."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SIZE, H, **options)

    def forward(self, input: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, (hn, cn) = self.lstm(input, (h0, c0))
        return output, hn, cn

    def drawn(self, time: int, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        layers = self.lstm.num_layers * (1 + self.lstm.bidirectional)
        sizes = (batch, time, SIZE) if self.lstm.batch_first else (time, batch, SIZE)
        return tuple(torch.randn(*s, generator=generator) for s in (sizes, (layers, batch, H), (layers, batch, H)))

    def axes(self) -> dict[str, dict[int, str]]:
        sequence = {0: "batch", 1: "time"} if self.lstm.batch_first else {0: "time", 1: "batch"}
        return {"input": sequence, "output": sequence, **{name: {1: "batch"} for name in ("h0", "c0", "hn", "cn")}}


class Tagger(nn.Module):
    """Tokens to scores: zero states that the exporter has to make for any batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, SIZE)
        self.lstm = nn.LSTM(SIZE, H, bidirectional=True, batch_first=True)
        self.scores = nn.Linear(2 * H, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.scores(self.lstm(self.embedding(tokens))[0])


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SIZE, H, batch_first=True, bidirectional=True)

    def forward(self, input: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(input, lengths, batch_first=True)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


def made(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def export(module: nn.Module, arguments: tuple[torch.Tensor, ...], path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter is deprecated, and what it thinks of an LSTM's batch
        torch.onnx.export(module, arguments, path, **options)
    return path


def legacy(config: str, opset: int, folder: Path, **options: Any) -> tuple[Stateful, Path]:
    module = made(Stateful(**CONFIGS[config]))
    names = {"input_names": ["input", "h0", "c0"], "output_names": ["output", "hn", "cn"]}
    options = {"dynamic_axes": module.axes(), **options}
    arguments = module.drawn(*SIZES[0])
    return module, export(
        module, arguments, folder / "m.onnx", dynamo=False, opset_version=opset, **names, **options
    )  # fmt: skip


def feeds_of(arguments: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in zip(("input", "h0", "c0"), arguments, strict=True)}


def require_equal(model: lstm_onnx.Model, module: Stateful, time: int, batch: int) -> None:
    arguments = module.drawn(time, batch, seed=time)
    results = model.run(feeds_of(arguments))
    with torch.no_grad():
        expected = module(*arguments)
    for name, value in zip(("output", "hn", "cn"), expected, strict=True):
        np.testing.assert_allclose(results[name], value.numpy(), rtol=0, atol=ATOL, err_msg=f"{name} {time} {batch}")


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("config", CONFIGS)
def test_the_legacy_exporters_files_run_right(config, opset, tmp_path):
    module, path = legacy(config, opset, tmp_path)
    report = check(path, provider="cpu")
    assert report, str(report)
    assert "h0, c0 are states that nothing pairs" in str(report)
    assert {finding.rule for finding in report.findings if finding.violated} == {"loose-states"}
    model = lstm_onnx.load(path, provider="cpu")
    for time, batch in SIZES:
        require_equal(model, module, time, batch)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("config", CONFIGS)
def test_inspect_finds_the_module(config, opset, tmp_path):
    module, path = legacy(config, opset, tmp_path)
    found = inspect(path)
    lstm = module.lstm
    both = 1 + lstm.bidirectional
    assert found.opset == opset
    assert [item.input_size for item in found.lstms] == [SIZE] + [H * both] * (lstm.num_layers - 1)
    assert found.parameters == sum(parameter.numel() for parameter in module.parameters())
    for item in found.lstms:
        assert (item.hidden_size, item.bias, item.dtype) == (H, lstm.bias, "float32")
        assert item.direction == ("bidirectional" if lstm.bidirectional else "forward")
        assert (item.states, item.lengths, item.notes) == (("h0", "c0"), None, ())
        size = item.input_size
        assert size is not None
        assert item.parameters == both * (4 * H * (size + H) + 8 * H * lstm.bias)
        assert item.bytes == 4 * item.parameters
        assert item.flops_per_step == both * (8 * H * (size + H) + 4 * H * lstm.bias + 9 * H)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("config", [name for name, options in CONFIGS.items() if "bidirectional" not in options])
def test_named_states_stream(config, opset, tmp_path):
    module, path = legacy(config, opset, tmp_path)
    model = lstm_onnx.load(path, provider="cpu", states=STATES)
    input, h0, c0 = module.drawn(9, 2)
    with torch.no_grad():
        output, hn, cn = (value.numpy() for value in module(input, h0, c0))
        from_zeros, _ = module.lstm(input)
    stream = model.stream(batch=2)
    stream.state = {"h0": h0.numpy(), "c0": c0.numpy()}
    parts = [stream(part) for part in np.split(input.numpy(), [1, 2, 3, 7])]
    np.testing.assert_allclose(np.concatenate(parts), output, rtol=0, atol=ATOL)
    np.testing.assert_allclose(stream.state["h0"], hn, rtol=0, atol=ATOL)
    np.testing.assert_allclose(stream.state["c0"], cn, rtol=0, atol=ATOL)
    stream.reset()
    np.testing.assert_allclose(stream(input.numpy()), from_zeros.numpy(), rtol=0, atol=ATOL)
    # Absent states are zeros, and slots of a pool are rows of the batch.
    np.testing.assert_allclose(model.run({"input": input.numpy()})["output"], from_zeros, rtol=0, atol=ATOL)
    pool = model.pool(slots=2)
    slots = [pool.open(), pool.open()]
    steps = [pool.step(slots, part) for part in np.split(input.numpy(), [4, 5])]
    np.testing.assert_allclose(np.concatenate(steps), from_zeros, rtol=0, atol=ATOL)


@pytest.mark.parametrize("config", CONFIGS)
def test_without_dynamic_axes_the_sizes_are_refused_and_still_run(config, tmp_path):
    module, path = legacy(config, 17, tmp_path, dynamic_axes=None)
    report = check(path, provider="cpu")
    assert {finding.rule for finding in report.failures} == {"dynamic-axes"}, str(report)
    assert "time is fixed at 5" in str(report)
    assert "batch is fixed at 2" in str(report)
    model = lstm_onnx.load(path, provider="cpu")
    require_equal(model, module, *SIZES[0])
    with pytest.raises(lstm_onnx.errors.InputError, match="must be 5"):
        require_equal(model, module, 7, 2)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_module_through_the_legacy_exporter(opset, tmp_path):
    module = made(Tagger())
    axes = {0: "batch", 1: "time"}
    path = export(
        module,
        (torch.randint(0, 11, (2, 5)),),
        tmp_path / "m.onnx",
        dynamo=False,
        opset_version=opset,
        input_names=["tokens"],
        output_names=["scores"],
        dynamic_axes={"tokens": axes, "scores": axes},
    )
    report = check(path, provider="cpu")
    assert report, str(report)
    found = inspect(path)
    (lstm,) = found.lstms
    assert (lstm.input_size, lstm.hidden_size, lstm.direction, lstm.states) == (SIZE, H, "bidirectional", ())
    assert found.parameters == sum(parameter.numel() for parameter in module.parameters())
    model = lstm_onnx.load(path, provider="cpu")
    for time, batch in SIZES:
        tokens = torch.randint(0, 11, (batch, time), generator=torch.Generator().manual_seed(time))
        with torch.no_grad():
            expected = module(tokens)
        results = model.run({"tokens": tokens})
        assert isinstance(results["scores"], torch.Tensor)
        np.testing.assert_allclose(results["scores"], expected, rtol=0, atol=ATOL)


def test_packed_sequences_through_the_legacy_exporter(tmp_path):
    module = made(Packed())
    axes = {0: "batch", 1: "time"}
    path = export(
        module,
        (torch.randn(3, 5, SIZE), torch.tensor([5, 3, 2])),
        tmp_path / "m.onnx",
        dynamo=False,
        opset_version=17,
        input_names=["input", "lengths"],
        output_names=["output"],
        dynamic_axes={"input": axes, "output": axes, "lengths": {0: "batch"}},
    )
    report = check(path, provider="cpu")
    assert report, str(report)
    (lstm,) = inspect(path).lstms
    assert (lstm.direction, lstm.lengths) == ("bidirectional", "lengths")
    model = lstm_onnx.load(path, provider="cpu")
    for lengths in ([5, 3, 2], [7, 7], [4, 1, 1, 1]):
        input = torch.randn(len(lengths), lengths[0], SIZE, generator=torch.Generator().manual_seed(len(lengths)))
        with torch.no_grad():
            expected = module(input, torch.tensor(lengths))
        results = model.run({"input": input, "lengths": torch.tensor(lengths)})
        np.testing.assert_allclose(results["output"], expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("config", ["plain", "deep"])
def test_check_tells_the_truth_of_the_dynamo_exporters_files(config, tmp_path):
    """What it makes of an LSTM changes with torch's version; whether `check` accepts it is whether it is right."""
    module = made(Stateful(**CONFIGS[config]))
    time, batch = torch.export.Dim("time"), torch.export.Dim("batch")
    path = export(
        module,
        module.drawn(*SIZES[0]),
        tmp_path / "m.onnx",
        dynamo=True,
        verbose=False,
        input_names=["input", "h0", "c0"],
        output_names=["output", "hn", "cn"],
        dynamic_shapes=({0: time, 1: batch}, {1: batch}, {1: batch}),
    )
    found = inspect(path)
    assert [item.input_size for item in found.lstms] == [SIZE] + [H] * (module.lstm.num_layers - 1)
    assert {(item.hidden_size, item.direction, item.states) for item in found.lstms} == {(H, "forward", ("h0", "c0"))}
    model = lstm_onnx.load(path, provider="cpu", states=STATES)
    require_equal(model, module, *SIZES[0])
    wrong = []
    for size in SIZES:
        try:
            require_equal(model, module, *size)
        except (AssertionError, lstm_onnx.errors.LSTMOnnxError):
            wrong.append(size)
    report = check(path, provider="cpu")
    assert bool(report) is not bool(wrong), f"wrong at {wrong}:\n{report}"
    assert {finding.rule for finding in report.failures} <= {"dynamic-axes", "frozen-literal", "runnable"}
    if not wrong:
        stream = model.stream(batch=2)
        input, _, _ = module.drawn(6, 2)
        with torch.no_grad():
            expected, _ = module.lstm(input)
        parts = [stream(part) for part in np.split(input.numpy(), [1, 3])]
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=ATOL)


def test_the_dynamo_exporters_fixed_sizes_are_refused(tmp_path):
    module = made(Stateful())
    names = {"input_names": ["input", "h0", "c0"], "output_names": ["output", "hn", "cn"]}
    path = export(module, module.drawn(*SIZES[0]), tmp_path / "m.onnx", dynamo=True, verbose=False, **names)
    report = check(path, provider="cpu")
    assert {finding.rule for finding in report.failures} == {"dynamic-axes"}, str(report)
    require_equal(lstm_onnx.load(path, provider="cpu"), module, *SIZES[0])
