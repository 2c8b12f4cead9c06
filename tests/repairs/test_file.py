"""Which files are repaired, and what their outputs are said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import lstm_onnx
from lstm_onnx.repairs import repair

UNITS = 3


def file_of(path: Path, graph: str, ir_version: int = 8, **stored: np.ndarray) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": 17]> g {graph}')
    weights = {"W": (1, 4 * UNITS, 2), "R": (1, 4 * UNITS, UNITS)}
    rng = np.random.default_rng(0)
    stored = {name: rng.uniform(-1, 1, shape).astype(np.float32) for name, shape in weights.items()} | stored
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    if ir_version < 4:
        for name, array in stored.items():
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
    onnx.save(model, path)
    return path


LSTM = f"LSTM <hidden_size: int = {UNITS}> (x, W, R)"


@pytest.mark.parametrize("declared", ["time, 1, 1, 3", "1, 1, time, 3", "time, 1, unknown, 3"])
def test_outputs_are_declared_as_they_are(tmp_path: Path, declared: str):
    """Of the batch that is opened, and of a file that declares them wrongly."""
    graph = f"(float[time, 1, 2] x) => (float[{declared}] y) {{ y = {LSTM} }}"
    result = repair(file_of(tmp_path / "a.onnx", graph), tmp_path / "b.onnx")
    assert result.batch_opened
    assert lstm_onnx.load(tmp_path / "b.onnx", provider="cpu").outputs["y"].shape == ("time", 1, "batch", UNITS)
    assert lstm_onnx.check(tmp_path / "b.onnx", provider="cpu")


def test_outputs_that_are_declared_with_other_axes_stay_so(tmp_path: Path) -> None:
    graph = f"(float[time, batch, 2] x) => (float[time, 1, batch, 3, 1] y) {{ y = {LSTM} }}"
    assert repair(file_of(tmp_path / "a.onnx", graph), tmp_path / "b.onnx").states


def test_a_file_of_an_old_version_becomes_a_valid_one(tmp_path: Path):
    graph = f"(float[time, batch, 2] x) => (float[time, 1, batch, 3] y) {{ y = {LSTM} }}"
    repair(file_of(tmp_path / "a.onnx", graph, ir_version=3), tmp_path / "b.onnx")
    onnx.checker.check_model(tmp_path / "b.onnx", full_check=True)


def test_random_numbers_cannot_be_compared(tmp_path: Path):
    graph = f"""(float[time, batch, 2] inputs) => (float[time, 1, batch, 3] y)
    {{ noise = RandomNormalLike (inputs)  x = Add (inputs, noise)  y = {LSTM} }}"""
    with pytest.raises(lstm_onnx.ModelError, match="it gives other numbers each time it runs"):
        repair(file_of(tmp_path / "a.onnx", graph), tmp_path / "b.onnx")


def test_values_that_are_sequences_are_left(tmp_path: Path):
    """As TorchScript's loops append to one."""
    graph = f"""(float[time, batch, 2] inputs) => (float[time, 1, batch, 3] y)
    {{ none = SequenceEmpty ()  one = SequenceInsert (none, inputs)
       x = ConcatFromSequence <axis: int = 0> (one)  y = {LSTM} }}"""
    assert repair(file_of(tmp_path / "a.onnx", graph), tmp_path / "b.onnx").not_streamable == ""


def test_a_fixed_batch_of_the_states_alone_is_named(tmp_path: Path) -> None:
    """As silero-vad, whose sequence has no batch: a Squeeze hides that of its operator."""
    graph = """(float[time, 2] input, float[1, 1, 3] h, float[1, 1, 3] c) => (float[time, 1, 1, 3] y) {
        middle = Constant <value_ints: ints = [1, 2]> ()  wide = Unsqueeze (input, middle)  narrow = Squeeze (wide)
        one = Constant <value_ints: ints = [1]> ()  x = Unsqueeze (narrow, one)
        y = LSTM <hidden_size: int = 3> (x, W, R, , , h, c)
    }"""
    path = file_of(tmp_path / "a.onnx", graph)
    with pytest.raises(lstm_onnx.ModelError, match="its states are inputs; their batch of 1 cannot be made dynamic"):
        repair(path, tmp_path / "b.onnx")
    assert not any("batch is fixed" in finding.message for finding in lstm_onnx.check(path, provider="cpu").findings)
