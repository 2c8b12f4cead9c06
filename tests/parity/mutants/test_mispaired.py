"""Streams whose states are exchanged: such that no later step may be the same."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.mutants.graph_edit import Edit
from lstm_onnx.parity.mutants.wiring import mispaired


class Windows(nn.Module):
    """Each step with the one before it: the caches of the padding and of the windows hold the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.lstm(x)[0], (0, 0, 1, 0)).unfold(1, 2, 1).sum(-1)


def test_h_and_c_are_exchanged_rather_than_caches_that_hold_the_same_steps(tmp_path: Path) -> None:
    axes = {"x": {0: "batch", 1: "time"}}
    path = tmp_path / "m.onnx"
    lstm_onnx.export(Windows(), path, example_inputs=torch.randn(2, 6, 4), dynamic_shapes=axes, states="explicit")
    edit = Edit(onnx.load(path))
    before = edit.metadata.states
    assert len(edit.metadata.streaming_or_default.caches) > 1
    assert mispaired(edit, None).applied  # type: ignore[arg-type]
    (entry,) = [item for item in edit.model.metadata_props if item.key == "lstm_onnx.states"]
    changed = {name for name, after in json.loads(entry.value).items() if before[name] != after}
    assert changed == {"lstm.h0", "lstm.c0"}
