"""Each number of a golden file is stored once, and is read as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lstm_onnx.parity.golden_arrays import Store, taken

LARGE = np.arange(3 * 1000 * 2, dtype=np.float32).reshape(3, 1000, 2)


def _read(store: Store, place: object) -> np.ndarray:
    return taken(store.arrays, json.loads(json.dumps(place)))


@pytest.mark.parametrize(
    "array",
    [
        LARGE[0],
        np.zeros((0, 4), np.int32),
        np.array(2.5),
        np.array([[True, False]]),
        np.array([0.0, -0.0, np.nan, np.inf], np.float16),
        LARGE,
    ],
    ids=["float32", "empty", "a number", "bool", "float16", "large"],
)
def test_an_array_is_read_as_it_was(array: np.ndarray) -> None:
    store = Store()
    store.add("first", np.ones(5, array.dtype), (), join=True)
    for join in (True, False):
        place = store.add(f"own.{join}", array, (), join=join).place
        found = _read(store, place)
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert len(store.arrays) == 2


def test_blocks_are_not_stored() -> None:
    store = Store()
    output = store.add("output", LARGE, (), join=False)
    last = store.add("hn", LARGE[2:], (output,), join=False)
    assert last.place == ["output", [1, 1000, 2], [2, 0, 0]]
    assert store.add("fewer", LARGE[:, :7], (output,), join=False).place == ["output", [3, 7, 2], [0, 0, 0]]
    assert store.add("last of fewer", LARGE[2:, :7], (last,), join=False).place == ["output", [1, 7, 2], [2, 0, 0]]
    np.testing.assert_array_equal(_read(store, ["output", [1, 7, 2], [2, 0, 0]]), LARGE[2:, :7])
    assert list(store.arrays) == ["output"]


def test_blocks_of_a_joined_array_are_its_first_and_last_steps() -> None:
    store = Store()
    store.add("other", np.full(10, 7, np.float32), (), join=True)
    steps = LARGE[:, :4]
    joined = store.add("output", steps, (), join=True)
    assert joined.place == ["float32", [3, 4, 2], [10]]
    assert store.add("hn", steps[2:], (joined,), join=True).place == ["float32", [1, 4, 2], [26]]
    apart = store.add("rows", steps[:, :2], (joined,), join=True)  # its numbers are not one after another
    assert apart.place == ["float32", [3, 2, 2], [34]]
    np.testing.assert_array_equal(_read(store, ["float32", [1, 4, 2], [26]]), steps[2:])


def test_numbers_that_only_compare_equal_are_stored_apart() -> None:
    store = Store()
    zeros = store.add("zeros", np.zeros((2, 2)), (), join=True)
    minus = store.add("minus", -np.zeros((1, 2)), (zeros,), join=True)
    assert minus.place == ["float64", [1, 2], [4]]
    assert np.signbit(_read(store, minus.place)).all()
    assert store.add("others", np.zeros((1, 2), np.float32), (zeros,), join=True).name == "float32"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none", "array 'none' is missing"),
        (["none", [1], [0]], "array 'none' is missing"),
        (["a", [1]], "is missing"),
        ([["a"], [1], [0]], "is missing"),
        (["a", 3, [0]], "no shape or start"),
        (["a", [1.0], [0]], "no shape or start"),
        (["a", [1], [True]], "no shape or start"),
        (["a", [1], [-1]], "no shape or start"),
        (["a", [10**30], [0]], "no shape or start"),
        (["a", [7], [0]], "is larger than it"),
        (["a", [2, 3], [1]], "is larger than it"),
        (["a", [2**39, 2**39], [0]], "is larger than it"),
        (["a", [2], [0, 0]], "has a different rank"),
        (["b", [2], [0]], "has a different rank"),
        (["b", [2, 2, 1], [0, 0]], "has a different rank"),
        (["b", [2, 2], [0, 2]], "is larger than it"),
    ],
)
def test_a_place_that_is_none_is_refused(place: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        taken({"a": np.zeros(6), "b": np.zeros((2, 3))}, place)


def test_an_empty_block_of_any_shape_is_no_reason_to_crash() -> None:
    assert taken({"a": np.zeros(6)}, ["a", [0, 2**39], [6]]).shape == (0, 2**39)
