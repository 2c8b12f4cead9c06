"""verify without example_inputs: the file's metadata says how its module is called."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import ConfigError, ExportError, InputError
from lstm_onnx.metadata import Metadata

pytestmark = [pytest.mark.sweep(9), pytest.mark.usefixtures("without_sweeps")]


class States(NamedTuple):
    pi: tuple[Tensor, Tensor]
    vf: tuple[Tensor, Tensor]


@dataclasses.dataclass
class Batch:
    obs: Tensor
    states: States
    scale: float = 1.0


class Policy(nn.Module):
    """Two LSTMs, whose states are set to zero where an episode starts."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = nn.LSTM(3, 4), nn.LSTM(3, 4)

    def forward(self, batch: Batch, starts: Tensor) -> tuple[Tensor, States]:
        keep = (1.0 - starts).view(1, -1, 1)
        found = [
            lstm(batch.obs.unsqueeze(0), (keep * h, keep * c))
            for lstm, (h, c) in ((self.actor, batch.states.pi), (self.critic, batch.states.vf))
        ]
        return batch.scale * (found[0][0] + found[1][0]).squeeze(0), States(found[0][1], found[1][1])


class Steps(nn.Module):
    """Takes flags, which change the number of outputs and the steps of a forecast."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, horizon: int, *xs: Tensor, mode: str = "last", **options: Any) -> Any:
        y, state = self.lstm(torch.stack(xs).sum(0))
        steps = [self.out(y[:, -1:])]
        for _ in range(horizon - 1):
            y, state = self.lstm(steps[-1], state)
            steps.append(self.out(y))
        output = torch.cat(steps, 1) * options.get("scale", 1.0)
        return (output, state) if mode == "all" else output


class TwoPacks(nn.Module):
    """Packs sorted sequences twice in a row; the second lengths are those of the first output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(3, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, longest = pad_packed_sequence(self.first(pack_padded_sequence(x, lengths, True))[0], batch_first=True)
        packed = self.second(pack_padded_sequence(torch.tanh(y), longest, True))[0]
        return pad_packed_sequence(packed, batch_first=True)[0]


class Vocoder(nn.Module):
    """A waveform of four samples for each frame but the last four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(3, 3, 5), nn.GRU(4, 5, batch_first=True)

    def forward(self, wave: Tensor, frames: Tensor) -> Tensor:
        if wave.size(1) != (frames.size(2) - 4) * 4:
            raise ValueError("the waveform does not fit the frames")
        up = self.conv(frames).repeat_interleave(4, 2).transpose(1, 2)
        return self.rnn(torch.cat([wave.unsqueeze(2), up], 2))[0]


def _pair() -> tuple[Tensor, Tensor]:
    return torch.randn(1, 2, 4), torch.randn(1, 2, 4)


def _export(module: nn.Module, folder: Path, inputs: Any, **options: Any) -> Path:
    path = folder / "m.onnx"
    lstm_onnx.export(module.eval(), path, example_inputs=inputs, **options)
    return path


def test_states_in_named_tuples_are_drawn_and_streamed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Policy()
    path = _export(module, tmp_path, (Batch(torch.randn(2, 3), States(_pair(), _pair()), 0.5), torch.zeros(2)))
    assert lstm_onnx.verify(module, path, mutants="none")
    model = lstm_onnx.load(path, provider="cpu")
    assert model.states == {f"batch.states.{name}.{i}": f"output.1.{name}.{i}" for name in ("pi", "vf") for i in (0, 1)}
    stream = model.stream(batch=2)
    states = States((torch.zeros(1, 2, 4),) * 2, (torch.zeros(1, 2, 4),) * 2)
    for step in range(4):
        obs, starts = torch.randn(2, 3), torch.tensor([0.0, float(step == 2)])
        with torch.no_grad():
            expected, states = module(Batch(obs, states, 0.5), starts)
        actual = stream.run({"batch.obs": obs.numpy(), "starts": starts.numpy()})
        np.testing.assert_allclose(actual["output.0"], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((3, torch.randn(2, 5, 2), torch.randn(2, 5, 2)), ["output"]),
        ({"horizon": 2, "mode": "all", "scale": 0.5}, ["output.0", "output.1.0", "output.1.1"]),
    ],
)
def test_flags_and_any_number_of_arguments(inputs: Any, outputs: list[str], tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Steps()

        def forward(self, x: Tensor, **options: Any) -> Any:
            return self.inner(options.pop("horizon"), x, **options)

    module: nn.Module = Steps() if isinstance(inputs, tuple) else Named()
    given = inputs if isinstance(inputs, tuple) else {"x": torch.randn(2, 5, 2), **inputs}
    path = _export(module, tmp_path, given)
    assert list(lstm_onnx.load(path, provider="cpu").outputs) == outputs
    assert lstm_onnx.verify(module, path, mutants="none")


def test_lengths_that_are_packed_twice(tmp_path: Path) -> None:
    module = TwoPacks()
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    path = _export(module, tmp_path, (torch.randn(3, 9, 3), torch.tensor([9, 7, 4])), dynamic_shapes=shapes)
    lengths = lstm_onnx.load(path, provider="cpu").metadata.inputs[1]
    assert (lengths.low, lengths.high) == (1, "time")
    assert lstm_onnx.verify(module, path, mutants="none")


class Masked(nn.Module):
    """Packs sorted sequences, whose lengths it counts in a mask."""

    def __init__(self, within: int) -> None:
        super().__init__()
        self.embedding, self.lstm, self.within = nn.Embedding(9, 3), nn.LSTM(3, 4, batch_first=True), within

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        lengths = (mask == self.within).long().sum(1)
        y = self.lstm(pack_padded_sequence(self.embedding(words), lengths.cpu(), batch_first=True))[0]
        return pad_packed_sequence(y, batch_first=True)[0]


@pytest.mark.parametrize("within", [1, 0])
def test_masks_of_sequences_that_are_packed_in_order(within: int, tmp_path: Path) -> None:
    module = Masked(within)
    inside = torch.arange(6) < torch.tensor([[6], [4], [1]])
    mask = inside if within else (~inside).long()
    shapes = {name: {0: "batch", 1: "time"} for name in ("words", "mask")}
    path = _export(module, tmp_path, {"words": torch.randint(9, (3, 6)), "mask": mask}, dynamic_shapes=shapes)
    report = lstm_onnx.verify(module, path)
    assert report, str(report)
    assert "batch 5, time 12" in {case.label for case in report.cases}
    assert "one row of a table wrong" in {mutant.name for mutant in report.mutants}


def test_axes_that_follow_from_others(tmp_path: Path) -> None:
    module = Vocoder()
    path = _export(module, tmp_path, (torch.randn(2, 20), torch.randn(2, 3, 9)))
    model = lstm_onnx.load(path, provider="cpu")
    assert model.inputs["wave"].shape == ("batch", "4*time - 16")
    assert model.inputs["frames"].shape == ("batch", 3, "time")
    assert model.metadata.axis_limits == {"time": (5, None)}
    with pytest.raises(InputError, match=r"so 4\*time - 16 is 20, but the other inputs make it 24"):
        model.run({"wave": np.zeros((1, 20), np.float32), "frames": np.zeros((1, 3, 10), np.float32)})
    assert lstm_onnx.verify(module, path, mutants="none")


class Renamed(Policy):
    """Needs a property of its argument's class that no other class with these fields has."""

    def forward(self, batch: Any, starts: Tensor) -> tuple[Tensor, States]:
        return super().forward(Batch(batch.twice, batch.states), starts)


def test_what_the_metadata_cannot_give_is_asked_for(tmp_path: Path) -> None:
    def local() -> type:
        @dataclasses.dataclass
        class Twice:
            obs: Tensor
            states: States

            @property
            def twice(self) -> Tensor:
                return 2 * self.obs

        return Twice

    module, example = Renamed(), (local()(torch.randn(2, 3), States(_pair(), _pair())), torch.zeros(2))
    path = _export(module, tmp_path, example)
    with pytest.raises(ExportError, match=r"Twice was not found in the module's code; is it this module's file\?"):
        lstm_onnx.verify(module, path)
    assert lstm_onnx.verify(module, path, example_inputs=example, mutants="none")
    # A constant that JSON does not hold.
    model = onnx.load(path)
    entry = next(item for item in model.metadata_props if item.key == "lstm_onnx.call")
    entry.value = '[["batch", "positional", {"unknown": "Codec"}]]'
    onnx.save(model, path)
    with pytest.raises(ConfigError, match=r"batch was a Codec in the export, .* cannot hold; pass example_inputs"):
        lstm_onnx.verify(module, path)


def test_the_call_is_a_list(tmp_path: Path) -> None:
    call = [["x", "positional", {"tensor": "x"}]]
    assert Metadata.from_metadata(Metadata(call=call).to_metadata()).call == call
    with pytest.raises(ConfigError, match="the metadata's call must be a list of arguments"):
        Metadata.from_metadata({"lstm_onnx.call": '"x"'})
