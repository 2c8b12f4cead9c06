"""The memory of a pool's states.

There is one array per state with the rows of all slots.  The rows of the slots that were stepped last are also in two
buffers, as the batch for the next step of the same slots: a step reads one buffer and writes the other, so that nothing
is copied between steps.  Two batches of different slots are kept like this, one at each end of the buffers, for streams
that are stepped in two alternating groups.  If a batch is divided among threads, the rows of each part are contiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, "np.ndarray[Any, Any]"]
RowRange = tuple[int, int]
"""The first row of a part of a batch, and the row after its last."""


class Slot:
    """One stream of a pool, created by `Pool.open` and valid in that pool until it is closed.

    Attributes:
        index: its row in the pool.  A later slot may have the same; a closed slot stays closed.
    """

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        """With the row in which its states are."""
        return f"<Slot {self.index}>"


@dataclass(eq=False)
class ActiveBatch:
    """A batch in the buffers.

    Attributes:
        rows: its slots' rows.
        index: `rows` as an array.
        offset: its first row in the buffers.
        row_ranges: the parts into which it is divided.
        buffer_index: the buffer with the current states, 0 or 1.
        dirty: whether the slots' own arrays are out of date.
    """

    rows: list[int]
    index: np.ndarray
    offset: int
    row_ranges: tuple[RowRange, ...]
    buffer_index: int
    dirty: bool

    def buffer_ranges(self) -> list[RowRange]:
        """Its parts as rows of the buffers."""
        return [(self.offset + start, self.offset + stop) for start, stop in self.row_ranges]


class SlotStates:
    """The states of all slots of a pool.  For one thread at a time.

    Args:
        initial_state: the initial value of each state, with a batch axis of 1.
        axes: the batch axis of each state.
        slots: the number of slots.
    """

    def __init__(self, initial_state: Mapping[str, np.ndarray], axes: Mapping[str, int], slots: int) -> None:
        self.initial_state = dict(initial_state)
        self.axes = dict(axes)
        self.slots = slots
        self._store = {name: np.repeat(row, slots, axes[name]) for name, row in initial_state.items()}
        self._buffers = tuple(
            {name: np.empty(array.size, array.dtype) for name, array in self._store.items()} for _ in "ab"
        )
        self._active: list[ActiveBatch] = []  # the one that was stepped last comes last

    def read(self, row: int) -> Arrays:
        """A copy of a slot's states."""
        for active in self._active:
            if row in active.rows:
                self._write_back(active)
        return {name: array[self._at(name, row)].copy() for name, array in self._store.items()}

    def write(self, row: int, values: Mapping[str, np.ndarray]) -> None:
        """Set a slot's states."""
        self.release([row])
        for name, array in values.items():
            self._store[name][self._at(name, row)] = array

    def batch(self, buffer_index: int, row_range: RowRange) -> Arrays:
        """Rows of a buffer, as arrays in row-major order."""
        start, stop = row_range
        views: Arrays = {}
        for name, memory in self._buffers[buffer_index].items():
            row = self.initial_state[name]
            shape = list(row.shape)
            shape[self.axes[name]] = stop - start
            views[name] = memory[row.size * start : row.size * stop].reshape(shape)
        return views

    def whole(self, active: ActiveBatch) -> Arrays:
        """The current states as one batch."""
        parts = [self.batch(active.buffer_index, part) for part in active.buffer_ranges()]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in self.axes.items()}

    def set_next(self, active: ActiveBatch, values: Mapping[str, np.ndarray]) -> None:
        """Write the next states, a whole batch, into the other buffer."""
        for row_range, part in zip(active.row_ranges, active.buffer_ranges(), strict=True):
            for name, array in self.batch(1 - active.buffer_index, part).items():
                np.copyto(array, values[name][(*(slice(None),) * self.axes[name], slice(*row_range))])

    def offset(self, rows: list[int]) -> int:
        """The first row of the buffers for a batch of these rows.

        It is at either end, so that batches of equal size have two possible offsets.
        """
        for active in self._active:
            if active.rows == rows:
                return active.offset
        self.release(rows)
        if len(self._active) == 2:
            self.release(self._active[0].rows)
        return self.slots - len(rows) if self._active and self._active[0].offset == 0 else 0

    def activate(self, rows: list[int], offset: int, row_ranges: tuple[RowRange, ...]) -> ActiveBatch:
        """The batch of these rows at `offset`, divided like this, and copied there if it is not yet."""
        for active in self._active:
            if active.rows == rows:
                if active.row_ranges == row_ranges:
                    return active
                self.release(rows)
                break
        active = ActiveBatch(rows, np.array(rows, np.intp), offset, row_ranges, buffer_index=0, dirty=False)
        for row_range, part in zip(row_ranges, active.buffer_ranges(), strict=True):
            for name, out in self.batch(0, part).items():
                # mode="raise" would copy twice.
                np.take(self._store[name], active.index[slice(*row_range)], self.axes[name], out=out, mode="clip")
        self._active.append(active)
        return active

    def advance(self, active: ActiveBatch) -> None:
        """Make the other buffer the current one."""
        active.buffer_index, active.dirty = 1 - active.buffer_index, True
        if self._active[-1] is not active:
            self._active.remove(active)
            self._active.append(active)

    def release(self, rows: Iterable[int]) -> None:
        """Copy batches with any of these rows back to the slots' own arrays, and drop them."""
        changing = set(rows)
        for active in list(self._active):
            if not changing.isdisjoint(active.rows):
                self._write_back(active)
                self._active.remove(active)

    def _write_back(self, active: ActiveBatch) -> None:
        if not active.dirty:
            return
        for row_range, part in zip(active.row_ranges, active.buffer_ranges(), strict=True):
            for name, array in self.batch(active.buffer_index, part).items():
                self._store[name][self._at(name, active.index[slice(*row_range)])] = array
        active.dirty = False

    def _at(self, name: str, rows: int | Sequence[int] | np.ndarray) -> tuple[Any, ...]:
        """The index of rows in a state's array; that of a single row keeps its batch axis."""
        return (*(slice(None),) * self.axes[name], slice(rows, rows + 1) if isinstance(rows, int) else rows)
