"""Sequences of different lengths as one batch, and each one's own results out of the batch's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ..tensor_info import ValueInfo
from ..tuning import DEFAULT_PADDING_TOLERANCE, PADDING_TOLERANCE
from .sample import Arrays, Sample, SequenceLayout


class Padder:
    """Batches in memory that is reused.  For one thread."""

    def __init__(self, layout: SequenceLayout) -> None:
        self.layout = layout
        self._memory: Arrays = {}

    def feeds(self, samples: Sequence[Sample]) -> Arrays:
        """The model's inputs with `samples` as rows, valid until the next call."""
        layout = self.layout
        sizes = dict(samples[0].sizes)
        for axis in layout.padded:
            sizes[axis] = max(sample.sizes[axis] for sample in samples)
        feeds: Arrays = {}
        for name, info in layout.model.inputs.items():
            if name in layout.counts:
                axis = layout.counts[name]
                counts = [sample.arrays.get(name, sample.sizes[axis]) for sample in samples]
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
            whole = self._buffer(name, _shape(info, {**sizes, str(layout.batch): len(samples)}), info.dtype)
            arrays = [sample.arrays.get(name) for sample in samples]
            if all(one is None for one in arrays):
                whole[...] = 0
            else:
                rows = _batch_first(whole, at)
                if any(one is not None and one.shape != rows.shape[1:] for one in arrays):
                    whole[...] = self._padding_value(name)
                for row, one in zip(rows, arrays, strict=True):
                    if one is None:
                        row[...] = 0
                    elif one.shape[1:] == row.shape[1:]:
                        row[: len(one)] = one
                    else:
                        row[tuple([slice(size) for size in one.shape])] = one
            feeds[name] = whole
        return feeds

    def _padding_value(self, name: str) -> int | float:
        """What follows a sequence's end: 0, or the closest value in the input's range."""
        for spec in self.layout.model.metadata.inputs:
            if spec.name == name and isinstance(spec.low, (int, float)):
                high = spec.high if isinstance(spec.high, (int, float)) else max(0, spec.low)
                return min(max(0, spec.low), high)
        return 0

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> np.ndarray:
        size = prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, dtype)
        return self._memory[name][:size].reshape(shape)

    def results(self, outputs: Mapping[str, Any], samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Each sample's own outputs, in new memory and without the batch axis."""
        columns = [self._rows(name, value, samples) for name, value in outputs.items()]
        return [dict(zip(outputs, values, strict=True)) for values in zip(*columns, strict=True)]

    def _rows(self, name: str, value: Any, samples: Sequence[Sample]) -> list[Any]:
        """One output of each sample."""
        layout = self.layout
        shape = layout.model.outputs[name].shape
        if layout.batch not in shape:
            return [value]
        batch = _batch_first(value, shape.index(layout.batch))
        rows = [batch[index, ...] for index in range(len(samples))]
        for at, axis in enumerate(layout.cut_axes[name]):
            if axis is not None:
                before = (slice(None),) * at
                rows = [row[(*before, slice(sample.sizes[axis]))] for row, sample in zip(rows, samples, strict=True)]
        return rows if len(rows) == 1 else [row.copy() for row in rows]  # a view would keep the whole batch in memory


def results_agree(alone: Mapping[str, Any], padded: Mapping[str, Any]) -> bool:
    """Whether a sequence's results are the same alone and padded, up to rounding."""
    for name, value in alone.items():
        other = padded[name]
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
    """A view with axis `at` in front, as np.moveaxis gives it in ten times the time."""
    return array.transpose(at, *range(at), *range(at + 1, array.ndim))


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else sizes[str(dim)] for dim in info.shape)
