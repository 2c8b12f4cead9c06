"""Sequences of different lengths as one batch, and each one's own results out of the batch's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ...errors import InputError
from ..counts import require_counts
from ..initial_states import start
from ..model import Model
from ..tensor_info import Restore, ValueInfo, allowed_sizes, axis_sizes, checked, known_names, to_numpy

Arrays = dict[str, "np.ndarray[Any, Any]"]
BATCH = "batch"
TIME = "time"
LENGTHS = "lengths"


@dataclass(frozen=True)
class Item:
    """One sequence, known to fit the model.

    `arrays` are by input and without the batch axis, absent zeros left out; `sizes` of the named
    axes; `length` the sum of the open ones, which is the time steps where there is but one.
    `restore` makes a result of the kind that the caller gave; `pair` says whether the results go
    as nn.LSTM's ``output, (hn, cn)`` or by name.
    """

    arrays: Arrays
    sizes: Mapping[str, int]
    length: int
    restore: Restore
    pair: bool


@dataclass(frozen=True)
class Layout:
    """How one sequence lies in a model's arrays.

    Attributes:
        model: the model.
        batch: the name of the batch axis; None where its inputs have none, and each sequence is a run.
        single: the inputs without the batch axis.
        outputs: the same for the outputs.
        counts: each input that holds lengths, and the axis along which it counts.
        padded: the axes along which sequences of different sizes may go together.
        together: whether several sequences can share a run at all.
        rows: how many can at most; None where nothing bounds it.
    """

    model: Model
    batch: str | None
    single: Mapping[str, ValueInfo]
    outputs: Mapping[str, ValueInfo]
    counts: Mapping[str, str]
    padded: frozenset[str]
    together: bool
    rows: int | None

    @classmethod
    def of(cls, model: Model) -> Layout:
        """What the model's inputs, outputs and metadata say."""
        batch = _batch_axis(model)
        if model.spec is not None:
            counts = {LENGTHS: TIME} if LENGTHS in model.inputs else {}
        else:
            counts = {
                spec.name: spec.high
                for spec in model.metadata.inputs
                if isinstance(spec.high, str) and spec.name in model.inputs and spec.shape == (batch,)
            }
        infos = [*model.inputs.values(), *model.outputs.values()]
        together = (
            batch is not None
            and all(info.shape.count(batch) <= 1 and info.dtype not in (None, np.dtype(object)) for info in infos)
            and all(batch in info.shape for info in model.outputs.values())
        )
        least, rows = model.metadata.axis_limits.get(batch or "", (1, None))
        if least > 1:
            raise InputError(
                f"{model.path}: is only right where {batch} is {allowed_sizes(least, rows)}, and a sequence may have "
                "to run alone; use run"
            )
        return cls(
            model,
            batch,
            {name: _without(info, batch) for name, info in model.inputs.items()},
            {name: _without(info, batch) for name, info in model.outputs.items()},
            counts,
            frozenset(counts.values()) if together and rows != 1 else frozenset(),
            together and rows != 1,
            rows,
        )

    def unpadded(self) -> Layout:
        """The same where only sequences of equal sizes go together."""
        return replace(self, padded=frozenset())

    def item(self, value: Any) -> Item:
        """One sequence as the caller gives it.

        Raises:
            InputError: it does not fit the model.
        """
        pair = self.model.spec is not None and not isinstance(value, Mapping)
        if pair:
            given = _named(value)
        elif isinstance(value, Mapping):
            given = dict(value)
        else:
            names = ", ".join(name for name in self.single if name not in self.model.states)
            raise InputError(f"must map names to arrays ({names}); it is a {type(value).__name__}")
        known_names(self.model.inputs, given)
        arrays: Arrays = {}
        restore = None
        for name, one in given.items():
            arrays[name], own = to_numpy(one, self.single[name], name)
            restore = restore or own
        sizes = axis_sizes(self.single, arrays)
        require_counts(self.model.counts, arrays, sizes)
        for name, array in arrays.items():
            if name in self.counts and array.dtype.kind in "iu":
                arrays[name] = array.astype(self.single[name].dtype)
        zeros = self._filled(arrays, sizes)
        fitting = checked({name: info for name, info in self.single.items() if name not in zeros}, arrays)
        return Item(fitting, sizes, sum(sizes.values()) or 1, restore or _same, pair)

    def _filled(self, arrays: Arrays, sizes: Mapping[str, int]) -> set[str]:
        """Put what the file starts absent states from into `arrays`; give the inputs that are filled in per batch."""
        later = set()
        for name, info in self.single.items():
            if name in arrays or any((isinstance(dim, str) and dim not in sizes) or dim is None for dim in info.shape):
                continue
            if name in self.counts:
                later.add(name)
            elif name in self.model.states:
                initial = self.model.metadata.initial.get(name)
                if initial is None:
                    later.add(name)
                    continue
                own = self.model.inputs[name]
                state = start(own, sizes if self.batch is None else {**sizes, self.batch: 1}, initial)
                if state is not None:
                    arrays[name] = state.squeeze(own.shape.index(self.batch)) if self.batch in own.shape else state
        return later

    def key(self, item: Item) -> Hashable:
        """Items of equal keys may share a run."""
        sizes = tuple(size for axis, size in item.sizes.items() if axis not in self.padded)
        # Lengths below the array's own size: its results depend on that size too, which padding would change.
        cut = tuple(
            (name, int(item.arrays[name]), item.sizes[axis])
            for name, axis in self.counts.items()
            if name in item.arrays and item.arrays[name] != item.sizes[axis]
        )
        shared = tuple(
            item.arrays[name].tobytes()
            for name, info in self.model.inputs.items()
            if self.batch not in info.shape and name in item.arrays and self.together
        )
        return sizes, cut, shared

    def held(self, item: Item) -> int:
        """About how many bytes an item and its results take."""
        longest = max(item.sizes.values(), default=1)
        results = 0
        for info in self.outputs.values():
            shape = [dim if isinstance(dim, int) else item.sizes.get(dim or "", longest) for dim in info.shape]
            results += prod(shape) * (info.dtype.itemsize if info.dtype is not None else 8)
        return sum(array.nbytes for array in item.arrays.values()) + results


class Padder:
    """Batches in memory that is used again and again: for one thread."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._memory: Arrays = {}

    def feeds(self, items: Sequence[Item]) -> Arrays:
        """The model's inputs for `items` as its rows; good until the next call."""
        layout = self.layout
        sizes = dict(items[0].sizes)
        for axis in layout.padded:
            sizes[axis] = max(item.sizes[axis] for item in items)
        feeds: Arrays = {}
        for name, info in layout.model.inputs.items():
            if name in layout.counts:
                axis = layout.counts[name]
                counts = [item.arrays.get(name, item.sizes[axis]) for item in items]
                feeds[name] = np.array(counts, info.dtype)
                continue
            array = items[0].arrays.get(name)
            if layout.batch not in info.shape:
                feeds[name] = np.zeros(_shape(info, sizes), info.dtype) if array is None else array
                continue
            at = info.shape.index(layout.batch)
            if len(items) == 1 and array is not None:
                feeds[name] = np.expand_dims(array, at)
                continue
            whole = self._buffer(name, _shape(info, {**sizes, str(layout.batch): len(items)}), info.dtype)
            pad = self._pad(name)
            for row, item in zip(np.moveaxis(whole, at, 0), items, strict=True):
                _put(row, item.arrays.get(name), pad)
            feeds[name] = whole
        return feeds

    def _pad(self, name: str) -> int | float:
        """What stands after a sequence's end: 0, or what the input's range has next to it."""
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

    def results(self, outputs: Mapping[str, Any], items: Sequence[Item]) -> list[dict[str, Any]]:
        """Each item's own outputs, in memory of their own, without the batch axis."""
        layout = self.layout
        only = next(iter(layout.padded)) if len(layout.padded) == 1 else None
        found: list[dict[str, Any]] = [{} for _ in items]
        for name, value in outputs.items():
            shape = layout.model.outputs[name].shape
            if layout.batch not in shape:
                found[0][name] = value
                continue
            rows = np.moveaxis(value, shape.index(layout.batch), 0)
            cuts = [_cut_axis(dim, layout, only) for dim in layout.outputs[name].shape]
            for result, row, item in zip(found, rows, items, strict=True):
                own = row[tuple(slice(None) if axis is None else slice(item.sizes[axis]) for axis in cuts)]
                # A row of several would keep all of them in memory.
                result[name] = own if len(items) == 1 else np.array(own, order="C")
        return found


def agrees(alone: Mapping[str, Any], padded: Mapping[str, Any]) -> bool:
    """Whether a sequence's results are the same alone and padded, but for rounding."""
    for name, value in alone.items():
        other = padded[name]
        if value.shape != other.shape:
            return False
        if value.dtype.kind not in "fc":
            if not np.array_equal(value, other):
                return False
            continue
        finite = np.abs(value[np.isfinite(value)])
        close = (3e-2 if value.dtype == np.float16 else 1e-3) * float(finite.max(initial=1e-6))
        if not np.allclose(value, other, rtol=0, atol=close, equal_nan=True):
            return False
    return True


def _batch_axis(model: Model) -> str | None:
    """The axis named batch, or the one open axis of the states."""
    names = {dim for info in model.inputs.values() for dim in info.shape if isinstance(dim, str)}
    if BATCH in names:
        return BATCH
    held = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)}
    return held.pop() if len(held) == 1 else None


def _without(info: ValueInfo, batch: str | None) -> ValueInfo:
    return replace(info, shape=tuple(dim for dim in info.shape if batch is None or dim != batch))


def _named(value: Any) -> dict[str, Any]:
    """A bare LSTM's sequence, alone or with its states, by the inputs' names."""
    if not isinstance(value, tuple):
        return {"input": value}
    if len(value) != 2 or not isinstance(value[1], (tuple, list)) or len(value[1]) != 2:
        raise InputError("a tuple must be (input, (h0, c0))")
    return {"input": value[0], "h0": value[1][0], "c0": value[1][1]}


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else sizes[str(dim)] for dim in info.shape)


def _put(row: np.ndarray, array: np.ndarray | None, pad: float) -> None:
    """`array` into the beginning of `row` along every axis, and `pad` into the rest."""
    if array is None:
        row[...] = 0
        return
    row[tuple(slice(size) for size in array.shape)] = array
    for axis, (own, whole) in enumerate(zip(array.shape, row.shape, strict=True)):
        if own < whole:
            row[(slice(None),) * axis + (slice(own, None),)] = pad


def _cut_axis(dim: int | str | None, layout: Layout, only: str | None) -> str | None:
    """The axis whose size an output's axis is cut to; None to leave it whole.

    One that no input has, as pad_packed_sequence makes, goes with the one that is padded; whether it
    does so in truth is tried out before it is relied on (see `agrees`).
    """
    if isinstance(dim, int):
        return None
    if dim in layout.padded:
        return dim
    known = {name for info in layout.single.values() for name in info.shape}
    return None if dim is not None and dim in known else only


def _same(array: np.ndarray) -> np.ndarray:
    return array
