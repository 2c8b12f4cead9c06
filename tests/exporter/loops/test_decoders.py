"""Decoders of tutorials, trained small and exported from unchanged code: teacher forcing, greedy, and generation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.onnxgraph import nodes_of

from .decoders import END, START, CaptionStep, GreedyCaption, TranslatorStep, captioner, pictures, sentences, translator

pytestmark = pytest.mark.sweep(18)


def close(actual: object, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(actual, wanted.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_translator_with_attention(tmp_path: Path) -> None:
    model, path = translator(), tmp_path / "m.onnx"
    shapes = {"src": {0: "batch", 1: "source"}, "trg": {0: "batch", 1: "target"}}
    lstm_onnx.export(model, path, example_inputs=sentences(2, 5), dynamic_shapes=shapes)
    file = lstm_onnx.load(path, "cpu")
    for batch, length in ((1, 1), (4, 2), (2, 30)):
        src, trg = sentences(batch, length)
        close(file.run({"src": src.numpy(), "trg": trg.numpy()})["output"], model(src, trg))


@pytest.mark.slow
def test_a_captioner_of_images(tmp_path: Path) -> None:
    """It fills a buffer in place."""
    model, path = captioner(), tmp_path / "m.onnx"
    shapes = {"images": {0: "batch"}, "captions": {0: "batch", 1: "length"}}
    lstm_onnx.export(model, path, example_inputs=pictures(2), dynamic_shapes=shapes)
    file = lstm_onnx.load(path, "cpu")
    for batch, length in ((1, 1), (3, 5), (2, 24)):
        images, captions = pictures(batch)[0], torch.randint(0, 10, (batch, length))
        found = file.run({"images": images.numpy(), "captions": captions.numpy()})
        close(found["output"], model(images, captions))


@pytest.mark.slow
def test_greedy_captions_of_a_fixed_length(tmp_path: Path) -> None:
    """Six steps that feed back their words are six copies of the step; `generate` writes a loop instead."""
    model, path = GreedyCaption(captioner()).eval(), tmp_path / "m.onnx"
    lstm_onnx.export(model, path, example_inputs=pictures(2)[0], dynamic_shapes={"images": {0: "batch"}})
    images, _ = pictures(40)
    found = lstm_onnx.load(path, "cpu").run({"images": images.numpy()})["output"]
    np.testing.assert_array_equal(found, model(images))


def test_a_translator_generates(tmp_path: Path) -> None:
    """Sentences of other lengths and batches than the example's, until each ends."""
    model, path = translator(), tmp_path / "m.onnx"
    torch.manual_seed(1)
    src, _ = sentences(2, 4)
    outputs, hidden = model.encode(src)
    example = torch.zeros(2, dtype=torch.int64), hidden, outputs
    shapes = {"token": {0: "batch"}, "hidden": {0: "batch"}, "encoder_outputs": {0: "batch", 1: "source"}}
    generate = {"input": "token", "output": "output.0", "stop_token": END, "states": {"hidden": "output.1"}}
    step = TranslatorStep(model, "decode").eval()
    lstm_onnx.export(step, path, example_inputs=example, dynamic_shapes=shapes, generate=generate)
    file = lstm_onnx.load(path, "cpu")
    right = 0
    for length in (2, 3, 5):
        src, trg = sentences(20, length)
        with torch.no_grad():
            outputs, hidden = model.encode(src)
        feeds = {"hidden": hidden.numpy(), "encoder_outputs": outputs.numpy(), "max_steps": np.array(9)}
        found = file.run({"token": np.full(20, START), **feeds})
        for row in range(20):
            wanted = _decoded(model, src[row : row + 1])
            assert found["generated"][row, : found["counts"][row]].tolist() == wanted
            right += wanted == trg[row, 1:].tolist()
    assert right > 40, "it was trained to reverse sentences, and does"


@torch.no_grad()
def _decoded(model: torch.nn.Module, src: torch.Tensor) -> list[int]:
    outputs, hidden = model.encode(src)
    words = [START]
    while len(words) < 10 and words[-1] != END:
        numbers, hidden = model.decode(torch.tensor(words[-1:]), hidden, outputs)
        words.append(int(numbers.argmax()))
    return words[1:]


def test_a_captioner_generates_and_searches(tmp_path: Path) -> None:
    model = captioner()
    torch.manual_seed(1)
    images, captions = pictures(40)
    with torch.no_grad():
        features, h, c = model.encode(images)
        wanted = GreedyCaption(model)(images)
    example = torch.zeros(2, dtype=torch.int64), h[:2], c[:2], features[:2]
    shapes = {name: {0: "batch"} for name in ("token", "h", "c", "features")}
    step = CaptionStep(model, "step").eval()
    lstm_onnx.export(step, tmp_path / "step.onnx", example_inputs=example, dynamic_shapes=shapes, states="explicit")
    lstm_onnx.make_generating(
        tmp_path / "step.onnx", tmp_path / "m.onnx", input="token", output="output.0", stop_token=END
    )
    file = lstm_onnx.load(tmp_path / "m.onnx", "cpu")
    states = {"h": h.numpy(), "c": c.numpy()}
    found = file.run({"token": np.full(40, START), "features": features.numpy(), "max_steps": np.array(6), **states})
    for row, count in enumerate(found["counts"]):
        np.testing.assert_array_equal(found["generated"][row, :count], wanted[row, :count])
    right = (wanted[:, :4] == captions[:, 1:]).all(1)
    assert right.float().mean() > 0.4, "it was trained to describe them; by chance one of 18 is right"
    row = slice(int(right.int().argmax()), int(right.int().argmax()) + 1)
    pool = lstm_onnx.load(tmp_path / "step.onnx", "cpu").pool(slots=3)
    best, *others = lstm_onnx.beam_search(
        pool, START, input="token", output="output.0", beams=3, max_steps=6, stop_token=END,
        context={"features": features[row].numpy()}, state={name: array[row] for name, array in states.items()},
    )  # fmt: skip
    assert best.tokens == tuple(captions[row][0, 1:].tolist())
    assert best.score > max(other.score for other in others)


class Fed(nn.Module):
    """Tacotron's order: a prenet of each step, joined with the context that two cells feed back."""

    def __init__(self) -> None:
        super().__init__()
        self.prenet, self.first, self.second = nn.Linear(3, 4), nn.LSTMCell(4 + 5, 6), nn.LSTMCell(6 + 5, 5)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        state, other = ((x.new_zeros(len(x), size),) * 2 for size in (6, 5))
        context, outputs = x.new_zeros(len(x), 5), []
        for t in range(x.shape[1]):
            state = self.first(torch.cat([self.prenet(x[:, t]).relu(), context], 1), state)
            context = (memory * state[0][:, None, :5]).mean(1)
            other = self.second(torch.cat([state[0], context], 1), other)
            outputs.append(other[0])
        return torch.stack(outputs, 1)


def test_what_is_computed_of_all_steps_at_once_is_joined_with_what_is_fed_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Fed().eval(), tmp_path / "m.onnx"
    shapes = {"x": {0: "batch", 1: "time"}, "memory": {0: "batch", 1: "source"}}
    lstm_onnx.export(model, path, example_inputs=(torch.randn(2, 6, 3), torch.randn(2, 7, 5)), dynamic_shapes=shapes)
    file = lstm_onnx.load(path, "cpu")
    for batch, steps in ((1, 1), (3, 11)):
        x, memory = torch.randn(batch, steps, 3), torch.randn(batch, 4, 5)
        close(file.run({"x": x.numpy(), "memory": memory.numpy()})["output"], model(x, memory))


FRAME, HIDDEN = 3, 4
AXES = ({0: "batch", 1: "source"}, {0: "batch", 1: "target"})


class Spectrograms(nn.Module):
    """Its states are in attributes, and zeros, written in place, have sizes that are equal by chance.

    Attends by what it attended to before and the sum of that, which are one value before the first step.
    """

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
    module, path = Spectrograms().eval(), tmp_path / "m.onnx"
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
