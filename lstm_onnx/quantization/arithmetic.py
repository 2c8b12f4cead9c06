"""The arithmetic of an int8 file, in numpy: what its nodes compute, number by number.

A weight has 7 bits (integers within 63) and a scale for each output feature; what it is multiplied by has 8 bits and
a scale for each row.  No row's result depends on another row, and a sum of two such products of bytes stays within 16
bits, so that CPUs whose instructions saturate there (AVX2, AVX-512 without VNNI) compute the same integers.
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
"""What is added to a row's integers: unsigned by signed bytes is the fast product on x86-64."""
TINY = 1e-30
"""The least largest number of a row: a row of zeros has a scale, too."""
_TRIED = 4096
"""Roundings for each output feature to find its scale by."""
_MOST_SCALES, _SCALE_STEP = 128, 1 / 512
"""The most scales that are tried, and the step from one to the next, relative to the first."""
_UNITS = 2**24
"""Errors are added up in this many parts of an integer."""
_BLOCK = 2**15
"""Weights that are worked on at a time: they fit in a CPU's caches."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight of an int8 file.

    Attributes:
        integers: int8 ``(in, out)``, within `WEIGHT_LIMIT`.
        scales: float32 ``(out,)``; the weight is about ``integers * scales``.
    """

    integers: np.ndarray
    scales: np.ndarray


def quantize_weight(weight: np.ndarray) -> QuantizedWeight:
    """A weight ``(in, out)`` of finite numbers as integers and scales, for products.

    Of several scales for an output feature the one with the least squared error is taken, and its integers are
    rounded so that their errors add up to at most half of one: then no mean of what is multiplied shifts the
    product (as in SQuant, https://arxiv.org/abs/2202.07471).  Neither needs data.
    """
    columns = np.ascontiguousarray(weight.T, np.float32)
    integers, scales = np.empty(columns.shape, np.int8), np.empty(len(columns), np.float32)
    for first in range(0, len(columns), size := max(1, _BLOCK // max(1, columns.shape[1]))):
        part = columns[first : first + size]
        scales[first : first + size] = chosen = _best_scales(part)
        scaled = part / chosen[:, None]
        integers[first : first + size] = _with_kept_sums(scaled, _rounded(scaled))
    return QuantizedWeight(np.ascontiguousarray(integers.T), scales)


def quantize_table(table: np.ndarray) -> QuantizedWeight:
    """A table ``(features, rows)`` of finite numbers, of which rows are read: each integer is the nearest one."""
    table = table.astype(np.float32)
    scales = _largest_scales(table.T)
    return QuantizedWeight(np.ascontiguousarray(_rounded(table / scales).astype(np.int8)), scales)


def _rounded(scaled: np.ndarray) -> np.ndarray:
    integers: np.ndarray = np.clip(np.rint(scaled), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return integers


def _largest_scales(columns: np.ndarray) -> np.ndarray:
    """For float32 ``(out, in)`` the scales ``(out,)`` by which the largest weights are `WEIGHT_LIMIT`."""
    largest = np.abs(columns).max(axis=1, initial=0.0)
    scales = np.where(largest > 0, largest / np.float32(WEIGHT_LIMIT), np.float32(1)).astype(np.float32)
    # The division by a subnormal scale may overflow the limit.
    return np.maximum(scales, np.float32(np.finfo(np.float32).tiny))


def _best_scales(columns: np.ndarray) -> np.ndarray:
    """For float32 ``(out, in)`` the scales ``(out,)`` with the least squared error, of some from the largest weight's.

    The fewer weights share a scale, the more there is to gain, and the more scales are tried.
    """
    first = _largest_scales(columns)
    best, least = first.copy(), np.full(len(first), np.inf)
    for step in range(max(1, min(_MOST_SCALES, _TRIED // max(1, columns.shape[1])))):
        scales = (first * np.float32(1 + step * _SCALE_STEP)).astype(np.float32)
        errors = _rounded(columns / scales[:, None]) * scales[:, None] - columns
        error = _exact_sums(np.square(errors / first[:, None]))
        better = error < least
        best[better], least[better] = scales[better], error[better]
    return best


def _with_kept_sums(scaled: np.ndarray, integers: np.ndarray) -> np.ndarray:
    """Integers ``(out, in)`` of which some are rounded the other way, so that each row's errors add up to nearly 0.

    They are those that are nearest to the middle between two integers.
    """
    size = scaled.shape[1]
    errors = np.rint((scaled - integers) * _UNITS).astype(np.int64)
    total = errors.sum(axis=1)
    counts = (np.abs(total) + _UNITS // 2) // _UNITS
    most = min(int(counts.max(initial=0)), size)
    if not most:
        return integers
    ways = np.sign(total)[:, None]
    movable = np.abs(integers + ways) <= WEIGHT_LIMIT
    # No two are equal: of the same errors the first one counts.
    order = np.where(movable, errors * ways, -_UNITS) * size - np.arange(size)
    chosen = np.argpartition(order, size - most, axis=1)[:, size - most :]
    ranks = np.argsort(-np.take_along_axis(order, chosen, 1), axis=1)
    chosen = np.take_along_axis(chosen, ranks, 1)
    moved = np.where((np.arange(most) < counts[:, None]) & np.take_along_axis(movable, chosen, 1), ways, 0)
    changed = integers.copy()
    np.put_along_axis(changed, chosen, np.take_along_axis(integers, chosen, 1) + moved, 1)
    return changed


def _exact_sums(values: np.ndarray) -> np.ndarray:
    """The sums of rows of numbers of 0 or more in whole units: the same on every machine, in any order of addition."""
    sums: np.ndarray = np.rint(np.minimum(values, np.float32(1)) * np.float32(_UNITS)).sum(axis=1, dtype=np.float64)
    return sums


def quantize_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(..., in)`` as int64 integers within `ROW_LIMIT`, and their float32 scales ``(..., 1)``."""
    rows = rows.astype(np.float32)
    largest = np.maximum(np.abs(rows).max(axis=-1, keepdims=True), np.float32(TINY))
    scales = (largest * ROW_STEP).astype(np.float32)
    return np.rint(rows / scales).astype(np.int64), scales


def product(rows: np.ndarray, weight: QuantizedWeight, dtype: type = np.float64) -> np.ndarray:
    """The product ``(..., out)`` of rows ``(..., in)`` by a weight: exact integers, scaled in `dtype`."""
    integers, scales = quantize_rows(rows)
    # float64 holds these integers exactly, and its product is a BLAS call.
    total: np.ndarray = (integers.astype(np.float64) @ weight.integers.astype(np.float64)).astype(dtype)
    return total * scales.astype(dtype) * weight.scales.astype(dtype)
