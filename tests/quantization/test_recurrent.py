"""Recurrent operators as int8: what their arithmetic gives, no row changed by another, NaN carried on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.emulation import Steps, emulate
from lstm_onnx.quantization.operators import read_recurrent
from tests.quantization.operators import CASES, Case, saved


def sessions(case: Case, folder: Path) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    """The operator in float32 and in int8."""
    source = saved(folder / "float.onnx", case.model())
    quantize(source, folder / "int8.onnx")
    return ort.InferenceSession(source), ort.InferenceSession(folder / "int8.onnx")


def run(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("time", "batch"), [(1, 1), (9, 4)])
def test_an_operator_gives_what_its_arithmetic_gives(case: Case, time: int, batch: int, tmp_path: Path):
    exact, int8 = sessions(case, tmp_path)
    feeds = case.feeds(time, batch)
    expected, actual = run(exact, feeds), run(int8, feeds)
    node = case.model().graph.node[0]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in case.model().graph.initializer}
    layer = read_recurrent(node, weights.get)
    assert not isinstance(layer, str)
    for index in range(case.directions):
        zeros = np.zeros((batch, case.hidden), np.float32)
        steps = Steps(
            feeds["x"],
            feeds["h0"][index] if case.states else zeros,
            None if case.op_type != "LSTM" else feeds["c0"][index] if case.states else zeros,
            feeds.get("lengths", np.full(batch, time)),
            actual["y"][:, index],
        )
        emulated = emulate(layer, index, steps)
        size = max(1.0, float(np.abs(emulated["output"]).max()), float(np.abs(emulated.get("cn", zeros)).max()))
        assert np.abs(actual["y"][:, index] - emulated["output"]).max() < 2e-6 * size
        assert np.abs(actual["hn"][index] - emulated["hn"]).max() < 2e-6 * size
    # Beside float32 it is off by what 7 bits cost, and by more than rounding.
    for name, array in expected.items():
        assert 1e-6 < np.abs(array - actual[name]).max() < 0.1 * max(1.0, np.abs(array).max())


@pytest.mark.sweep(4)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_alone_has_the_bits_that_it_has_in_a_batch(case: Case, tmp_path: Path):
    _, int8 = sessions(case, tmp_path)
    feeds = case.feeds(7, 3)
    feeds["x"][:, 1] *= 100  # a loud neighbour
    together = run(int8, feeds)
    axes = {"y": 2, "hn": 1, "cn": 1, "x": 1, "h0": 1, "c0": 1, "lengths": 0}
    for row in range(3):
        alone = run(int8, {name: np.take(array, [row], axes[name]) for name, array in feeds.items()})
        for name, array in alone.items():
            assert np.array_equal(array, np.take(together[name], [row], axes[name])), (row, name)


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_steps_have_the_bits_of_the_whole_sequence(op_type: str, tmp_path: Path):
    case = Case(op_type)
    _, int8 = sessions(case, tmp_path)
    feeds = case.feeds(6, 2)
    whole = run(int8, feeds)
    states = {"h0": "hn", "c0": "cn"} if op_type == "LSTM" else {"h0": "hn"}
    part = dict(feeds)
    for step in range(6):
        result = run(int8, {**part, "x": feeds["x"][step : step + 1]})
        assert np.array_equal(result["y"][0], whole["y"][step])
        part |= {name: result[after] for name, after in states.items()}


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_padding_changes_nothing(op_type: str, tmp_path: Path):
    case = replace(Case(op_type), directions=2, lengths=True)
    _, int8 = sessions(case, tmp_path)
    feeds = case.feeds(8, 2)
    feeds["lengths"] = np.array([3, 8], np.int32)
    expected = run(int8, feeds)
    feeds["x"][3:, 0] = np.nan
    actual = run(int8, feeds)
    assert all(np.array_equal(array, actual[name]) for name, array in expected.items())
    assert not actual["y"][3:, :, 0].any()
    short = run(int8, {**{n: a[..., :1, :] for n, a in feeds.items() if n != "lengths"}, "x": feeds["x"][:3, :1],
                       "lengths": np.array([3], np.int32)})  # fmt: skip
    assert np.array_equal(short["hn"][:, 0], actual["hn"][:, 0])


@pytest.mark.sweep(4)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["x", "h0"])
@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_what_is_not_finite_makes_its_row_nan_from_there_on(op_type: str, place: str, number: float, tmp_path: Path):
    case = Case(op_type)
    _, int8 = sessions(case, tmp_path)
    feeds = case.feeds(6, 3)
    right = run(int8, feeds)["y"]
    first = 2 if place == "x" else 0
    feeds[place][(first if place == "x" else 0), 1, 4] = number
    result = run(int8, feeds)
    assert np.isnan(result["y"][first:, :, 1]).all()
    assert np.isnan(result["hn"][:, 1]).all()
    assert np.array_equal(result["y"][:first], right[:first])
    assert np.array_equal(result["y"][:, :, [0, 2]], right[:, :, [0, 2]])
