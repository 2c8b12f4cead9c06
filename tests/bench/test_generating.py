"""Files with loops, as short as it can be: what is compared, never how fast."""

from __future__ import annotations

import torch
from torch import nn

from lstm_onnx.bench import Settings, compare
from lstm_onnx.exporter.module_options import ModuleOptions
from lstm_onnx.exporter.sources.source import ModuleSource
from lstm_onnx.generation_spec import Generation
from lstm_onnx.input_spec import InputSpec

SHORT = {"rounds": 2, "seconds": 0.2, "threads": 1, "provider": "cpu"}
ONE_CALL, LOOP = "one call", "the step in a Python loop"


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(7, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 7)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])


class Decayed(nn.Module):
    """A Python loop that becomes a Scan."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(x.shape[0], 5)
        steps = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (0.9 * h, c))
            steps.append(h)
        return torch.stack(steps, 1)


def test_a_generating_file_beside_its_step_in_a_python_loop() -> None:
    torch.manual_seed(0)
    tokens = InputSpec("tokens", ("batch", "time"), "int64", 0, 6)
    generation = Generation("tokens", "output", choose="sample", stop_token=(5,))
    source = ModuleSource("m", Language().eval(), (tokens,), ModuleOptions(states="explicit", generation=generation))
    report = compare(source, Settings(**SHORT))
    (found,) = report.comparisons
    assert (found.case, found.label) == ("generate", "generating 200 steps")
    assert [timing.candidate for timing in found.timings] == [
        f"InferenceSession.run, {LOOP}",
        f"lstm-onnx, {ONE_CALL}",
        f"InferenceSession.run, {ONE_CALL}",
        f"lstm-onnx stream, {LOOP}",
    ]
    assert list(found.left_out) == ["PyTorch"]
    assert not [note for note in report.notes if "differ" in note]  # all give the same tokens
    report = compare(source, Settings(("step",), **SHORT))
    assert [left.label for left in report.left_out] == ["one step"]
    assert "repeats a step" in report.left_out[0].reason


def test_a_scan_beside_the_loop_of_pytorch() -> None:
    torch.manual_seed(0)
    source = ModuleSource("m", Decayed().eval(), (InputSpec("x", ("batch", "time", 4)),))
    report = compare(source, Settings(("sequence", "generate"), **SHORT))
    (found,) = report.comparisons
    assert found.label == "one sequence of 100 steps"
    assert {"InferenceSession.run", "lstm-onnx", "PyTorch"} <= {timing.candidate for timing in found.timings}
    assert [left.reason for left in report.left_out] == ["generate is for a model with a table [generate]"]
