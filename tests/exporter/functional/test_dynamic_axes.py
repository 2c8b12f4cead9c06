"""The dynamic axes of modules for which nobody gave dynamic_shapes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.axis_advice import folded_advice
from lstm_onnx.exporter.functional.dynamic_axes import dynamic_shapes_text, find_dynamic_axes
from lstm_onnx.exporter.functional.make_functional import make_functional

from .dynamic_axes_cases import BATCH_TIME, CASES, LANGUAGE_MODEL, LanguageModel, zeros

pytestmark = pytest.mark.sweep(36)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, batch: dict[str, Tensor], scale: float, *, bias: Tensor) -> Tensor:
        return self.lstm(batch["x"])[0] * batch["gain"][:, None, None] * scale + bias


class Episodes(nn.Module):
    """A policy whose states start anew with each episode; `zip` stops at the shorter of both."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 6)

    def forward(self, x: Tensor, h: Tensor, starts: Tensor) -> Tensor:
        for step, start in zip(x, starts, strict=False):
            h = self.cell(step, (1 - start)[:, None] * h)
        return h


def open_axes_of(module: nn.Module, example: tuple[Any, ...]) -> dict[str, Any]:
    return find_dynamic_axes(make_functional(module, bind_arguments(module, example, None))).axes


@pytest.mark.parametrize(("module", "example", "expected"), CASES, ids=lambda item: type(item).__name__)
def test_batch_and_time_are_found(module: nn.Module, example: tuple[Any, ...], expected: dict[str, Any]) -> None:
    arguments = bind_arguments(module, example, None)
    found = find_dynamic_axes(make_functional(module.eval(), arguments))
    assert ast.literal_eval(dynamic_shapes_text(found)) == expected
    # What is printed can be pasted.
    pasted = bind_arguments(module, example, expected)
    assert pasted.axes == found.axes


def test_the_shapes_that_are_printed_are_nested_as_the_arguments_are() -> None:
    module = Nested().eval()
    example = {"batch": {"x": torch.randn(2, 5, 4), "gain": torch.ones(2)}, "scale": 2.0, "bias": torch.ones(6)}
    found = find_dynamic_axes(make_functional(module, bind_arguments(module, example, None)))
    shapes = ast.literal_eval(dynamic_shapes_text(found))
    assert shapes == {"batch": {"x": BATCH_TIME, "gain": {0: "batch"}}, "bias": {}}
    assert bind_arguments(module, example, shapes).axes == found.axes


class Stateful(nn.Module):
    """Its state, in an attribute, has the batch's size; a second input has none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.hidden: Any = (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return out * weights.sum()


def test_axes_that_are_zipped_are_one() -> None:
    example = (torch.randn(5, 2, 4), torch.zeros(2, 6), torch.zeros(5, 2))
    time_batch = {0: "time", 1: "batch"}
    assert open_axes_of(Episodes(), example) == {"x": time_batch, "h": {0: "batch"}, "starts": time_batch}


def test_rows_that_are_zipped_behind_a_layer_are_one() -> None:
    class Cut(Nested):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
            return torch.stack([y[:length].sum(0) for y, length in zip(self.lstm(x)[0], lengths, strict=False)])

    found = open_axes_of(Cut(), (torch.randn(3, 5, 4), torch.tensor([5, 2, 3])))
    assert found == {"x": BATCH_TIME, "lengths": {0: "batch"}}


def test_rows_for_each_step_are_to_be_an_axis_of_their_own() -> None:
    class Rollout(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return x.reshape(-1, len(h), 2) * h

    axes = {"x": {0: "time"}, "h": {0: "batch"}}
    arguments = bind_arguments(Rollout(), (torch.ones(12, 2), torch.ones(3, 2)), axes)
    advice = folded_advice(make_functional(Rollout(), arguments))
    assert re.fullmatch(r"; time runs only at multiples of batch, .* export .* x\.flatten\(0, 1\) on", advice)


def test_the_batch_of_a_module_with_states_of_its_own_is_found() -> None:
    found = open_axes_of(Stateful().eval(), (torch.randn(2, 5, 4), torch.ones(3)))
    assert found == {"x": BATCH_TIME, "weights": {0: "weights_0"}}


def test_the_states_of_a_batch_of_one_grow_with_the_example() -> None:
    """A batch of 1 is made larger before anything else is tried; what the module holds has to be as large then."""
    module = Stateful().eval()
    module.hidden = (torch.zeros(1, 1, 6), torch.zeros(1, 1, 6))
    found = open_axes_of(module, (torch.randn(1, 5, 4), torch.ones(3)))
    assert found == {"x": BATCH_TIME, "weights": {0: "weights_0"}}


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, "no axis of the inputs can have another size"),
        (4, "could not be found: 12 axes have the same size, 4; pass dynamic_shapes, or example inputs whose"),
    ],
)
def test_a_module_whose_inputs_have_one_size_is_refused(count: int, message: str) -> None:
    class Fixed(Stateful):
        def forward(self, *xs: Tensor) -> Tensor:
            return torch.cat([self.lstm(x.view(4, 4, 4))[0] for x in xs])

    with pytest.raises(ExportError, match=message):
        open_axes_of(Fixed().eval(), tuple(torch.randn(4, 4, 4) for _ in range(count)))


def test_numbers_without_axes_are_inputs() -> None:
    class Steps(nn.Module):
        def forward(self, end: Tensor) -> Tensor:
            return torch.arange(end)  # type: ignore[call-overload, no-any-return]

    assert open_axes_of(Steps(), (torch.tensor(8),)) == {"end": {}}


def test_an_axis_that_is_broadcast_keeps_its_size() -> None:
    class Linear(nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return nn.functional.linear(x, weight, bias)

    found = open_axes_of(Linear(), (torch.randn(3, 4), torch.randn(2, 4), torch.randn(1)))
    assert found["bias"] == {}
    assert 0 in found["weight"]


def test_a_first_call_works_and_says_which_axes_are_dynamic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LanguageModel().eval()
    result = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(torch.randint(0, 20, (2, 2)), zeros(2)))
    assert f"dynamic_shapes={LANGUAGE_MODEL!r}" in result.notes[0]
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    assert model.inputs["state.0"].shape == (2, "batch", 6)
    tokens, states = torch.randint(0, 20, (7, 3)), (torch.randn(2, 3, 6), torch.randn(2, 3, 6))
    with torch.no_grad():
        expected = module(tokens, states)[0].numpy()
    found = model.run({"tokens": tokens.numpy(), "state.0": states[0].numpy(), "state.1": states[1].numpy()})
    np.testing.assert_allclose(next(iter(found.values())), expected, atol=1e-5)


class _Strip(nn.Module):
    """Of a picture the columns are steps, its height squeezed away where it is 1 after the strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=(4, 1), padding=1)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.conv(x).squeeze(2).transpose(1, 2))[0]


def test_an_axis_that_becomes_one_is_squeezed(tmp_path: Path) -> None:
    module, path = _Strip().eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(3, 1, 2, 5))
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    assert model.metadata.axis_limits["x_2"] == (1, 4)
    for batch, height, width in ((1, 4, 5), (3, 2, 9), (2, 1, 1)):
        x = torch.randn(batch, 1, height, width)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], expected, atol=1e-6)


class _Prefixed(nn.Module):
    """A learned start before each sequence, of which the number of rows is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.start = nn.LSTM(3, 4, batch_first=True), nn.Parameter(torch.randn(2, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.start if x.shape[0] == 2 else self.start[:1].expand(x.shape[0], -1, -1) * 2
        return self.lstm(torch.cat([rows, x], 1))[0]


def test_a_refusal_has_the_axes_that_were_found(tmp_path: Path) -> None:
    tried = re.escape("; dynamic_shapes was not given, and {'x': {0: 'batch', 1: 'time'}} was tried")
    with pytest.raises(ExportError, match=rf"{tried}$"):
        lstm_onnx.export(_Prefixed().eval(), tmp_path / "m.onnx", example_inputs=torch.randn(2, 5, 3))


class _Heights(nn.Module):
    """A height of which nothing but its first rows is read, and as many as the example has in a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        rows = [row.sum() * 0.9**place for place, row in enumerate(table)]  # a graph has as many as there were
        return self.lstm(x)[0] * sum(rows)


def test_an_axis_that_freezes_is_static(tmp_path: Path) -> None:
    module, path = _Heights().eval(), tmp_path / "m.onnx"
    result = lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 3), torch.rand(7, 2)))
    assert "'x': {0: 'batch', 1: 'time'}" in result.notes[0]
    assert lstm_onnx.load(path, provider="cpu", threads=1).inputs["table"].shape[0] == 7
