"""Outputs without a time axis, where no chunk has followed on a state that was set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import lstm_onnx
from lstm_onnx import InputError

OPERATORS = {"LSTM": 4, "GRU": 3, "RNN": 1}


def stateless(folder: Path, operator: str) -> Path:
    """y of each step, and the h after the last, by an operator without state inputs."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal((1, 4 * OPERATORS[operator], size)).astype(np.float32) / 2
        for name, size in (("W", 3), ("R", 4))
    }
    shapes = {"x": ["time", "batch", 3], "y": ["time", 1, "batch", 4], "last_h": [1, "batch", 4]}
    x, *outputs = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "W", "R"], ["y", "last_h"], hidden_size=4)],
        operator,
        [x],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "whole.onnx")
    return folder / "whole.onnx"


@pytest.mark.parametrize("operator", OPERATORS)
def test_h_is_not_known_before_a_chunk(operator: str, tmp_path: Path) -> None:
    """It would be 0, and a GRU would end the process."""
    path = tmp_path / "s.onnx"
    lstm_onnx.make_streaming(stateless(tmp_path, operator), path, time={"x": 0})
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    first = model.stream(batch=2)
    known = first.run({"x": x[:3]})["last_h"]
    np.testing.assert_array_equal(first.run({"x": x[:0]})["last_h"], known)
    second = model.stream(batch=2)
    second.state = first.state
    for ask in (lambda: second.run({"x": x[:0]}), second.flush):
        with pytest.raises(InputError, match="last_h is not known: no chunk has followed on the state that was set"):
            ask()
    whole = lstm_onnx.load(tmp_path / "whole.onnx", provider="cpu", threads=1).run({"x": x})
    np.testing.assert_allclose(second.run({"x": x[3:]})["last_h"], whole["last_h"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(second.flush()["last_h"], whole["last_h"], rtol=0, atol=1e-6)
