"""What does not fit is refused before ONNX Runtime sees it, and its failures are mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions

from ..models import Unreachable, model_of
from .support import BATCH, TIME

LENGTHS = ExportOptions(lengths=True)


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model with lengths whose ONNX Runtime must not be reached."""
    model = model_of(tmp_path, options=LENGTHS)
    monkeypatch.setattr(model, "session", Unreachable())
    return model


X = np.zeros((TIME, BATCH, 4), np.float32)


H = np.zeros((1, BATCH, 5), np.float32)


def test_a_sealed_model_would_tell(sealed: Model):
    with pytest.raises(AssertionError, match="was reached"):
        sealed(X, (H, H), lengths=[1, 2, 3])


@pytest.mark.parametrize(
    ("x", "states", "lengths", "message"),
    [
        (X[:, :0], None, None, r"^input has shape \(6, 0, 4\): the axis batch is empty"),
        (X[:, :0], (H[:, :0], H[:, :0]), None, "^input has shape .* the axis batch is empty"),
        (X[:, :0], None, [], "lengths"),
        (X[:0], None, None, r"^input has shape \(0, 3, 4\): the axis time is empty"),
        (X[:0], (H, H), None, "^input has shape .* the axis time is empty"),
        (X[:0, 0], None, None, "^input has shape .* the axis time is empty"),
        (X[None], None, None, r"^input has shape \(1, 6, 3, 4\); the model takes 3 axes"),
        (X[None], (H, H), [1, 2, 3], "^input has shape"),
        (X[0, 0], None, None, r"^input has shape \(4,\); the model takes 3 axes"),
        (X.astype(np.float64), None, None, "^input has dtype float64; the model takes float32"),
        (X.astype(np.int64), None, None, "^input has dtype int64"),
        (X[..., :3], None, None, r"^input has shape \(6, 3, 3\); axis 2 must be 4"),
        (X, (H[..., :4], H), None, r"^h0 has shape \(1, 3, 4\); axis 2 must be 5"),
        (X, (H, np.repeat(H, 2, 0)), None, r"^c0 has shape \(2, 3, 5\); axis 0 must be 1"),
        (X, (H[:, :2], H), None, "^h0 has shape .* so batch is 2, but input has batch = 3"),
        (X, (H, H[:, :1]), None, "^c0 has shape .* so batch is 1, but input has batch = 3"),
        (X, (H[:, 0], H[:, 0]), None, r"^h0 has shape \(1, 5\); the model takes 3 axes"),
        (X[:, 0], (H[:, :1], H[:, :1]), None, r"^h0 has shape \(1, 1, 5\); for one sequence"),
        (X, (H.astype(np.float16), H), None, "^h0 has dtype float16"),
        (X, H, None, r"^states must be the pair \(h0, c0\)"),
        (X, (H,), None, r"^states must be the pair \(h0, c0\)"),
        (X, (H, None), None, "^c0 holds values of dtype object"),
        (X, None, [1, 2, 7], r"^lengths\[2\] is 7; it must be from 1 to time, 6"),
        (X, None, [0, 2, 3], r"^lengths\[0\] is 0"),
        (X, None, [1, -2, 3], r"^lengths\[1\] is -2"),
        (X, None, [2**32 + 1, 1, 1], r"^lengths\[0\] is 4294967297"),
        (X, None, [1.0, 2.0, 3.0], "^lengths has dtype float64; it must be integers"),
        (X, None, [1, 2], r"^lengths has shape \(2,\); it must be \(3,\)"),
        (X, None, [[1, 2, 3]], r"^lengths has shape \(1, 3\)"),
        (X, None, 4, r"^lengths has shape \(\)"),
        (X[:, 0], None, [4], "^lengths require a batch"),
        (torch.tensor(X).requires_grad_(), None, None, r"^input cannot be read .*\.detach\(\)"),
        (X, (torch.tensor(H).requires_grad_(), H), None, r"^h0 cannot be read .*\.detach\(\)"),
        ("words", None, None, "^input is not an array of numbers"),
    ],
)
def test_refused_before_onnx_runtime_sees_it(sealed: Model, x: Any, states: Any, lengths: Any, message: str):
    with pytest.raises(InputError, match=message):
        sealed(x, states, lengths=lengths)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"input": X, "hidden": H}, "^hidden is not an input of the model; its inputs are input, h0, c0, lengths"),
        ({"h0": H, "c0": H}, "^missing input: input float32"),
        ({}, r"^missing input: input float32 \(time, batch, 4\)$"),
        ({"input": X, "h0": H[:, :0]}, "^h0 has shape .* the axis batch is empty"),
        ({"input": X, "lengths": [1.5, 2, 3]}, "^lengths holds values of dtype float64"),
        ({"input": X, "lengths": np.array([1.5, 2, 3])}, "^lengths has dtype float64"),
    ],
)
def test_run_refuses_too(sealed: Model, feeds: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        sealed.run(feeds)


def test_lengths_need_a_model_with_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = model_of(tmp_path)
    monkeypatch.setattr(model, "session", Unreachable())
    with pytest.raises(InputError, match=r"model\.onnx: was exported without lengths; .* lengths = true"):
        model(X, lengths=[1, 2, 3])


def test_an_input_error_is_a_value_error(sealed: Model):
    with pytest.raises(ValueError, match="the axis batch is empty"):
        sealed(X[:, :0])


def test_a_failure_of_onnx_runtime_is_mapped(tmp_path: Path):
    graph = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[n] x, int64[k] shape) => (float[m] y) { y = Reshape(x, shape) }
    """)
    onnx.save(graph, tmp_path / "reshape.onnx")
    model = load(tmp_path / "reshape.onnx", "cpu")
    assert model.run({"x": [1, 2], "shape": [-1]})["y"].tolist() == [1, 2]
    with pytest.raises(RunError, match=r"reshape\.onnx: ONNX Runtime failed while running: .*Reshape") as caught:
        model.run({"x": [1, 2], "shape": [3]})
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_out_of_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Exhausted:
        def run(self, *_: Any) -> None:
            raise MemoryError("std::bad_alloc")

    model = model_of(tmp_path)
    monkeypatch.setattr(model, "session", Exhausted())
    with pytest.raises(RunError, match=r"model\.onnx: ran out of memory while running"):
        model(X)
