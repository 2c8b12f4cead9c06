"""`make_streaming`: files from anywhere, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx import ConfigError, FileError, InputError, ModelError
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata
from lstm_onnx.onnxgraph import shape_of
from lstm_onnx.onnxgraph.write import set_metadata

H = 3


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(np.float32)


def conv_lstm(
    pads: tuple[int, int] = (2, 0), *, stride: int = 1, states: bool = False, batch: str = "batch", time: Any = "time"
) -> ModelProto:
    """x (batch, 4, time) through a convolution and an LSTM, to y (time, 1, batch, 3)."""
    shape = [batch, 4, time]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    starts: list[str] = []
    if states:
        starts = ["", "h", "c"]
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, batch, H]) for name in "hc"]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, batch, H]) for name in ("hn", "cn")]
    nodes = [
        helper.make_node(
            "Conv", ["x", "K"], ["k"], name="enc.conv/Conv", kernel_shape=[3], pads=list(pads), strides=[stride]
        ),
        helper.make_node("Transpose", ["k"], ["t"], perm=[2, 0, 1]),
        helper.make_node(
            "LSTM", ["t", "W", "R", "B", *starts], ["y", "hn", "cn"] if states else ["y"], name="lstm/LSTM",
            hidden_size=H,
        ),
    ]  # fmt: skip
    stored = {"K": weights(5, 4, 3), "W": weights(1, 12, 5), "R": weights(1, 12, H), "B": weights(1, 24)}
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in stored.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if states:
        helper.set_model_props(model, {"lstm_onnx.states": '{"h": "hn", "c": "cn"}'})
    return model


def saved(model: ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def in_chunks(model: lstm_onnx.Model, x: np.ndarray, cut: tuple[int, ...], axis: int = 2) -> np.ndarray:
    stream = model.stream(batch=len(x))
    ends = np.cumsum(cut)
    parts = [stream(np.take(x, range(end - size, end), axis)) for end, size in zip(ends, cut, strict=True)]
    return np.concatenate([*parts, stream.flush()], 0)


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(("pads", "stride", "delay"), [((2, 0), 1, 0), ((1, 1), 1, 1), ((1, 1), 2, 1), ((0, 0), 3, 0)])
def test_a_file_from_elsewhere(pads: tuple[int, int], stride: int, delay: int, states: bool, tmp_path: Path) -> None:
    source = saved(conv_lstm(pads, stride=stride, states=states), tmp_path / "m.onnx")
    result = lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, max_delay=1)
    assert (result.streaming.delay, result.streaming.hop) == (delay, stride)
    assert result.proof.cuts >= 6
    assert "enc.conv.cache" in result.streaming.caches
    assert set(result.states) == {*result.streaming.caches, *({"h", "c"} if states else ())}
    assert result.to_dict()["streaming"]["delay"] == delay
    assert f"delay: {delay} step" in str(result)
    x = weights(2, 4, 40, seed=1)
    with lstm_onnx.load(source, "cpu") as whole, lstm_onnx.load(tmp_path / "s.onnx", "cpu") as model:
        expected = whole.run({"x": x})["y"]
        np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=0, atol=1e-6)
        for cut in ((1,) * 40, (40,), (0, 7, 0, 13, 20)):
            np.testing.assert_allclose(in_chunks(model, x, cut), expected, rtol=0, atol=1e-6)


def test_other_axis_names_and_weights_beside_the_file(tmp_path: Path) -> None:
    model = conv_lstm((1, 1), batch="N", time="frames")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    result = lstm_onnx.make_streaming(tmp_path / "m.onnx", tmp_path / "s.onnx", time={"x": -1}, max_delay=9)
    assert result.streaming.time == {"x": 2}
    with lstm_onnx.load(tmp_path / "s.onnx", "cpu") as model:
        assert model.inputs["enc.conv.cache"].shape == ("N", 4, 2)
        assert model.pool(slots=3).slots == 3
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"its weights in w\.bin cannot be read: the file is missing"):
        lstm_onnx.make_streaming(tmp_path / "m.onnx", tmp_path / "t.onnx", time={"x": 2})
    assert not (tmp_path / "t.onnx").exists()


def test_the_default_axis_is_called_time(tmp_path: Path) -> None:
    source = saved(conv_lstm(), tmp_path / "m.onnx")
    assert lstm_onnx.make_streaming(source, tmp_path / "s.onnx").streaming.time == {"x": 2}
    source = saved(conv_lstm(time="T"), tmp_path / "m.onnx")
    with pytest.raises(
        ConfigError, match=r'it is not known which axis is time; pass time, such as {"x": 1} \(--time x=1\)'
    ):
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time": {"y": 1}}, "'y' is not an input; its inputs are x"),
        ({"time": {"x": 3}}, "3 is not an axis of x, which has 3"),
        ({"time": {"x": True}}, "True is not an axis of x"),
        ({"time": {}}, "it must map inputs to axes"),
        ({"time": "x"}, "it must map inputs to axes"),
        ({"max_delay": -1}, "max_delay = -1 is not possible"),
        ({"max_delay": 1.5}, "max_delay = 1.5 is not possible"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = saved(conv_lstm(), tmp_path / "m.onnx")
    with pytest.raises(ConfigError) as caught:
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx", **arguments)
    assert message in str(caught.value)
    assert not (tmp_path / "s.onnx").exists()


def test_what_is_not_possible(tmp_path: Path) -> None:
    source = saved(conv_lstm((1, 1)), tmp_path / "m.onnx")
    with pytest.raises(
        ModelError, match=r"needs 1 step of look-ahead \(enc\.conv/Conv\); max_delay=1 \(--max-delay 1\) accepts"
    ):
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2})
    with pytest.raises(FileError, match=r"m\.onnx: is read as well"):
        lstm_onnx.make_streaming(source, source, time={"x": 2}, max_delay=1)
    with pytest.raises(FileError):
        lstm_onnx.make_streaming(tmp_path / "none.onnx", tmp_path / "s.onnx")
    lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, max_delay=1)
    with pytest.raises(ModelError, match="already takes chunks of any length"):
        lstm_onnx.make_streaming(tmp_path / "s.onnx", tmp_path / "t.onnx")
    fixed = saved(conv_lstm(time=30), tmp_path / "f.onnx")
    with pytest.raises(ModelError, match="always has 30 steps; export it with a dynamic time axis"):
        lstm_onnx.make_streaming(fixed, tmp_path / "t.onnx", time={"x": 2})


def test_states_that_a_file_of_another_tool_has(tmp_path: Path) -> None:
    """They are carried, and not asked for at each call; without metadata the recurrent node says which they are."""
    model = conv_lstm(states=True)
    del model.metadata_props[:]
    source = saved(model, tmp_path / "m.onnx")
    rng = np.random.default_rng(1)
    x, h, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 20), (1, 2, H), (1, 2, H)))
    with lstm_onnx.load(source, "cpu") as whole:
        expected = whole.run({"x": x, "h": h, "c": c})["y"]
    for states in (None, {"h": "hn", "c": "cn"}):
        result = lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, states=states)
        assert result.states == {"h": "hn", "c": "cn", "enc.conv.cache": "enc.conv.cache_next"}
        with lstm_onnx.load(tmp_path / "s.onnx", "cpu") as streaming:
            stream = streaming.stream(batch=2)
            stream.state = {**stream.state, "h": h, "c": c}
            parts = [stream(x[:, :, at : at + 3]) for at in range(0, 20, 3)]
            np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-6)
    for wrong, message in (
        ({"g": "hn"}, "'g' is not an input; its inputs are x, h, c"),
        ({"h": "y2"}, "'y2' is not an output; its outputs are y, hn, cn"),
        ({"h": "hn", "c": "hn"}, "names an output twice"),
        ("h", "it must map inputs to outputs"),
    ):
        with pytest.raises(ConfigError, match=message):
            lstm_onnx.make_streaming(source, tmp_path / "t.onnx", time={"x": 2}, states=wrong)  # type: ignore[arg-type]


def test_chunks_of_multiples_of_a_length(tmp_path: Path) -> None:
    source = saved(conv_lstm((2, 0), stride=3), tmp_path / "m.onnx")
    result = lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, chunk=6)
    assert (result.streaming.chunk, result.streaming.hop, result.streaming.steps) == (6, 3, None)
    assert "chunks: multiples of 6 steps" in str(result)
    x = weights(2, 4, 36, seed=1)
    with lstm_onnx.load(source, "cpu") as whole, lstm_onnx.load(tmp_path / "s.onnx", "cpu") as model:
        expected = whole.run({"x": x})["y"]
        np.testing.assert_allclose(model.run({"x": x})["y"], expected, rtol=0, atol=1e-6)
        for cut in ((6,) * 6, (36,), (0, 6, 0, 12, 18)):
            np.testing.assert_allclose(in_chunks(model, x, cut), expected, rtol=0, atol=1e-6)
        stream, pool = model.stream(batch=2), model.pool(slots=2)
        state, slot = stream.state, pool.open()
        for step in (lambda: stream(x[:, :, :7]), lambda: pool.step([slot], x[:1, :, :7])):
            with pytest.raises(InputError, match="x has 7 steps, but the file takes multiples of 6; collect that many"):
                step()
        assert all((stream.state[name] == array).all() for name, array in state.items())
    for chunk, message in ((4, "chunks of 4 steps do not all give"), (0, "chunk = 0 is not possible")):
        with pytest.raises((ModelError, ConfigError), match=message):
            lstm_onnx.make_streaming(source, tmp_path / "t.onnx", time={"x": 2}, chunk=chunk)
    late = saved(conv_lstm((1, 1)), tmp_path / "l.onnx")
    with pytest.raises(
        ModelError, match=r"its first or last chunk gives another number of steps.*chunks of any length"
    ):
        lstm_onnx.make_streaming(late, tmp_path / "t.onnx", time={"x": 2}, max_delay=1, chunk=6)
    assert not (tmp_path / "t.onnx").exists()


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a rule of the pass were wrong: the comparison sees it."""
    from lstm_onnx.streaming.rewrite import graph

    own = graph.Graph.feed
    monkeypatch.setattr(graph.Graph, "feed", lambda self, state, _value: own(self, state, state.name))
    source = saved(conv_lstm(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"the streaming file differs from it: \d+ steps in chunks of 1\+1\+1"):
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()


@pytest.mark.parametrize(("name", "place"), [("scaled", r"scaled \(Mul\)"), ("", r"g \(Mul\)")])
def test_states_that_a_module_carries_otherwise_are_refused(name: str, place: str, tmp_path: Path) -> None:
    model = conv_lstm(states=True)
    scaled = helper.make_node("Mul", ["h", "half"], ["g"], name=name)
    model.graph.node.insert(0, scaled)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    next(node for node in model.graph.node if node.op_type == "LSTM").input[5] = "g"
    with pytest.raises(ModelError, match=f": {place} computes with the state h, which the module carries itself"):
        lstm_onnx.make_streaming(saved(model, tmp_path / "m.onnx"), tmp_path / "s.onnx")


def test_a_recurrent_file_without_metadata_gets_its_states_written(tmp_path: Path) -> None:
    """It needs no cache, and its states were known to nobody."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 4])]
    inputs += [helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "batch", H])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "hn")]
    node = helper.make_node("GRU", ["x", "W", "R", "B", "", "h"], ["y", "hn"], name="gru", hidden_size=H)
    stored = {"W": weights(1, 9, 4), "R": weights(1, 9, H), "B": weights(1, 18)}
    arrays = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph([node], "g", inputs, outputs, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source = saved(model, tmp_path / "m.onnx")
    result = lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 0})
    assert (result.states, result.streaming.caches) == ({"h": "hn"}, ())
    x = weights(20, 2, 4, seed=3)
    with lstm_onnx.load(source, "cpu") as whole, lstm_onnx.load(tmp_path / "s.onnx", "cpu") as streaming:
        expected = whole.run({"x": x, "h": np.zeros((1, 2, H), np.float32)})["y"]
        stream = streaming.stream(batch=2)
        parts = [stream(x[:1]), stream(x[1:13]), stream(x[13:]), stream.flush()]
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-6)


def test_a_file_whose_steps_do_not_meet_is_refused_with_what_runs_it(tmp_path: Path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", "time", H)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weights(H, H), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"needs no states: .*load\(\.\.\.\)\.run runs it on each chunk"):
        lstm_onnx.make_streaming(tmp_path / "m.onnx", tmp_path / "s.onnx", time={"x": 1})


def test_a_squeeze_that_takes_the_only_step_of_a_chunk_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[2, 0]),
        helper.make_node("Squeeze", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, "time"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights(1, 4, 3), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    source = saved(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"in chunks of 1\+1.*: y has shape .* cannot be concatenated along axis 1"):
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, trial=False)


def test_a_file_that_takes_no_short_sequences_is_compared_on_longer_ones(tmp_path: Path) -> None:
    """Reflect padding needs more steps than it mirrors."""
    model = conv_lstm((0, 0))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 40]), "pads"))
    model.graph.node.insert(0, helper.make_node("Pad", ["x", "pads"], ["padded"], mode="reflect"))
    model.graph.node[1].input[0] = "padded"
    source = saved(model, tmp_path / "m.onnx")
    result = lstm_onnx.make_streaming(source, tmp_path / "s.onnx", time={"x": 2}, max_delay=40, trial=False)
    assert result.streaming.least == 41
    assert not result.proof.not_run
    assert min(result.proof.steps) >= 41


def recurrent(*dims: str, direction: str = "forward") -> ModelProto:
    """x + z, and an RNN along the first of their two dynamic axes; if it is bidirectional, x is divided by its size."""
    directions = 1 + (direction == "bidirectional")
    size = "x" if direction == "bidirectional" else "first"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{dims[0]}, {dims[1]}, 4] x, float[{dims[0]}, {dims[1]}, 4] z) => (float[a, b, c, d] y)
        <int64[1] first = {{0}}> {{
            [scale] size = Shape <start = 0, end = 1> ({size})
            number = Cast <to = 1> (size)
            scaled = Div (x, number)
            sum = Add (scaled, z)
            [rnn] y = RNN <hidden_size = 2, direction = "{direction}"> (sum, W, R)
        }}"""
    )
    stored = {"W": weights(directions, 2, 4), "R": weights(directions, 2, 2)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    return model


def with_interface(model: ModelProto) -> ModelProto:
    """The model as if this package had exported it."""
    inputs = [InputSpec(value.name, shape_of(value.type) or ()) for value in model.graph.input]
    set_metadata(model, Metadata(inputs=tuple(inputs)))
    return model


def test_time_is_the_axis_along_which_recurrent_nodes_run(tmp_path: Path) -> None:
    model = with_interface(recurrent("x_0", "x_1"))
    result = lstm_onnx.make_streaming(saved(model, tmp_path / "m.onnx"), tmp_path / "s.onnx")
    assert result.streaming.time == {"x": 0, "z": 0}


def test_two_axes_along_which_recurrent_nodes_run_are_not_chosen_from(tmp_path: Path) -> None:
    model = recurrent("x_0", "x_1")
    other = onnx.parser.parse_node("[other] last = RNN <hidden_size = 2> (turned, W, R)")
    model.graph.node.extend([helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]), other])
    model.graph.output.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, [None] * 4))
    with pytest.raises(ConfigError, match="it is not known which axis is time"):
        lstm_onnx.make_streaming(saved(with_interface(model), tmp_path / "m.onnx"), tmp_path / "s.onnx")


def test_a_reverse_direction_is_named_before_what_comes_earlier(tmp_path: Path) -> None:
    source = saved(recurrent("time", "batch", direction="bidirectional"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"cannot be streamed: rnn \(RNN\) is bidirectional"):
        lstm_onnx.make_streaming(source, tmp_path / "s.onnx")
