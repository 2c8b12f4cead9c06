"""Bound buffers: the same numbers, fresh results, each thread's own; and models that are closed or pickled."""

from __future__ import annotations

import copy
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lstm_onnx
from lstm_onnx import FileError, InputError, ModelError, RunError
from lstm_onnx.runtime import bindings as binding_module
from lstm_onnx.runtime import stream as stream_module
from lstm_onnx.runtime.bindings import Binding, BindingCache, key_of, output_buffers
from lstm_onnx.runtime.tuning import MAX_CALL_BINDINGS

from .models import accumulator, exported, lookup, model_of, randoms


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bound") / "m.onnx"
    exported(path, hidden_size=3, num_layers=2)
    return path


@pytest.fixture
def model(path: Path) -> lstm_onnx.Model:
    return lstm_onnx.load(path, provider="cpu", threads=1)


def _feeds(rng: np.random.Generator, time: int = 5, batch: int = 2) -> dict[str, np.ndarray]:
    return {
        "input": rng.standard_normal((time, batch, 4)).astype(np.float32),
        "h0": rng.standard_normal((2, batch, 3)).astype(np.float32),
        "c0": rng.standard_normal((2, batch, 3)).astype(np.float32),
    }


def _plain(model: lstm_onnx.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(model.outputs, model.session.run(list(model.outputs), feeds), strict=True))


def test_a_binding_runs_into_its_arrays(model: lstm_onnx.Model) -> None:
    feeds = _feeds(np.random.default_rng(0))
    outputs = output_buffers(model.inputs, model.outputs, feeds)
    assert outputs is not None
    binding = Binding(model.session, model.path, feeds, outputs)
    for seed in (1, 2):
        other = _feeds(np.random.default_rng(seed))
        for name, array in other.items():
            binding.inputs[name][...] = array
        binding.run(None)
        expected = _plain(model, other)
        assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


def test_repeated_shapes_give_the_same_numbers_in_arrays_of_their_own(model: lstm_onnx.Model) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(6):
        feeds = _feeds(rng)
        results = model.run(feeds)
        expected = _plain(model, feeds)
        assert all(np.array_equal(results[name], expected[name]) for name in expected)
        held.append((results, expected))
    # A later run has not written into what an earlier one gave.
    assert all(np.array_equal(results[name], expected[name]) for results, expected in held for name in expected)


def test_what_is_left_out_is_filled_in_every_time(model: lstm_onnx.Model) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.standard_normal((5, 2, 4)).astype(np.float32)
        expected = _plain(model, {"input": x, "h0": np.zeros((2, 2, 3), "f"), "c0": np.zeros((2, 2, 3), "f")})
        assert np.array_equal(model.run({"input": x})["output"], expected["output"])
        model.run(_feeds(rng))


def test_bound_or_not_bad_input_is_refused(model: lstm_onnx.Model) -> None:
    feeds = _feeds(np.random.default_rng(0))
    for _ in range(4):
        model.run(feeds)
    for wrong in (feeds["input"].astype(np.float64), feeds["input"][:, :1], feeds["input"][:0], "words"):
        with pytest.raises(InputError):
            model.run({**feeds, "input": wrong})
    assert np.array_equal(model.run(feeds)["output"], _plain(model, feeds)["output"])


def test_arrays_that_are_not_in_one_piece(model: lstm_onnx.Model) -> None:
    feeds = _feeds(np.random.default_rng(0))
    strided = {**feeds, "input": np.asfortranarray(feeds["input"])}
    for _ in range(4):
        assert np.array_equal(model.run(strided)["output"], _plain(model, feeds)["output"])


def test_a_hundred_threads_on_one_session(model: lstm_onnx.Model) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(10):
            feeds = _feeds(rng, time=1 + seed % 3)
            if not np.array_equal(model.run(feeds)["hn"], _plain(model, feeds)["hn"]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_few_bindings_are_kept(model: lstm_onnx.Model) -> None:
    repeats = BindingCache()
    for time in range(1, 3 * MAX_CALL_BINDINGS):
        feeds = _feeds(np.random.default_rng(0), time=time)
        key = key_of(feeds)
        assert key is not None
        for _ in range(2):
            repeats.record(
                key, model.session_for, "", model.inputs, model.outputs, feeds, list(_plain(model, feeds).values())
            )
        assert repeats.find(key) is not None
    assert len(repeats._threads.known) == MAX_CALL_BINDINGS


def test_large_runs_are_not_bound(model: lstm_onnx.Model) -> None:
    feeds = _feeds(np.random.default_rng(0), time=2**16)
    assert output_buffers(model.inputs, model.outputs, feeds) is None
    assert key_of({"input": [1.0]}) is None


def test_a_closed_model_says_so(path: Path) -> None:
    with lstm_onnx.load(path, provider="cpu") as model:
        stream = model.stream()
        step = np.zeros((1, 1, 4), np.float32)
        for _ in range(3):
            stream(step)
            model.run({"input": step})
        assert not model.closed
    assert model.closed
    for call in (lambda: model.run({"input": step}), lambda: model(step), lambda: stream(step)):
        with pytest.raises(RunError, match="is closed; load it again"):
            call()
    model.close()


def test_what_holds_states_does_not_pickle(path: Path) -> None:
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    with lstm_onnx.Batcher(model) as batcher:
        for held in (model.stream(), model.pool(slots=2), batcher, batcher.open()):
            for function in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="cannot be pickled or copied; "):
                    function(held)


def test_a_model_pickles_by_path_and_options(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(path, tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    model = lstm_onnx.load("m.onnx", provider="cpu", threads=1, states={"c0": "cn", "h0": "hn"})
    content = pickle.dumps(model)
    assert len(content) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(content)  # noqa: S301 - our own
    assert (again.provider, again.threads, again.states) == ("cpu", 1, {"c0": "cn", "h0": "hn"})
    x = np.ones((3, 1, 4), np.float32)
    assert np.array_equal(again(x)[0], model(x)[0])
    (tmp_path / "m.onnx").unlink()
    assert np.array_equal(again(x)[0], model(x)[0])  # a file that is deleted after load is not missed
    with pytest.raises(FileError, match=r"m\.onnx"):
        pickle.loads(content)  # noqa: S301


def test_a_model_does_not_come_back_with_other_weights(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    content = pickle.dumps(model)
    exported(Path(model.path), seed=1)
    with pytest.raises(ModelError, match=r"model\.onnx: has changed since the model was pickled; load it"):
        pickle.loads(content)  # noqa: S301 - our own
    with pytest.raises(TypeError, match=r"model\.onnx: .* its file was changed or deleted since it was loaded"):
        pickle.dumps(model)


def test_nor_does_one_of_another_tool(tmp_path: Path) -> None:
    """Such a file says nothing of its weights."""
    path = accumulator(tmp_path / "m.onnx")
    content = pickle.dumps(lstm_onnx.load(path, "cpu"))
    changed = onnx.load(path)
    changed.graph.initializer[0].raw_data = np.float32(1).tobytes()
    onnx.save(changed, path)
    with pytest.raises(ModelError, match="has changed since the model was pickled"):
        pickle.loads(content)  # noqa: S301 - our own


def test_warm_up_runs_at_the_sizes_asked_for(model: lstm_onnx.Model) -> None:
    model.warm_up()
    model.warm_up(batch=3, time=7)
    with pytest.raises(InputError, match="width: not an axis of the model; its axes are batch, time"):
        model.warm_up(width=3)


def test_warm_up_takes_states_whose_batch_follows_from_nothing(tmp_path: Path) -> None:
    """As in the files of exporters that give no axis a name, or each its own."""
    other = lstm_onnx.load(accumulator(tmp_path / "m.onnx", axis=None), provider="cpu", states={"state": "stateN"})
    other.warm_up()
    with pytest.raises(InputError, match="missing input: state"):
        other.run({"x": np.ones((1, 3), np.float32), "scale": np.array(1)})


def test_a_stream_of_chunks_of_many_shapes_is_the_whole(model: lstm_onnx.Model) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 1, 4)).astype(np.float32)
    whole, (hn, cn) = model(x)
    stream = model.stream()
    pieces, at = [], 0
    while at < len(x):
        size = int(rng.integers(1, 5))
        pieces.append(stream(x[at : at + size]))
        at += size
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-6)
    assert np.allclose(stream.state["h0"], hn, atol=1e-6)
    saved = stream.state
    first = stream(x[:2])
    stream.state = saved
    assert np.array_equal(stream(x[:2]), first)
    stream.reset()
    assert np.array_equal(stream(x[:2]), pieces[0]) or np.allclose(stream.state["c0"].shape, cn.shape)


def test_outputs_that_are_inputs(tmp_path: Path) -> None:
    """ONNX Runtime leaves a buffer for such an output as it is."""
    shape = ["batch", 2]
    named = {n: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("x", "state", "k", "y")}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "state"], ["y"])],
        "passed_on",
        [named["x"], named["state"], named["k"]],
        [named["y"], named["x"], named["state"], named["k"]],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m"
    )
    model = lstm_onnx.load(tmp_path / "m", "cpu", states={"state": "y", "k": "k"})
    stream, pool = model.stream(check=False), model.pool(2, check=False)
    slot, total = pool.open(), np.zeros((1, 2), np.float32)
    stream.state = {"state": total, "k": total + 7}
    pool.set_state(slot, stream.state)
    for x in np.random.default_rng(0).standard_normal((6, 1, 2)).astype(np.float32):
        for found in (stream.run({"x": x}), pool.step([slot], {"x": x}), model.run({"x": x, "state": total})):
            assert np.array_equal(found["x"], x)
            assert np.array_equal(found["state"], total)
        total = total + x
        for states in (stream.state, pool.state(slot)):
            assert np.array_equal(states["state"], total)
            assert np.array_equal(states["k"], [[7, 7]])


def _cut(path: Path) -> lstm_onnx.Model:
    """y = the first k steps of x, declared to be as long as x; stateN = state + 1."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Slice", ["x", "zero", "k"], ["y"]),
            onnx.helper.make_node("Add", ["state", "one"], ["stateN"]),
        ],
        "cut",
        [
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["time", 1]),
            onnx.helper.make_tensor_value_info("k", onnx.TensorProto.INT64, [1]),
            onnx.helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["time", 1]),
            onnx.helper.make_tensor_value_info("stateN", onnx.TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            onnx.numpy_helper.from_array(np.array([0]), "zero"),
            onnx.numpy_helper.from_array(np.float32(1), "one"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return lstm_onnx.load(path, "cpu", states={"state": "stateN"})


@pytest.mark.parametrize("way", ["run", "stream", "pool"])
def test_shapes_that_follow_from_values_are_run_unbound(way: str, tmp_path: Path) -> None:
    model = _cut(tmp_path / "m.onnx")
    x = np.arange(5, dtype=np.float32)[:, np.newaxis]
    stream, pool = model.stream(check=False), model.pool(1, check=False)
    slot = pool.open()

    def cut(count: int) -> list[float]:
        feeds = {"x": x, "k": np.array([count])}
        if way == "run":
            found = model.run({**feeds, "state": np.zeros((1, 1), np.float32)})["y"]
        elif way == "stream":
            found = stream.run(feeds)["y"]
        else:
            found = pool.step([slot], feeds)["y"]
        return [float(value) for value in found.ravel()]

    for count in (5, 5, 5, 5, 3, 5, 2, 5, 9, 1):  # bound at five, where shapes are as declared
        assert cut(count) == [0, 1, 2, 3, 4][:count]
    taken = {"stream": stream.state["state"], "pool": pool.state(slot)["state"]}
    if way in taken:
        assert taken[way].tolist() == [[10]]


def test_a_model_that_fails_on_a_value_is_bound_all_the_same(tmp_path: Path) -> None:
    model = lookup(tmp_path / "m.onnx")
    stream = model.stream()
    for _ in range(3):
        stream(np.array([[1]]))
    key = next(iter(stream._bound))
    with pytest.raises(RunError, match="ONNX Runtime failed"):
        stream(np.array([[11]]))
    before = stream.state["state"]
    assert stream._bound[key] is not None
    np.testing.assert_array_equal(stream(np.array([[2]])), np.add(before, [[4, 5]]))


@pytest.mark.parametrize("by_name", [False, True])
def test_the_rest_is_not_that_of_a_chunk_that_failed(by_name: bool, tmp_path: Path) -> None:
    model = onnx.load(lookup(tmp_path / "m.onnx").path)
    del model.graph.output[0]
    model.graph.node.insert(0, helper.make_node("Sub", ["twice", "x"], ["own"]))
    model.graph.node.insert(0, helper.make_node("Add", ["x", "x"], ["twice"]))  # before the look-up, which fails
    model.graph.node[2].input[0] = "own"
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.INT64, ["batch", 1]))
    onnx.save(model, tmp_path / "twice.onnx")
    stream = lstm_onnx.load(tmp_path / "twice.onnx", "cpu", states={"state": "stateN"}).stream(check=False)

    def step(token: int) -> Any:
        return stream.run({"x": np.array([[token]])})["twice"] if by_name else stream(np.array([[token]]))

    assert [int(step(token)[0, 0]) for token in (1, 2, 3, 4)] == [2, 4, 6, 8]
    with pytest.raises(RunError, match="ONNX Runtime failed"):
        step(11)
    rest = stream.flush()
    assert (rest["twice"] if by_name else rest).tolist() == [[8]]


def test_a_binding_that_cannot_be_made_loses_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RunError("ONNX Runtime cannot bind its arrays")

    for module in (binding_module, stream_module):
        monkeypatch.setattr(module, "Binding", broken)
    model = model_of(tmp_path)
    x, stream = randoms(3, 1, 4), model.stream()
    whole = model(x)[0]
    for _ in range(4):
        np.testing.assert_array_equal(model(x)[0], whole)
    for at in range(3):
        np.testing.assert_allclose(stream(x[at : at + 1]), whole[at : at + 1], rtol=0, atol=1e-6)
