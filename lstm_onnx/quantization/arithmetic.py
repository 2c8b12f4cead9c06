"""The arithmetic of an int8 file, in numpy: what its nodes compute, number by number.

A weight has 7 bits (integers within 63) and a scale for each output feature; what it is multiplied by has 8 bits and
a scale for each row.  No row's result depends on another row, and a sum of two such products of bytes stays within 16
bits, so that CPUs whose instructions saturate there (AVX2, AVX-512 without VNNI) compute the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rounding import largest_scales, nearest, quantize_columns, scales_to_try

WEIGHT_LIMIT = 63
"""The largest integer of a weight: 2 * 63 * 255 is the largest below 2**15, where vpmaddubsw saturates."""
ROW_LIMIT = 127
"""The largest integer of a row."""
ROW_STEP = np.float32(1 / ROW_LIMIT)
"""The scale of a row is its largest number times this."""
ZERO_POINT = 128
"""What is added to a row's integers: unsigned by signed bytes is the fast product on x86-64."""
MOST_FEATURES = (2**31 - 1) // (255 * WEIGHT_LIMIT)
"""The most input features whose products surely add up within 32 bits; a row's integers of DynamicQuantizeLSTM are up
to 255."""
TINY = 1e-30
"""The least largest number of a row: a row of zeros has a scale, too."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight of an int8 file.

    Attributes:
        integers: int8 ``(in, out)``, within `WEIGHT_LIMIT`.
        scales: float32 ``(out,)``; the weight is about ``integers * scales``.
    """

    integers: np.ndarray
    scales: np.ndarray

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of input and output features."""
        return self.integers.shape[0], self.integers.shape[1]

    def product(self, rows: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        """The product ``(..., out)`` of rows ``(..., in)`` by the weight: exact integers, scaled in `dtype`."""
        integers, scales = quantize_rows(rows)
        # float64 holds these integers exactly, and its product is a BLAS call.
        total: np.ndarray = (integers.astype(np.float64) @ self.integers.astype(np.float64)).astype(dtype)
        return total * scales.astype(dtype) * self.scales.astype(dtype)


def quantize_weight(weight: np.ndarray) -> QuantizedWeight:
    """A weight ``(in, out)`` of finite numbers as integers and scales, for products; see `rounding`."""
    integers, scales = quantize_columns(weight.T, WEIGHT_LIMIT, scales_to_try(len(weight)))
    return QuantizedWeight(np.ascontiguousarray(integers.T), scales)


def quantize_table(table: np.ndarray) -> QuantizedWeight:
    """A table ``(features, rows)`` of finite numbers, of which rows are read: each integer is the nearest one."""
    columns = np.ascontiguousarray(table.T, np.float32)
    scales = largest_scales(columns, WEIGHT_LIMIT)
    integers = nearest(columns / scales[:, None], WEIGHT_LIMIT).astype(np.int8)
    return QuantizedWeight(np.ascontiguousarray(integers.T), scales)


def quantize_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(..., in)`` as int64 integers within `ROW_LIMIT`, and their float32 scales ``(..., 1)``."""
    rows = rows.astype(np.float32)
    largest = np.maximum(np.abs(rows).max(axis=-1, keepdims=True), np.float32(TINY))
    scales = (largest * ROW_STEP).astype(np.float32)
    return np.rint(rows / scales).astype(np.int64), scales
