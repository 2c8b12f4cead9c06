"""Records as a model's inputs: cast to its dtypes, with a batch axis where they have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_onnx.data.cast_inputs import add_batch_axis, arrange_table, cast_inputs, is_single_sequence
from lstm_onnx.errors import InputError
from lstm_onnx.runtime.tensor_info import ValueInfo


def info(name: str, dtype: Any, *shape: Any) -> ValueInfo:
    return ValueInfo(name, None if dtype is None else np.dtype(dtype), shape)


INPUTS = {
    "input": info("input", np.float32, "time", "batch", 2),
    "h0": info("h0", np.float32, 1, "batch", 3),
    "lengths": info("lengths", np.int32, "batch"),
    "half": info("half", np.float16, "batch"),
    "ids": info("ids", np.int64, "batch"),
    "words": info("words", object, "batch"),
    "sequence": info("sequence", None),
}


@pytest.mark.parametrize(
    ("name", "array", "dtype", "remark"),
    [
        ("input", np.ones((2, 1, 2)), np.float32, "input is cast from float64 to float32"),
        ("input", np.ones((2, 1, 2), np.float32), np.float32, None),
        ("input", np.ones((2, 1, 2), np.int64), np.float32, None),
        ("lengths", np.array([2.0]), np.int32, "lengths is cast from float64 to int32"),
        ("input", np.full((2, 1, 2), 2**24), np.float32, None),
        ("ids", np.array([2.0**53 - 1]), np.int64, "ids is cast from float64 to int64"),
        ("half", np.array([np.inf]), np.float16, "half contains NaN or infinity"),
        ("sequence", np.ones(3), np.float64, None),
        ("unknown", np.ones(3), np.float64, None),
    ],
)
def test_numbers_become_the_models(name: str, array: np.ndarray, dtype: Any, remark: str | None) -> None:
    feeds, remarks = cast_inputs(INPUTS, {name: array}, typed=True)
    assert feeds[name].dtype == dtype
    np.testing.assert_array_equal(feeds[name], array)
    assert (remark is None and not remarks) or any(str(remark) in said for said in remarks)


@pytest.mark.parametrize("typed", [True, False])
def test_integers_that_a_float_rounds_are_told(typed: bool) -> None:
    feeds, remarks = cast_inputs(INPUTS, {"input": np.full((2, 1, 2), 1_700_000_001)}, typed=typed)
    assert feeds["input"][0, 0, 0] == 1_700_000_000
    assert remarks == {"input has integers that float32 rounds, such as times in seconds"}
    cast_inputs(INPUTS, {"input": np.full((2, 1, 2), 2**64 - 1, np.uint64)}, typed=typed)  # without numpy's own warning


@pytest.mark.parametrize(("number", "told"), [(1_700_000_001.0, True), (0.1, False), (1e30, False), (np.inf, False)])
def test_so_are_those_of_a_table(number: float, told: bool) -> None:
    _, remarks = cast_inputs(INPUTS, {"input": np.full((2, 1, 2), number)}, typed=False)
    assert any("integers" in remark for remark in remarks) == told


def test_text_has_no_dtype_of_its_own_to_be_said() -> None:
    assert cast_inputs(INPUTS, {"input": np.ones((2, 1, 2))}, typed=False)[1] == set()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("lengths", np.array([1.5]), "lengths has values that the model's int32 cannot represent, such as 1.5"),
        ("lengths", np.array([np.nan]), "lengths has values that the model's int32"),
        ("lengths", np.array([2**40]), "lengths has values that the model's int32"),
        ("half", np.array([1e6]), "half has values that are too large for the model's float16"),
        ("ids", np.array([2.0**53]), r"ids has integers of 2\*\*53 or more that were read as floats"),
        ("words", np.array([1.0]), "the model takes strings as words, but a data file has numbers"),
    ],
)
def test_numbers_that_the_model_cannot_take_are_refused(name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cast_inputs(INPUTS, {name: array}, typed=True)


def test_one_sequence_gets_a_batch_of_one() -> None:
    one = {"input": np.zeros((5, 2)), "h0": np.zeros((1, 3)), "lengths": np.array(5)}
    assert is_single_sequence(INPUTS, one)
    assert {name: array.shape for name, array in add_batch_axis(INPUTS, one).items()} == {
        "input": (5, 1, 2),
        "h0": (1, 1, 3),
        "lengths": (1,),
    }
    for record in (
        {"input": np.zeros((5, 1, 2))},
        {"input": np.zeros((5, 2)), "h0": np.zeros((1, 1, 3))},
        {"input": np.zeros((5, 2)), "unknown": np.zeros(())},
        {"input": np.zeros((5, 2)), "sequence": np.zeros(())},
    ):
        assert not is_single_sequence(INPUTS, record)
        assert add_batch_axis(INPUTS, record) is record


@pytest.mark.parametrize(
    ("shape", "columns", "expected"),
    [
        (("batch", "time"), 1, (5,)),  # tokens, samples, one series
        (("words", "batch"), 1, (5,)),
        (("batch", 3, "time"), 3, (3, 5)),
        (("batch", "features", "time"), 3, (3, 5)),
        (("batch", "time", 3), 3, (5, 3)),
        (("time", "batch", 3), 3, (5, 3)),
        (("batch", 3), 3, (5, 3)),  # a step's features: rows are a batch
        (("time", "features"), 3, (5, 3)),
        (("batch_size", "seq"), 1, (5,)),  # as other tools call them
    ],
)
def test_a_table_has_the_axes_of_one_sequence(shape: tuple[Any, ...], columns: int, expected: tuple[int, ...]) -> None:
    table = np.arange(5.0 * columns).reshape(5, columns)
    arranged = arrange_table({"x": info("x", np.float32, *shape)}, {"x": table})["x"]
    assert arranged.shape == expected
    assert arranged.T.ravel()[0] == table[0, 0]
    if len(expected) == 2 and expected[1] == 5:
        np.testing.assert_array_equal(arranged.T, table)


def test_a_table_of_several_columns_is_no_batch_of_an_input_of_one_number() -> None:
    with pytest.raises(InputError, match=r"the table has 2 columns, .* one number per time step: x int64"):
        arrange_table({"x": info("x", np.int64, "batch", "time")}, {"x": np.ones((5, 2))})


@pytest.mark.parametrize("shape", [("N", "T"), (None, None), ("rows", "time")])
def test_a_table_of_an_input_whose_axes_are_not_known_is_refused(shape: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match=r"it is not known which axis of x float32 \(.*\) is time; pass an array"):
        arrange_table({"x": info("x", np.float32, *shape)}, {"x": np.ones((5, 1))})
