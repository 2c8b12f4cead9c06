"""Files of whole modules: what absent states start from, and streams of one and of several inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.errors import InputError, ModelError, ProviderError, RunError
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.chunks import run_chunks
from tests.module_files import module_file, with_initial, with_metadata

from .models import accumulator, exported, model_of, randoms

SHAPE = (2, 1, 8)


def opened(name: str, states: str = "zero") -> Model:
    return load(module_file(name, states), "cpu")


@pytest.fixture(scope="module")
def start() -> dict[str, np.ndarray]:
    """One row for every sequence, as a learned start is kept."""
    return {"lstm.h0": randoms(*SHAPE, seed=3), "lstm.c0": randoms(*SHAPE, seed=4)}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, start: dict[str, np.ndarray]) -> Model:
    path = tmp_path_factory.mktemp("learned") / "m.onnx"
    return load(with_initial(path, module_file("learned_start", "explicit"), start), "cpu")


@pytest.mark.parametrize("batch", [1, 3])
def test_absent_states_start_from_what_the_file_says(learned: Model, start: dict[str, np.ndarray], batch: int) -> None:
    x = randoms(batch, 5, 3)
    given = {name: np.repeat(array, batch, axis=1) for name, array in start.items()}
    expected = learned.run({"x": x, **given})
    found = learned.run({"x": x})
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    one = learned.run({"x": x, "lstm.h0": given["lstm.h0"]})
    np.testing.assert_array_equal(one["output"], expected["output"])
    zeros = learned.run({"x": x, **{name: np.zeros_like(array) for name, array in given.items()}})
    assert np.abs(zeros["output"] - expected["output"]).max() > 1e-3


def test_a_stream_starts_there_and_goes_back_there(learned: Model, start: dict[str, np.ndarray]) -> None:
    x = randoms(2, 6, 3)
    whole = learned.run({"x": x})
    stream = learned.stream(batch=2)
    assert {name: state.shape for name, state in stream.state.items()} == dict.fromkeys(start, (2, 2, 8))
    for _ in range(2):
        chunks = [stream(x[:, :1]), stream(x[:, 1:4]), stream(x[:, 4:])]
        np.testing.assert_allclose(np.concatenate(chunks, axis=1), whole["output"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(stream.state["lstm.h0"], whole["lstm.hn"], rtol=0, atol=1e-6)
        stream.reset()
        for name, array in start.items():
            np.testing.assert_array_equal(stream.state[name], np.repeat(array, 2, axis=1))


def test_a_bare_lstm_starts_there_too(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    h0 = randoms(1, 1, 5)
    model = load(with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", {"h0": h0}), "cpu")
    x = randoms(4, 3, 4)
    expected, _ = model(x, (np.repeat(h0, 3, axis=1), np.zeros((1, 3, 5), np.float32)))
    np.testing.assert_array_equal(model(x)[0], expected)
    np.testing.assert_array_equal(model(x[:, 0])[0], expected[:, 0])
    np.testing.assert_allclose(model.stream(3)(x), expected, rtol=0, atol=1e-6)


def test_a_start_for_another_batch_says_to_pass_the_state(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    model = load(with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", {"c0": randoms(1, 2, 5)}), "cpu")
    assert model.run({"input": randoms(4, 2, 4)})["output"].shape == (4, 2, 5)
    said = r"initial state for c0 has batch = 2, but batch is 3 here; pass the state c0 float32"
    with pytest.raises(InputError, match=said):
        model.run({"input": randoms(4, 3, 4)})
    with pytest.raises(InputError, match=said):
        model.stream(batch=3)
    model.run({"input": randoms(4, 3, 4), "c0": randoms(1, 3, 5)})


@pytest.mark.parametrize(
    "initial",
    [
        {"nothing": np.ones((1, 1, 5), np.float32)},
        {"h0": np.ones((1, 1, 4), np.float32)},
        {"h0": np.ones((1, 5), np.float32)},
        {"h0": np.ones((1, 0, 5), np.float32)},
        {"h0": np.ones((1, 1, 5), np.int64)},
    ],
)
def test_a_start_that_fits_no_input_is_refused(tmp_path: Path, initial: dict[str, np.ndarray]) -> None:
    exported(tmp_path / "m.onnx")
    path = with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", initial)
    with pytest.raises(ModelError, match=r"i\.onnx: the metadata.* initial state for .* export the model again"):
        load(path, "cpu")


def test_a_start_of_halves(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", dtype="float16")
    h0 = randoms(1, 1, 5, dtype="float16")
    model = load(with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", {"h0": h0}), "cpu")
    stream = model.stream(batch=2)
    np.testing.assert_array_equal(stream.state["h0"], np.repeat(h0, 2, axis=1))
    assert stream(randoms(1, 2, 4, dtype="float16")).dtype == np.float16


def test_states_of_a_batch_that_is_always_one() -> None:
    model = opened("tutorial_tagger")
    tokens = np.array([3, 1, 4, 1, 5], np.int64)
    whole = model.run({"sentence": tokens})["output"]
    stream = model.stream()
    np.testing.assert_allclose(np.concatenate([stream(tokens[:2]), stream(tokens[2:])]), whole, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"cannot take a batch of 3: its states have fixed sizes \(hidden.c0"):
        model.stream(batch=3)


def test_a_state_whose_batch_is_a_multiple_of_the_inputs() -> None:
    model = opened("network_forecaster", "explicit")
    assert model.inputs["lstm.h0"].shape == (1, "4*batch", 8)
    x = randoms(3, 6, 4, 2)
    whole = model.run({"x": x})
    stream = model.stream(batch=3)
    assert stream.state["lstm.h0"].shape == whole["lstm.hn"].shape == (1, 12, 8)
    stream(x[:, :4])
    np.testing.assert_allclose(stream(x[:, 4:]), whole["output"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(run_chunks(model, {"x": x}, 2)["output"], whole["output"], rtol=0, atol=1e-6)
    for row, mapped in enumerate(model.map({"x": each} for each in x)):
        np.testing.assert_allclose(mapped["output"], whole["output"][row], rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"so 4\*batch is 8, but the other inputs make it 12"):
        model.run({"x": x, "lstm.h0": randoms(1, 8, 8)})


def test_a_state_whose_size_is_time_cannot_be_streamed(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx", axis="batch*time"), "cpu", states={"state": "stateN"})
    with pytest.raises(InputError, match=r"the state state float32 \(batch\*time, 3\) cannot start"):
        model.stream()


def test_several_outputs_come_as_a_dict_and_one_as_itself() -> None:
    policy = opened("policy")
    chunk = torch.from_numpy(randoms(1, 2, 5))
    out = policy.stream()(chunk)
    assert isinstance(out, torch.Tensor)
    assert out.shape == (1, 2, 3)
    third = opened("three_kinds", "explicit").stream(batch=2)
    assert third(randoms(2, 3, 4)).shape == (2, 3, 7)
    assert set(third.state) == {"readers.0.h0", "readers.0.c0", "readers.1.h0", "readers.2.h0"}


def test_a_module_of_several_inputs_streams_by_name() -> None:
    model = opened("exogenous_forecaster", "explicit")
    feeds = {"series": randoms(2, 6), "drivers": randoms(2, 6, 3)}
    whole = model.run(feeds)["output"]
    stream = model.stream(batch=2)
    parts = [stream.run({name: array[:, at] for name, array in feeds.items()}) for at in (slice(0, 4), slice(4, 6))]
    assert list(parts[0]) == ["output"]
    np.testing.assert_allclose(np.concatenate([part["output"] for part in parts], 1), whole, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"has the inputs series, drivers; call stream\.run"):
        stream(feeds["series"])
    with pytest.raises(InputError, match="run takes names to arrays"):
        stream.run(feeds["series"])  # type: ignore[arg-type]


def test_two_outputs_beside_the_states_come_as_a_dict(tmp_path: Path) -> None:
    path = accumulator(tmp_path / "a.onnx")
    model = load(path, "cpu", states={"state": "stateN", "scale": "stateN"})
    model.states = {"state": "stateN"}
    model.inputs.pop("scale")
    model.outputs["more"] = model.outputs["y"]
    stream = model.stream()
    stream.run = lambda feeds: {"y": 1, "more": feeds["x"]}  # type: ignore[method-assign]
    assert stream(2) == {"y": 1, "more": 2}


def test_where_every_output_is_a_state_all_are_given(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN", "x": "y"})
    stream = model.stream()
    stream.state = {"state": np.ones((1, 3), np.float32), "x": np.ones((1, 3), np.float32)}
    found = stream(np.array(2, np.int64))
    assert set(found) == {"y", "stateN"}
    found["y"][:] = 99
    assert stream.state["x"].tolist() == [[3, 3, 3]]


def test_whole_sequences_only(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "m.onnx", module_file("policy"), not_streamable="l is bidirectional")
    with pytest.raises(InputError, match=r"m\.onnx: cannot be streamed: l is bidirectional; run whole sequences"):
        load(path, "cpu").stream()


def test_a_stream_of_the_wrong_batch_is_named() -> None:
    stream = opened("policy").stream(batch=3)
    with pytest.raises(InputError, match=r"this stream carries 3; open it with stream\(batch=2\)"):
        stream(randoms(2, 1, 5))


def double(path: Path, *, surface: int = TensorProto.DOUBLE, op_type: str = "GRU", inside: int = 11) -> Path:
    """An operator that computes in float64 (or in `inside`) between casts."""
    dtype = helper.tensor_dtype_to_np_dtype(inside)
    weights = [numpy_helper.from_array(np.ones((1, rows, 2), dtype), name) for name, rows in (("W", 6), ("R", 6))]
    nodes = [
        helper.make_node("Cast", ["x"], ["xd"], to=inside),
        helper.make_node(op_type, ["xd", "W", "R"], ["", "hd"], hidden_size=2),
        helper.make_node("Cast", ["hd"], ["h"], to=surface),
    ]
    ends = [helper.make_tensor_value_info(name, surface, shape) for name, shape in (("x", ["t", "b", 2]), ("h", None))]
    graph = helper.make_graph(nodes, "double", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_float64_of_a_module_is_refused_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"d\.onnx: is float64, and .* no LSTM or GRU operator for it; .* float32"):
        load(double(tmp_path / "d.onnx"), "cpu")


def test_float64_around_a_float32_operator_runs(tmp_path: Path) -> None:
    model = load(double(tmp_path / "d.onnx", inside=TensorProto.FLOAT), "cpu")
    assert model.run({"x": np.ones((2, 3, 2))})["h"].shape == (1, 3, 2)


def test_float64_that_does_not_show_is_named_when_it_runs(tmp_path: Path) -> None:
    model = load(double(tmp_path / "d.onnx", surface=TensorProto.FLOAT), "cpu")
    with pytest.raises(RunError, match=r"d\.onnx: is float64, and ONNX Runtime's CPU provider has no LSTM or GRU"):
        model.run({"x": randoms(2, 3, 2)})


def test_an_operator_without_a_kernel_says_which_dtype_helps(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"RNN.*lacks it in this dtype or version: export it as float32"):
        load(double(tmp_path / "d.onnx", op_type="RNN"), "cpu")


@pytest.mark.parametrize("steps", [1, 4, 100])
@pytest.mark.parametrize(("name", "states"), [("exogenous_forecaster", "explicit"), ("tutorial_tagger", "zero")])
def test_chunks_of_a_module_give_what_the_whole_gives(name: str, states: str, steps: int) -> None:
    model = opened(name, states)
    feeds = (
        {"sentence": np.arange(7)}
        if name == "tutorial_tagger"
        else {"series": randoms(2, 7), "drivers": randoms(2, 7, 3)}
    )
    first = next(iter(model.states))
    info = model.inputs[first]
    feeds[first] = randoms(*(dim if isinstance(dim, int) else 2 for dim in info.shape), seed=9)
    whole = model.run(feeds)
    found = run_chunks(model, feeds, steps)
    assert set(found) == set(whole)
    for key, array in whole.items():
        np.testing.assert_allclose(found[key], array, rtol=0, atol=1e-6)


def test_outputs_without_a_time_axis_are_the_last_chunks(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx", axis="batch"), "cpu", states={"state": "stateN"})
    model.inputs["x"] = type(model.inputs["x"])("x", np.dtype(np.float32), ("steps", 3))
    model.inputs["state"] = type(model.inputs["x"])("state", np.dtype(np.float32), (1, 3))
    model.outputs["y"] = type(model.inputs["x"])("y", np.dtype(np.float32), (1, 3))
    x = randoms(4, 3)
    found = run_chunks(model, {"x": x, "scale": np.array(1)}, 1)
    np.testing.assert_allclose(found["y"], x.sum(0, keepdims=True), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["stateN"], found["y"])


def named(model: Model, kind: str, name: str, *shape: int | str | None) -> None:
    infos = model.inputs if kind == "input" else model.outputs
    infos[name] = type(infos[name])(name, infos[name].dtype, shape)


def test_what_cannot_be_cut_into_chunks_says_why(tmp_path: Path) -> None:
    def fresh() -> Model:
        return load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})

    feeds = {"x": randoms(2, 3), "scale": np.array(1)}
    with pytest.raises(InputError, match="no axis of its inputs is dynamic but the batch"):
        run_chunks(fresh(), feeds, 1)
    model = fresh()
    named(model, "input", "x", "time", "words")
    with pytest.raises(InputError, match="its inputs have the axes time, words"):
        run_chunks(model, feeds, 1)
    model = fresh()
    named(model, "input", "x", "time", "time")
    with pytest.raises(InputError, match=r"x float32 \(time, time\) has the axis time twice"):
        run_chunks(model, feeds, 1)
    for shape in ((None, 3), ("time//2", 3), ("time", "time")):
        model = fresh()
        named(model, "input", "x", "time", 3)
        named(model, "output", "y", *shape)
        with pytest.raises(InputError, match=r"it is not known how to concatenate its output y .* along time"):
            run_chunks(model, feeds, 1)
    with pytest.raises(InputError, match="z is not an input"):
        run_chunks(fresh(), {"z": randoms(1)}, 1)


def test_lengths_of_a_module_keep_it_whole(tmp_path: Path) -> None:
    source = module_file("exogenous_forecaster", "explicit")
    lengths = InputSpec("lengths", ("batch",), "int64", 1, "time")
    model = load(
        with_metadata(tmp_path / "m.onnx", source, inputs=(*load(source, "cpu").metadata.inputs, lengths)), "cpu"
    )
    with pytest.raises(InputError, match=r"run in chunks: lengths counts along time, .* run the whole sequence"):
        run_chunks(model, {"series": randoms(1, 4), "drivers": randoms(1, 4, 3)}, 1)


def test_inputs_of_two_times_are_refused_before_they_are_cut() -> None:
    model = opened("exogenous_forecaster", "explicit")
    with pytest.raises(InputError, match="time is 6, but series has time = 4"):
        run_chunks(model, {"series": randoms(1, 4), "drivers": randoms(1, 6, 3)}, 2)


def test_chunks_of_a_bare_lstm_without_the_batch_axis(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    x = randoms(5, 4)
    output, (hn, cn) = model(x)
    found = run_chunks(model, {"input": x}, 2)
    for name, expected in (("output", output), ("hn", hn), ("cn", cn)):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="lengths cannot be combined with chunks"):
        run_chunks(model, {"input": x, "lengths": np.array([5])}, 2)
