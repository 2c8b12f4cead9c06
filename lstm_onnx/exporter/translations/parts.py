"""Translations of views that change nothing, such as a squeeze of axes that are not 1, of joins, and of assignments.

Assignments are by a mask, ``h[:, done] = 0``, and to one entry of an axis, ``y[..., 1] = 0``.  torch.onnx has none for
a mask behind other axes, and writes others as the indices of the mask's places, of which streams and states cannot see
that each row stays by itself.  Where all places get the same numbers, it is a Where, and so is one entry of an axis of
a fixed size.  It joins tensors as they are, and ONNX has no Concat of several types.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import (
    aten_cat,
    aten_index_put,
    aten_select_scatter,
    aten_slice_scatter,
    aten_stack,
)

from ...errors import ExportError
from ...onnxgraph.nodes import END_OF_AXIS
from .size_arithmetic import INT64, cast, constant, op, typed


def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    places = [at for at, index in enumerate(indices) if index is not None]
    masks = [at for at in places if indices[at].dtype == ir.DataType.BOOL]
    if len(places) == len(masks) == 1 and not accumulate and None not in (x.shape, values.shape):
        mask, behind = indices[masks[0]], len(x.shape) - masks[0] - len(indices[masks[0]].shape)
        if _is_same_at_all(values, behind, len(mask.shape)):
            axes = [len(mask.shape) + axis for axis in range(behind)]
            return op.Where(op.Unsqueeze(mask, constant(axes, INT64)) if axes else mask, values, x)
    if masks and places != [0]:
        indices = list(_as_numbers(indices))
    return aten_index_put(x, [_as_int64(index) for index in indices], values, accumulate)


def _as_int64(index: Any) -> Any:
    """Numbers of places as ScatterND takes them; torch's own overlap-add counts them in int32."""
    return index if index is None or index.dtype == ir.DataType.BOOL else cast(index, INT64)


def _is_same_at_all(values: Any, behind: int, mask_rank: int) -> bool:
    """Whether the values have no axis for the places of a mask before `behind` other axes, or one of a single entry.

    That axis stands for all of the mask's, so that with two or more the others would be beside the wrong ones.
    """
    rank = len(values.shape)
    return rank <= behind or (mask_rank == 1 and values.shape[rank - behind - 1] == 1)


def _as_numbers(indices: Sequence[Any]) -> Iterator[Any]:
    """Masks as the numbers of their places, one index for each of their axes, as PyTorch takes them."""
    for index in indices:
        if index is None or index.dtype != ir.DataType.BOOL:
            yield index
            continue
        found = op.NonZero(index)
        for axis in range(len(index.shape)):
            yield typed(op.Gather(found, constant(axis, INT64), axis=0), INT64, [None])


def _select_scatter(x: Any, source: Any, dim: int, index: Any) -> Any:
    rank = 0 if x.shape is None else len(x.shape)
    size = x.shape[dim] if rank else None
    if not isinstance(size, int) or not isinstance(index, int):
        return aten_select_scatter(x, source, dim, index)
    place, axis = index % size, dim % rank
    unsqueezed = op.Unsqueeze(source, constant([axis], INT64))
    unsqueezed.dtype = x.dtype
    chosen = (np.arange(size) == place).reshape(size, *[1] * (rank - axis - 1))
    return op.Where(constant(chosen, ir.DataType.BOOL), unsqueezed, x)


def _slice_scatter(x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """``x[start:end] = source`` is what comes before, the source and what comes after; in torch.onnx, a ScatterND."""
    first, last = 0 if start is None else start, END_OF_AXIS if end is None else end
    # Otherwise, a short axis may have entries both before the start and after the end, as x[1:-1] of one entry.
    is_ordered = type(first) is type(last) is int and (first == 0 or last >= END_OF_AXIS or 0 <= first <= last)
    if not is_ordered or step != 1 or x.shape is None:
        return aten_slice_scatter(x, source, dim, start, end, step)
    axis, source = dim % len(x.shape), cast(source, x.dtype)

    def part(begin: int, stop: int) -> Any:
        return op.Slice(x, *(constant([number], INT64) for number in (begin, stop, axis)))

    before, after = [part(0, first)] if first else [], [part(last, END_OF_AXIS)] if last < END_OF_AXIS else []
    return op.Concat(*before, source, *after, axis=axis) if before or after else op.Identity(source)


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    if not isinstance(value, ir.Value):
        value = constant(value, x.dtype)
    return op.Where(mask, cast(value, x.dtype), x)


def _masked_select(x: Any, mask: Any) -> Any:
    """The entries where the mask is true, both broadcast, as one axis."""
    flat = constant([-1], INT64)
    entries, chosen = op.Expand(x, op.Shape(mask)), op.Expand(mask, op.Shape(x))
    return op.Compress(op.Reshape(entries, flat), op.Reshape(chosen, flat))


def _squeeze(x: Any, dim: int | Sequence[int]) -> Any:
    """PyTorch leaves an axis that is not 1; ONNX's Squeeze fails there."""
    rank = len(x.shape)
    places = [place % rank for place in ((dim,) if isinstance(dim, int) else dim)] if rank else []
    ones = sorted({place for place in places if x.shape[place] == 1})
    return op.Squeeze(x, constant(ones, INT64)) if ones else op.Identity(x)


def _joined(join: Callable[..., Any]) -> Callable[..., Any]:
    """cat or stack, of tensors as the type that holds all of theirs."""

    def translated(tensors: Sequence[Any], dim: int = 0) -> Any:
        kinds = {tensor.dtype for tensor in tensors}
        if len(kinds) > 1 and not kinds & {None, ir.DataType.BFLOAT16}:
            parts = (torch.from_numpy(np.empty(0, kind.numpy())).dtype for kind in kinds)
            kind = ir.DataType.from_numpy(
                torch.empty(0, dtype=functools.reduce(torch.promote_types, parts)).numpy().dtype
            )
            tensors = [cast(tensor, kind) for tensor in tensors]
        return join(tensors, dim)

    return translated


def _same_dtype(x: Any, dtype: int) -> Any:
    if ir.DataType(dtype) != x.dtype:
        raise ExportError(
            "tensor.view(dtype) reads the same bytes as another dtype, which has no form in ONNX; use tensor.to(dtype)"
        )
    return op.Identity(x)


_aten = torch.ops.aten
PARTS: Mapping[Any, Callable[..., Any]] = {
    _aten.index_put.default: _index_put,
    _aten._unsafe_index_put.default: _index_put,
    _aten.select_scatter.default: _select_scatter,
    _aten.slice_scatter.default: _slice_scatter,
    _aten.masked_fill.Scalar: _masked_fill,
    _aten.masked_fill.Tensor: _masked_fill,
    _aten.masked_select.default: _masked_select,
    _aten.cat.default: _joined(aten_cat),
    _aten.stack.default: _joined(aten_stack),
    _aten.squeeze.dim: lambda x, dim: _squeeze(x, dim),
    _aten.squeeze.dims: lambda x, dim: _squeeze(x, dim),
    _aten.view.dtype: _same_dtype,
    torch.ops.prims.view_of.default: lambda x, *_, **__: op.Identity(x),
}
