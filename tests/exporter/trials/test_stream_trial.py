"""Which modules stream: each gives the whole sequence for every chunking, or says where its steps meet."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.inspect import inspect
from tests.architectures.architecture import seeded

pytestmark = pytest.mark.sweep(18)

CHUNKINGS = ((1,) * 9, (4, 1, 1, 3), (2, 7), (9,))
Step = Callable[[nn.Module, Tensor], Any]


class Net(nn.Module):
    """x (batch, time, 4) through parts that most voice and sensor models have, as `step` says."""

    def __init__(self, step: Step, core: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.lstm = core(4, 6, num_layers=2, batch_first=True)
        self.conv, self.point = nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 1)
        self.flat = nn.Conv2d(1, 1, (1, 3), padding=(0, 1))
        self.norm, self.layer = nn.GroupNorm(2, 4), nn.LayerNorm(4)
        self.batch, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.places = nn.Embedding(200, 4)
        self.second = nn.LSTM(6, 6, batch_first=True)
        self.step = step

    def forward(self, x: Tensor) -> Any:
        return self.step(self, x)


def channels(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.transpose(1, 2)).transpose(1, 2)


STREAMS: dict[str, Step] = {
    "head": lambda m, x: m.head(m.lstm(x)[0]),
    "log_softmax over classes": lambda m, x: m.head(m.lstm(x)[0]).log_softmax(-1),
    "layer norm and residual": lambda m, x: m.layer(x + m.lstm(m.layer(x))[0][..., :4]),
    "a convolution of one step": lambda m, x: m.lstm(channels(m.point, x))[0],
    "a convolution over features": lambda m, x: m.lstm(m.flat(x.unsqueeze(1)).squeeze(1))[0],
    "batch norm in eval": lambda m, x: channels(m.batch, m.lstm(x)[0]),
    "time folded into the batch": lambda m, x: m.head(m.lstm(x)[0].reshape(-1, 6)).view(x.size(0), x.size(1), 3),
    "a gate of its own": lambda m, x: m.lstm(x)[0] * torch.sigmoid(m.second(m.lstm(x)[0])[0]),
    "the last step as well": lambda m, x: (m.lstm(x)[0], m.head(m.lstm(x)[0][:, -1])),
    "final states, read": lambda m, x: (m.lstm(x)[0], m.head(m.lstm(x)[1][0][-1])),
    "two stages": lambda m, x: m.second(m.lstm(x)[0])[0],
    "max of two features": lambda m, x: m.lstm(x)[0].view(x.size(0), x.size(1), 3, 2).max(-1).values,
}
CACHED: dict[str, Step] = {
    "a causal convolution": lambda m, x: m.lstm(channels(m.conv, functional.pad(x, (0, 0, 2, 0))))[0],
    "a convolution": lambda m, x: m.lstm(channels(m.conv, x))[0],
    "every second step": lambda m, x: m.lstm(x[:, ::2])[0],
    "differences": lambda m, x: m.lstm(x[:, 1:] - x[:, :-1])[0],
    "cumulative sum": lambda m, x: m.lstm(x.cumsum(1))[0],
    "positions": lambda m, x: m.lstm(x + m.places(torch.arange(x.size(1))))[0],
    "two steps made one": lambda m, x: m.lstm(x)[0].reshape(x.size(0), x.size(1) // 2, 12),
    "interpolation": lambda m, x: functional.interpolate(m.lstm(x)[0].transpose(1, 2), scale_factor=2.0).transpose(
        1, 2
    ),
    "torch.diff": lambda m, x: m.lstm(torch.diff(x, dim=1, prepend=x[:, :1]))[0],
    "the first step for all": lambda m, x: m.lstm(x - x[:, 0].unsqueeze(1))[0],
}
"""Steps meet, and what later ones need is kept."""
MEETS: dict[str, tuple[Step, str]] = {
    "a convolution that looks ahead": (
        lambda m, x: m.lstm(channels(m.conv, functional.pad(x, (0, 0, 1, 1))))[0],
        "output needs 1 step of look-ahead (Pad), at ",
    ),
    "softmax over time": (lambda m, x: m.lstm(x)[0].softmax(1), "computes a softmax over all steps"),
    "mean over time": (lambda m, x: m.lstm(x - x.mean(1, keepdim=True))[0], "computes mean over all steps: needs the"),
    "variance over time": (lambda m, x: m.lstm(x)[0] / m.lstm(x)[0].std(1, keepdim=True), ""),
    "group norm": (lambda m, x: m.lstm(channels(m.norm, x))[0], ""),
    "flip": (lambda m, x: m.lstm(x.flip(1))[0].flip(1), "reverses the steps"),
    "roll": (lambda m, x: m.lstm(x.roll(1, 1))[0], ""),
    "the last step for all": (lambda m, x: m.lstm(x)[0] - m.lstm(x)[0][:, -1:], "only known at the last one"),
    "the last state for all": (
        lambda m, x: m.lstm(x)[0] + m.lstm(x)[1][0][-1].unsqueeze(1),
        "only known at the last one",
    ),
    "another step for all": (lambda m, x: m.lstm(x - x[:, 2:3])[0], "takes only steps 2 to 3"),
    "the steps that are chosen": (lambda m, x: m.lstm(x[:, x[0, :, 0] > 0])[0], ""),
    "the length": (lambda m, x: m.lstm(x / x.size(1))[0], "uses the number of time steps as a number"),
    "the length in thousands": (
        lambda m, x: m.lstm(x + x.size(1) // 1000)[0],
        "uses the number of time steps as a number",
    ),
    "self-attention": (lambda m, x: (x @ x.transpose(1, 2)).softmax(-1) @ m.lstm(x)[0], "every step with every other"),
    "decoder from encoder": (
        lambda m, x: m.second(m.lstm(x)[0], _one_layer(m.lstm(x)[1]))[0],
        "only known at the last step of another sequence",
    ),
    "halves of each step one after the other": (
        lambda m, x: m.lstm(x)[0].reshape(x.size(0), -1, 2, 3).transpose(1, 2).flatten(1, 2),
        "",
    ),
    "max over time": (lambda m, x: m.head(m.lstm(x)[0].amax(1)), "computes max over all steps"),
}


def _one_layer(states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return states[0][-1:], states[1][-1:]


def exported(step: Step, path: Path, core: type[nn.RNNBase] = nn.LSTM) -> tuple[nn.Module, lstm_onnx.ExportResult]:
    module = seeded(lambda: Net(step, core))()
    axes = {"x": {0: "batch", 1: "time"}}
    # From a seed: by chance, a cumulative sum is large enough that roundings of 509 steps are over the limit.
    example = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0))
    return module, lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=axes, states="explicit")


def in_chunks(model: lstm_onnx.Model, x: np.ndarray, chunking: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    stream = model.stream(batch=len(x))
    ends = np.cumsum(chunking)
    return [stream.run({"x": x[:, end - size : end]}) for end, size in zip(ends, chunking, strict=True)]


@pytest.mark.parametrize("case", STREAMS)
def test_every_chunking_is_the_whole(case: str, tmp_path: Path) -> None:
    module, made = exported(STREAMS[case], tmp_path / "m.onnx", nn.GRU if "gate" in case else nn.LSTM)
    assert not any("streamed" in note for note in made.notes)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    assert (model.metadata.not_streamable, model.metadata.time_axes) == ("", ("time",))
    for batch in (1, 3):
        x = torch.randn(batch, 9, 4)
        with torch.no_grad():
            whole = module(x)
        wanted = whole if isinstance(whole, tuple) else (whole,)
        for chunking in CHUNKINGS:
            parts = in_chunks(model, x.numpy(), chunking)
            for name, tensor in zip(parts[0], wanted, strict=True):
                last = parts[-1][name]
                joined = last if tensor.dim() == 2 else np.concatenate([part[name] for part in parts], axis=1)
                np.testing.assert_allclose(joined, tensor.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", CACHED)
def test_steps_that_meet_are_kept_in_caches(case: str, tmp_path: Path) -> None:
    module, made = exported(CACHED[case], tmp_path / "m.onnx")
    assert not any("cannot be streamed" in note for note in made.notes)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    caches = model.metadata.streaming.caches
    assert model.metadata.not_streamable == ""
    assert caches
    assert set(caches) < set(made.states)
    assert model.stream().delay == 0
    x = torch.randn(3, 12, 4)
    with torch.no_grad():
        whole = module(x).numpy()
    np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], whole, rtol=0, atol=2e-6)
    for chunking in ((1,) * 12, (4, 1, 0, 1, 6), (12,)):
        stream = model.stream(batch=3)
        ends = np.cumsum(chunking)
        parts = [stream(x.numpy()[:, end - size : end]) for end, size in zip(ends, chunking, strict=True)]
        np.testing.assert_allclose(np.concatenate([*parts, stream.flush()], 1), whole, rtol=0, atol=2e-6)


@pytest.mark.sweep(9)
@pytest.mark.parametrize("case", MEETS)
def test_steps_that_meet_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    step, how = MEETS[case]
    _, made = exported(step, tmp_path / "m.onnx")
    told = [note for note in made.notes if note.startswith("the file cannot be streamed: ")]
    assert len(told) == 1
    assert how in told[0]
    assert re.search(r"test_stream_trial\.py:\d+: ", told[0])
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    for refused in (model.stream, model.pool, lambda: lstm_onnx.Batcher(model)):
        with pytest.raises(InputError, match="cannot be streamed"):
            refused()
    assert "streams no: " in str(inspect(tmp_path / "m.onnx"))


def test_a_file_that_was_not_tried_is_tried_when_a_stream_is_opened(tmp_path: Path) -> None:
    """Where a module's own states go through other operators, only a comparison tells; check=False leaves it out."""

    class Cached(nn.Module):
        def __init__(self, wrong: bool) -> None:
            super().__init__()
            self.lstm, self.conv, self.wrong = nn.LSTM(4, 6, batch_first=True), nn.Conv1d(4, 4, 3), wrong
            self.register_buffer("cache", torch.zeros(1, 2, 4))

        def forward(self, x: Tensor) -> Tensor:
            longer = torch.cat([self.cache, x], 1)
            self.cache = longer[:, :2] if self.wrong else longer[:, -2:]
            return self.lstm(channels(self.conv, longer))[0]

    for wrong in (False, True):
        module = seeded(lambda wrong=wrong: Cached(wrong))()
        for check in (True, False):
            path = tmp_path / f"{wrong}-{check}.onnx"
            lstm_onnx.export(
                module,
                path,
                example_inputs=torch.randn(1, 6, 4),
                dynamic_shapes={"x": {1: "time"}},
                states="explicit",
                check=check,
            )
            model = lstm_onnx.load(path, provider="cpu")
            assert (model.metadata.not_streamable is None) is not check
            if wrong:
                with pytest.raises(InputError, match="give a different output than all at once"):
                    model.stream()
            else:
                x = torch.randn(1, 9, 4)
                with torch.no_grad():
                    whole = seeded(lambda: Cached(False))()(x)
                parts = in_chunks(model, x.numpy(), (1, 3, 5))
                np.testing.assert_allclose(
                    np.concatenate([part["output"] for part in parts], 1), whole.numpy(), rtol=0, atol=2e-6
                )


def test_a_window_of_more_steps_than_a_short_call_has_is_refused(tmp_path: Path) -> None:
    """Beside a state of the module's own, a dilated convolution that starts from zeros at each call."""

    class Reaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.conv = nn.LSTM(4, 6, batch_first=True), nn.Conv1d(4, 4, 2, dilation=8)
            self.register_buffer("before", torch.zeros(1, 1, 4))

        def forward(self, x: Tensor) -> Tensor:
            longer = torch.cat([self.before, x], 1)
            self.before = longer[:, -1:]
            change = longer[:, 1:] - longer[:, :-1]
            return self.lstm(channels(self.conv, functional.pad(change, (0, 0, 8, 0))))[0]

    shapes = {"x": {1: "time"}}
    path, example = tmp_path / "m.onnx", torch.randn(1, 6, 4)
    lstm_onnx.export(seeded(Reaching)(), path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    with pytest.raises(InputError, match=r"48 steps in chunks of 1\+30\+17 give a different output than all at once"):
        lstm_onnx.load(path, provider="cpu").stream()


def test_a_chunk_of_a_fixed_size_is_the_unit(tmp_path: Path) -> None:
    """As voice activity models take 512 samples: a convolution within the chunk is not part of the stream."""

    class Chunked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.cell = nn.Conv1d(1, 4, 8, stride=4), nn.LSTM(4, 6, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(self.conv(x.unsqueeze(1)).transpose(1, 2))[0].mean(1)

    module = seeded(Chunked)()
    made = lstm_onnx.export(
        module,
        tmp_path / "m.onnx",
        example_inputs=torch.randn(2, 64),
        dynamic_shapes={"x": {0: "batch"}},
        states="explicit",
    )
    assert made.notes == ()
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    assert (model.metadata.not_streamable, model.metadata.time_axes) == ("", ())
    stream = model.stream()
    frames = torch.randn(3, 1, 64)
    states: Any = None
    for frame in frames:
        with torch.no_grad():
            out, states = module.cell(module.conv(frame.unsqueeze(1)).transpose(1, 2), states)
        np.testing.assert_allclose(stream(frame.numpy()), out.mean(1).numpy(), rtol=0, atol=2e-6)


class RollsOn(Net):
    """Goes on after the sequence from its own last output, so that its states are those after further steps."""

    def forward(self, x: Tensor) -> Tensor:
        out, states = self.lstm(x)
        return self.lstm(out[:, -1:, :4], states)[0]


class KeepsOther(Net):
    """Keeps other numbers from call to call than its LSTM's states."""

    def forward(self, x: Tensor) -> Tensor:
        out, states = self.lstm(x, getattr(self, "kept", None))
        self.kept = tuple(torch.tanh(3 * state) for state in states)
        return channels(self.conv, out[..., :4])


@pytest.mark.parametrize("kind", [RollsOn, KeepsOther])
def test_what_goes_on_otherwise_than_a_sequence_has_no_stream(kind: type[Net], tmp_path: Path) -> None:
    module = kind(channels).eval()
    if kind is KeepsOther:
        module(torch.zeros(1, 5, 4))
    shapes = {"x": {1: "time"}}
    made = lstm_onnx.export(
        module, tmp_path / "m.onnx", example_inputs=torch.randn(1, 6, 4), dynamic_shapes=shapes, states="explicit"
    )
    assert any(note.startswith("the file cannot be streamed: ") and "off by" in note for note in made.notes)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    with pytest.raises(InputError, match="off by"):
        model.stream()
