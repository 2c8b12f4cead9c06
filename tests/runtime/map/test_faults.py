"""What fails is named, after every result before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.map import map as mapping
from lstm_onnx.runtime.map.map import map_sequences
from lstm_onnx.spec import ExportOptions
from tests.module_files import module_file

from ..models import model_of, randoms
from .support import FEATURES, assert_alike, drawn, tokens_of


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 5), np.float32), r"input has shape \(3, 5\); axis 1 must be 4: input float32 \(time, 4\)"),
        (np.zeros((3, 4)), "input has dtype float64; the model takes float32"),
        (np.zeros((0, 4), np.float32), r"input has shape \(0, 4\): the axis time is empty; it must be at least 1"),
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
    with pytest.raises(InputError, match=r"^sequence 0: is of type ndarray; it must map names to arrays \(x\)"):
        next(map_sequences(model, tokens_of(3)))


class Fussy:
    """A session that fails on what begins with 9."""

    def __init__(self, session: Any, failure: Exception) -> None:
        self.session = session
        self.failure = failure

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any) -> Any:
        if (feeds["input"][0, :, 0] == 9).any():
            raise self.failure
        return self.session.run(names, feeds, options)


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
    with pytest.raises(RunError, match=rf"^sequence 23: .*model\.onnx: .*{message}(; pass less at a time)?$"):
        found.extend(map_sequences(model, sequences))
    assert len(found) == 23
    monkeypatch.undo()
    for result, x in zip(found, sequences, strict=False):
        assert_alike(result, model(x))


def test_memory_that_runs_out_while_padding_names_its_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    real = mapping.padded_feeds

    def feeds(layout: Any, samples: Any) -> Any:
        if len(samples) > 1 or samples[0].length == 13:
            raise MemoryError
        return real(layout, samples)

    monkeypatch.setattr(mapping, "padded_feeds", feeds)
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
    allowed = "from 1 to 1024, or None" if name == "workers" else "a positive integer"
    with pytest.raises(InputError, match=f"^{name} = {value!r} is not possible; it must be {allowed}$"):
        map_sequences(models["plain"], [], **{name: value})


@pytest.mark.parametrize("sequences", [5, None, {"input": 1}])
def test_what_is_no_iterable_of_sequences(models: dict[str, Model], sequences: Any) -> None:
    with pytest.raises(InputError, match=r"^sequences must be an iterable of sequences, not "):
        map_sequences(models["plain"], sequences)
