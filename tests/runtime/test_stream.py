"""Streams: any chunking gives what the whole sequence gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_onnx.checksum import KEY, UNKNOWN, with_checksum
from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.chunks import run_chunks
from lstm_onnx.runtime.stream import Stream
from lstm_onnx.spec import ExportOptions

from .models import Unreachable, accumulator, exported, model_of, randoms

TIME, FEATURES = 12, 4
SIZES = {
    "plain": {},
    "batch_first_stack": {"batch_first": True, "num_layers": 2},
    "scan": {"proj_size": 2, "num_layers": 2},
    "fold": {"proj_size": 2},
    "lengths": {"batch_first": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("streams")
    opened = {}
    for name, sizes in SIZES.items():
        options = ExportOptions(lengths=name == "lengths", projection="fold" if name == "fold" else "scan")
        exported(folder / f"{name}.onnx", options=options, **sizes)
        opened[name] = load(folder / f"{name}.onnx", "cpu")
    return opened


def sequences(model: Model, batch: int, time: int = TIME, seed: int = 1) -> np.ndarray:
    assert model.spec is not None
    return randoms(*model.spec.sequence_shape(batch, time, FEATURES), seed=seed)


def chunks(x: np.ndarray, cuts: list[int], axis: int) -> list[np.ndarray]:
    return np.split(x, sorted(cuts), axis)


@pytest.mark.parametrize("name", SIZES)
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, TIME - 1)), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_any_chunking_gives_the_whole(models: dict[str, Model], name: str, cuts: set[int], batch: int, seed: int):
    model = models[name]
    axis = 1 if model.spec.batch_first else 0
    x = sequences(model, batch, seed=seed)
    output, (hn, cn) = model(x)
    stream = model.stream(batch)
    parts = [stream(chunk) for chunk in chunks(x, list(cuts), axis)]
    assert len(parts) == len(cuts) + 1
    np.testing.assert_allclose(np.concatenate(parts, axis), output, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stream.state["h0"], hn, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stream.state["c0"], cn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "batch_first_stack"])
def test_chunks_of_one_sequence_have_no_batch_axis(models: dict[str, Model], name: str):
    x = randoms(TIME, FEATURES)
    stream = models[name].stream()
    parts = [stream(chunk) for chunk in np.split(x, [1, 5, 6])]
    np.testing.assert_allclose(np.concatenate(parts), models[name](x)[0], rtol=0, atol=1e-6)


def test_torch_chunks_give_torch_outputs(models: dict[str, Model]):
    model = models["plain"]
    x = sequences(model, 2)
    stream = model.stream(2)
    parts = [stream(chunk) for chunk in torch.tensor(x).split(5)]
    assert [type(part) for part in parts] == [torch.Tensor] * 3
    np.testing.assert_allclose(torch.cat(parts).numpy(), model(x)[0], rtol=0, atol=1e-6)
    single = model.stream()
    assert isinstance(single(torch.tensor(x[:, 0])), torch.Tensor)
    named = model.stream(2).run({"input": torch.tensor(x)})
    assert list(named) == ["output"]
    assert isinstance(named["output"], torch.Tensor)


def test_the_state_is_a_copy_and_comes_back_bit_for_bit(models: dict[str, Model]):
    model = models["plain"]
    x = sequences(model, 2)
    stream = model.stream(2)
    stream(x[:5])
    kept = stream.state
    first = stream(x[5:])
    assert not np.array_equal(stream.state["h0"], kept["h0"])
    stream.state = kept
    np.testing.assert_array_equal(stream.state["h0"], kept["h0"])
    np.testing.assert_array_equal(stream.state["c0"], kept["c0"])
    np.testing.assert_array_equal(stream(x[5:]), first)
    # Neither what was read nor what was set is the stream's own memory.
    stream.state = kept
    before = stream.state
    kept["h0"][:] = 7
    stream.state["c0"][:] = 7
    np.testing.assert_array_equal(stream.state["h0"], before["h0"])
    np.testing.assert_array_equal(stream.state["c0"], before["c0"])


def test_a_state_moves_from_stream_to_stream_and_from_torch(models: dict[str, Model]):
    model = models["scan"]
    x = sequences(model, 1)
    one, other = model.stream(), model.stream()
    one(x[:4])
    other.state = {name: torch.tensor(array) for name, array in one.state.items()}
    np.testing.assert_array_equal(other(x[4:]), one(x[4:]))


def test_reset_starts_over(models: dict[str, Model]):
    model = models["plain"]
    x = sequences(model, 1)
    stream = model.stream()
    assert [array.any() for array in stream.state.values()] == [False, False]
    first = stream(x)
    again = stream(x)
    assert not np.array_equal(first, again)
    assert [array.any() for array in stream.state.values()] == [True, True]
    stream.reset()
    assert [array.any() for array in stream.state.values()] == [False, False]
    np.testing.assert_array_equal(stream(x), first)


def test_two_streams_of_one_model_do_not_mix(models: dict[str, Model]):
    model = models["plain"]
    x, y = sequences(model, 1, seed=1), sequences(model, 1, seed=2)
    one, other = model.stream(), model.stream()
    parts = [(one(x[i : i + 3]), other(y[i : i + 3])) for i in range(0, TIME, 3)]
    np.testing.assert_allclose(np.concatenate([a for a, _ in parts]), model(x)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([b for _, b in parts]), model(y)[0], rtol=0, atol=1e-6)


# --- refusals -----------------------------------------------------------------------------------


def test_bidirectional_refuses_and_says_why(tmp_path: Path):
    model = model_of(tmp_path, bidirectional=True)
    with pytest.raises(InputError, match=r"model\.onnx: is bidirectional: its reverse direction starts at the .* end"):
        model.stream()


@pytest.mark.parametrize("batch", [0, -1, 1.0, True, "2", None])
def test_a_batch_is_a_positive_integer(models: dict[str, Model], batch: Any):
    with pytest.raises(InputError, match=r"^batch = .* must be a positive integer"):
        models["plain"].stream(batch)


def wrong_size(stream: Stream) -> None:
    stream(np.zeros((3, 2, 5), np.float32))


def wrong_batch(stream: Stream) -> None:
    stream(np.zeros((3, 4, FEATURES), np.float32))


def no_steps(stream: Stream) -> None:
    stream(np.zeros((0, 2, FEATURES), np.float32))


def wrong_dtype(stream: Stream) -> None:
    stream(np.zeros((3, 2, FEATURES)))


def one_sequence(stream: Stream) -> None:
    stream(np.zeros((3, FEATURES), np.float32))


def unknown_name(stream: Stream) -> None:
    stream.run({"input": np.zeros((3, 2, FEATURES), np.float32), "gate": 1})


def state_by_name(stream: Stream) -> None:
    stream.run({"input": np.zeros((3, 2, FEATURES), np.float32), "h0": stream.state["h0"]})


def half_a_state(stream: Stream) -> None:
    stream.state = {"h0": stream.state["h0"] + 1}


def state_of_another_batch(stream: Stream) -> None:
    stream.state = {name: array[:, :1] + 1 for name, array in stream.state.items()}


def state_of_another_dtype(stream: Stream) -> None:
    stream.state = {name: array.astype(np.float64) for name, array in stream.state.items()}


def state_of_another_name(stream: Stream) -> None:
    stream.state = {**stream.state, "hn": stream.state["h0"]}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (wrong_size, r"^input has shape \(3, 2, 5\); axis 2 must be 4"),
        (
            wrong_batch,
            r"^input has shape \(3, 4, 4\), which is 4 sequences, .* carries 2; open it with stream\(batch=4\)",
        ),
        (no_steps, "^input has shape .* the axis time is empty"),
        (wrong_dtype, "^input has dtype float64"),
        (one_sequence, r"^input has shape \(3, 4\); the model takes 3 axes"),
        (unknown_name, "^gate is not an input of the model"),
        (state_by_name, "^h0 is a state, which the stream carries itself; set stream.state"),
        (half_a_state, "^missing input: c0"),
        (state_of_another_batch, r"^c0 has shape \(1, 1, 5\); this stream's is \(1, 2, 5\)"),
        (state_of_another_dtype, "^c0 has dtype float64"),
        (state_of_another_name, "^hn is not an input"),
    ],
)
def test_what_does_not_fit_leaves_the_state_as_it_was(
    models: dict[str, Model], act: Callable[[Stream], None], message: str
):
    stream = models["plain"].stream(2)
    stream(sequences(stream.model, 2))
    before = stream.state
    with pytest.raises(InputError, match=message):
        act(stream)
    after = stream.state
    assert list(after) == list(before)
    for name, array in before.items():
        assert array.any()
        np.testing.assert_array_equal(after[name], array)


def test_a_failure_of_onnx_runtime_leaves_the_state_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = model_of(tmp_path)
    stream = model.stream()
    x = randoms(3, FEATURES)
    stream(x)
    before = stream.state

    class Failing(Unreachable):
        def run(self, *_: Any) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of luck\nand more")

    monkeypatch.setattr(model, "session", Failing())
    with pytest.raises(RunError, match=r"failed while running: out of luck$"):
        stream(x)
    np.testing.assert_array_equal(stream.state["h0"], before["h0"])
    np.testing.assert_array_equal(stream.state["c0"], before["c0"])


# --- models from elsewhere ----------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["batch", "N", None])
def test_third_party_states_whatever_their_batch_is_called(tmp_path: Path, axis: str | None):
    model = load(accumulator(tmp_path / "a.onnx", axis=axis), "cpu", states={"state": "stateN"})
    stream = model.stream(batch=2)
    total = np.zeros((2, 3), np.float32)
    for step in range(4):
        x = randoms(2, 3, seed=step)
        total += 2 * x
        found = stream.run({"x": x, "scale": 2})
        assert list(found) == ["y"]
        np.testing.assert_allclose(found["y"], total, rtol=0, atol=1e-6)
        np.testing.assert_allclose(stream.state["state"], total, rtol=0, atol=1e-6)
    stream.state = {"state": np.ones((2, 3), np.float32)}
    np.testing.assert_array_equal(stream.run({"x": np.zeros((2, 3), np.float32), "scale": 1})["y"], np.ones((2, 3)))
    with pytest.raises(InputError, match=r"a\.onnx: has the inputs x, scale; call stream\.run"):
        stream(np.zeros((2, 3), np.float32))


def test_without_states_there_is_nothing_to_carry(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx"), "cpu")
    with pytest.raises(InputError, match=r"a\.onnx: has no states to carry .* load\(..., states=...\)"):
        model.stream()


def test_a_state_with_two_open_axes_has_no_size(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    open_twice = type(model.inputs["state"])("state", np.dtype(np.float32), ("batch", "time"))
    model.inputs["state"] = open_twice
    with pytest.raises(InputError, match=r"state float32 \(batch, time\) cannot start as zeros: only one of its axes"):
        model.stream()


def test_one_output_may_feed_two_states(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "y", "x": "y"})
    stream = model.stream(batch=1)
    stream.state = {"state": np.ones((1, 3), np.float32), "x": np.ones((1, 3), np.float32)}
    assert list(stream.run({"scale": 2})) == ["stateN"]
    assert stream.state["state"].tolist() == stream.state["x"].tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("wrong", ["twice as wide", "one of two layers"])
def test_a_state_output_of_another_shape_is_refused_and_never_broadcast(wrong: str, tmp_path: Path):
    path = tmp_path / "m.onnx"
    exported(path, num_layers=2)
    proto = onnx.load(path)
    for node in proto.graph.node:
        for at, name in enumerate(node.output):
            if name == "hn":
                node.output[at] = "whole"
    if wrong == "twice as wide":
        last = onnx.helper.make_node("Concat", ["whole", "whole"], ["hn"], axis=2)
    else:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
        last = onnx.helper.make_node("Gather", ["whole", "first"], ["hn"], axis=0)
    proto.graph.node.append(last)
    next(item for item in proto.graph.output if item.name == "hn").type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    stream = load(path, "cpu").stream()
    before = stream.state
    for _ in range(3):
        with pytest.raises(
            RunError, match=r"its output hn is float32 \(.*\), but the state h0 that it feeds is float32 \(2, 1, 5\)"
        ):
            stream(randoms(1, 1, 4))
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_chunks_whose_outputs_have_other_axes_are_refused(tmp_path: Path):
    path = tmp_path / "m.onnx"
    exported(path)
    proto = onnx.load(path)
    for node in proto.graph.node:
        for at, name in enumerate(node.output):
            if name == "output":
                node.output[at] = "whole"
    axes = onnx.numpy_helper.from_array(np.array([0, 1, 2]), "axes")
    proto.graph.initializer.append(axes)
    proto.graph.node.append(onnx.helper.make_node("ReduceSum", ["whole", "axes"], ["output"], keepdims=0))
    next(item for item in proto.graph.output if item.name == "output").type.tensor_type.ClearField("shape")
    # With a checksum of its own, or it is compared first.
    next(item for item in proto.metadata_props if item.key == KEY).value = UNKNOWN
    path.write_bytes(with_checksum(proto.SerializeToString()))
    with pytest.raises(RunError, match=r"output has shape \(\), so these chunks cannot be concatenated along axis 0"):
        run_chunks(load(path, "cpu"), {"input": randoms(4, 1, 4)}, 2)


def _summing(path: Path, outputs: dict[str, str]) -> Model:
    """``s + x`` and, as y, twice that; `outputs` are the graph's, each with the state that it feeds, or ""."""
    nodes = [onnx.helper.make_node("Add", ["s", "x"], ["sN"]), onnx.helper.make_node("Add", ["sN", "sN"], ["y"])]
    states = [name for name in ("s", "t") if name == "s" or "t" in outputs.values()]
    if "t" in states:  # a second state, fed by the same output as the first
        nodes[1] = onnx.helper.make_node("Sub", ["sN", "t"], ["y"])
    infos = {name: onnx.helper.make_tensor_value_info(name, 1, ["batch", 1]) for name in ("x", "s", "t", "sN", "y")}
    graph = onnx.helper.make_graph(
        nodes, "g", [infos[name] for name in ("x", *states)], [infos[name] for name in outputs]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return load(path, "cpu", states=dict.fromkeys(states, "sN"))


@pytest.mark.parametrize("call", ["run", "__call__"])
def test_a_cell_whose_only_output_is_its_state_goes_on_once_it_is_bound(call: str, tmp_path: Path) -> None:
    stream = _summing(tmp_path / "m.onnx", {"sN": "s"}).stream()
    x = np.ones((1, 1), np.float32)
    results = [stream.run({"x": x}) if call == "run" else stream(x) for _ in range(6)]
    assert [float(result["sN"].item()) for result in results] == [1, 2, 3, 4, 5, 6]


def test_an_output_that_feeds_two_states_reaches_both(tmp_path: Path) -> None:
    model = _summing(tmp_path / "m.onnx", {"sN": "t", "y": ""})
    assert not model.states_can_be_bound
    stream = model.stream(check=False)
    x = np.ones((1, 1), np.float32)
    results = [stream(x) for _ in range(6)]
    assert all(type(result) is np.ndarray for result in results)
    assert [float(result.item()) for result in results] == [1.0] * 6  # s + 1 - t, where s and t are one
    assert {name: float(array.item()) for name, array in stream.state.items()} == {"s": 6.0, "t": 6.0}
