"""Bound buffers: the same numbers, fresh results, each thread's own; and models that are closed or pickled."""

from __future__ import annotations

import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx import FileError, InputError, RunError
from lstm_onnx.runtime.binding import _MOST, Binding, Repeats, key_of, output_buffers

from .models import accumulator, exported


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
        binding.run()
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
    repeats = Repeats()
    for time in range(1, 3 * _MOST):
        feeds = _feeds(np.random.default_rng(0), time=time)
        key = key_of(feeds)
        assert key is not None
        for _ in range(2):
            repeats.learn(
                key, model.session_for, "", model.inputs, model.outputs, feeds, list(_plain(model, feeds).values())
            )
        assert repeats.find(key) is not None
    assert len(repeats._threads.known) == _MOST


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


def test_warm_up_runs_at_the_sizes_asked_for(model: lstm_onnx.Model) -> None:
    model.warm_up()
    model.warm_up(batch=3, time=7)
    with pytest.raises(InputError, match="width: no axis of the model; its axes are batch, time"):
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
