"""map: what each sequence alone gives, in order, from little memory, with threads that end."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime import map as mapping
from lstm_onnx.runtime.map import map_sequences
from lstm_onnx.runtime.padding import Layout, Padder
from lstm_onnx.spec import ExportOptions
from tests.module_files import module_file, with_initial

from .models import accumulator, exported, model_of, randoms

FEATURES = 4
SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bidirectional_stack": {"bidirectional": True, "num_layers": 2},
    "batch_first": {"batch_first": True, "bidirectional": True},
    "projected": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("maps")
    opened = {}
    for name, sizes in SIZES.items():
        for lengths in (False, True):
            path = folder / f"{name}-{lengths}.onnx"
            exported(path, options=ExportOptions(lengths=lengths), **sizes)
            opened[f"{name}{'_lengths' * lengths}"] = load(path, "cpu", 1)
    return opened


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lstm-onnx")] == []


def drawn(count: int, longest: int = 12, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rng.integers(1, longest + 1), FEATURES)).astype(np.float32) for _ in range(count)]


def assert_alike(found: Any, expected: Any) -> None:
    (output, states), (right, right_states) = found, expected
    for one, other in zip((output, *states), (right, *right_states), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


# --- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", ["", "_lengths"])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("workers", "look_ahead", "batch"), [(None, None, None), (1, 7, 3), (3, 20, 8), (2, 1, 4)])
def test_each_result_is_that_of_the_sequence_alone(
    models: dict[str, Model], name: str, lengths: str, workers: int | None, look_ahead: int | None, batch: int | None
) -> None:
    model = models[name + lengths]
    sequences = drawn(70)
    found = list(map_sequences(model, sequences, workers=workers, look_ahead=look_ahead, batch=batch))
    assert len(found) == len(sequences)
    for result, sequence in zip(found, sequences, strict=True):
        assert_alike(result, model(sequence))
        assert result[0].base is None or result[0].base.size == result[0].size
        result[0][:] = 7  # the caller's own


def test_states_go_with_some_sequences(models: dict[str, Model]) -> None:
    model = models["bidirectional_stack_lengths"]
    states = [None if at % 3 else (randoms(4, 5, seed=at), randoms(4, 5, seed=-at % 99)) for at in range(12)]
    items = [x if pair is None else (x, pair) for x, pair in zip(drawn(12), states, strict=True)]
    for result, x, pair in zip(map_sequences(model, items, batch=4), drawn(12), states, strict=True):
        assert_alike(result, model(x, pair))


@pytest.mark.parametrize("name", ["plain", "plain_lengths"])
def test_a_bare_lstm_by_name(models: dict[str, Model], name: str) -> None:
    model = models[name]
    items = [{"input": x, "h0": randoms(1, 5)} for x in drawn(9)]
    for result, x in zip(map_sequences(model, items, batch=4), drawn(9), strict=True):
        output, (hn, cn) = model(x, (randoms(1, 5), np.zeros((1, 5), np.float32)))
        assert list(result) == ["output", "hn", "cn"]
        assert_alike((result["output"], (result["hn"], result["cn"])), (output, (hn, cn)))


def test_lengths_of_their_own_are_kept(models: dict[str, Model]) -> None:
    model = models["bidirectional_stack_lengths"]
    items = [{"input": x, "lengths": 1 + len(x) // 2} for x in drawn(20)]
    for result, x in zip(map_sequences(model, items, batch=4), drawn(20), strict=True):
        output, (hn, _) = model(x[:, None], lengths=[1 + len(x) // 2])
        np.testing.assert_allclose(result["output"], output[:, 0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(result["hn"], hn[:, 0], rtol=0, atol=1e-6)


def test_states_start_from_what_the_file_says(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", options=ExportOptions(lengths=True))
    model = load(with_initial(tmp_path / "i.onnx", tmp_path / "m.onnx", {"h0": randoms(1, 1, 5)}), "cpu")
    for result, x in zip(map_sequences(model, drawn(9), batch=4), drawn(9), strict=True):
        assert_alike(result, model(x))


def test_tensors_and_lists(models: dict[str, Model]) -> None:
    model = models["plain_lengths"]
    arrays = drawn(3)
    tensor, lists, array = map_sequences(model, [torch.tensor(arrays[0]), arrays[1].tolist(), arrays[2]])
    assert [type(value) for value in (tensor[0], *tensor[1])] == [torch.Tensor] * 3
    assert type(lists[0]) is type(array[1][1]) is np.ndarray
    for result, x in zip((tensor, lists, array), arrays, strict=True):
        assert_alike((np.asarray(result[0]), [np.asarray(state) for state in result[1]]), model(x))


def test_nan_stays_in_its_sequence(models: dict[str, Model]) -> None:
    for name in ("bidirectional_stack_lengths", "projected_lengths"):
        sequences = drawn(16)
        sequences[3][:] = np.nan
        found = list(map_sequences(models[name], sequences, batch=4, workers=1))
        for at, (result, x) in enumerate(zip(found, sequences, strict=True)):
            if at != 3:
                assert_alike(result, models[name](x))


@pytest.mark.parametrize("sequences", [[], iter(())])
def test_nothing_gives_nothing(models: dict[str, Model], sequences: Any) -> None:
    assert list(map_sequences(models["plain"], sequences)) == []


# --- modules ------------------------------------------------------------------------------------


def tokens_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(1, 16, rng.integers(1, 9)) for _ in range(count)]


def frames_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((rng.integers(1, 9), 5)).astype(np.float32) for _ in range(count)]


def used(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each run that the map makes, as they come."""
    rows: list[int] = []
    real = mapping._Mapping._run
    batch = Layout.of(model)

    def run(self: Any, feeds: dict[str, np.ndarray]) -> Any:
        name, info = next((name, info) for name, info in model.inputs.items() if batch.batch in info.shape)
        rows.append(feeds[name].shape[info.shape.index(batch.batch)])
        return real(self, feeds)

    monkeypatch.setattr(mapping._Mapping, "_run", run)
    return rows


@pytest.mark.parametrize(
    ("name", "padded"),
    [
        ("packed_tagger", True),
        ("packed_sentiment", True),
        ("packed_time_first", True),
        ("packed_tagger_trimmed", True),  # its output's axis is one that no input has
        ("packed_sorted", True),
        ("packed_mean", True),
        ("packed_wide_padding", False),  # and this one's is "time + 3"
        ("packed_counting", False),  # no lengths
    ],
)
def test_modules_give_what_each_sequence_alone_gives(name: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(module_file(name), "cpu", 1)
    tokens = model.inputs[next(iter(model.inputs))].dtype == np.int64
    first = next(iter(model.inputs))
    sequences = tokens_of(40) if tokens else frames_of(40)
    at = model.inputs[first].shape.index("batch")
    expected = []
    for x in sequences:
        feeds = {first: np.expand_dims(x, at)}
        if "lengths" in model.inputs:
            feeds["lengths"] = np.array([len(x)])
        expected.append(model.run(feeds))
    rows = used(model, monkeypatch)
    found = list(map_sequences(model, ({first: x} for x in sequences), look_ahead=24, batch=4))
    assert len(found) == 40
    for result, right in zip(found, expected, strict=True):
        assert list(result) == list(right)
        for output, value in right.items():
            own = value.squeeze(model.outputs[output].shape.index("batch"))
            assert result[output].shape == own.shape
            np.testing.assert_allclose(result[output], own, rtol=0, atol=1e-5)
    assert max(rows) > 1
    if padded:
        assert sum(rows) / len(rows) > 2.5


class Smeared(torch.nn.Module):
    """Takes lengths, and then looks at the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 6, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        return output.mean(1)


def test_a_module_whose_results_change_with_padding_is_not_padded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm_onnx.export(
        Smeared(),
        tmp_path / "m.onnx",
        example_inputs=(torch.randn(2, 5, 5), torch.tensor([5, 3])),
        dynamic_shapes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
    )
    model = load(tmp_path / "m.onnx", "cpu", 1)
    assert Layout.of(model).padded == {"time"}
    sequences = frames_of(40)
    for result, x in zip(map_sequences(model, [{"x": x} for x in sequences], batch=4), sequences, strict=True):
        right = model.run({"x": x[None], "lengths": np.array([len(x)])})["output"][0]
        np.testing.assert_allclose(result["output"], right, rtol=0, atol=1e-6)


def test_equal_lengths_come_first_and_others_later() -> None:
    """What was not tried yet is not relied on: the first window has one length alone."""
    model = load(module_file("packed_wide_padding"), "cpu", 1)
    sequences = [randoms(6, 5, seed=at) for at in range(8)] + frames_of(16)
    for result, x in zip(map_sequences(model, [{"x": x} for x in sequences], look_ahead=16), sequences, strict=True):
        right = model.run({"x": x[None], "lengths": np.array([len(x)])})["output"][0]
        assert result["output"].shape == right.shape
        np.testing.assert_allclose(result["output"], right, rtol=0, atol=1e-6)


def test_an_input_without_a_batch_axis_is_shared_by_those_that_have_the_same(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    items: list[dict[str, Any]] = [{"x": randoms(3, seed=at), "scale": at % 2 + 1} for at in range(9)]
    for at, result in enumerate(map_sequences(model, items, batch=4)):
        np.testing.assert_allclose(result["y"], items[at]["x"] * (at % 2 + 1), rtol=0, atol=1e-6)


def test_a_model_without_a_batch_axis_runs_one_at_a_time() -> None:
    model = load(module_file("tutorial_tagger"), "cpu")
    sequences = tokens_of(7)
    for result, x in zip(map_sequences(model, [{"sentence": x} for x in sequences]), sequences, strict=True):
        for name, value in model.run({"sentence": x}).items():
            np.testing.assert_array_equal(result[name], value)


# --- memory, order, threads ---------------------------------------------------------------------


@pytest.mark.parametrize("look_ahead", [1, 2, 3, 16])
def test_no_more_are_held_than_was_said(models: dict[str, Model], look_ahead: int) -> None:
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for sequence in drawn(60):
            read += 1
            yield sequence

    results = map_sequences(models["plain_lengths"], source(), look_ahead=look_ahead, workers=2, batch=4)
    assert read == 0
    most = 0
    for given, _ in enumerate(results):
        most = max(most, read - given)
        assert read - given <= look_ahead
    assert read == 60
    assert most == look_ahead


def test_bytes_bound_what_is_held_where_no_number_was_said(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["plain_lengths"]
    layout = Layout.of(model)
    each = layout.held(layout.item(randoms(6, FEATURES)))
    assert each == 4 * (6 * FEATURES + 6 * 5 + 2 * 5)
    monkeypatch.setattr(mapping, "HELD_BYTES", 10 * each)
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield randoms(6, FEATURES)

    held = [read - given for given, _ in enumerate(map_sequences(model, source(), batch=2))]
    assert len(held) == 40
    assert max(held) <= 10


def test_a_result_that_the_caller_dropped_is_gone(models: dict[str, Model]) -> None:
    results = map_sequences(models["plain_lengths"], drawn(30), batch=4)
    for _ in range(5):
        output, _ = next(results)
        gone = weakref.ref(output)
        del output
        assert gone() is None
    results.close()  # type: ignore[attr-defined]


def test_results_come_while_sequences_are_still_read(models: dict[str, Model]) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield randoms(3, FEATURES)

    results = map_sequences(models["plain_lengths"], endless(), look_ahead=8)
    for _ in range(50):
        next(results)
    assert any(thread.name.startswith("lstm-onnx") for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []


def interrupted(results: Iterator[Any]) -> None:
    for _ in results:
        raise KeyboardInterrupt


def test_a_consumer_that_goes_away_ends_the_threads(models: dict[str, Model]) -> None:
    for _ in map_sequences(models["plain_lengths"], drawn(200), look_ahead=64):
        break
    with pytest.raises(KeyboardInterrupt):
        interrupted(map_sequences(models["plain_lengths"], drawn(50)))
    map_sequences(models["plain_lengths"], drawn(5))  # and one that was never begun has none


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_so_many_threads_as_were_said(models: dict[str, Model], workers: int) -> None:
    results = map_sequences(models["plain_lengths"], drawn(30), workers=workers)
    next(results)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("lstm-onnx")]
    assert len(names) == workers
    assert len(list(results)) == 29


def test_progress_is_told_in_the_callers_thread(models: dict[str, Model]) -> None:
    told: list[tuple[int, int]] = []
    results = map_sequences(
        models["plain_lengths"], drawn(30), progress=lambda done: told.append((done, threading.get_ident())), batch=4
    )
    assert len(list(results)) == 30
    counts = [count for count, _ in told]
    assert counts == sorted(set(counts))
    assert counts[-1] == 30
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_two_maps_at_once_do_not_mix(models: dict[str, Model]) -> None:
    model = models["bidirectional_stack_lengths"]
    one, other = drawn(30, seed=1), drawn(30, seed=2)
    pairs = zip(map_sequences(model, one, batch=4), map_sequences(model, other, batch=4), strict=True)
    for (a, b), x, y in zip(pairs, one, other, strict=True):
        assert_alike(a, model(x))
        assert_alike(b, model(y))


# --- calibration and sessions -------------------------------------------------------------------


def test_the_calibration_is_short_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    calls: list[int] = []
    real = mapping.measured

    def counted(seconds: Any, length: int) -> Any:
        calls.append(length)
        return real(seconds, length)

    monkeypatch.setattr(mapping, "measured", counted)
    began = time.thread_time()
    assert len(list(map_sequences(model, drawn(70)))) == 70
    assert time.thread_time() - began < 1
    assert len(list(map_sequences(model, drawn(70)))) == 70
    assert len(calls) == 1
    kept = mapping._costs[model]
    assert kept.steps[0][0] == 1
    small = load(model.path, "cpu")
    assert len(list(map_sequences(small, drawn(10)))) == 10
    assert len(list(map_sequences(small, drawn(100), batch=4))) == 100
    assert len(calls) == 1


def test_runs_stay_in_their_thread(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    list(map_sequences(model, drawn(3)))
    session = model.one_thread()
    assert session is not model.session
    assert session.get_session_options().intra_op_num_threads == 1
    list(map_sequences(model, drawn(3)))
    assert model.one_thread() is session
    one = load(model.path, "cpu", threads=1)
    assert one.one_thread() is one.session
    model.close()
    with pytest.raises(RunError, match="is closed"):
        list(map_sequences(model, drawn(3)))


def test_a_file_that_is_gone_or_changed_does_not_matter(tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    other = tmp_path / "other.onnx"
    exported(other, options=ExportOptions(lengths=True), num_layers=2)
    Path(model.path).unlink()
    for result, x in zip(map_sequences(model, drawn(5)), drawn(5), strict=True):
        assert_alike(result, model(x))
    again = load(other, "cpu")
    expected = [again(x) for x in drawn(5)]
    exported(other, options=ExportOptions(lengths=True), num_layers=2, seed=5)  # alike but for its weights
    for result, right in zip(map_sequences(again, drawn(5)), expected, strict=True):
        assert_alike(result, right)
    assert again.one_thread() is again.session
    shutil.rmtree(tmp_path)


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 5), np.float32), r"input has shape \(3, 5\); axis 1 must be 4: input float32 \(time, 4\)"),
        (np.zeros((3, 4)), "input has dtype float64; the model takes float32"),
        (np.zeros((0, 4), np.float32), r"input has shape \(0, 4\): nothing along time, which must be 1 or more"),
        (np.zeros((3, 1, 4), np.float32), r"input has shape \(3, 1, 4\); the model takes 2 axes"),
        ((np.zeros((3, 4), np.float32), None), r"a tuple must be \(input, \(h0, c0\)\)"),
        ((np.zeros((3, 4), np.float32), (randoms(1, 1, 5), randoms(1, 5))), r"h0 has shape \(1, 1, 5\)"),
        ({"x": 1}, "x is not an input of the model; its inputs are input, h0, c0, lengths"),
        ({"h0": randoms(1, 5)}, r"missing input: input float32 \(time, 4\)"),
        ({"input": randoms(3, 4), "lengths": 4}, "lengths is 4; it must be from 1 to time, 3"),
        ({"input": randoms(3, 4), "lengths": [3]}, r"lengths has shape \(1,\); the model takes 0 axes"),
        ({"input": randoms(3, 4), "lengths": 1.5}, "lengths holds values of dtype float64"),
        ("text", "input is not an array of numbers"),
    ],
)
@pytest.mark.parametrize("at", [0, 20])
def test_a_sequence_that_does_not_fit_is_named_after_all_before_it(
    models: dict[str, Model], wrong: Any, message: str, at: int
) -> None:
    model = models["plain_lengths"]
    sequences = drawn(40)
    found: list[Any] = []
    with pytest.raises(InputError, match=f"^sequence {at}: {message}"):
        found.extend(map_sequences(model, [*sequences[:at], wrong, *sequences[at:]], look_ahead=16))
    assert len(found) == at  # extend keeps what came before the error
    for result, x in zip(found, sequences, strict=False):
        assert_alike(result, model(x))


def test_one_wrong_sequence_in_ten_thousand(models: dict[str, Model]) -> None:
    model, short = models["plain_lengths"], drawn(64)
    sequences = (randoms(3, 5) if index == 5000 else short[index % 64] for index in range(10_000))
    found: list[Any] = []
    with pytest.raises(InputError, match=r"^sequence 5000: input has shape \(3, 5\); axis 1 must be 4"):
        found.extend(map_sequences(model, sequences))
    assert len(found) == 5000
    for index in (0, 1234, 4999):
        assert_alike(found[index], model(short[index % 64]))


def test_a_module_takes_dicts() -> None:
    model = load(module_file("packed_tagger"), "cpu")
    with pytest.raises(InputError, match=r"^sequence 0: must map names to arrays \(x, lengths\); it is a ndarray"):
        next(map_sequences(model, tokens_of(3)))


class Fussy:
    """A session that fails on what begins with 9."""

    def __init__(self, session: Any, failure: Exception) -> None:
        self.session = session
        self.failure = failure

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> Any:
        if (feeds["input"][0, :, 0] == 9).any():
            raise self.failure
        return self.session.run(names, feeds)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of luck"), "failed while running: out of luck"),
        (MemoryError(), "ran out of memory while running"),
    ],
)
@pytest.mark.parametrize("count", [40, 100])
def test_a_run_that_fails_names_its_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str, count: int
) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    sequences = drawn(count)
    sequences[23][0, 0] = 9
    monkeypatch.setattr(model, "one_thread", lambda: Fussy(model.session, failure))
    found: list[Any] = []
    with pytest.raises(RunError, match=rf"^sequence 23: .*model\.onnx: .*{message}$"):
        found.extend(map_sequences(model, sequences))
    assert len(found) == 23
    monkeypatch.undo()
    for result, x in zip(found, sequences, strict=False):
        assert_alike(result, model(x))


def test_memory_that_runs_out_while_padding_names_its_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    real = Padder.feeds

    def feeds(self: Padder, items: Any) -> Any:
        if len(items) > 1 or items[0].length == 13:
            raise MemoryError
        return real(self, items)

    monkeypatch.setattr(Padder, "feeds", feeds)
    assert len(list(map_sequences(model, drawn(70)))) == 70
    sequences = [*drawn(5), randoms(13, FEATURES)]
    with pytest.raises(RunError, match=r"^sequence 5: .*model\.onnx: ran out of memory$"):
        list(map_sequences(model, sequences))


def test_a_bug_in_a_thread_is_raised_where_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path)
    monkeypatch.setattr(model, "one_thread", lambda: Fussy(model.session, ZeroDivisionError("ours")))
    sequences = drawn(5)
    sequences[2][0, 0] = 9
    with pytest.raises(ZeroDivisionError, match="ours"):
        list(map_sequences(model, sequences, batch=1))


def test_what_the_iterable_raises_comes_after_the_results_before_it(models: dict[str, Model]) -> None:
    def source() -> Iterator[np.ndarray]:
        yield from drawn(10)
        raise OSError("the disk is gone")

    found: list[Any] = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(map_sequences(models["plain_lengths"], source()))
    assert len(found) == 10


@pytest.mark.parametrize("name", ["workers", "look_ahead", "batch"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_numbers_are_positive_integers(models: dict[str, Model], name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} = {value!r} is not possible; it must be a positive integer"):
        map_sequences(models["plain"], [], **{name: value})


@pytest.mark.parametrize("sequences", [5, None, {"input": 1}])
def test_what_is_no_iterable_of_sequences(models: dict[str, Model], sequences: Any) -> None:
    with pytest.raises(InputError, match=r"^sequences must be an iterable of sequences, and not a"):
        map_sequences(models["plain"], sequences)


# --- memory over a long time --------------------------------------------------------------------


def resident() -> float:
    """MiB that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process' memory from Linux's /proc")
def test_memory_does_not_grow_over_20_000_runs_of_varying_shape(tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True), input_size=16, hidden_size=32, bidirectional=True)
    rng = np.random.default_rng(0)
    data = randoms(400, 16)

    def some(runs: int) -> Iterator[np.ndarray]:
        for _ in range(runs):
            yield data[: rng.integers(1, 400)]

    def go(runs: int) -> None:
        # One row a run, so that each has a shape of its own; then the shapes of batches.
        for rows, count in ((1, runs), (6, runs)):
            for _ in map_sequences(model, some(count), batch=rows, look_ahead=64, workers=2):
                pass

    go(2000)
    before = resident()
    go(20_000)
    assert resident() - before < 10
