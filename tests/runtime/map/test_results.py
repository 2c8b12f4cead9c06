"""Sequences of any length: each result is that of the sequence alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.map.map import map_sequences
from lstm_onnx.spec import ExportOptions
from tests.module_files import with_initial

from ..models import exported, randoms
from .support import FEATURES, SIZES, assert_alike, drawn

pytestmark = pytest.mark.sweep(2)


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
    samples = [x if pair is None else (x, pair) for x, pair in zip(drawn(12), states, strict=True)]
    for result, x, pair in zip(map_sequences(model, samples, batch=4), drawn(12), states, strict=True):
        assert_alike(result, model(x, pair))


@pytest.mark.parametrize("name", ["plain", "plain_lengths"])
def test_a_bare_lstm_by_name(models: dict[str, Model], name: str) -> None:
    model = models[name]
    samples = [{"input": x, "h0": randoms(1, 5)} for x in drawn(9)]
    for result, x in zip(map_sequences(model, samples, batch=4), drawn(9), strict=True):
        output, (hn, cn) = model(x, (randoms(1, 5), np.zeros((1, 5), np.float32)))
        assert list(result) == ["output", "hn", "cn"]
        assert_alike((result["output"], (result["hn"], result["cn"])), (output, (hn, cn)))


def test_lengths_of_their_own_are_kept(models: dict[str, Model]) -> None:
    model = models["bidirectional_stack_lengths"]
    samples = [{"input": x, "lengths": 1 + len(x) // 2} for x in drawn(20)]
    for result, x in zip(map_sequences(model, samples, batch=4), drawn(20), strict=True):
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


@pytest.mark.filterwarnings("ignore:.* has a NaN:RuntimeWarning")
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


@pytest.mark.parametrize("named", [False, True])
def test_a_generator_may_fill_one_array_again(models: dict[str, Model], named: bool) -> None:
    model = models["plain_lengths"]
    sequences = drawn(20)
    buffer = np.empty((max(map(len, sequences)), FEATURES), np.float32)

    def filled() -> Iterator[Any]:
        for sequence in sequences:
            array = buffer[: len(sequence)]
            array[...] = sequence
            yield {"input": array} if named else array

    for result, x in zip(map_sequences(model, filled()), sequences, strict=True):
        assert_alike((result["output"], (result["hn"], result["cn"])) if named else result, model(x))
