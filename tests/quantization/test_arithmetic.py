"""Integers and scales: their ranges, their errors, and products that no row of another changes."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.quantization.arithmetic import WEIGHT_LIMIT, product, quantize_rows, quantize_weight


def test_a_weight_has_integers_within_7_bits_and_a_scale_for_each_output():
    weight = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32) * np.logspace(-3, 3, 8)
    quantized = quantize_weight(weight.astype(np.float32))
    assert quantized.integers.dtype == np.int8
    assert np.abs(quantized.integers).max(axis=0).tolist() == [WEIGHT_LIMIT] * 8
    error = np.abs(quantized.integers * quantized.scales - weight)
    assert (error <= quantized.scales * 0.5001).all()


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
    together = product(rows, weight)
    assert np.array_equal(together, np.concatenate([product(row[None], weight) for row in rows]))
    exact = rows.astype(np.float64) @ (weight.integers * weight.scales.astype(np.float64))
    assert np.abs(together - exact).max() < 0.02 * np.abs(exact).max()
