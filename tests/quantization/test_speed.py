"""Where int8 gains nothing: notes on time, by measured thresholds, and on size."""

from __future__ import annotations

from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx.quantization.int8_file import quantized_model
from lstm_onnx.quantization.kernels import BLOCK_SIZES, DYNAMIC_QUANTIZE_LSTM, KERNELS, MATMUL_INTEGER, MATMUL_NBITS
from lstm_onnx.quantization.speed import SLOWER_UP_TO, slower_layers
from tests.quantization.operators import Case, saved

STEP, SEQUENCE = "for one step at a time", "for whole sequences"


def test_every_kernel_and_operator_has_its_thresholds() -> None:
    known = {(kernel, op) for kernel in (MATMUL_INTEGER, *BLOCK_SIZES) for op in ("LSTM", "GRU", "RNN")}
    known.add((DYNAMIC_QUANTIZE_LSTM, "LSTM"))
    assert {kernel for kernel, _ in known} == set(KERNELS)
    assert SLOWER_UP_TO.keys() == known


@pytest.mark.parametrize(
    ("op_type", "hidden", "kernel", "words"),
    [
        ("LSTM", 256, MATMUL_INTEGER, [STEP, SEQUENCE]),
        ("LSTM", 257, MATMUL_INTEGER, []),
        ("GRU", 320, MATMUL_INTEGER, [STEP, SEQUENCE]),
        ("RNN", 350, MATMUL_INTEGER, [STEP]),
        ("RNN", 32, MATMUL_NBITS, [STEP, SEQUENCE]),
        ("LSTM", 64, DYNAMIC_QUANTIZE_LSTM, [STEP]),
    ],
)
def test_small_layers_have_a_note(op_type: str, hidden: int, kernel: str, words: list[str], tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", Case(op_type, inputs=4, hidden=hidden).model())
    notes = slower_layers(quantized_model(path, kernel=kernel).layers)
    assert len(notes) == len(words)
    for note, text in zip(notes, words, strict=True):
        assert note.startswith("layer: float32 is as fast or faster ")
        assert text in note


@pytest.mark.parametrize(("hidden", "note"), [(8, "the file is larger than float32's: its int8 nodes"), (80, "")])
def test_a_file_that_is_no_smaller_has_a_note(hidden: int, note: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", Case("GRU", inputs=hidden, hidden=hidden).model())
    result = lstm_onnx.quantize(path, tmp_path / "q.onnx")
    assert (result.num_bytes > result.source_bytes) == bool(note)
    assert [text[: len(note)] for text in result.notes if text.startswith("the file is")] == [note] * bool(note)
