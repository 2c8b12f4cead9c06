"""Loops that pass over masked steps, as of Keras' Masking, become operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lstm_onnx
from lstm_onnx.repairs import operators
from lstm_onnx.repairs.masks import Unmasked, unmasked

from .loops import FEATURES, loop_file, node

OUTER = (  # a step whose features are all zeros is masked
    node("Equal", "x nothing", "is_zero"),
    node("Not", "is_zero", "is_not_zero"),
    node("Cast", "is_not_zero", "is_not_zero_float", to=TensorProto.FLOAT),
    node("ReduceMax", "is_not_zero_float", "any_float", axes=[-1], keepdims=1),
    node("Greater", "any_float nothing", "any"),
    node("Transpose", "any", "masks", perm=[1, 0, 2]),
)
READ = node("Gather", "masks number", "m_t")
KEEP = (READ, node("Where", "m_t h_next h", "h_kept"), node("Where", "m_t c_next c", "c_kept"))


def masked_file(path: Path, kind: str, **changes: Any) -> Path:
    extra = KEEP if kind == "lstm" else KEEP[:2]
    return loop_file(path, kind, **{"outer": OUTER, "extra": extra, "state": "h_kept", "cell": "c_kept", **changes})


def masked_input() -> np.ndarray:
    """Four sequences: masked at the end, at the start and within, throughout, and nowhere."""
    x = np.random.default_rng(5).standard_normal((4, 7, FEATURES)).astype(np.float32)
    x[0, 4:] = 0
    x[1, :2] = 0
    x[1, 4] = 0
    x[2] = 0
    return x


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x})["y"]


@pytest.mark.parametrize(("kind", "op_type"), [("gru", "GRU"), ("gru_before", "GRU"), ("lstm", "LSTM"), ("rnn", "RNN")])
def test_a_masked_loop_becomes_its_operator(tmp_path: Path, kind: str, op_type: str):
    source, target = masked_file(tmp_path / "a.onnx", kind), tmp_path / "b.onnx"
    result = lstm_onnx.repair(source, target)
    assert list(result.operators.values()) == [op_type]
    assert not {"Loop", "Scan"} & {item.op_type for item in onnx.load(target).graph.node}
    assert result.not_streamable == ""
    x = masked_input()
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)


def test_a_stream_passes_over_masked_chunks(tmp_path: Path):
    source, target = masked_file(tmp_path / "a.onnx", "lstm"), tmp_path / "b.onnx"
    lstm_onnx.repair(source, target)
    x = masked_input()
    stream = lstm_onnx.load(target, provider="cpu", threads=1).stream(batch=4)
    parts = [stream.run({"x": x[:, start : start + 1]})["y"] for start in range(7)]
    np.testing.assert_allclose(np.concatenate(parts, 1), run(source, x), atol=2e-6)


def test_the_comparison_with_the_source_has_masked_steps(tmp_path: Path):
    """It finds an operator that passes over the other steps, though hardly a drawn step is masked by chance."""

    def wrong(made: Any, sequence: str, mask: str, name: str) -> Unmasked:
        everything = made.one("Or", mask, made.one("Not", mask, name="not_masked"), name="everything")
        return unmasked(made, sequence, everything, name)

    source = masked_file(tmp_path / "a.onnx", "gru")
    with mock.patch.object(operators, "unmasked", wrong), pytest.raises(lstm_onnx.ModelError, match="it was not kept"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize("kept", ["reset", "scaled"])
def test_masked_steps_that_do_not_keep_their_states_are_left(tmp_path: Path, kept: str):
    other = node("Sub", "h h", "reset") if kept == "reset" else node("Mul", "h z", "scaled")
    extra = (READ, other, node("Where", f"m_t h_next {kept}", "h_kept"))
    source = masked_file(tmp_path / "a.onnx", "gru", extra=extra)
    run(source, masked_input())
    with pytest.raises(lstm_onnx.ModelError, match="no loop that was recognised as one"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")


def shown_or_zeros(path: Path) -> Path:
    """A masked GRU whose output is zeros at masked steps, by a carried value that no step reads."""
    show = node("Where", "m_t h_next zeros", "h_shown")
    model = onnx.load(masked_file(path, "gru", extra=(*KEEP[:2], show)))
    loop = next(item for item in model.graph.node if item.op_type == "Loop")
    loop.input.insert(4, "zeros")
    loop.output.insert(2, "last_shown")
    body = next(item.g for item in loop.attribute if item.name == "body")
    for values, place, name in ((body.input, 4, "unread"), (body.output, 3, "h_shown")):
        moved = list(values)
        del values[:]
        values.extend([*moved[:place], helper.make_tensor_value_info(name, TensorProto.FLOAT, None), *moved[place:]])
    output = next(item for item in body.node if item.output[0] == "y_t")
    output.input[0] = "h_shown"
    onnx.save(model, path)
    return path


def test_outputs_that_are_zeros_where_steps_are_masked(tmp_path: Path):
    source, target = shown_or_zeros(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    result = lstm_onnx.repair(source, target)
    assert list(result.operators.values()) == ["GRU"]
    x = masked_input()
    assert not run(source, x)[1, :2].any()
    assert run(source, x)[1, 3].any()
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)
