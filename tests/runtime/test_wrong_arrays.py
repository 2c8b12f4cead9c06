"""Arrays that are not what they look like: each way into a model gives the right numbers or says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lstm_onnx import Batcher, InputError, Model
from lstm_onnx.spec import ExportOptions

from .models import model_of, randoms

X = randoms(5, 1, 4)
Enter = Callable[[Model, Any], Any]


def _stepped(model: Model, x: Any) -> Any:
    pool = model.pool(1)
    return pool.step([pool.open()], x)


def _batched(model: Model, x: Any) -> Any:
    with Batcher(model, max_batch=1, window=0) as batcher:
        return batcher.open().step(x)


ENTRIES: dict[str, Enter] = {
    "call": lambda model, x: model(x)[0],
    "run": lambda model, x: model.run({"input": x})["output"],
    "stream": lambda model, x: model.stream()(x),
    "stream.run": lambda model, x: model.stream().run({"input": x})["output"],
    "pool": _stepped,
    "batcher": _batched,
    "map": lambda model, x: next(iter(model.map([{"input": x[:, 0]}])))["output"][:, np.newaxis],
}
enters = pytest.mark.parametrize("enter", ENTRIES.values(), ids=ENTRIES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model_of(tmp_path_factory.mktemp("m"))


class Marked(np.ndarray):
    """Somebody's own kind of array."""


def _unaligned() -> np.ndarray:
    return np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)


def _read_only() -> np.ndarray:
    array = X.copy()
    array.setflags(write=False)
    return array


SAME: dict[str, Any] = {
    "big endian": X.astype(">f4"),
    "Fortran's order": np.asfortranarray(X),
    "backwards": np.ascontiguousarray(X[::-1])[::-1],
    "every other": np.repeat(X, 2, axis=2)[:, :, ::2],
    "read-only": _read_only(),
    "unaligned": _unaligned(),
    "a subclass": X.view(Marked),
    "a mask of nothing": np.ma.masked_array(X, mask=False),
    "a list": X.tolist(),
    "a transposed tensor": torch.from_numpy(X.transpose(2, 1, 0).copy()).permute(2, 1, 0),
    "a negated tensor": torch.complex(torch.from_numpy(X), torch.from_numpy(-X)).conj().imag,
}


@enters
@pytest.mark.parametrize("x", SAME.values(), ids=SAME)
def test_another_layout_gives_the_same_numbers_each_time(model: Model, enter: Enter, x: Any) -> None:
    if isinstance(x, list) and enter is ENTRIES["map"]:
        x = np.array(x, np.float32)
    expected = model(X)[0]
    for _ in range(3):
        np.testing.assert_allclose(np.asarray(enter(model, x)), expected, rtol=0, atol=1e-6)


def test_a_step_of_zero_bytes_is_read_as_often_as_there_are_steps(model: Model) -> None:
    repeated = np.broadcast_to(X[:1], X.shape)
    np.testing.assert_array_equal(model(repeated)[0], model(repeated.copy())[0])


WRONG: dict[str, Any] = {
    "float64": X.astype(np.float64),
    "integers": X.astype(np.int32),
    "objects": X.astype(object),
    "complex": X.astype(np.complex64),
    "dates": np.zeros(X.shape, "M8[s]"),
    "records": np.zeros(X.shape, [("a", np.float32)]),
    "raw bytes": np.zeros(X.shape, "V4"),
    "text": X.astype(str),
    "a mask": np.ma.masked_array(X, mask=X > 0.5),
    "a mask over everything": np.ma.masked_array(X, mask=True),
    "a gradient": torch.from_numpy(X).requires_grad_(),
    "a sparse tensor": torch.from_numpy(X).to_sparse(),
    "no memory": torch.zeros(X.shape, device="meta"),
    "a conjugate": torch.from_numpy(X.astype(np.complex64)).conj(),
}


@enters
@pytest.mark.parametrize("x", WRONG.values(), ids=WRONG)
def test_what_is_no_such_array_is_refused_each_time(model: Model, enter: Enter, x: Any) -> None:
    # The right numbers before it, so that such shapes are bound.
    for _ in range(3):
        enter(model, X)
    for _ in range(3):
        with pytest.raises(InputError, match="input"):
            enter(model, x)


def test_bound_streams_take_other_byte_orders_as_new_ones_do(model: Model) -> None:
    stream, other = model.stream(), model.stream()
    for at in range(5):
        step = X[at : at + 1]
        np.testing.assert_array_equal(stream(step.astype(">f4")) if at > 2 else stream(step), other(step))


def test_streams_are_bound_to_arrays_of_another_byte_order(model: Model) -> None:
    stream, other = model.stream(), model.stream()
    for at in range(5):
        outputs = stream.run({"input": X[at : at + 1].astype(">f4")})
        np.testing.assert_array_equal(outputs["output"], other(X[at : at + 1]))


def test_masks_in_lists_and_in_states_count_too(model: Model) -> None:
    hidden = np.ma.masked_array([1.0, 2, 3, 4], mask=[0, 1, 0, 0])
    with pytest.raises(InputError, match=r"input is a masked array, .*\.filled\(value\)"):
        model([[hidden]])
    with pytest.raises(InputError, match="input is a masked array"):
        model([[[1.0, 2.0, np.ma.masked, 4.0]]])
    state = np.ma.masked_array(np.zeros((1, 1, 5), np.float32), mask=True)
    with pytest.raises(InputError, match="h0 is a masked array"):
        model(X, (state, state.filled(0)))
    with pytest.raises(InputError, match="c0 is a masked array"):
        model.stream().state = {"h0": state.filled(0), "c0": state}


class Made:
    """What makes an array of itself, as tables do."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self._array


def test_what_makes_an_array_of_itself(model: Model) -> None:
    np.testing.assert_array_equal(model(Made(X))[0], model(X)[0])
    with pytest.raises(InputError, match="input is a masked array"):
        model(Made(np.ma.masked_array(X, mask=X > 0)))


@pytest.mark.parametrize("value", [1e300, [[[1e300] * 4]], [[np.full(4, 1e300)]]])
def test_numbers_too_large_for_the_model_are_no_infinities(model: Model, value: Any) -> None:
    with pytest.raises(InputError, match="input holds numbers too large for the model's dtype float32"):
        model.run({"input": value})


def test_a_list_that_holds_itself(model: Model) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputError, match="input is not an array of numbers"):
        model(endless)


RIGHT_LENGTHS: dict[str, Any] = {
    "a list": [5, 3],
    "a tuple": (5, 3),
    "int64": np.array([5, 3]),
    "uint8": np.array([5, 3], np.uint8),
    "big endian": np.array([5, 3], ">i8"),
    "backwards": np.array([3, 5])[::-1],
    "a tensor": torch.tensor([5, 3]),
}
WRONG_LENGTHS: dict[str, Any] = {
    "floats": [5.0, 3.0],
    "bools": [True, True],
    "an array of bools": np.array([True, True]),
    "a tensor of bools": torch.tensor([True, True]),
    "negative": [-1, 3],
    "zero": [0, 3],
    "too long": [6, 3],
    "wrapped to 5": np.array([2**32 + 5, 3]),
    "uint64": np.array([2**64 - 1, 3], np.uint64),
    "huge": [2**70, 3],
    "objects": np.array([5, 3], object),
    "time differences": np.array([5, 3], "m8[s]"),
    "none": [5, None],
    "nan": [5, float("nan")],
    "text": ["5", "3"],
    "masked": np.ma.masked_array([5, 3], mask=[0, 1]),
    "too few": [5],
    "a number": 5,
    "two axes": np.array([[5, 3]]),
    "none at all": [],
}


@pytest.mark.parametrize("lengths", RIGHT_LENGTHS.values(), ids=RIGHT_LENGTHS)
def test_lengths_of_any_integers(lengths: Any, tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    x = randoms(5, 2, 4)
    for _ in range(3):
        output, (hn, _) = model(x, lengths=lengths)
        whole, (short, _) = model(x[:3, 1:])
        np.testing.assert_allclose(output[:3, 1:], whole, rtol=0, atol=1e-6)
        np.testing.assert_allclose(hn[:, 1:], short, rtol=0, atol=1e-6)
        assert not output[3:, 1].any()
        np.testing.assert_array_equal(model.run({"input": x, "lengths": lengths})["output"], output)


@pytest.mark.parametrize("lengths", WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_wrong_lengths_are_refused_each_time(lengths: Any, tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    x, stream = randoms(5, 2, 4), model.stream(2)
    for _ in range(3):
        stream.run({"input": x, "lengths": np.array([5, 3])})
    for _ in range(3):
        with pytest.raises(InputError, match="lengths"):
            model(x, lengths=lengths)
        with pytest.raises(InputError, match="lengths"):
            model.run({"input": x, "lengths": lengths})
        with pytest.raises(InputError, match="lengths"):
            stream.run({"input": x, "lengths": lengths})


@pytest.mark.parametrize("states", [{"h0": "hn", "c0": "hn"}, {"h0": "cn", "c0": "hn"}, {"h0": "output"}])
def test_a_bare_lstm_keeps_its_own_states(states: dict[str, str], tmp_path: Path) -> None:
    from lstm_onnx import ModelError, load

    path = model_of(tmp_path).path
    with pytest.raises(ModelError, match=r"is a bare LSTM with h0 <- hn, c0 <- cn: (cn|hn|output) does not feed"):
        load(path, "cpu", states=states)
