"""Which requests Triton may put in one batch: those of models whose sequences do not affect each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lstm_onnx
from lstm_onnx.deploy import deploy_triton


class Packed(torch.nn.Module):
    """A module with lengths, which divides by the largest of a batch or by each sequence's own."""

    def __init__(self, *, own: bool) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
        self.own = own

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, (h, _) = self.lstm(packed)
        steps = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0]  # as many as the longest has
        return steps, h[0] / (lengths[:, None] if self.own else lengths.max())


@pytest.mark.parametrize("own", [True, False])
def test_what_computes_with_the_longest_of_a_batch_is_not_batched(tmp_path: Path, own: bool) -> None:
    example = torch.randn(2, 5, 3), torch.tensor([5, 3])
    lstm_onnx.export(Packed(own=own).eval(), tmp_path / "packed.onnx", example_inputs=example)
    done = deploy_triton(tmp_path / "packed.onnx", tmp_path / "repository")
    text = (tmp_path / "repository" / "packed" / "config.pbtxt").read_text(encoding="utf-8")
    assert ("dynamic_batching" in text) is own
    assert [note[:31] for note in done.notes] == [
        "an answer has as many steps as " if own else "requests do not share a batch, "
    ]


class Largest(Packed):
    """The largest of all steps, among which those past a sequence's end are zeros; mostly it is above 0."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(own=True)
        self.lstm.bias_ih_l0.data[8:12] += 0.5

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, lengths)[0].amax(1)


def test_what_seldom_shows_the_longest_of_a_batch_is_not_batched(tmp_path: Path) -> None:
    example = torch.randn(2, 5, 3), torch.tensor([5, 3])
    lstm_onnx.export(Largest().eval(), tmp_path / "largest.onnx", example_inputs=example)
    (note,) = deploy_triton(tmp_path / "largest.onnx", tmp_path / "repository").notes
    assert note.startswith("requests do not share a batch, ")


class Loud(torch.nn.Module):
    """One that scales all sequences by the largest number of a batch, where that is large."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x / (x.abs().amax() / 50).clamp(min=1))[0]  # type: ignore[no-any-return]


def test_requests_that_seldom_affect_each_other_are_not_batched(tmp_path: Path) -> None:
    axes = {"x": {0: "batch", 1: "time"}}
    done = lstm_onnx.export(
        Loud().eval(), tmp_path / "loud.onnx", example_inputs=torch.randn(2, 5, 3), dynamic_shapes=axes
    )
    assert done.notes[-1].startswith("the sequences of a batch are not independent: ")
    (note,) = deploy_triton(tmp_path / "loud.onnx", tmp_path / "repository").notes
    assert note.startswith("requests do not share a batch, since they affect each other: ")
    text = (tmp_path / "repository" / "loud" / "config.pbtxt").read_text(encoding="utf-8")
    assert "dynamic_batching" not in text
