"""Translations of a diagonal, and of numbers written to one.

torch.onnx takes a diagonal as a sum of the matrix times a mask, in which an infinity beside it gives NaN; and it has no
translation of a diagonal that is written, as by ``x.fill_diagonal_(0)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from .size_arithmetic import INT64, constant, op, typed


def _diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The entries of two axes whose second index is the first one plus `offset`, as a new last axis."""
    order = _matrix_last(x, dim1, dim2)
    rows, columns = _sizes(x, order)
    entries = _matrix_entries(x, order, rows, columns)
    first = constant([offset], INT64) if offset >= 0 else op.Mul(columns, constant([-offset], INT64))
    step = op.Add(columns, constant([1], INT64))
    places = op.Add(op.Mul(_numbers(_length(rows, columns, offset)), step), first)
    return op.Gather(entries, places, axis=-1)


def _matrix_last(x: Any, dim1: int, dim2: int) -> list[int]:
    """The axes with the matrix' two as the last ones."""
    rank = len(x.shape)
    dim1, dim2 = dim1 % rank, dim2 % rank
    return [*(axis for axis in range(rank) if axis not in (dim1, dim2)), dim1, dim2]


def _sizes(x: Any, order: list[int]) -> tuple[Any, Any]:
    """The numbers of rows and columns, int64 ``(1,)``."""
    rows, columns = (op.Shape(x, start=axis, end=axis + 1) for axis in order[-2:])
    return rows, columns


def _matrix_entries(x: Any, order: list[int], rows: Any, columns: Any) -> Any:
    """Each matrix as one axis."""
    moved = op.Transpose(x, perm=order)
    outer = op.Shape(moved, start=0, end=len(order) - 2)
    return op.Reshape(moved, op.Concat(outer, op.Mul(rows, columns), axis=0), allowzero=1)


def _length(rows: Any, columns: Any, offset: int) -> Any:
    """Of a diagonal, int64 ``(1,)``; there is none past the last row or column."""
    if offset >= 0:
        columns = op.Sub(columns, constant([offset], INT64))
    else:
        rows = op.Sub(rows, constant([-offset], INT64))
    return op.Max(op.Min(rows, columns), constant([0], INT64))


def _numbers(count: Any) -> Any:
    """0 to count - 1."""
    return op.Range(constant(0, INT64), op.Squeeze(count, constant([0], INT64)), constant(1, INT64))


def _diagonal_scatter(x: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """`x` with the numbers of `source` in the place of its diagonal."""
    order = _matrix_last(x, dim1, dim2)
    rows, columns = _sizes(x, order)
    row = op.Unsqueeze(_numbers(rows), constant([1], INT64))
    column = op.Unsqueeze(_numbers(columns), constant([0], INT64))
    chosen = op.Equal(column, op.Add(row, constant(offset, INT64)))
    # Each row, or column, has the number of its own entry; those beyond are not chosen.
    length = _length(rows, columns, offset)
    numbers = op.Pad(source, _padding(order, op.Sub(rows if offset >= 0 else columns, length)))
    numbers = op.Unsqueeze(numbers, constant([-1 if offset >= 0 else -2], INT64))
    back = [order.index(axis) for axis in range(len(order))]
    moved = typed(op.Transpose(x, perm=order), x.dtype, None)
    written = op.Where(typed(chosen, ir.DataType.BOOL, None), typed(numbers, x.dtype, None), moved)
    return op.Transpose(written, perm=back)


def _padding(order: list[int], count: Any) -> Any:
    """At the end of the last axis of a diagonal, as many entries."""
    zeros = constant([0] * (2 * (len(order) - 1) - 1), INT64)
    return op.Concat(zeros, count, axis=0)


_aten = torch.ops.aten
DIAGONALS: Mapping[Any, Callable[..., Any]] = {
    _aten.diagonal.default: _diagonal,
    _aten.diagonal_copy.default: _diagonal,
    _aten.diagonal_scatter.default: _diagonal_scatter,
}
