"""A decoder of spectrograms: states in attributes, and zeros, written in place, of sizes that are equal by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.onnxgraph import nodes_of

FRAME, HIDDEN = 3, 4
AXES = ({0: "batch", 1: "source"}, {0: "batch", 1: "target"})


class Decoder(nn.Module):
    """Attends by what it attended to before and the sum of that, which are one value before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.query = nn.LSTMCell(FRAME + HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.location, self.frame = nn.Conv1d(2, HIDDEN, 3, padding=1), nn.Linear(2 * HIDDEN, FRAME)
        self.score = nn.Linear(HIDDEN, 1)

    def start(self, memory: Tensor) -> None:
        def zeros(size: int) -> Tensor:
            return memory.data.new(memory.shape[0], size).zero_()

        self.hidden, self.cell, self.context = zeros(HIDDEN), zeros(HIDDEN), zeros(HIDDEN)
        self.weights, self.total = zeros(memory.shape[1]), zeros(memory.shape[1])

    def step(self, frame: Tensor, memory: Tensor) -> Tensor:
        self.hidden, self.cell = self.rnn(torch.cat([frame, self.context], -1), (self.hidden, self.cell))
        both = torch.cat([self.weights.unsqueeze(1), self.total.unsqueeze(1)], 1)
        query = self.query(self.hidden.unsqueeze(1)) + self.location(both).transpose(1, 2)
        self.weights = torch.softmax(self.score(torch.tanh(query + memory)).squeeze(-1), 1)
        self.total = self.total + self.weights
        self.context = torch.bmm(self.weights.unsqueeze(1), memory).squeeze(1)
        result: Tensor = self.frame(torch.cat([self.hidden, self.context], -1))
        return result

    def forward(self, memory: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        first = memory.data.new(memory.shape[0], FRAME).zero_()  # as large as weights of three entries
        inputs = torch.cat([first.unsqueeze(0), frames.transpose(0, 1)])
        self.start(memory)
        results: list[Tensor] = []
        weights: list[Tensor] = []
        while len(results) < inputs.shape[0] - 1:
            results += [self.step(inputs[len(results)], memory)]
            weights += [self.weights]
        return torch.stack(results).transpose(0, 1), torch.stack(weights).transpose(0, 1)


def test_a_decoder_of_spectrograms_is_one_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Decoder().eval(), tmp_path / "m.onnx"
    example = (torch.randn(2, 5, HIDDEN), torch.randn(2, 6, FRAME))
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=AXES)
    operators = [node.op_type for node in nodes_of(onnx.load(path).graph.node)]
    assert operators.count("Scan") == 1
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    for batch, source, target in ((1, 1, 1), (3, 2, 7), (2, 9, 30)):
        memory, frames = torch.randn(batch, source, HIDDEN), torch.randn(batch, target, FRAME)
        with torch.no_grad():
            wanted = module(memory, frames)
        found = model.run({"memory": memory.numpy(), "frames": frames.numpy()})
        for one, other in zip(found.values(), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
