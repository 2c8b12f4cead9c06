"""The arithmetic of an int8 file, in numpy: what its nodes compute, number by number.

A weight has 7 bits (integers within 63) and a scale for each output feature; its input has 8 bits and a scale for each
row.  No row's result depends on another row, and a sum of two such products of bytes stays within 16
bits, so that CPUs whose instructions saturate there (AVX2, AVX-512 without VNNI) compute the same integers.

Of several scales for an output feature (or for a block of its weights), the one with the least squared error is taken,
and its integers are rounded so that their errors add up to at most half a unit: then the mean of the input does not
shift the product (as in SQuant, https://arxiv.org/abs/2202.07471).  Neither needs data, and both give the same numbers
on every machine, since the errors are added up as integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WEIGHT_LIMIT = 63
"""The largest integer of a weight: 2 * 63 * 255 is the largest below 2**15, where vpmaddubsw saturates."""
ROW_LIMIT = 127
"""The largest integer of a row."""
ROW_STEP = np.float32(1 / ROW_LIMIT)
"""The scale of a row is its largest number times this."""
ZERO_POINT = 128
"""The offset of a row's integers: the product of unsigned and signed bytes is the fast one on x86-64."""
MOST_FEATURES = (2**31 - 1) // (255 * WEIGHT_LIMIT)
"""The most input features whose products cannot overflow 32 bits when they are added up; the integers of a row in
DynamicQuantizeLSTM are up to 255."""
TINY = 1e-30
"""A lower bound of a row's largest number, so that a row of zeros has a scale, too."""


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
    """A table ``(features, rows)`` of finite numbers, from which rows are read, rounded to the nearest integers."""
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


_TRIED = 4096
"""How many roundings are spent on finding the scale of an output feature: with fewer weights, more scales are tried."""
_MOST_SCALES, _SCALE_STEP = 128, 1 / 512
"""The most scales that are tried, and the step from one to the next, relative to the first."""
_UNITS = 2**24
"""Errors are added up in this many parts of an integer."""
_AT_ONCE = 2**15
"""How many weights are processed at a time, so that they fit in a CPU's caches."""


def scales_to_try(inputs: int) -> int:
    """How many scales are tried for an output feature with this many inputs."""
    return max(1, min(_MOST_SCALES, _TRIED // max(1, inputs)))


def quantize_columns(columns: np.ndarray, limit: int, tried: int) -> tuple[np.ndarray, np.ndarray]:
    """Finite weights ``(n, k)`` as int8 ``(n, k)`` within `limit`, and float32 scales ``(n,)``, of `tried` each."""
    columns = np.ascontiguousarray(columns, np.float32)
    integers, scales = np.empty(columns.shape, np.int8), np.empty(len(columns), np.float32)
    size = max(1, _AT_ONCE // max(1, columns.shape[1]))
    for first in range(0, len(columns), size):
        part = columns[first : first + size]
        chosen = _best_scales(part, limit, tried)
        scaled = part / chosen[:, None]
        scales[first : first + size] = chosen
        integers[first : first + size] = _with_kept_sums(scaled, nearest(scaled, limit), limit)
    return integers, scales


def nearest(scaled: np.ndarray, limit: int) -> np.ndarray:
    """The nearest integers within a limit."""
    return np.asarray(np.clip(np.rint(scaled), -limit, limit))


def largest_scales(columns: np.ndarray, limit: int) -> np.ndarray:
    """For float32 ``(n, k)`` the scales ``(n,)`` by which the largest weights are `limit`."""
    largest = np.abs(columns).max(axis=1, initial=0.0)
    scales = np.where(largest > 0, largest / np.float32(limit), np.float32(1)).astype(np.float32)
    # The division by a subnormal scale may overflow the limit.
    return np.maximum(scales, np.float32(np.finfo(np.float32).tiny))


def _best_scales(columns: np.ndarray, limit: int, tried: int) -> np.ndarray:
    """For float32 ``(n, k)`` the scales ``(n,)`` with the least squared error, starting from the largest weight's."""
    first = largest_scales(columns, limit)
    best, least = first.copy(), np.full(len(first), np.inf)
    for step in range(tried):
        scales = (first * np.float32(1 + step * _SCALE_STEP)).astype(np.float32)
        errors = nearest(columns / scales[:, None], limit) * scales[:, None] - columns
        squares = np.minimum(np.square(errors / first[:, None]), np.float32(1))
        # Sums of integers are the same in any order.
        error = np.rint(squares * np.float32(_UNITS)).sum(axis=1, dtype=np.float64)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    return best


def _with_kept_sums(scaled: np.ndarray, integers: np.ndarray, limit: int) -> np.ndarray:
    """Integers ``(n, k)``, some of them rounded the other way so that each row's errors add up to nearly 0.

    Those closest to the middle between two integers are chosen.
    """
    size = scaled.shape[1]
    errors = np.rint((scaled - integers) * _UNITS).astype(np.int64)
    total = errors.sum(axis=1)
    counts = (np.abs(total) + _UNITS // 2) // _UNITS
    most = min(int(counts.max(initial=0)), size)
    if not most:
        return integers
    ways = np.sign(total)[:, None]
    movable = np.abs(integers + ways) <= limit
    # Makes all keys different: among equal errors the first one counts.
    order = np.where(movable, errors * ways, -_UNITS) * size - np.arange(size)
    chosen = np.argpartition(order, size - most, axis=1)[:, size - most :]
    ranks = np.argsort(-np.take_along_axis(order, chosen, 1), axis=1)
    chosen = np.take_along_axis(chosen, ranks, 1)
    moved = np.where((np.arange(most) < counts[:, None]) & np.take_along_axis(movable, chosen, 1), ways, 0)
    changed = integers.copy()
    np.put_along_axis(changed, chosen, np.take_along_axis(integers, chosen, 1) + moved, 1)
    return changed
