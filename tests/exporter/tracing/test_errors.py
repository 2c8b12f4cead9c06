"""Errors of torch's tracer and of torch.onnx as sentences."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.tracing.errors import unexplained
from tests.exporter.helpers import X, agree, eager, made, signal


def test_an_operator_that_torch_cannot_trace() -> None:
    kind = type("UnsupportedOperatorException", (RuntimeError,), {})
    message = str(unexplained(kind("aten.dequantize.self")))
    assert message == "aten.dequantize.self is an operator that torch cannot trace; use other operators"


class Scaled(nn.Module):
    def __init__(self, scale: Callable[[Any], Any]) -> None:
        super().__init__()
        self.lstm, self.scale = nn.LSTM(3, 4, batch_first=True), scale

    def forward(self, x: Tensor) -> Any:
        return self.lstm(x)[0] * self.scale(x.size(1))


@pytest.mark.parametrize(
    ("scale", "problem"),
    [
        (lambda size: size & 1, r"cannot translate .*; use other operations in that line$"),
        (lambda size: round(size * 0.7, 2), r"round\(x, digits\) of a size has no form"),
    ],
)
def test_what_torch_onnx_cannot_translate_has_its_line(
    scale: Callable[[Any], Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=rf"^at test_errors.py:\d+: .*self.scale.*: .*{problem}"):
        made(Scaled(scale), signal(2, 4), X, tmp_path)


def test_a_size_that_is_looked_up(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"^at test_errors.py:\d+: .*: a size, .* is looked up in a set .* by functools.lru_cache"
    ):
        made(Scaled(lambda size: 2.0 if size in {4, 50} else 1.0), signal(2, 4), X, tmp_path)


def test_code_that_reads_memory(tmp_path: Path) -> None:
    class Pointed(Scaled):
        def forward(self, x: Tensor) -> Any:
            return self.lstm(x)[0] * (x.data_ptr() > 0)

    with pytest.raises(ExportError, match=r"^at test_errors.py:\d+: .*: code outside of torch, .*; use torch's"):
        made(Pointed(lambda size: size), signal(2, 4), X, tmp_path)


def test_one_hot_needs_its_number_of_classes(tmp_path: Path) -> None:
    class Classes(Scaled):
        def forward(self, x: Tensor) -> Any:
            return nn.functional.one_hot(self.lstm(x)[0].argmax(-1))

    with pytest.raises(ExportError, match=r"^at test_errors.py:\d+: .*: one_hot makes .*; pass num_classes$"):
        made(Classes(lambda size: size), signal(2, 4), X, tmp_path)


def test_an_index_without_axes(tmp_path: Path) -> None:
    class Largest(Scaled):
        def forward(self, x: Tensor) -> Any:
            y = self.lstm(x)[0]
            return y, torch.take(y, y.argmax())

    module, refusal = Largest(lambda size: size), ""
    try:
        found = made(module, signal(2, 4), X, tmp_path)
    except ExportError as error:
        refusal = str(error)
    if refusal:
        assert re.search(r"^at test_errors.py:\d+: .*a 0-d tensor is used as an index .*: x\.view\(1\)$", refusal)
    else:  # torch 2.14 translates it
        agree(found.run(signal(3, 5)), eager(module, signal(3, 5)))


def test_a_loop_up_to_the_longest_length(tmp_path: Path) -> None:
    class Stepwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.cell = nn.LSTM(3, 4, batch_first=True), nn.GRUCell(4, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            y = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
            h = y.new_zeros(len(y), 4)
            for t in range(y.size(1)):
                h = self.cell(y[:, t], h)
            return h

    advice = r"range\(x.size\(1\)\), of the result of pad_packed_sequence\(\.\.\., total_length="
    with pytest.raises(ExportError, match=advice):
        made(Stepwise(), (signal(2, 4)[0], torch.tensor([4, 2])), {**X, "lengths": {0: "batch"}}, tmp_path)
