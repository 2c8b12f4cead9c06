"""What counts of the calls of one case."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lstm_onnx.parity.expected import Call, Expected, abbreviated, largest_relative_errors, with_least_errors

RIGHT = np.ones((2, 3))
CHAOTIC = RIGHT + 0.1
"""PyTorch's own outputs where its error is too large to judge by."""


def _case(*native: np.ndarray) -> Expected:
    calls = tuple(Call({"x": RIGHT}, {"y": own}, {"y": RIGHT}) for own in native)
    return Expected("case", calls, "float32", 1.0, "sweep")


def test_calls_that_fail_are_named_in_short() -> None:
    sizes = [f"time {size}" for size in (1, 2, 3, 5, *range(9, 40))]
    assert abbreviated(sizes, 100) == "time 1 to 3, 5, 9 to 39"
    assert abbreviated(["batch 1", "time 2"], 3) == "batch 1, time 2"
    assert abbreviated(sizes, len(sizes)) == "all"
    assert abbreviated([f"call {i}, states" for i in range(9)], 10).endswith("call 7, states and 1 more")


@pytest.mark.parametrize("order", [1, -1])
def test_a_call_that_fails_is_not_hidden_by_one_that_cannot_be_judged(order: int) -> None:
    case = _case(*(RIGHT, CHAOTIC)[::order])
    wrong, unclear = {"y": RIGHT.astype(np.float32) + 1}, {"y": CHAOTIC.astype(np.float32)}
    result = case.judge((wrong, unclear)[::order])
    assert not result.inconclusive
    assert not result.passed


def test_a_call_that_cannot_be_judged_is_not_hidden_by_one_that_passes() -> None:
    case = _case(RIGHT, CHAOTIC)
    assert case.judge([{"y": RIGHT.astype(np.float32)}, {"y": CHAOTIC.astype(np.float32)}]).inconclusive
    assert case.inconclusive


@pytest.mark.parametrize("state", [1.0, 1e30])
def test_a_huge_state_allows_no_error_of_the_size_of_the_output(state: float) -> None:
    """As a ReLU RNN that grows without bound, before a clip."""
    case = Expected("case", (Call({"x": RIGHT}, {"y": RIGHT}, {"y": RIGHT}),), "float32", state)
    assert case.judge([{"y": RIGHT.astype(np.float32)}]).passed
    assert not case.judge([{"y": 2 * RIGHT.astype(np.float32)}]).passed


def test_an_output_that_is_nearly_zero_in_a_case_allows_no_error_in_another() -> None:
    """As ``1 - cos`` of a sequence's first and last state, which are the same where it has one step."""
    zero = Expected("one step", (Call({"x": RIGHT}, {"y": 1e-7 * RIGHT}, {"y": 1e-16 * RIGHT}),), "float32", 1.0)
    usual = _case(RIGHT + 1e-6)
    assert not zero.inconclusive
    least = largest_relative_errors([zero, usual])
    assert least == {"y": pytest.approx(1e-6)}
    wrong = dataclasses.replace(usual, least=least).judge([{"y": 2 * RIGHT.astype(np.float32)}])
    assert not wrong.passed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_case_is_inconclusive_in_any_dtype_where_one_of_its_outputs_is(dtype: str) -> None:
    call = Call({"x": RIGHT}, {"y": CHAOTIC, "z": RIGHT + 1e-6}, {"y": RIGHT, "z": RIGHT})
    case = Expected("case", (call,), dtype, 1.0)
    assert case.inconclusive
    assert case.judge([{name: array.astype(dtype) for name, array in call.reference.items()}]).inconclusive


def test_nothing_can_be_judged_where_pytorch_itself_has_no_finite_number() -> None:
    assert not Call({"x": RIGHT}, {"y": RIGHT * np.nan}, {"y": RIGHT}).conclusive("float16")


def test_a_large_call_does_not_allow_any_error_in_a_small_one() -> None:
    """As ``1 / variance`` over time, which is large for a few steps."""
    large = Call({"x": RIGHT}, {"y": 1e6 * RIGHT + 10.0}, {"y": 1e6 * RIGHT})
    small = Call({"x": RIGHT}, {"y": RIGHT + 1e-8}, {"y": RIGHT})
    calls = with_least_errors([large, small], "float32")
    assert calls[0].least == {"y": pytest.approx(10.0)}
    case = Expected("case", calls, "float32", 1.0, "sweep")
    outputs = [{"y": call.reference["y"].astype(np.float32)} for call in calls]
    assert case.judge(outputs).passed
    assert not case.judge([outputs[0], {"y": outputs[1]["y"] * np.float32(1.1)}]).passed


def test_some_features_are_copied_and_compared() -> None:
    wide = np.arange(600.0).reshape(2, 300)
    case = Expected("case", (Call({"x": RIGHT}, {"y": wide, "z": RIGHT}, {"y": wide, "z": RIGHT}),), "float32", 1.0)
    few = case.with_features({"y": 100})
    reference = few.calls[0].reference
    assert np.array_equal(reference["y"], wide[:, ::100])
    assert reference["y"].base is None  # which a view of all features has
    assert reference["z"] is RIGHT
    outputs = {"y": wide.astype(np.float32), "z": RIGHT.astype(np.float32)}
    assert few.judge([few.compared(outputs)]).passed
    outputs["y"][1, 200] += 1
    assert not few.judge([few.compared(outputs)]).passed
