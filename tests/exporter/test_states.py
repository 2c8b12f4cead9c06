"""Explicit states: named, paired, streamed step by step, started as the module starts."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import BATCH_TIME, Made, X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(9)


class Encoder(nn.Module):
    """Two recurrent parts, one within the other."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 5)
        self.lstm = nn.LSTM(5, 4, 2, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(self.embed(x))[0])[0]


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


class Part(nn.Module):
    """One LSTM, or what else is asked for, and a head."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.part(x)[0])


class Independent(nn.Module):
    """One LSTM called twice, each time from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] + self.lstm(2 * x)[0]


class Chained(nn.Module):
    """One LSTM called for one half of the features after the other, going on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, state = self.lstm(x)
        second, _ = self.lstm(-x, state)
        return first, second


class Learned(nn.Module):
    """A learned h and zeros for c, made by the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.h = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        return self.lstm(x, (self.h.expand(-1, batch, -1).contiguous(), x.new_zeros(1, batch, 4)))[0]


class WithOwnStarts(nn.LSTM):
    """Has its learned start in parameters of its own, which are called as its states are."""

    def __init__(self) -> None:
        super().__init__(3, 4, batch_first=True)
        self.h0, self.c0 = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        h, c = (start.expand(-1, x.size(0), -1).contiguous() for start in (self.h0, self.c0))
        return super().forward(x, (h, c))[0] + self.h0, None


class Decoder(nn.Module):
    """The decoder starts where the encoder ends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 4, batch_first=True)
        self.decoder = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        return self.decoder(x, state)[0]


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class RowStart(nn.Module):
    """Starts each row of a batch from other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.arange(x.size(0), dtype=torch.float32).reshape(1, -1, 1).expand(1, -1, 4).contiguous()
        return self.lstm(x, (h, torch.zeros_like(h)))[0]


class WrittenAfterwards(nn.Module):
    """Writes its last state into the tensor that it started from."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(1, x.size(0), 4)
        out, last = self.gru(x, h)
        h.copy_(last)
        return out + h[0, :, None]


def exported(make: Callable[[], nn.Module], folder: Path, **options: Any) -> tuple[nn.Module, Made]:
    torch.manual_seed(0)
    module = make().eval()
    return module, made(module, signal(2, 4), X, folder, states="explicit", **options)


def stepwise(result: Made, x: Tensor, chunks: list[int]) -> list[np.ndarray]:
    """Chunk by chunk, the states carried by hand from what the metadata starts them with; outputs joined along time."""
    batch, start = x.shape[0], 0
    states: dict[str, np.ndarray] = {}
    for name in result.model.states:
        shape = [batch if isinstance(dim, str) else dim for dim in result.model.inputs[name].shape]
        initial = result.model.metadata.initial.get(name, np.zeros((), np.float32))
        states[name] = np.ascontiguousarray(np.broadcast_to(initial, [int(dim or 0) for dim in shape]))
    pieces: list[list[np.ndarray]] = []
    for size in chunks:
        outputs = result.model.run({"x": x[:, start : start + size].contiguous().numpy(), **states})
        states = {name: outputs.pop(after) for name, after in result.model.states.items()}
        pieces.append(list(outputs.values()))
        start += size
    return [np.concatenate(parts, axis=1) for parts in zip(*pieces, strict=True)]


STREAMED: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "nested": (
        Tagger,
        {
            "encoder.lstm.h0": "encoder.lstm.hn",
            "encoder.lstm.c0": "encoder.lstm.cn",
            "encoder.gru.h0": "encoder.gru.hn",
        },
    ),
    "independent": (
        Independent,
        {
            "lstm.h0": "lstm.hn",
            "lstm.c0": "lstm.cn",
            "lstm.call2.h0": "lstm.call2.hn",
            "lstm.call2.c0": "lstm.call2.cn",
        },
    ),
    "learned": (Learned, {"lstm.h0": "lstm.hn", "lstm.c0": "lstm.cn"}),
    "learned in the LSTM": (
        lambda: Part(WithOwnStarts()),
        {"part.h0": "part.hn", "part.c0": "part.cn"},
    ),
    "gru": (lambda: Part(nn.GRU(3, 4, 2, batch_first=True)), {"part.h0": "part.hn"}),
    "rnn": (lambda: Part(nn.RNN(3, 4, batch_first=True)), {"part.h0": "part.hn"}),
    "projected": (
        lambda: Part(nn.LSTM(3, 4, 2, proj_size=2, batch_first=True)),
        {"part.h0": "part.hn", "part.c0": "part.cn"},
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("case", STREAMED)
def test_step_by_step_is_the_whole(case: str, tmp_path: Path) -> None:
    make, states = STREAMED[case]
    module, result = exported(make, tmp_path)
    assert dict(result.model.states) == states
    assert dict(result.exported.states) == states
    assert result.model.metadata.not_streamable == ""
    assert result.model.metadata.time_axes == ("time",)
    for batch, chunks in ((1, [1] * 7), (3, [2, 1, 4])):
        (x,) = signal(batch, 7)
        agree(stepwise(result, x, chunks), eager(module, (x,)))


def test_a_learned_start_is_in_the_story(tmp_path: Path) -> None:
    module, result = exported(Learned, tmp_path)
    assert list(result.model.metadata.initial) == ["lstm.h0"]
    assert isinstance(module, Learned)
    np.testing.assert_array_equal(result.model.metadata.initial["lstm.h0"], module.h.detach().numpy())


def test_calls_that_go_on_share_one_pair(tmp_path: Path) -> None:
    module, result = exported(Chained, tmp_path)
    assert dict(result.model.states) == {"lstm.h0": "lstm.hn", "lstm.c0": "lstm.cn"}
    origins = result.model.metadata.origins
    assert (origins["lstm.c0"].first, origins["lstm.c0"].last, origins["lstm.c0"].index) == (0, 1, 1)
    (x,) = signal(3, 6)
    agree(stepwise(result, x, [6]), eager(module, (x,)))


def test_a_decoder_that_starts_from_its_encoder_stays_inside(tmp_path: Path) -> None:
    module, result = exported(Decoder, tmp_path)
    assert dict(result.model.states) == {"encoder.h0": "encoder.hn", "encoder.c0": "encoder.cn"}
    inside, refused = result.exported.notes
    assert inside == "decoder starts from states that the model computes, which stay internal; it has no h0"
    assert refused.startswith(
        "the file cannot be streamed: decoder/l0/LSTM (LSTM) starts from a state that is only known at the last step"
    )
    (x,) = signal(3, 6)
    agree(stepwise(result, x, [6]), eager(module, (x,)))


def test_both_directions_are_exported_and_the_file_says_why_it_does_not_stream(tmp_path: Path) -> None:
    module, result = exported(lambda: Part(nn.LSTM(3, 4, batch_first=True, bidirectional=True)), tmp_path)
    assert dict(result.model.states) == {"part.h0": "part.hn", "part.c0": "part.cn"}
    assert str(result.model.metadata.not_streamable).startswith(
        "part/l0/LSTM (LSTM) goes through the sequence from its end (direction bidirectional)"
    )
    (x,) = signal(3, 6)
    agree(stepwise(result, x, [6]), eager(module, (x,)))


def test_a_cell_has_states_of_one_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Cell().eval()
    x = signal(2, 4)[0][:, 0]
    result = made(module, (x,), {"x": {0: "batch"}}, tmp_path, states="explicit")
    assert result.model.inputs["cell.h0"].shape == (1, "batch", 4)
    (other,) = signal(3, 2)
    outputs = result.model.run({"x": other[:, 0].contiguous().numpy()})
    state = {"cell.h0": outputs["cell.hn"], "cell.c0": outputs["cell.cn"]}
    actual = result.model.run({"x": other[:, 1].contiguous().numpy(), **state})
    expected = module.cell(other[:, 1], module.cell(other[:, 0]))
    agree([actual["output"]], [expected[0].detach().numpy()])


def test_rows_that_start_from_other_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r'lstm.h0 starts from different numbers in each row .* Export with states="zero"'
    ):
        exported(RowStart, tmp_path)


def test_a_state_that_is_written_into_afterwards_starts_as_the_module_does(tmp_path: Path) -> None:
    module, result = exported(WrittenAfterwards, tmp_path)
    assert not result.model.metadata.initial
    agree(result.run(signal(3, 6))[:1], eager(module, signal(3, 6)))


def test_states_that_the_forward_takes_and_returns_are_paired(tmp_path: Path) -> None:
    class Carried(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            return self.lstm(x, state)

    h, c = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    shapes = {"x": BATCH_TIME, "state": ({1: "batch"}, {1: "batch"})}
    result = made(Carried(), (*signal(2, 4), (h, c)), shapes, tmp_path)
    assert dict(result.model.states) == {"state.0": "output.1.0", "state.1": "output.1.1"}


def test_an_axis_that_is_called_batch_but_is_the_time_is_named(tmp_path: Path) -> None:
    module, axes = nn.Sequential(nn.LSTM(3, 4)).eval(), {"input": {0: "batch", 1: "time"}}
    reason = "0 is called with batch_first=False, and so goes along the axis batch as its time, of sequences along time"
    with pytest.raises(ExportError, match=f"{reason}; exchange the names in dynamic_shapes, or use batch_first=True"):
        made(module, signal(2, 4), axes, tmp_path, states="explicit")
    assert any(reason in note for note in made(module, signal(2, 4), axes, tmp_path).exported.notes)


class Frequencies(nn.Module):
    """A layer over the frequencies of each step; then a layer over time, or a sum with the step before."""

    def __init__(self, *, over_time: bool) -> None:
        super().__init__()
        self.frequencies = nn.GRU(1, 3, batch_first=True)
        self.time = nn.GRU(3, 4) if over_time else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.frequencies(x.unsqueeze(-1))[0][:, -1]
        return y[1:] + y[:-1] if self.time is None else self.time(y)[0]


@pytest.mark.parametrize("over_time", [False, True])
def test_a_layer_over_frequencies_has_the_time_of_one_sequence_as_its_batch(tmp_path: Path, over_time: bool) -> None:
    module, x = Frequencies(over_time=over_time).eval(), torch.randn(6, 5)
    result = made(module, (x,), {"x": {0: "time"}}, tmp_path, states="explicit")
    assert any("frequencies starts again at each step" in note for note in result.exported.notes)
    assert not any("exchange the names" in note for note in result.exported.notes)
    assert "frequencies.h0" not in result.model.states
    stream = result.model.stream()
    chunks = [stream(x[:2]), stream(x[2:])]
    with torch.no_grad():
        assert torch.allclose(torch.cat(chunks), module(x), atol=1e-5)
