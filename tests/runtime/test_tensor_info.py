"""What fits a model, and arrays of other kinds without a copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lstm_onnx.errors import InputError
from lstm_onnx.runtime.conversion import to_numpy
from lstm_onnx.runtime.tensor_info import ValueInfo, axis_sizes, validated_feeds, validated_lengths, zeros

FLOAT = np.dtype(np.float32)
X = ValueInfo("x", FLOAT, ("time", "batch", 4))
H = ValueInfo("h", FLOAT, (2, "batch", 3))
RATE = ValueInfo("rate", np.dtype(np.int64), ())
INFOS = {"x": X, "h": H}


def feeds(**changes: Any) -> dict[str, np.ndarray]:
    return {"x": np.zeros((5, 2, 4), np.float32), "h": np.zeros((2, 2, 3), np.float32), **changes}


def test_info_of_a_node_arg():
    arg = SimpleNamespace(name="x", type="tensor(float16)", shape=["batch", None, 3])
    info = ValueInfo.of(arg)
    assert info == ValueInfo("x", np.dtype(np.float16), ("batch", None, 3))
    assert str(info) == "x float16 (batch, ?, 3)"
    assert ValueInfo.of(SimpleNamespace(name="s", type="seq(tensor(float))", shape=[])).dtype is None


def test_what_fits_comes_back_in_the_models_order_without_a_copy():
    given = {name: feeds()[name] for name in ("h", "x")}
    found = validated_feeds(INFOS, given)
    assert list(found) == ["x", "h"]
    assert found["x"] is given["x"]
    assert found["h"] is given["h"]


def test_row_major_whatever_the_layout():
    values = np.arange(40, dtype=np.float32).reshape(5, 2, 4)
    for array in (np.asfortranarray(values), values[::-1], np.repeat(values, 2, axis=0)[::2]):
        assert not array.flags.c_contiguous
        found = validated_feeds(INFOS, feeds(x=array))["x"]
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(1)}, "^y is not an input of the model; its inputs are x, h"),
        ({"": np.zeros(1)}, "^'' is not an input of the model"),
        ({"x": np.zeros((5, 2, 4))}, r"^x has dtype float64; the model takes float32 \(use .astype\(numpy.float32\)\)"),
        ({"x": np.zeros((5, 2, 4), ">f4")}, "^x has dtype >f4"),
        ({"x": np.zeros((2, 4), np.float32)}, r"^x has shape \(2, 4\); the model takes 3 axes"),
        ({"x": np.zeros((5, 2, 6), np.float32)}, r"^x has shape \(5, 2, 6\); axis 2 must be 4"),
        ({"x": np.zeros((0, 2, 4), np.float32)}, "^x has shape .* the axis time is empty"),
        ({"x": np.zeros((5, 0, 4), np.float32)}, "^x has shape .* the axis batch is empty"),
        ({"h": np.zeros((2, 7, 3), np.float32)}, "^h has shape .* so batch is 7, but x has batch = 2"),
        ({"h": np.zeros((1, 2, 3), np.float32)}, "^h has shape .* axis 0 must be 2"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, np.ndarray], message: str):
    with pytest.raises(InputError, match=message):
        validated_feeds(INFOS, feeds(**changes))


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", [("a", "f4")]])
def test_no_cast_is_recommended_that_loses_or_fails(dtype: Any):
    with pytest.raises(InputError, match=r"^x has dtype .*; the model takes float32$"):
        validated_feeds(INFOS, feeds(x=np.zeros((5, 2, 4), dtype)))


def test_missing_inputs_are_listed_together():
    with pytest.raises(InputError, match=r"^missing input: x float32 \(time, batch, 4\); h float32 \(2, batch, 3\)$"):
        validated_feeds(INFOS, {})


def test_optional_inputs_are_missing_only_where_no_other_is():
    with pytest.raises(InputError, match=r"^missing input: x float32 \(time, batch, 4\)$"):
        validated_feeds(INFOS, {}, optional={"h"})
    with pytest.raises(InputError, match=r"^missing input: h float32 \(2, batch, 3\); pass a value: its size "):
        validated_feeds(INFOS, {"x": np.zeros((5, 2, 4), np.float32)}, optional={"h"})


def test_an_array_at_fault_is_named_before_an_absent_one():
    with pytest.raises(InputError, match=r"^x has shape"):
        validated_feeds(INFOS, {"x": np.zeros((1, 5, 2, 4), np.float32)})


def test_an_axis_without_a_name_takes_any_size_but_zero():
    infos = {"x": ValueInfo("x", FLOAT, (None, 2))}
    assert validated_feeds(infos, {"x": np.ones((9, 2), np.float32)})["x"].shape == (9, 2)
    with pytest.raises(InputError, match="the axis 0 is empty"):
        validated_feeds(infos, {"x": np.ones((0, 2), np.float32)})


def test_zeros_for_an_absent_state():
    sizes = axis_sizes(INFOS, {"x": np.zeros((5, 2, 4)), "unknown": np.zeros(3)})
    assert sizes == {"time": 5, "batch": 2}
    state = zeros(H, sizes)
    assert state is not None
    assert (state.shape, state.dtype, state.any()) == ((2, 2, 3), FLOAT, False)
    assert zeros(H, {"time": 5}) is None
    assert zeros(ValueInfo("h", FLOAT, (2, None, 3)), sizes) is None


def test_sizes_of_a_wrong_rank_are_not_believed():
    assert axis_sizes(INFOS, {"x": np.zeros((5, 2))}) == {}


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=6), st.integers(1, 9))
def test_lengths_are_int32_or_the_first_one_outside_is_named(values: list[int], time: int):
    outside = [index for index, value in enumerate(values) if not 1 <= value <= time]
    lengths = np.array(values, np.int64)
    if outside:
        with pytest.raises(InputError, match=rf"^lengths\[{outside[0]}\] is {values[outside[0]]}; .* {time}$"):
            validated_lengths(lengths, len(values), time)
    else:
        found = validated_lengths(lengths, len(values), time)
        assert found.dtype == np.int32
        assert found.tolist() == values


@pytest.mark.parametrize("value", [[1.0, 2.0], [True, True], ["1", "2"]])
def test_lengths_are_integers(value: list[Any]):
    with pytest.raises(InputError, match="lengths has dtype"):
        validated_lengths(np.array(value), 2, 3)


def test_torch_tensors_share_their_memory_both_ways():
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    array, restore = to_numpy(tensor, None, "x")
    assert array.__array_interface__["data"][0] == tensor.data_ptr()
    back = restore(array)
    assert isinstance(back, torch.Tensor)
    assert back.data_ptr() == tensor.data_ptr()
    strided, _ = to_numpy(tensor.T, None, "x")
    np.testing.assert_array_equal(strided, tensor.numpy().T)


def test_numpy_arrays_are_themselves():
    array = np.zeros(3)
    same, restore = to_numpy(array, X, "x")
    assert same is array
    assert restore(array) is array


@pytest.mark.parametrize("value", [[1, 2.5], (1, 2.5), [np.float64(1), 2.5], [torch.tensor(1.0), torch.tensor(2.5)]])
def test_lists_take_the_models_dtype(value: Any):
    array, restore = to_numpy(value, X, "x")
    assert (array.dtype, array.tolist()) == (FLOAT, [1.0, 2.5])
    assert isinstance(restore(array), np.ndarray)


def test_large_integers_beside_small_ones():
    info = ValueInfo("ids", np.dtype(np.uint64), (None,))
    assert to_numpy([2**63 + 1, 1], info, "ids")[0].tolist() == [2**63 + 1, 1]
    for wrong in ([2**63, 1.5], [2**63, 1.0], [2**63, -1]):
        with pytest.raises(InputError, match=r"^ids (holds values of dtype float64|is not an array of numbers)"):
            to_numpy(wrong, info, "ids")


def test_numbers_take_the_models_dtype():
    array, _ = to_numpy(16000, RATE, "rate")
    assert (array.shape, array.dtype, int(array)) == ((), np.int64, 16000)


@pytest.mark.parametrize(
    ("value", "info", "message"),
    [
        (16000.5, RATE, "rate holds values of dtype float64; the model takes int64"),
        ([1.0, 2.0], RATE, "rate holds values of dtype float64"),
        (10**30, RATE, "rate is not an array of numbers"),
        ([[1.0], [1.0, 2.0]], X, "x is not an array of numbers"),
        ("a", X, "x is not an array of numbers"),
        ({"x": 1.0}, X, "x is a dict; pass an array, or call run with arrays by name"),
        (["1.5"], X, "x holds values of dtype <U3"),
        (None, X, "x holds values of dtype object"),
        ([1j], X, "x is not an array of numbers"),
        ([torch.ones(1, requires_grad=True), 2.0], X, "x is not an array of numbers"),
    ],
)
def test_what_is_no_array_of_the_models_numbers_is_refused(value: Any, info: ValueInfo, message: str):
    with pytest.raises(InputError, match=message):
        to_numpy(value, info, info.name)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, requires_grad=True), r"^x cannot be read as an array: .*\.detach\(\)"),
        (torch.ones(2, dtype=torch.bfloat16), "^x cannot .* it has dtype torch.bfloat16; the model takes x float32"),
        (torch.ones(2, dtype=torch.float64), r"^x has dtype float64; the model takes float32 \(use .to\(torch.float32"),
        (torch.ones(2).to_sparse(), "^x cannot be read as an array"),
        (torch.ones(2, device="meta"), "^x cannot be read as an array"),
    ],
    ids=["requires_grad", "bfloat16", "float64", "sparse", "meta"],
)
def test_tensors_that_have_no_array_are_refused(tensor: torch.Tensor, message: str):
    with pytest.raises(InputError, match=message):
        to_numpy(tensor, X, "x")


def test_another_device_is_named():
    class OnAGPU:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 1)

        def __dlpack__(self, **_: Any) -> None:
            raise AssertionError("must not be read")

    with pytest.raises(InputError, match=r"x is on a device \(DLPack type 2, index 1\); move it to the CPU"):
        to_numpy(OnAGPU(), X, "x")


@pytest.mark.parametrize("dim", [2**62, 2**64, -1, "batch - 5"])
def test_zeros_of_a_size_that_no_array_has_are_refused(dim: Any):
    info = ValueInfo("h", FLOAT, (dim, "batch", 3))
    with pytest.raises(InputError, match=r"^h float32 \(.*, batch, 3\) cannot be created with the sizes \["):
        zeros(info, {"batch": 2})
