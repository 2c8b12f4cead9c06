"""Inputs that are drawn for another tool's file: lengths by what reads them, not by their name alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.quantization.proof import proof_inputs
from lstm_onnx.quantization.rewrite import Rewritten


class Packed(nn.Module):
    """A packed sequence, and classes that are no lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.scale = nn.LSTM(3, 4, batch_first=True), nn.Embedding(5, 8)

    def forward(self, x: Tensor, lengths: Tensor, kind: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, c = self.lstm(packed)[1]
        return torch.cat([h[-1], c[-1]], -1) * self.scale(kind)


@pytest.mark.parametrize("name", ["n", "valid_steps", "x_len"])
def test_lengths_are_what_a_layer_reads_as_such(name: str, tmp_path: Path) -> None:
    example = torch.randn(2, 5, 3), torch.tensor([5, 3]), torch.tensor([1, 2])
    axes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}, "kind": {0: "batch"}}
    path = tmp_path / "m.onnx"
    lstm_onnx.export(Packed().eval(), path, example_inputs=example, dynamic_shapes=axes, check=False)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    for value in proto.graph.input:
        value.name = name if value.name == "lengths" else value.name
    for node in proto.graph.node:
        node.input[:] = [name if value == "lengths" else value for value in node.input]
    onnx.save(proto, path)
    feeds = proof_inputs(lstm_onnx.load(path, provider="cpu"), Rewritten(proto), 0)
    steps = feeds["x"].shape[1]
    assert feeds[name][0] == steps > feeds[name][-1] >= 1
    np.testing.assert_array_equal(feeds["kind"], 1)
