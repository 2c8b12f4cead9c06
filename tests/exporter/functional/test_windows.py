"""Windows of earlier steps in attributes: each step of a stream is a call of the module, for as long as it runs."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import collections
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError, InputError

pytestmark = pytest.mark.sweep(18)

WINDOW, FEATURES, HIDDEN = 5, 3, 4


class Window(nn.Module):
    """A window of frames, to which each call adds one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.frames: Any = torch.zeros(1, WINDOW, FEATURES)

    def window(self, x: Tensor) -> Tensor:
        self.frames = torch.cat([self.frames[:, 1:], x], 1)
        return self.frames

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.window(x))[0][:, -1]


class Cut(Window):
    """Takes any number of steps."""

    def window(self, x: Tensor) -> Tensor:
        self.frames = torch.cat([self.frames, x], 1)[:, -WINDOW:]
        return self.frames


class Rolled(Window):
    """Takes the first step of any number."""

    def window(self, x: Tensor) -> Tensor:
        self.frames = torch.roll(self.frames, -1, 1)
        self.frames[:, -1] = x[:, 0]
        return self.frames


class Buffer(Window):
    def __init__(self) -> None:
        super().__init__()
        del self.frames
        self.register_buffer("frames", torch.zeros(1, WINDOW, FEATURES))

    def window(self, x: Tensor) -> Tensor:
        self.frames[:, :-1] = self.frames[:, 1:].clone()
        self.frames[:, -1:] = x
        return self.frames


class Returned(Buffer):
    """Returns the buffer itself, into which the next call writes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.window(self.lstm(x)[0][..., :FEATURES])


class Deque(Window):
    def __init__(self) -> None:
        super().__init__()
        self.frames = collections.deque([torch.zeros(1, 1, FEATURES)] * WINDOW, maxlen=WINDOW)

    def window(self, x: Tensor) -> Tensor:
        self.frames.append(x)
        return torch.cat(list(self.frames), 1)


class Popped(Window):
    def __init__(self) -> None:
        super().__init__()
        self.frames = [torch.zeros(1, 1, FEATURES) for _ in range(WINDOW)]

    def window(self, x: Tensor) -> Tensor:
        self.frames.pop(0)
        self.frames.append(x)
        return torch.cat(self.frames, 1)


class RingOfTensors(Window):
    """Where the next frame goes is a tensor, too."""

    def __init__(self) -> None:
        super().__init__()
        self.place = torch.zeros((), dtype=torch.int64)

    def window(self, x: Tensor) -> Tensor:
        self.frames = self.frames.index_copy(1, self.place[None], x)
        self.place = (self.place + 1) % WINDOW
        return self.frames[:, (self.place + torch.arange(WINDOW)) % WINDOW]


class Ring(Window):
    """Where the next frame goes is an int."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.ages = 0, torch.zeros(WINDOW, 1, 1)

    def window(self, x: Tensor) -> Tensor:
        self.frames[:, self.place] = x[:, 0]
        self.ages[self.place] = 1.5
        self.place = (self.place + 1) % WINDOW
        oldest = self.frames[..., self.place, :]
        return torch.roll(self.frames, -self.place, 1) + oldest[:, None] * self.ages.sum()


class Counting(Window):
    """A mean over all calls so far, but at most the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.calls = torch.zeros(1, 1, FEATURES), 0

    def window(self, x: Tensor) -> Tensor:
        self.calls = min(self.calls + 1, 20)
        self.mean = self.mean + (x - self.mean) / self.calls
        return super().window(x - self.mean)


class Stateful(nn.Module):
    """An LSTM that goes on from call to call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.hidden = torch.zeros(1, 1, HIDDEN), torch.zeros(1, 1, HIDDEN)

    def step(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return out


class Doubling(Ring):
    """Doubles each time that the ring is at its start: both branches compute tensors alone."""

    def window(self, x: Tensor) -> Tensor:
        found = super().window(x)
        return found * 2 if self.place == 0 else found


class Attending(Stateful):
    """Keys and values of the last calls; all of them are seen, so several steps are not as many calls."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.keys, self.values = torch.zeros(1, WINDOW, HIDDEN), torch.zeros(1, WINDOW, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        out = self.step(x)
        self.keys = torch.cat([self.keys, self.key(out)], 1)[:, -WINDOW:]
        self.values = torch.cat([self.values, self.value(out)], 1)[:, -WINDOW:]
        return out + (out @ self.keys.transpose(1, 2)).softmax(-1) @ self.values


class CachedConv(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, FEATURES, 3, dilation=dilation)
        self.register_buffer("cache", torch.zeros(1, channels, 2 * dilation))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cache, x], -1)  # type: ignore[list-item]
        self.cache = x[..., -self.cache.shape[-1] :]  # type: ignore[operator]
        return self.conv(x)


class Convolved(Stateful):
    """Convolutions whose caches are attributes, of several sizes, before the LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(CachedConv(FEATURES, 1), nn.ReLU(), CachedConv(FEATURES, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.convs(x.transpose(1, 2)).transpose(1, 2))


class Smoothed(Stateful):
    """A mean that the batch of the first call broadcasts."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(1, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x[:, 0]
        return self.step(x - self.mean[:, None])


STEP = (1, 1, FEATURES)
FILES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cat": (Window, STEP),
    "cut": (Cut, (1, 7, FEATURES)),
    "roll": (Rolled, STEP),
    "buffer": (Buffer, STEP),
    "returned": (Returned, STEP),
    "deque": (Deque, STEP),
    "list": (Popped, STEP),
    "ring of tensors": (RingOfTensors, STEP),
    "ring": (Ring, STEP),
    "counting": (Counting, STEP),
    "doubling": (Doubling, STEP),
    "attention": (Attending, STEP),
    "convolutions": (Convolved, (1, 7, FEATURES)),
    "mean": (Smoothed, STEP),
}


def called(module: nn.Module, inputs: list[Tensor]) -> list[np.ndarray]:
    """What calls of a copy of the module give, one after another."""
    own = copy.deepcopy(module)
    with torch.no_grad():
        return [own(x).numpy().copy() for x in inputs]


@pytest.mark.parametrize("case", FILES)
def test_each_step_of_a_stream_is_a_call_of_the_module(case: str, tmp_path: Path) -> None:
    make, shape = FILES[case]
    module = make().eval()
    lstm_onnx.export(module, tmp_path / "window.onnx", example_inputs=torch.randn(shape))
    rng = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, generator=rng) for _ in range(120)]
    expected = called(module, inputs)
    with lstm_onnx.load(tmp_path / "window.onnx", provider="cpu", threads=1) as model:
        stream = model.stream()
        for _ in range(2):
            for x, wanted in zip(inputs, expected, strict=True):
                np.testing.assert_allclose(stream(x.numpy()), wanted, rtol=1e-4, atol=1e-5, strict=True)
            stream.reset()
        if case in ("ring of tensors", "ring", "counting", "doubling"):  # one number for all streams
            with pytest.raises(InputError, match=r"\.h0 \w+ \(.*\) has no dynamic batch axis"):
                model.pool(slots=2)
            return
        pool = model.pool(slots=2)
        first, late = pool.open(), pool.open()
        others = called(module, [x * 0.5 for x in inputs[3:12]])
        for number, x in enumerate(inputs[:12]):
            slots = [first] if number < 3 else [late, first]
            rows = x.numpy() if number < 3 else np.concatenate([x.numpy() * np.float32(0.5), x.numpy()])
            wanted = expected[number] if number < 3 else np.concatenate([others[number - 3], expected[number]])
            np.testing.assert_allclose(pool.step(slots, rows), wanted, rtol=1e-4, atol=1e-5)


def test_an_lstm_over_a_window_starts_again_at_each_call(tmp_path: Path) -> None:
    inputs = [torch.randn(STEP, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    path, axes = tmp_path / "window.onnx", {"x": {0: "batch"}}
    found = lstm_onnx.export(Window().eval(), path, example_inputs=inputs[0], dynamic_shapes=axes, states="explicit")
    assert any("lstm starts again at each call, over the steps in frames.h0" in note for note in found.notes)
    with lstm_onnx.load(path, provider="cpu") as model:
        stream = model.stream()
        for x, wanted in zip(inputs, called(Window().eval(), inputs), strict=True):
            np.testing.assert_allclose(stream(x.numpy()), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["deque", "ring of tensors", "ring", "convolutions"])
def test_they_verify(case: str, tmp_path: Path) -> None:
    make, shape = FILES[case]
    module = make().eval()
    lstm_onnx.export(module, tmp_path / "window.onnx", example_inputs=torch.randn(shape))
    report = lstm_onnx.verify(module, tmp_path / "window.onnx")
    assert report
    assert not any("not compared" in note or "does not run" in note for note in report.notes)


class Choosing(Ring):
    """Chooses by a number."""

    def window(self, x: Tensor) -> Tensor:
        return super().window(x) * (0.5 if self.place == 0 else 1.0)


def test_a_number_by_which_the_code_chooses_a_value_is_a_state(tmp_path: Path) -> None:
    inputs = [torch.randn(STEP, generator=torch.Generator().manual_seed(seed)) for seed in range(2 * WINDOW + 1)]
    lstm_onnx.export(Choosing().eval(), tmp_path / "c.onnx", example_inputs=inputs[0])
    with lstm_onnx.load(tmp_path / "c.onnx", provider="cpu") as model:
        stream = model.stream()
        for x, wanted in zip(inputs, called(Choosing().eval(), inputs), strict=True):
            np.testing.assert_allclose(stream(x.numpy()), wanted, rtol=1e-4, atol=1e-5)


class Looping(Ring):
    """Loops by a number, where no tensor can take its place."""

    def window(self, x: Tensor) -> Tensor:
        frames = super().window(x)
        for _ in range(self.place):
            frames = frames * 0.5
        return frames


def test_a_number_by_which_the_code_loops_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"what earlier calls left in self\.place, which a file cannot remember"):
        lstm_onnx.export(Looping().eval(), tmp_path / "no.onnx", example_inputs=torch.randn(STEP))


def test_a_file_that_counts_wrong_does_not_verify(tmp_path: Path) -> None:
    class Longer(Counting):
        def window(self, x: Tensor) -> Tensor:
            self.calls = min(self.calls + 1, 30)
            self.mean = self.mean + (x - self.mean) / self.calls
            return Window.window(self, x - self.mean)

    lstm_onnx.export(Counting().eval(), tmp_path / "window.onnx", example_inputs=torch.randn(STEP))
    assert not lstm_onnx.verify(Longer().eval(), tmp_path / "window.onnx", mutants="none")


def test_a_file_without_a_state_that_is_read_does_not_verify(tmp_path: Path) -> None:
    module = Deque().eval()
    lstm_onnx.export(module, tmp_path / "window.onnx", example_inputs=torch.randn(STEP))

    class Shorter(Deque):
        """Looks at one frame fewer, so that its file has a state fewer."""

        def window(self, x: Tensor) -> Tensor:
            return super().window(x)[:, 1:]

    assert not lstm_onnx.verify(Shorter().eval(), tmp_path / "window.onnx", mutants="none")


class Growing(Attending):
    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = torch.zeros(1, 0, HIDDEN), torch.zeros(1, 0, HIDDEN)


class Segment(Stateful):
    """Sees the call before, whatever its length."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.zeros(1, 7, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        out = self.step(x)
        seen = torch.cat([self.memory, out], 1)
        self.memory = out
        return (out @ seen.transpose(1, 2)).softmax(-1) @ seen


TIME = {"x": {1: "time"}}


@pytest.mark.parametrize(
    ("make", "steps", "axes", "problem"),
    [
        (Growing, 1, None, r"self.keys has shape \(1, 0, 4\) before a call and \(1, 1, 4\) after it, but a state must"),
        (Window, 1, TIME, r"at time 2 self.frames has shape \(1, 5, 3\) before .* or leave time out of dynamic_shapes"),
        (Segment, 7, TIME, r"self.memory has as many entries as a call has time, .* such as self.memory\[:, -7:\]"),
    ],
)
def test_states_that_change_their_sizes_are_refused(
    make: Callable[[], nn.Module], steps: int, axes: Any, problem: str, tmp_path: Path
) -> None:
    example = torch.randn(1, steps, FEATURES)
    with pytest.raises(ExportError, match=problem):
        lstm_onnx.export(make().eval(), tmp_path / "no.onnx", example_inputs=example, dynamic_shapes=axes)


def test_chunks_of_one_length_stream_where_others_do_not(tmp_path: Path) -> None:
    example = torch.randn(1, 7, FEATURES)
    lstm_onnx.export(Segment().eval(), tmp_path / "found.onnx", example_inputs=example)
    with lstm_onnx.load(tmp_path / "found.onnx", provider="cpu") as model:
        assert model.inputs["x"].shape == ("batch", 7, 3)
        assert model.stream()(example.numpy()).shape == (1, 7, HIDDEN)
    lstm_onnx.export(Attending().eval(), tmp_path / "open.onnx", example_inputs=example, dynamic_shapes=TIME)
    with (
        lstm_onnx.load(tmp_path / "open.onnx", provider="cpu") as model,
        pytest.raises(InputError, match="with time left out of dynamic_shapes, chunks of as many steps"),
    ):
        model.stream()
