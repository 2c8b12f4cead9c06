"""The arrays of a file that takes chunks: their sizes, final outputs, and what the caller writes into its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx import InputError
from tests.streaming.test_convert import conv_lstm, saved, weights

from .test_chunked_steps import STEPS


def test_no_steps_have_the_sizes_that_follow_from_the_batch(tmp_path: Path) -> None:
    model = conv_lstm()
    model.graph.node.append(helper.make_node("Flatten", ["y"], ["flat"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, None))
    lstm_onnx.make_streaming(saved(model, tmp_path / "whole.onnx"), tmp_path / "m.onnx", time={"x": 2}, trial=False)
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as streaming:
        stream = streaming.stream(batch=2)
        assert stream.run({"x": weights(2, 4, 0)})["flat"].shape == (0, 6)


def test_a_final_output_is_known_after_a_state_is_set(tmp_path: Path) -> None:
    model = conv_lstm((2, 0), stride=3)
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "end"))
    model.graph.node.append(helper.make_node("Gather", ["y", "end"], ["final"], axis=0))
    model.graph.output.append(helper.make_tensor_value_info("final", TensorProto.FLOAT, None))
    lstm_onnx.make_streaming(saved(model, tmp_path / "whole.onnx"), tmp_path / "m.onnx", time={"x": 2}, trial=False)
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as streaming:
        stream = streaming.stream()
        expected = stream.run({"x": x})["final"]
        assert np.abs(expected).max() > 0.01
        stream.state = state = stream.state
        np.testing.assert_array_equal(stream.run({"x": x[:, :, :0]})["final"], expected)
        stream.state = state
        np.testing.assert_array_equal(stream.flush()["final"], expected)
        for name, array in stream.state.items():
            np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize(("pads", "stride"), [((2, 0), 3), ((1, 1), 1)])
def test_what_the_caller_writes_into_its_arrays_changes_nothing(
    tmp_path: Path, pads: tuple[int, int], stride: int
) -> None:
    model = conv_lstm(pads, stride=stride)
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "end"))
    model.graph.node.append(helper.make_node("Mul", ["y", "gain"], ["scaled"]))
    model.graph.node.append(helper.make_node("Gather", ["scaled", "end"], ["final"], axis=0))
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [3]))
    for name in ("scaled", "final"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    lstm_onnx.make_streaming(
        saved(model, tmp_path / "whole.onnx"), tmp_path / "m.onnx", time={"x": 2}, max_delay=1, trial=False
    )
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(tmp_path / "whole.onnx", "cpu") as whole:
        expected = whole.run({"x": x, "gain": np.arange(1, 4, dtype=np.float32)})
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as streaming:
        stream, gain = streaming.stream(), np.arange(1, 4, dtype=np.float32)
        first = stream.run({"x": x, "gain": gain})
        scaled = first["scaled"].copy()
        first["final"][...] = 100
        with pytest.raises(InputError, match="gain has shape"):
            stream.run({"x": x, "gain": np.ones(2, np.float32)})
        gain[...] = 100
        rest = stream.flush()
    np.testing.assert_allclose(rest["final"], expected["final"], atol=1e-6)
    np.testing.assert_allclose(np.concatenate([scaled, rest["scaled"]]), expected["scaled"], atol=1e-6)
