"""Files that torch's own exporters made, and strangers' files: converted, and equal to their whole run in chunks."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx

from .modules.models import FEATURES, MODELS, chunkings

SCRIPTED = (
    "before",
    "after",
    "dilated residuals",
    "strided, causal",
    "u-shape, centred",
    "depthwise separable",
    "conformer's convolution",
    "2-d, strides in frequency",
    "branches of other delays",
    "repeated",
)
"""By TorchScript's exporter, which is quick; and some by dynamo's."""
DYNAMO = ("before", "2-d, causal", "encoder and decoder")
STEPS = 48


def exported(name: str, path: Path, *, dynamo: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    module = MODELS[name][0]().eval()
    x = torch.randn(2, STEPS, FEATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim.AUTO}}
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=shapes, input_names=["x"], verbose=False)
        else:
            axes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "frames"}}
            torch.onnx.export(
                module,
                (x,),
                path,
                dynamo=False,
                input_names=["x"],
                output_names=["y"],
                dynamic_axes=axes,
                opset_version=17,
            )
    return module


def require_equal(source: Path, path: Path, axis: int, feeds: dict[str, np.ndarray]) -> None:
    """Chunks of every kind are the whole run of the source."""
    with lstm_onnx.load(source, "cpu", threads=1) as whole, lstm_onnx.load(path, "cpu", threads=1) as model:
        name = next(iter(feeds))
        out, streaming = next(iter(whole.outputs)), model.metadata.streaming
        assert streaming is not None
        expected, stream = whole.run(feeds)[out], model.stream(len(feeds[name]))
        steps = feeds[name].shape[axis]
        for cut in chunkings(steps, stream.hop, 1):
            if steps > 1000 and len(cut) > 1000:
                continue
            stream.reset()
            parts, start = [], 0
            for size in cut:
                parts.append(stream.run({name: np.take(feeds[name], range(start, start + size), axis)})[out])
                start += size
            parts.append(stream.flush()[out])
            found = np.concatenate(parts, streaming.outputs[out])
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


def converted(name: str, folder: Path, *, dynamo: bool) -> None:
    source, path = folder / "m.onnx", folder / "s.onnx"
    exported(name, source, dynamo=dynamo)
    lstm_onnx.make_streaming(source, path, time={"x": 1}, max_delay=100)
    require_equal(source, path, 1, {"x": np.random.default_rng(0).standard_normal((2, STEPS, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    "name", [name if name == SCRIPTED[1] else pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTED]
)
def test_a_file_of_torchscripts_exporter(name: str, tmp_path: Path) -> None:
    converted(name, tmp_path, dynamo=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMO)
def test_a_file_of_dynamos_exporter(name: str, tmp_path: Path) -> None:
    converted(name, tmp_path, dynamo=True)


@pytest.mark.parametrize("name", ["unk__{}", "DynamicDimension.{}"])
def test_a_batch_with_another_name_in_each_input(name: str, tmp_path: Path) -> None:
    """As tf2onnx and paddle2onnx write them: no input and no output shares the name of an axis."""
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.standard_normal((1, 9, 4)),
        "R": rng.standard_normal((1, 9, 3)),
    }
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    stored += [numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (0, 1)]
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps_first"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["h", "axis0"], ["h0"]),
        helper.make_node("GRU", ["steps_first", "W", "R", "", "", "h0"], ["all", "last"], hidden_size=3),
        helper.make_node("Squeeze", ["all", "axis1"], ["one_way"]),
        helper.make_node("Transpose", ["one_way"], ["y"], perm=[1, 0, 2]),
        helper.make_node("Squeeze", ["last", "axis0"], ["hn"]),
    ]
    axes = [name.format(number) for number in range(6)]
    shapes = {"x": (*axes[:2], 4), "h": (axes[2], 3), "y": (*axes[3:5], 3), "hn": (axes[5], 3)}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(nodes, "g", [infos["x"], infos["h"]], [infos["y"], infos["hn"]], stored)
    source, path = tmp_path / "m.onnx", tmp_path / "s.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    result = lstm_onnx.make_streaming(source, path, time={"x": 1}, states={"h": "hn"})
    assert (result.proof.problem, len(result.proof.steps)) == ("", 2)
    x = rng.standard_normal((3, 9, 4)).astype(np.float32)
    whole = lstm_onnx.load(source, provider="cpu").run({"x": x, "h": np.zeros((3, 3), np.float32)})["y"]
    stream = lstm_onnx.load(path, provider="cpu").stream(batch=3)
    parts = [stream(x[:, :4]), stream(x[:, 4:5]), stream(x[:, 5:]), stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["unk__{}", "DynamicDimension.{}"])
def test_a_batch_with_another_name_in_each_of_two_sequences(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"W": rng.standard_normal((1, 9, 4)), "R": rng.standard_normal((1, 9, 3))}
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    stored.append(numpy_helper.from_array(np.array([1]), "axis"))
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["x"], axis=2),
        helper.make_node("Transpose", ["x"], ["steps_first"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["steps_first", "W", "R"], ["all"], hidden_size=3),
        helper.make_node("Squeeze", ["all", "axis"], ["one_way"]),
        helper.make_node("Transpose", ["one_way"], ["y"], perm=[1, 0, 2]),
    ]
    axes = [name.format(number) for number in range(6)]
    shapes = {"a": (*axes[:2], 3), "b": (*axes[2:4], 1), "y": (*axes[4:], 3)}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(nodes, "g", [infos["a"], infos["b"]], [infos["y"]], stored)
    source, path = tmp_path / "m.onnx", tmp_path / "s.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    lstm_onnx.make_streaming(source, path, time={"a": 1, "b": 1})
    inputs = {name: rng.standard_normal((2, 9, size)).astype(np.float32) for name, size in (("a", 3), ("b", 1))}
    whole = lstm_onnx.load(source, provider="cpu").run(inputs)["y"]
    model = lstm_onnx.load(path, provider="cpu")
    stream, pool = model.stream(batch=2), model.pool(slots=2)
    slots = [pool.open(), pool.open()]
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        chunk = {name: value[:, part] for name, value in inputs.items()}
        for found in (stream.run(chunk)["y"], pool.step(slots, chunk)["y"]):
            np.testing.assert_allclose(found, whole[:, part], rtol=0, atol=2e-6)
    sequences = [{name: value[row] for name, value in inputs.items()} for row in (0, 1)]
    for row, found in enumerate(model.map(sequences)):
        np.testing.assert_allclose(found["y"], whole[row], rtol=0, atol=2e-6)
