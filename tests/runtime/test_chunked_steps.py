"""Streams of files that take chunks of any length: what is ready, the rest, states, pools and batchers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.deploy import deploy_triton
from tests.streaming.test_convert import conv_lstm, saved, weights

STEPS = 31
BATCH = {"enc.conv.cache": 0, "lstm.h0": 1, "lstm.c0": 1, "steps": 0}
"""The axis of the sequences in each state."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("chunked")
    made = {}
    for name, pads, stride in (("causal", (2, 0), 1), ("late", (1, 1), 1), ("strided", (1, 1), 3)):
        source = saved(conv_lstm(pads, stride=stride), folder / f"{name}-whole.onnx")
        made[name] = folder / f"{name}.onnx"
        lstm_onnx.make_streaming(source, made[name], time={"x": 2}, max_delay=1, trial=False)
        made[f"{name}-whole"] = source
    return made


@pytest.fixture(params=["causal", "late", "strided"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def whole(files: dict[str, Path], kind: str, x: np.ndarray) -> np.ndarray:
    with lstm_onnx.load(files[f"{kind}-whole"], "cpu") as model:
        return model.run({"x": x})["y"]


def test_calls_return_what_is_ready(files: dict[str, Path]) -> None:
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(files["strided"], "cpu") as model:
        stream = model.stream()
        assert (stream.delay, stream.hop) == (1, 3)
        ready = [stream(x[:, :, at : at + 1]).shape[0] for at in range(10)]
        assert ready == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
        assert stream(x[:, :, 9:9]).shape == (0, 1, 1, 3)
        assert stream.flush().shape[0] == 1


def test_a_stream_ends_with_flush(files: dict[str, Path], kind: str) -> None:
    x = weights(2, 4, STEPS)
    with lstm_onnx.load(files[kind], "cpu") as model:
        stream = model.stream(batch=2)
        assert stream.flush().shape[0] == 0  # of a sequence without steps
        for _ in range(2):
            stream.reset()
            parts = [stream(x[:, :, at : at + 4]) for at in range(0, STEPS, 4)]
            saved_state = stream.state
            parts.append(stream.flush())
            np.testing.assert_allclose(np.concatenate(parts), whole(files, kind, x), rtol=0, atol=1e-6)
            for call in (lambda: stream(x), lambda: stream.run({"x": x}), stream.flush):
                with pytest.raises(InputError, match=r"has ended; stream.reset\(\) starts another"):
                    call()
        stream.state = saved_state
        np.testing.assert_array_equal(stream.flush(), parts[-1])


def test_a_state_in_the_middle_continues_elsewhere(files: dict[str, Path], kind: str) -> None:
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(files[kind], "cpu") as model:
        first, second = model.stream(), model.stream()
        parts = [first(x[:, :, :10])]
        second.state = first.state
        parts += [second(x[:, :, 10:]), second.flush()]
        np.testing.assert_allclose(np.concatenate(parts), whole(files, kind, x), rtol=0, atol=1e-6)


def test_states_of_sequences_in_several_phases_are_refused(files: dict[str, Path]) -> None:
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(files["strided"], "cpu") as model:
        one, other, both = model.stream(), model.stream(), model.stream(batch=2)
        one(x[:, :, :4])
        other(x[:, :, :8])
        apart = {name: np.concatenate([one.state[name], other.state[name]], axis) for name, axis in BATCH.items()}
        before = both.state
        with pytest.raises(InputError, match="after 4, 8 steps; such sequences cannot be stepped together"):
            both.state = apart
        assert all(np.array_equal(array, before[name]) for name, array in both.state.items())
        one(x[:, :, 4:5])  # after 5 and 8 steps each chunk gives both equally many
        both.state = {name: np.concatenate([one.state[name], other.state[name]], axis) for name, axis in BATCH.items()}
        found = both(np.concatenate([x[:, :, 5:15], x[:, :, 8:18]]))
        np.testing.assert_allclose(found[:, :, :1], one(x[:, :, 5:15]), rtol=0, atol=1e-6)
        np.testing.assert_allclose(found[:, :, 1:], other(x[:, :, 8:18]), rtol=0, atol=1e-6)


def test_nothing_follows_on_states_of_a_sequence_that_has_ended(files: dict[str, Path]) -> None:
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(files["late"], "cpu") as model:
        stream, pool = model.stream(), model.pool(1)
        stream(x[:, :, :9])
        stream.flush()
        ended, slot = stream.state, pool.open()
        single = {name: array.squeeze(BATCH[name]) for name, array in ended.items()}
        for go_on in (
            lambda: setattr(stream, "state", ended),
            lambda: pool.set_state(slot, ended),
            lambda: model.run({"x": x, **ended}),
            lambda: list(model.map([{"x": x[0], **single}])),
        ):
            with pytest.raises(InputError, match=r"has ended, .*; run needs last = 0 before the end"):
                go_on()
        one = model.run({"x": x})  # a whole sequence, at once
        with pytest.raises(InputError, match="has ended"):
            model.run({"x": x, **{name: one[output] for name, output in model.states.items()}})
        stream.reset()
        assert stream(x).shape[0] == STEPS - 1


def test_the_rest_is_an_array_after_a_chunk_that_was_refused(files: dict[str, Path]) -> None:
    with lstm_onnx.load(files["late"], "cpu") as model:
        stream = model.stream()
        stream(weights(1, 4, 3))
        with pytest.raises(InputError):
            stream(weights(1, 3, 3))
        assert isinstance(stream.flush(), np.ndarray)


def test_dicts_tensors_and_wrong_chunks(files: dict[str, Path]) -> None:
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(files["late"], "cpu") as model:
        stream = model.stream()
        assert list(stream.run({"x": x})) == ["y"]
        assert list(stream.flush()) == ["y"]
        stream.reset()
        assert isinstance(stream(torch.from_numpy(x)), torch.Tensor)
        assert isinstance(stream(torch.from_numpy(x[:, :, :0])), torch.Tensor)
        assert isinstance(stream.flush(), torch.Tensor)
        stream.reset()
        with pytest.raises(InputError, match="last is set by the stream"):
            stream.run({"x": x, "last": np.ones(1, np.int64)})
        with pytest.raises(InputError, match="axis 1 must be 4"):
            stream.run({"x": x[:, :3, :0]})
        with pytest.raises(InputError, match="missing input"):
            stream.run({})
        np.testing.assert_allclose(np.concatenate([stream(x), stream.flush()]), whole(files, "late", x), atol=1e-6)


def test_a_plain_stream_has_no_rest(tmp_path: Path) -> None:
    lstm_onnx.export(torch.nn.LSTM(4, 3), tmp_path / "m.onnx")
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as model:
        stream = model.stream(batch=2)
        assert (stream.delay, stream.hop) == (0, 1)
        stream(weights(5, 2, 4))
        assert stream.flush().shape == (0, 2, 3)
        with pytest.raises(InputError, match="has ended"):
            stream(weights(5, 2, 4))
        stream.reset()
        assert stream(weights(5, 2, 4)).shape == (5, 2, 3)


def test_chunks_that_repeat_are_bound(files: dict[str, Path], kind: str) -> None:
    x = weights(1, 4, 120)
    with lstm_onnx.load(files[kind], "cpu", threads=1) as model:
        stream = model.stream()
        parts = [stream(x[:, :, at : at + 2]) for at in range(0, 120, 2)]
        assert any(pair is not None for pair in stream._bound.values())
        parts.append(stream.flush())
        np.testing.assert_allclose(np.concatenate(parts), whole(files, kind, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cut", [(3,) * 6 + (1, 3, 3, 3, 2) + (3,) * 4, (6,) * 5 + (7, 6, 6, 6)])
def test_equal_chunks_skip_the_look_up_in_their_phase_alone(files: dict[str, Path], cut: tuple[int, ...]) -> None:
    steps = sum(cut)
    x = weights(1, 4, steps)
    with lstm_onnx.load(files["strided"], "cpu", threads=1) as model:
        stream = model.stream()
        for _ in range(2):
            parts, start, quick = [], 0, 0
            for size in cut:
                before = stream._last
                parts.append(stream(x[:, :, start : start + size]))
                start += size
                quick += before is not None and before is stream._last
            assert quick >= 3
            last = stream.state
            parts.append(stream.flush())
            np.testing.assert_allclose(np.concatenate(parts), whole(files, "strided", x), rtol=0, atol=1e-6)
            with pytest.raises(InputError, match="has ended"):
                stream(x[:, :, :3])
            stream.state = last
            assert np.array_equal(stream.flush(), parts[-1])
            stream.reset()


def test_the_rest_has_the_type_of_the_last_chunk(files: dict[str, Path]) -> None:
    x = weights(1, 4, 12)
    with lstm_onnx.load(files["late"], "cpu", threads=1) as model:
        stream = model.stream()
        for _ in range(4):
            stream(x[:, :, :3])
        assert isinstance(stream(torch.from_numpy(x)), torch.Tensor)
        stream(x[:, :, :3])
        assert isinstance(stream.flush(), np.ndarray)


def test_two_hundred_streams_in_a_pool(files: dict[str, Path], kind: str) -> None:
    """Streams that start at different times, in chunks of several lengths: each gets its whole sequence."""
    rng = np.random.default_rng(0)
    x = weights(200, 4, 30)
    with lstm_onnx.load(files[kind], "cpu", threads=1) as model:
        pool = model.pool(slots=200)
        starts = rng.integers(0, 6, 200)
        slots: dict[int, lstm_onnx.Slot] = {}
        parts: dict[int, list[np.ndarray]] = {row: [] for row in range(200)}
        at = np.zeros(200, int)
        for tick in range(16):
            for row in np.flatnonzero(starts == tick):
                slots[row] = pool.open()
            size = int(rng.integers(1, 4))
            ready = [row for row in slots if at[row] + size <= 30]
            for phase in {pool.phase(slots[row]) for row in ready}:
                rows = [row for row in ready if pool.phase(slots[row]) == phase]
                chunk = np.stack([x[row, :, at[row] : at[row] + size] for row in rows])
                found = pool.step([slots[row] for row in rows], chunk)
                for place, row in enumerate(rows):
                    parts[row].append(found[:, :, place : place + 1])
                ready = [row for row in ready if row not in rows]
                at[rows] += size
        expected = whole(files, kind, x)
        for row in slots:
            mine = np.concatenate(parts[row])
            assert len(mine) >= 5
            np.testing.assert_allclose(mine, expected[: len(mine), :, row : row + 1], rtol=0, atol=1e-6)


def test_slots_in_one_phase_are_stepped_together(files: dict[str, Path], kind: str) -> None:
    """Seven streams in a pool of four slots, opened and closed at different times."""
    x = weights(7, 4, STEPS)
    expected = whole(files, kind, x)
    with lstm_onnx.load(files[kind], "cpu") as model:
        pool = model.pool(slots=4)
        waiting, slots, at = list(range(7)), {}, [0] * 7
        parts: dict[int, list[np.ndarray]] = {row: [] for row in range(7)}
        for tick in range(400):
            if waiting and len(slots) < 4 and tick % 2 == 0:
                slots[waiting[0]] = pool.open()
                waiting.pop(0)
            groups: dict[int, list[int]] = {}
            for row, slot in slots.items():
                if (row + tick) % 3:
                    groups.setdefault(pool.phase(slot), []).append(row)
            for rows in groups.values():
                size = min(1 + tick % 3, *(STEPS - at[row] for row in rows)) if len(rows) > 1 else 1
                chunk = np.stack([x[row, :, at[row] : at[row] + size] for row in rows])
                found = pool.step([slots[row] for row in rows], chunk)
                for place, row in enumerate(rows):
                    parts[row].append(found[:, :, place : place + 1])
                    at[row] += size
            for row in [row for row in slots if at[row] == STEPS]:
                stream = model.stream()
                stream.state = pool.state(slots[row])
                parts[row].append(stream.flush())
                pool.close(slots.pop(row))
            if not waiting and not slots:
                break
        for row in range(7):
            np.testing.assert_allclose(np.concatenate(parts[row]), expected[:, :, row : row + 1], rtol=0, atol=1e-6)


def test_slots_of_several_phases_are_refused_together(files: dict[str, Path]) -> None:
    x = weights(2, 4, 6)
    with lstm_onnx.load(files["strided"], "cpu") as model:
        pool = model.pool(slots=2)
        one, other = pool.open(), pool.open()
        pool.step([one], x[:1, :, :1])
        before = pool.state(one)
        with pytest.raises(InputError, match=r"the slots have had 0, 1 steps, .*step slots of equal pool.phase"):
            pool.step([one, other], x)
        assert all(np.array_equal(array, before[name]) for name, array in pool.state(one).items())
        pool.step([other], x[1:, :, :1])
        assert pool.step([one, other], x).shape[2] == 2
        pool.reset(one)
        assert pool.phase(one) == 0
        pool.set_state(one, pool.state(other))
        assert pool.phase(one) == pool.phase(other)


def test_a_batcher_sorts_streams_by_their_phase(files: dict[str, Path], kind: str) -> None:
    x = weights(6, 4, STEPS)
    expected = whole(files, kind, x)
    with lstm_onnx.load(files[kind], "cpu") as model, lstm_onnx.Batcher(model.pool(slots=6), window=0.001) as batcher:

        def run(row: int) -> np.ndarray:
            with batcher.open() as stream:
                parts, at = [], 0
                while at < STEPS:
                    size = min(1 + (at + row) % 4, STEPS - at)
                    parts.append(stream.step(x[row : row + 1, :, at : at + size]))
                    at += size
                rest = model.stream()
                rest.state = stream.state
                return np.concatenate([*parts, rest.flush()])

        with ThreadPoolExecutor(6) as threads:
            for row, found in enumerate(threads.map(run, range(6))):
                np.testing.assert_allclose(found, expected[:, :, row : row + 1], rtol=0, atol=1e-6)


def test_map_runs_whole_sequences(files: dict[str, Path], kind: str) -> None:
    x = weights(5, 4, STEPS)
    with lstm_onnx.load(files[kind], "cpu") as model:
        for row, found in enumerate(model.map({"x": array} for array in x)):
            np.testing.assert_allclose(found["y"], whole(files, kind, x[row : row + 1])[:, :, 0], rtol=0, atol=1e-6)


def states_after(model: lstm_onnx.Model, x: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    stream = model.stream()
    stream(x[:, :, :steps])
    return stream.state


def test_a_run_takes_no_states_of_sequences_in_several_phases(files: dict[str, Path]) -> None:
    x, last = weights(1, 4, STEPS), np.zeros(1, np.int64)
    with lstm_onnx.load(files["strided"], "cpu") as model:
        some = [states_after(model, x, steps) for steps in (4, 8)]
        both = {name: np.concatenate([state[name] for state in some], axis) for name, axis in BATCH.items()}
        feeds = {"x": x[:, :, :9].repeat(2, 0), "last": last, **both}
        for _ in range(3):  # the second call of a shape is bound
            with pytest.raises(InputError, match="after 4, 8 steps; such sequences cannot be stepped together"):
                model.run(feeds)
        equal = {**feeds, "steps": both["steps"][:1].repeat(2, 0)}
        for _ in range(3):
            model.run(equal)
        with pytest.raises(InputError, match="cannot be stepped together"):
            model.run(feeds)


def test_map_goes_on_from_states_of_several_phases(files: dict[str, Path]) -> None:
    x, last = weights(1, 4, STEPS), np.zeros(1, np.int64)
    with lstm_onnx.load(files["strided"], "cpu") as model:
        expected, sequences = [], []
        for steps in (4, 8, 4, 7):
            state, chunk = states_after(model, x, steps), x[:, :, steps : steps + 9]
            expected.append(model.run({"x": chunk, "last": last, **state})["y"][:, :, 0])
            single = {name: array.squeeze(BATCH[name]) for name, array in state.items()}
            sequences.append({"x": chunk[0], "last": last, **single})
        for found, want in zip(model.map(sequences, workers=1, batch=4), expected, strict=True):
            np.testing.assert_allclose(found["y"], want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("feeds", "problem"), [({}, "missing input: x"), ({"x": weights(4, 2, 9)}, "x has shape")])
def test_map_says_what_does_not_fit(files: dict[str, Path], feeds: dict[str, np.ndarray], problem: str) -> None:
    with lstm_onnx.load(files["strided"], "cpu") as model, pytest.raises(InputError, match=f"sequence 0: {problem}"):
        list(model.map([feeds]))


def test_map_takes_chunks_of_the_length_of_the_file(tmp_path: Path) -> None:
    source = saved(conv_lstm((2, 0)), tmp_path / "whole.onnx")
    lstm_onnx.make_streaming(source, tmp_path / "m.onnx", time={"x": 2}, chunk=4, trial=False)
    x = weights(1, 4, STEPS)
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as model:
        state = {name: array.squeeze(BATCH[name]) for name, array in states_after(model, x, 4).items()}
        with pytest.raises(InputError, match="x has 5 steps, but the file takes multiples of 4"):
            list(model.map([{"x": x[0, :, 4:9], **state}]))


def test_triton_takes_no_file_with_phases(files: dict[str, Path], tmp_path: Path) -> None:
    deploy_triton(files["causal"], tmp_path / "causal")
    with pytest.raises(lstm_onnx.ModelError, match="returns different numbers of steps for equal chunks"):
        deploy_triton(files["strided"], tmp_path / "strided")
    assert not (tmp_path / "strided").exists()
