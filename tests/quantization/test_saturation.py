"""CPUs that add two products of bytes in 16 bits: emulated, since no machine here must have one."""

from __future__ import annotations

import numpy as np

from lstm_onnx.quantization.arithmetic import WEIGHT_LIMIT, ZERO_POINT, QuantizedWeight, quantize_rows, quantize_weight
from lstm_onnx.quantization.proof import ROUNDINGS


def saturating_product(rows: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """The product as vpmaddubsw computes it: pairs of uint8 by int8, each pair's sum saturated to int16."""
    integers, scales = quantize_rows(rows)
    unsigned = (integers + ZERO_POINT).reshape(len(rows), -1, 2)
    signed = weight.integers.astype(np.int64).reshape(-1, 2, weight.integers.shape[1])
    pairs = np.einsum("bkp,kpn->bkn", unsigned, signed)
    total = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=1) - ZERO_POINT * weight.integers.astype(np.int64).sum(axis=0)
    return total * scales.astype(np.float64) * weight.scales


def exact_product(rows: np.ndarray, weight: QuantizedWeight, dtype: type) -> np.ndarray:
    integers, scales = quantize_rows(rows)
    return (
        (integers @ weight.integers.astype(np.int64)).astype(dtype) * scales.astype(dtype) * weight.scales.astype(dtype)
    )


def roundings(rows: np.ndarray, weight: QuantizedWeight) -> float:
    """The error of the saturating product in roundings, as the proof counts them."""
    exact = exact_product(rows, weight, np.float64)
    rounding = max(np.abs(exact_product(rows, weight, np.float32) - exact).max(), 2.0**-23 * np.abs(exact).max())
    return float(np.abs(saturating_product(rows, weight) - exact).max() / rounding)


def rows_and_weight() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 256)).astype(np.float32)
    rows[0] = 3  # the largest integers
    weight = rng.standard_normal((256, 32)).astype(np.float32)
    weight[:, 0], weight[:, 1] = 1, -1
    return rows, weight


def test_seven_bits_are_exact():
    rows, weight = rows_and_weight()
    assert roundings(rows, quantize_weight(weight)) <= 1


def test_eight_bits_saturate_and_are_rejected():
    rows, weight = rows_and_weight()
    seven = quantize_weight(weight)
    scales = seven.scales * np.float32(WEIGHT_LIMIT / 127)
    eight = QuantizedWeight(np.rint(weight / scales).astype(np.int8), scales)
    assert np.abs(eight.integers).max() == 127
    assert roundings(rows, eight) > 1000 * ROUNDINGS
