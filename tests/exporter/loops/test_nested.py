"""Loops within loops: refused with line and reason, and a node within a Scan where the inner one is a call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.loops.detect import busiest_line, nested_loops

pytestmark = pytest.mark.sweep(4)

FEATURES, HIDDEN = 3, 4
AXES = {"x": {0: "batch", 1: "sentences", 2: "words"}}
SIZES = {"batch": 2, "sentences": 4, "words": 6}


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x1, self.h1 = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


class WordsOfSentences(Text):
    def forward(self, x: Tensor) -> Tensor:
        top, steps = self.start(x), []
        for sentence in x.unbind(1):
            h = self.start(x)
            for word in sentence.unbind(1):
                h = torch.tanh(self.x1(word) + self.h1(h))
            top = top + h
            steps.append(top)
        return torch.stack(steps, 1)


class OneBehindTheOther(Text):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = g = self.start(x)
        for sentence in x.unbind(1):
            h = torch.tanh(self.x1(sentence[:, 0]) + h)
        for word in x.unbind(2):
            g = torch.tanh(self.x1(word[:, 0]) + g)
        return h, g


class EverySecond(Text):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for t in range(x.shape[2]):
            h = torch.tanh(self.x1(x[:, 0, t]) + h)
            if t % 2:
                h = self.h1(h) * 2 + 1
        return h


class Pairs(Text):
    def forward(self, x: Tensor) -> Tensor:
        words = x[:, 0].unbind(1)
        return torch.stack([torch.stack([(a * b).sum(-1) for a in words], 1) for b in words], 1)


@pytest.mark.parametrize(
    ("kind", "nested"),
    [
        (WordsOfSentences, ("sentences", "words")),
        (OneBehindTheOther, None),
        (EverySecond, None),
        (Pairs, ("words", "words")),
    ],
)
def test_loops_within_loops_are_told_from_others(kind: type[Text], nested: tuple[str, str] | None) -> None:
    module = kind().eval()
    arguments = bind_arguments(module, torch.zeros(2, 4, 6, FEATURES), AXES)
    functional = make_functional(module, arguments)
    assert nested_loops(functional, ["sentences", "words"], SIZES) == nested
    line = busiest_line(functional, SIZES)
    assert line is not None
    assert "test_nested.py" in line


def test_a_refusal_has_the_line_of_the_inner_loop(tmp_path: Path) -> None:
    wanted = r"test_nested\.py:\d+: h = torch\.tanh.*loops over sentences and words within one another"
    with pytest.raises(ExportError, match=wanted):
        lstm_onnx.export(
            WordsOfSentences().eval(),
            tmp_path / "m.onnx",
            example_inputs=torch.zeros(2, 4, 6, FEATURES),
            dynamic_shapes=AXES,
        )
    assert not list(tmp_path.iterdir())


class Encoder(nn.Module):
    """An nn.LSTM over the words of each sentence, and a cell over the sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.sentences = nn.GRUCell(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h, steps = x.new_zeros(x.shape[0], HIDDEN), []
        for i in range(x.shape[1]):
            h = self.sentences(self.words(x[:, i])[0].mean(1), h)
            steps.append(h)
        return torch.stack(steps, 1)


def test_an_lstm_over_the_inner_axis_is_a_node_within_a_scan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Encoder().eval(), tmp_path / "m.onnx"
    example = torch.randn(2, 4, 6, FEATURES)
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=AXES)
    assert {"Scan", "GRU"} <= {node.op_type for node in onnx.load(path).graph.node}
    model = lstm_onnx.load(path, "cpu")
    for batch, sentences, words in ((1, 1, 1), (3, 2, 9), (2, 30, 5)):
        x = torch.randn(batch, sentences, words, FEATURES)
        found = model.run({"x": x.numpy()})["output"]
        np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-6)


class EveryThird(Text):
    """Its steps are those of a shorter axis than the input's."""

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for word in nn.functional.avg_pool1d(x.transpose(1, 2), 3).unbind(2):
            h = torch.tanh(self.x1(word) + self.h1(h))
            steps.append(h)
        return torch.stack(steps, 1)


def test_a_loop_over_a_shortened_axis_is_refused_with_its_line(tmp_path: Path) -> None:
    message = r"test_nested\.py:\d+: .* it makes a step for several entries of words; export what is before the loop"
    with pytest.raises(ExportError, match=message + r".*torch\.where"):
        lstm_onnx.export(
            EveryThird().eval(),
            tmp_path / "m.onnx",
            example_inputs=torch.randn(2, 21, FEATURES),
            dynamic_shapes={"x": {0: "batch", 1: "words"}},
        )


class BlocksInALoop(Text):
    """The last word of each block, by an index that goes on from block to block."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for first in range(0, x.shape[1], 4):
            h = torch.tanh(self.x1(x[:, first + 3]) + self.h1(h))
        return h


def test_a_loop_over_blocks_is_refused_with_its_line(tmp_path: Path) -> None:
    """At the lengths at which loops are looked for the module does not run, which says nothing of the reason."""
    with pytest.raises(ExportError, match=r"test_nested\.py:\d+: .*words of x \(always 12\) would be fixed"):
        lstm_onnx.export(
            BlocksInALoop().eval(),
            tmp_path / "m.onnx",
            example_inputs=torch.randn(2, 12, FEATURES),
            dynamic_shapes={"x": {0: "batch", 1: "words"}},
        )
