"""How much there is to do: counted from shapes, and enough to tell small calls from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.runtime import bindings as binding
from lstm_onnx.runtime import load
from lstm_onnx.runtime import stream as streams
from lstm_onnx.runtime.bindings import Binding
from lstm_onnx.runtime.flops import is_small, rows_of, step_flops
from lstm_onnx.runtime.tensor_info import ValueInfo
from tests.module_files import module_file

from .models import exported, randoms


def states(hidden: int, layers: int, batch: int = 1) -> list[np.ndarray]:
    return [np.zeros((layers, batch, hidden), np.float32) for _ in "hc"]


def test_the_work_of_a_row_is_about_that_of_its_matrices():
    # 2 FLOPs for each of 4 gates' weights, those of the input as many as those of h.
    assert step_flops(states(256, 2)) == 2 * (2 * 4 * 256 * 512)
    assert step_flops([]) == 0
    assert step_flops([np.zeros(())]) == 0


def test_rows_are_places_along_open_axes():
    known = np.dtype(np.float32)
    infos = {
        "input": ValueInfo("input", known, ("time", "batch", 80)),
        "rate": ValueInfo("rate", known, ()),
        "mask": ValueInfo("mask", known, ("batch",)),
    }
    arrays = {"input": np.zeros((5, 3, 80)), "rate": np.zeros(()), "mask": np.zeros(3)}
    assert rows_of(infos, arrays) == 15
    assert rows_of(infos, {}) == 1


@pytest.mark.parametrize(
    ("hidden", "layers", "batch", "time", "small"),
    [
        (64, 1, 1, 1, True),
        (256, 2, 1, 1, True),
        (256, 2, 1, 50, True),
        (256, 2, 8, 1, True),
        (256, 2, 32, 1, False),
        (256, 2, 8, 50, False),
        (512, 2, 1, 1, False),
        (512, 2, 8, 1, False),
    ],
)
def test_small_is_what_one_thread_was_measured_to_be_faster_at(hidden, layers, batch, time, small):
    known = np.dtype(np.float32)
    infos = {
        "input": ValueInfo("input", known, ("time", "batch", 80)),
        "h0": ValueInfo("h0", known, (layers, "batch", hidden)),
        "c0": ValueInfo("c0", known, (layers, "batch", hidden)),
    }
    held = dict(zip(["h0", "c0"], states(hidden, layers, batch), strict=True))
    assert is_small(infos, held, {"input": np.zeros((time, batch, 80), np.float32)}) is small
    assert not is_small(infos, {}, {"input": np.zeros((time, batch, 80), np.float32)})


@pytest.mark.parametrize(
    ("sizes", "spin", "batch", "single"),
    [
        ({}, 0.0, 1, True),
        ({"input_size": 80, "hidden_size": 256, "num_layers": 2}, 0.0, 1, True),
        ({"input_size": 80, "hidden_size": 256, "num_layers": 2}, 0.0, 16, False),
        ({"hidden_size": 512, "num_layers": 2}, 0.0, 1, False),
        ({}, 0.001, 1, False),
    ],
)
def test_small_steps_take_one_thread(tmp_path: Path, monkeypatch, sizes, spin, batch, single):
    exported(tmp_path / "m.onnx", **sizes)
    model = load(tmp_path / "m.onnx", "cpu", threads=2, spin=spin)
    found = []

    def bound(session, *rest):
        found.append(session.get_session_options().intra_op_num_threads)
        return Binding(session, *rest)

    for module in (streams, binding):
        monkeypatch.setattr(module, "Binding", bound)
    stream = model.stream(batch)
    chunks = randoms(6, 1, batch, sizes.get("input_size", 4))
    outputs = [stream(chunk) for chunk in chunks]
    assert set(found) == {1 if single else 2}
    found.clear()
    for _ in range(3):
        model(chunks[0])
    assert found == [1 if single else 2]
    whole, _ = model(np.concatenate(chunks))
    assert np.allclose(np.concatenate(outputs), whole, atol=1e-5)


def test_a_module_keeps_its_threads_whatever_its_states_say():
    model = load(module_file("exogenous_forecaster", "explicit"), "cpu", threads=2)
    assert model.states
    assert model.session_for(model.stream().state) is model.session
