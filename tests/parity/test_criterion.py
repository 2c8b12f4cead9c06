from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lstm_onnx.parity.criterion import EPSILON, TensorResult, compare
from lstm_onnx.parity.tolerances import K


def _judge(
    actual: object, own: object, reference: object, *, dtype: str = "float32", scale: float = 1.0
) -> TensorResult:
    arrays = [np.atleast_1d(np.asarray(value, np.float64)) for value in (actual, own, reference)]
    return compare("hn", *arrays, dtype=dtype, scale=scale)


def test_the_error_is_measured_in_pytorchs_own() -> None:
    result = _judge([1.0, 1.0 + 3e-5], [1.0 + 1e-5, 1.0], [1.0, 1.0])
    assert result.output == "hn"
    assert result.error == pytest.approx(3e-5)
    assert result.torch_error == pytest.approx(1e-5)
    assert result.ratio == pytest.approx(3.0)
    assert result.where == (1,)
    assert result.passed
    assert not result.inconclusive
    assert result.problem == ""


def test_where_is_the_index_of_the_largest_error() -> None:
    reference = np.zeros((2, 3, 4))
    actual = reference.copy()
    actual[1, 2, 3] = 0.5
    actual[0, 1, 2] = -0.75
    result = compare("output", actual, reference, reference, dtype="float32", scale=1.0)
    assert result.where == (0, 1, 2)
    assert result.error == 0.75
    assert not result.passed


@pytest.mark.parametrize(("factor", "passed"), [(0.999, True), (1.0, True), (1.001, False), (100.0, False)])
def test_k_is_the_boundary(factor: float, passed: bool) -> None:
    own = 2.0**-16
    result = _judge(K * own * factor, own, 0.0)
    assert result.ratio == pytest.approx(K * factor)
    assert result.passed is passed


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_what_is_not_finite_fails(wrong: float, index: int) -> None:
    actual = [1.0, 1.0]
    actual[index] = wrong
    result = _judge(actual, [1.0, 1.0], [1.0, 1.0])
    assert not result.passed
    assert result.ratio == np.inf
    assert result.where == (index,)
    assert "not finite" in result.problem


def test_a_nan_ratio_is_no_pass() -> None:
    result = dataclasses.replace(_judge(0.0, 0.0, 0.0), ratio=float("nan"))
    assert not result.passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_same_as_a_reference_that_is_not_finite_passes(value: float) -> None:
    result = _judge([value, 1.0], [value, 1.0], [value, 1.0])
    assert result.passed
    assert result.error == 0.0


@pytest.mark.parametrize(("actual", "reference"), [(np.inf, -np.inf), (1.0, np.inf), (1.0, np.nan), (np.nan, np.inf)])
def test_another_than_a_reference_that_is_not_finite_fails(actual: float, reference: float) -> None:
    assert not _judge(actual, reference, reference).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_pytorch_itself_gives_passes_where_only_float64_is_finite(value: float) -> None:
    """Such as the unit vector of zeros in half precision, whose least norm of 1e-12 is 0."""
    result = _judge([value, 1.0], [value, 1.0], [0.0, 1.0])
    assert result.passed
    assert not result.inconclusive
    assert not _judge([value, 1.0], [1.0, 1.0], [0.0, 1.0]).passed
    assert not _judge([value, 2.0], [value, 1.0], [0.0, 1.0]).passed
    assert not _judge([-np.inf if value > 0 else np.inf, 1.0], [value, 1.0], [0.0, 1.0]).passed
    # Of numbers none of which is finite in PyTorch nothing is known.
    assert _judge([value, value], [value, value], [0.0, 1.0]).inconclusive


def test_one_right_infinity_does_not_hide_a_wrong_value() -> None:
    assert not _judge([np.inf, 2.0], [np.inf, 1.0], [np.inf, 1.0]).passed


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1), (6,), (2, 2)])
def test_another_shape_fails(shape: tuple[int, ...]) -> None:
    reference = np.zeros((2, 3))
    result = compare("cn", np.zeros(shape), reference, reference, dtype="float32", scale=1.0)
    assert not result.passed
    assert result.ratio == np.inf
    assert str(shape) in result.problem
    assert "(2, 3)" in result.problem


def test_the_floor_lets_a_saturated_gate_be_zero() -> None:
    result = _judge(0.0, 6e-17, 6e-17)
    assert result.passed
    assert result.ratio < 1e-6


def test_the_floor_is_on_the_gates_scale_and_not_on_the_outputs() -> None:
    floor = EPSILON["float32"]
    assert _judge(0.9 * K * floor, 0.0, 0.0).passed
    assert not _judge(1.1 * K * floor, 0.0, 0.0).passed


def test_the_floor_grows_with_the_cell() -> None:
    error = 10 * K * EPSILON["float32"]
    assert not _judge(error, 0.0, 0.0, scale=1.0).passed
    assert _judge(error, 0.0, 0.0, scale=20.0).passed


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_epsilon_is_that_of_the_dtype(dtype: str) -> None:
    assert EPSILON[dtype] == np.finfo(dtype).eps
    assert _judge(0.9 * K * EPSILON[dtype], 0.0, 0.0, dtype=dtype).passed
    assert not _judge(1.1 * K * EPSILON[dtype], 0.0, 0.0, dtype=dtype).passed


def test_a_float64_model_is_judged_by_pytorchs_float32_error_scaled_down() -> None:
    own = 2.0**-18  # as float32 rounds
    scaled = own * EPSILON["float64"] / EPSILON["float32"]
    result = _judge(scaled * K * 0.9, own, 0.0, dtype="float64")
    assert result.torch_error == pytest.approx(scaled)
    assert result.passed
    assert not _judge(scaled * K * 1.1, own, 0.0, dtype="float64").passed


@pytest.mark.parametrize(
    ("own", "reference", "inconclusive"),
    [
        (1.0 + 2e-3, 1.0, True),
        (1.0 + 0.5e-3, 1.0, False),
        (100.0 + 0.05, 100.0, False),  # relative to the output's own size
        (100.0 + 0.5, 100.0, True),
        (1e-9 + 1e-10, 1e-9, False),  # a tenth of next to nothing, below the floor
    ],
)
def test_a_run_is_inconclusive_where_pytorch_itself_is_a_thousandth_off(
    own: float, reference: float, inconclusive: bool
) -> None:
    assert _judge(reference, own, reference).inconclusive is inconclusive


@pytest.mark.parametrize(("own", "inconclusive"), [(2.0 + 0.02, False), (2.0 + 0.04, True)])
def test_a_float16_run_is_inconclusive_where_its_bound_is_half_of_the_output(own: float, inconclusive: bool) -> None:
    result = _judge(2.0, own, 2.0, dtype="float16")
    assert result.inconclusive is inconclusive
    assert (result.allowed > 1.0) is inconclusive


def test_what_is_wrong_by_far_stays_conclusive_where_pytorch_is_right() -> None:
    result = _judge(5.0, 1.0, 1.0)
    assert not result.inconclusive
    assert not result.passed


def test_float16_is_compared_without_overflow() -> None:
    reference = np.array([60000.0, -60000.0])
    result = compare("cn", reference.astype(np.float16), reference, reference, dtype="float16", scale=6e4)
    assert np.isfinite(result.error)
    assert result.passed


def test_an_overflow_of_pytorch_itself_is_no_yardstick() -> None:
    assert not _judge([1.0, 2.0], [np.inf, 1.0], [1.0, 1.0]).passed


def test_an_empty_output_is_right() -> None:
    empty = np.zeros((0, 3))
    assert compare("y", empty, empty, empty, dtype="float32", scale=1.0).passed
    assert not compare("y", np.zeros((1, 3)), empty, empty, dtype="float32", scale=1.0).passed


def test_an_infinite_scale_does_not_allow_any_error() -> None:
    reference = np.array([[1.0, np.inf]])
    result = compare("cn", reference * 1000, reference, reference, dtype="float32", scale=np.inf)
    assert not result.passed
    assert np.isfinite(result.allowed)
    assert compare("cn", reference, reference, reference, dtype="float32", scale=np.inf).passed


def test_an_output_without_a_scale_is_zero_or_wrong() -> None:
    """As of a projection whose weights are zeros."""
    assert _judge(0.0, 0.0, 0.0, scale=0.0).ratio == 0
    assert not _judge(1e-30, 0.0, 0.0, scale=0.0).passed
