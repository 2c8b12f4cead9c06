"""Pads sequences of different lengths into one batch, and takes each one's own results from the batch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..tensor_info import ValueInfo
from ..tuning import DEFAULT_PADDING_TOLERANCE, PADDING_TOLERANCE
from .sample import Arrays, Sample, SequenceLayout


def padded_feeds(layout: SequenceLayout, samples: Sequence[Sample]) -> Arrays:
    """The model's inputs with `samples` as rows."""
    sizes = dict(samples[0].sizes)
    for axis in layout.padded:
        sizes[axis] = max([sample.sizes[axis] for sample in samples])
    passed: set[str] = set().union(*[sample.arrays for sample in samples])
    feeds: Arrays = {}
    for name, info in layout.model.inputs.items():
        if name in layout.counts:
            counts: list[Any] = [sample.sizes[layout.counts[name]] for sample in samples]
            if name in passed:
                counts = [sample.arrays.get(name, size) for sample, size in zip(samples, counts, strict=True)]
            feeds[name] = np.array(counts, info.dtype)
            continue
        array = samples[0].arrays.get(name)
        if layout.batch not in info.shape:
            feeds[name] = np.zeros(_shape(info, sizes), info.dtype) if array is None else array
            continue
        at = info.shape.index(layout.batch)
        if len(samples) == 1 and array is not None:
            feeds[name] = np.expand_dims(array, at)
            continue
        feeds[name] = np.zeros(_shape(info, {**sizes, str(layout.batch): len(samples)}), info.dtype)
        if name in passed:
            arrays = [sample.arrays.get(name) for sample in samples]
            _fill(_batch_first(feeds[name], at), arrays, _padding(layout, name))
    return feeds


def _fill(rows: np.ndarray, arrays: Sequence[np.ndarray | None], padding: int | float) -> None:
    """Write arrays into rows of zeros; a missing array is a state of zeros."""
    shape, tail = rows.shape[1:], rows.shape[2:]
    if not shape:  # one number for each sequence
        rows[:] = [0 if array is None else array for array in arrays]
        return
    for row, array in zip(rows, arrays, strict=True):
        if array is None:
            continue
        if padding and array.shape != shape:
            row[...] = padding
        if array.shape[1:] == tail:
            row[: len(array)] = array
        else:
            row[tuple([slice(size) for size in array.shape])] = array


def _padding(layout: SequenceLayout, name: str) -> int | float:
    """The value of padding: 0, or the closest value in the input's range."""
    for spec in layout.model.metadata.inputs:
        if spec.name == name and isinstance(spec.low, (int, float)):
            high = spec.high if isinstance(spec.high, (int, float)) else max(0, spec.low)
            return min(max(0, spec.low), high)
    return 0


def own_results(layout: SequenceLayout, outputs: Sequence[Any], samples: Sequence[Sample]) -> list[tuple[Any, ...]]:
    """Each sample's own outputs, in the model's order, in new memory and without the batch axis.

    Raises:
        RunError: the axis that the file calls the batch is another one.
    """
    columns = [_rows(layout, name, value, samples) for name, value in zip(layout.outputs, outputs, strict=True)]
    return list(zip(*columns, strict=True))


def _rows(layout: SequenceLayout, name: str, value: Any, samples: Sequence[Sample]) -> list[Any]:
    """One output of each sample."""
    shape = layout.model.outputs[name].shape
    if layout.batch not in shape:
        return [value]
    batch = _batch_first(value, shape.index(layout.batch))
    if len(batch) != len(samples):
        wrong = f"gives {name} of shape {value.shape} for a batch of {len(samples)}"
        raise RunError(f"{wrong}, and declares {layout.model.outputs[name]}", path=layout.model.path)
    rows = list(batch) if batch.ndim > 1 else [batch[index, ...] for index in range(len(batch))]
    for at, axis in enumerate(layout.cut_axes[name]):
        if axis is not None:
            before = (slice(None),) * at
            ends = [slice(sample.sizes[axis]) for sample in samples]
            rows = [row[(*before, end)] if at else row[end] for row, end in zip(rows, ends, strict=True)]
    return rows if len(rows) == 1 else [row.copy() for row in rows]  # a view would keep the whole batch in memory


def results_agree(alone: Sequence[Any], padded: Sequence[Any]) -> bool:
    """Whether a sequence's results are the same alone and padded, up to rounding."""
    for value, other in zip(alone, padded, strict=True):
        if value.shape != other.shape:
            return False
        if value.dtype.kind not in "fc":
            if not np.array_equal(value, other):
                return False
            continue
        finite = np.abs(value[np.isfinite(value)])
        tolerance = PADDING_TOLERANCE.get(value.dtype.name, DEFAULT_PADDING_TOLERANCE)
        allowed = tolerance * float(finite.max(initial=1e-6))
        if not np.allclose(value, other, rtol=0, atol=allowed, equal_nan=True):
            return False
    return True


def _batch_first(array: np.ndarray, at: int) -> np.ndarray:
    """A view with axis `at` in front; np.moveaxis takes ten times as long."""
    return array.transpose(at, *range(at), *range(at + 1, array.ndim))


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else sizes[str(dim)] for dim in info.shape)
