"""Integers and scales: their ranges, their errors, and products that no row of another changes."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.quantization.arithmetic import (
    WEIGHT_LIMIT,
    QuantizedWeight,
    quantize_rows,
    quantize_table,
    quantize_weight,
)


def drawn(inputs: int, outputs: int) -> np.ndarray:
    weight = np.random.default_rng(0).standard_normal((inputs, outputs)) * np.logspace(-3, 3, outputs)
    return weight.astype(np.float32)


def errors(quantized: QuantizedWeight, weight: np.ndarray) -> np.ndarray:
    """In integers of each output feature."""
    return weight / quantized.scales.astype(np.float64) - quantized.integers


def test_a_table_has_integers_within_7_bits_and_a_scale_for_each_row():
    weight = drawn(30, 8)
    quantized = quantize_table(weight)
    assert quantized.integers.dtype == np.int8
    assert np.abs(quantized.integers).max(axis=0).tolist() == [WEIGHT_LIMIT] * 8
    assert np.abs(errors(quantized, weight)).max() < 0.5001


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (11, 40), (64, 30), (300, 200), (5000, 3)])
def test_the_errors_of_a_weight_are_small_and_add_up_to_nothing(inputs: int, outputs: int):
    weight = drawn(inputs, outputs)
    quantized, nearest = quantize_weight(weight), quantize_table(weight)
    assert np.abs(quantized.integers.astype(int)).max() <= WEIGHT_LIMIT
    assert np.abs(errors(quantized, weight)).max() < 1
    assert np.abs(errors(quantized, weight).sum(axis=0)).max() < 0.501
    assert np.abs(errors(nearest, weight).sum(axis=0)).max() > 0.6
    square, least = (np.square(errors(one, weight) * one.scales).sum(axis=0) for one in (quantized, nearest))
    assert square.sum() < 1.01 * least.sum()


def test_weights_are_quantized_alike_in_any_layout_and_company():
    weight = drawn(300, 200)
    quantized = quantize_weight(weight)
    for other in (np.asfortranarray(weight), weight[::-1][::-1]):
        assert np.array_equal(quantize_weight(other).integers, quantized.integers)
    part = quantize_weight(weight[:, 150:])
    assert np.array_equal(part.integers, quantized.integers[:, 150:])
    assert np.array_equal(part.scales, quantized.scales[150:])


def test_a_mean_of_the_inputs_does_not_shift_a_product():
    rng = np.random.default_rng(0)
    weight = drawn(64, 30)
    rows = (5 + rng.standard_normal((100, 64))).astype(np.float32)
    exact = rows.astype(np.float64) @ weight.astype(np.float64)
    shifts = [
        np.abs((one.product(rows) - exact).mean(axis=0) / one.scales).mean()
        for one in (quantize_weight(weight), quantize_table(weight))
    ]
    assert shifts[0] < 0.4 * shifts[1]


def test_two_products_of_bytes_never_leave_16_bits():
    # vpmaddubsw adds two products of an unsigned and a signed byte, and saturates.
    assert 2 * 255 * WEIGHT_LIMIT <= np.iinfo(np.int16).max < 2 * 255 * (WEIGHT_LIMIT + 2)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38])
def test_columns_of_zeros_and_of_extreme_numbers(value: float):
    quantized = quantize_weight(np.full((3, 2), value, np.float32))
    assert np.isfinite(quantized.scales).all()
    assert (quantized.scales > 0).all()
    assert np.abs(quantized.integers.astype(int)).max() <= WEIGHT_LIMIT
    with np.errstate(over="ignore"):
        assert np.allclose(quantized.integers * quantized.scales.astype(np.float64), value, rtol=0.01, atol=1e-38)


def test_rows_have_a_scale_each():
    rows = np.array([[1.0, -0.5, 0.0], [1000.0, 3.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)
    integers, scales = quantize_rows(rows)
    assert integers.tolist() == [[127, -64, 0], [127, 0, -127], [0, 0, 0]]
    assert scales[:2, 0] == pytest.approx([1 / 127, 1000 / 127])


def test_the_product_is_that_of_each_row_alone():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 40)).astype(np.float32)
    weight = quantize_weight(rng.standard_normal((40, 6)).astype(np.float32))
    together = weight.product(rows)
    assert np.array_equal(together, np.concatenate([weight.product(row[None]) for row in rows]))
    exact = rows.astype(np.float64) @ (weight.integers * weight.scales.astype(np.float64))
    assert np.abs(together - exact).max() < 0.02 * np.abs(exact).max()
