"""Outputs without a time axis, before a chunk has been run since the state was set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import lstm_onnx
from lstm_onnx import InputError

from .models import exported

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
    lstm_onnx.make_streaming(stateless(tmp_path, operator), path, time={"x": 0}, trial=False)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    first = model.stream(batch=2)
    known = first.run({"x": x[:3]})["last_h"]
    np.testing.assert_array_equal(first.run({"x": x[:0]})["last_h"], known)
    second = model.stream(batch=2)
    second.state = first.state
    for ask in (lambda: second.run({"x": x[:0]}), second.flush):
        with pytest.raises(InputError, match="last_h is not known: no chunk has been run since the state was set"):
            ask()
    whole = lstm_onnx.load(tmp_path / "whole.onnx", provider="cpu", threads=1).run({"x": x})
    np.testing.assert_allclose(second.run({"x": x[3:]})["last_h"], whole["last_h"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(second.flush()["last_h"], whole["last_h"], rtol=0, atol=1e-6)


def test_the_first_step_is_not_looked_for_before_it(tmp_path: Path) -> None:
    """A state before the first step was taken for one of a sequence that has begun, whose first step was sought."""
    model = onnx.load(stateless(tmp_path, "RNN"))
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 1, 0, 0, 0]), "pads")
    model.graph.initializer.extend([pads, numpy_helper.from_array(np.array(0), "place")])
    model.graph.node[0].output[0] = "h"
    model.graph.node.append(helper.make_node("Cos", ["h"], ["steps"]))
    model.graph.node.append(helper.make_node("Pad", ["steps", "pads"], ["y"]))
    model.graph.node.append(helper.make_node("Gather", ["steps", "place"], ["first"], axis=0))
    model.graph.output.append(helper.make_tensor_value_info("first", onnx.TensorProto.FLOAT, [1, "batch", 4]))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "later"
    onnx.save(model, tmp_path / "whole.onnx")
    lstm_onnx.make_streaming(tmp_path / "whole.onnx", tmp_path / "s.onnx", time={"x": 0}, max_delay=1, trial=False)
    streaming = lstm_onnx.load(tmp_path / "s.onnx", provider="cpu", threads=1)
    x = np.random.default_rng(1).standard_normal((3, 2, 3)).astype(np.float32)
    stream = streaming.stream(batch=2)
    stream.state = stream.state
    parts = [stream.run({"x": x[:0]}), stream.run({"x": x}), stream.flush()]
    whole = streaming.run({"x": x})
    np.testing.assert_allclose(np.concatenate([part["y"] for part in parts]), whole["y"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts[-1]["first"], whole["first"], rtol=0, atol=1e-6)


def running(folder: Path, *, keeps_axis: bool) -> Path:
    """Sums so far of x, and the last of them, as a file that streams."""
    shapes = {"x": ["batch", "time", 3], "sums": ["batch", "time", 3], "total": ["batch", *[1] * keeps_axis, 3]}
    x, *outputs = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in shapes.items())
    places = [numpy_helper.from_array(np.array(value), name) for name, value in (("axis", 1), ("last", -1))]
    ends = [
        numpy_helper.from_array(np.array([value]), name) for name, value in (("from", -1), ("to", 2**62), ("at", 1))
    ]
    if keeps_axis:
        last = helper.make_node("Slice", ["sums", "from", "to", "at"], ["total"])
    else:
        last = helper.make_node("Gather", ["sums", "last"], ["total"], axis=1)
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["sums"]), last]
    graph = helper.make_graph(nodes, "g", [x], outputs, [*places, *ends])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "whole.onnx")
    lstm_onnx.make_streaming(folder / "whole.onnx", folder / "running.onnx", time={"x": 1}, trial=False)
    return folder / "running.onnx"


@pytest.mark.parametrize("keeps_axis", [False, True])
def test_there_is_no_last_step_of_none(keeps_axis: bool, tmp_path: Path) -> None:
    """ONNX Runtime fails to pick one, and of a slice it gives none."""
    model = lstm_onnx.load(running(tmp_path, keeps_axis=keeps_axis), provider="cpu", threads=1)
    first, second = model.stream(), model.stream()
    first.run({"x": np.ones((1, 2, 3), np.float32)})
    second.state = first.state
    for ask in (lambda: second.run({"x": np.ones((1, 0, 3), np.float32)}), second.flush):
        with pytest.raises(InputError, match="total is not known: no chunk has been run since the state was set"):
            ask()
    second.run({"x": np.ones((1, 1, 3), np.float32)})
    np.testing.assert_array_equal(second.flush()["total"].reshape(-1), [3, 3, 3])


def gained(folder: Path) -> Path:
    """A convolution that looks one step ahead, times `gain` (batch, 1, 1), as a file that streams."""
    shapes = {"x": ["batch", 1, "time"], "gain": ["batch", 1, 1], "y": ["batch", 1, "time"]}
    x, gain, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in shapes.items())
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1]), helper.make_node("Mul", ["c", "gain"], ["y"])]
    weight = numpy_helper.from_array(np.ones((1, 1, 3), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [x, gain], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "whole.onnx")
    lstm_onnx.make_streaming(folder / "whole.onnx", folder / "gained.onnx", time={"x": 2}, max_delay=1, trial=False)
    return folder / "gained.onnx"


def test_an_input_of_another_sequence_is_not_taken_for_the_own(tmp_path: Path) -> None:
    """flush needs `gain`, and after a state was set the last one was that of another sequence."""
    model = lstm_onnx.load(gained(tmp_path), provider="cpu", threads=1)
    steps, gains = np.ones((1, 1, 4), np.float32), [np.full((1, 1, 1), size, np.float32) for size in (2, 3)]
    first, second = model.stream(), model.stream()
    first.run({"x": steps, "gain": gains[0]})
    second.run({"x": steps, "gain": gains[1]})
    second.state = first.state
    with pytest.raises(InputError, match="gain is not known: no chunk has been run since the state was set; feed a"):
        second.flush()
    second.run({"x": steps[:, :, :0], "gain": gains[0]})
    np.testing.assert_array_equal(second.flush()["y"], [[[4]]])


def plain(folder: Path, outputs: tuple[str, ...]) -> lstm_onnx.Model:
    """A file without caches: y of each step under another name of its axis, and a score that is the last h."""
    model = onnx.load(stateless(folder, "RNN"))
    y, _ = model.graph.output
    y.type.tensor_type.shape.dim[0].dim_param = "longest"
    node, state = model.graph.node[0], [1, "batch", 4]
    node.input.extend(["", "", "h0"])
    node.output[1] = "hn"
    model.graph.node.append(helper.make_node("Identity", ["hn"], ["score"]))
    h0, *others = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, state) for name in ("h0", "hn", "score"))
    model.graph.input.append(h0)
    found = [value for value in (y, *others) if value.name in (*outputs, "hn")]
    del model.graph.output[:]
    model.graph.output.extend(found)
    onnx.save(model, folder / "plain.onnx")
    return lstm_onnx.load(folder / "plain.onnx", provider="cpu", threads=1, states={"h0": "hn"})


@pytest.mark.parametrize("chunks", [1, 2, 5])  # alone, bound, and by the shape that is bound
@pytest.mark.parametrize("outputs", [("score",), ("y", "score"), ()])
def test_flush_gives_what_the_last_chunk_gave_and_no_step(
    outputs: tuple[str, ...], chunks: int, tmp_path: Path
) -> None:
    model, rng = plain(tmp_path, outputs), np.random.default_rng(1)
    stream = model.stream(batch=2)
    for _ in range(chunks):
        last = stream(rng.standard_normal((3, 2, 3)).astype(np.float32))
    name = "score" if outputs else "hn"
    final = last if isinstance(last, np.ndarray) else last[name]
    known = final.copy()
    final[:] = 7  # the caller's own
    rest = stream.flush()
    if "y" in outputs:
        assert rest["y"].shape == (0, 1, 2, 4)
    np.testing.assert_array_equal(rest if isinstance(rest, np.ndarray) else rest[name], known)
    stream.state = {"h0": np.ones((1, 2, 4), np.float32)}
    if not outputs:
        np.testing.assert_array_equal(stream.flush()["hn"], 1)
        return
    with pytest.raises(InputError, match="score is not known: no chunk has been run since the state was set"):
        stream.flush()


@pytest.mark.parametrize("batch", [1, None])
def test_time_without_a_name_is_neither_the_batch_nor_known_at_the_end(batch: int | None, tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    for item in list(model.metadata_props):
        model.metadata_props.remove(item)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                fixed = batch if dim.dim_param == "batch" else None
                dim.Clear()
                if fixed is not None:
                    dim.dim_value = fixed
    onnx.save(model, tmp_path / "other.onnx")
    with lstm_onnx.load(tmp_path / "other.onnx", "cpu", states={"h0": "hn", "c0": "cn"}) as other:
        stream = other.stream(check=False)
        for steps in (1, 5):
            assert stream.run({"input": np.ones((steps, 1, 4), np.float32)})["output"].shape == (steps, 1, 5)
        assert stream.flush()["output"].shape == (0, 1, 5)
