"""Where the states of a pool lie.

Those of all slots lie in one array for each state.  Those of the slots that stepped last lie in a second
place too, as the batch that the next step of the same slots takes: its memory has two halves, of which
a step reads one and writes the other, and nothing is copied from step to step.  Where a batch is cut, so
that several threads run it, each cut is contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Arrays = dict[str, "np.ndarray[Any, Any]"]
Cut = tuple[int, int]
"""The first row of a part of a batch, and the one after its last."""


class Slot:
    """One stream of a pool.  Made by `Pool.open`; that pool alone takes it, until it is closed.

    Attributes:
        index: its row among the pool's slots.  A later slot may have the same; this one stays closed.
    """

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        """Its row."""
        return f"<Slot {self.index}>"


@dataclass(frozen=True)
class Held:
    """Which rows lie in the batch, in which half and cut how, and whether the slots' own arrays are behind them."""

    rows: list[int]
    index: np.ndarray
    cuts: tuple[Cut, ...]
    half: int
    dirty: bool


class SlotStates:
    """The states of `slots` slots.  Not for two threads at once.

    `fresh` is what each state starts from, with a batch axis of 1; `axes` which one that is.
    """

    def __init__(self, fresh: Mapping[str, np.ndarray], axes: Mapping[str, int], slots: int) -> None:
        self.fresh = dict(fresh)
        self.axes = dict(axes)
        self._store = {name: np.repeat(row, slots, axes[name]) for name, row in fresh.items()}
        self._halves = tuple(
            {name: np.empty(array.size, array.dtype) for name, array in self._store.items()} for _ in "ab"
        )
        self._held: Held | None = None

    def read(self, row: int) -> Arrays:
        """A copy of a slot's states."""
        self._write_back()
        return {name: array[self._at(name, row)].copy() for name, array in self._store.items()}

    def write(self, row: int, values: Mapping[str, np.ndarray]) -> None:
        """Set a slot's states."""
        self.let_go()
        for name, array in values.items():
            self._store[name][self._at(name, row)] = array

    def batch(self, half: int, cut: Cut) -> Arrays:
        """A part of a half of the batch: arrays of its rows in row-major order."""
        start, stop = cut
        views: Arrays = {}
        for name, memory in self._halves[half].items():
            row = self.fresh[name]
            shape = list(row.shape)
            shape[self.axes[name]] = stop - start
            views[name] = memory[row.size * start : row.size * stop].reshape(shape)
        return views

    def whole(self, held: Held) -> Arrays:
        """The half that counts as one batch."""
        if len(held.cuts) == 1:
            return self.batch(held.half, held.cuts[0])
        parts = [self.batch(held.half, cut) for cut in held.cuts]
        return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in self.axes.items()}

    def set_next(self, held: Held, values: Mapping[str, np.ndarray]) -> None:
        """Write a whole batch into the other half."""
        for cut in held.cuts:
            for name, part in self.batch(1 - held.half, cut).items():
                np.copyto(part, values[name][(*(slice(None),) * self.axes[name], slice(*cut))])

    def gathered(self, rows: list[int], cuts: tuple[Cut, ...]) -> Held:
        """The batch of these rows, cut so."""
        held = self._held
        if held is not None and held.rows == rows and held.cuts == cuts:
            return held
        self.let_go()
        index = np.array(rows, np.intp)
        for cut in cuts:
            for name, out in self.batch(0, cut).items():
                # The mode "raise" would copy twice.
                np.take(self._store[name], index[slice(*cut)], self.axes[name], out=out, mode="clip")
        self._held = held = Held(rows, index, cuts, half=0, dirty=False)
        return held

    def stepped(self, held: Held) -> None:
        """The other half counts from now on."""
        self._held = replace(held, half=1 - held.half, dirty=True)

    def let_go(self) -> None:
        """Bring the slots' own arrays up to date, before they change."""
        self._write_back()
        self._held = None

    def _write_back(self) -> None:
        held = self._held
        if held is None or not held.dirty:
            return
        for cut in held.cuts:
            for name, array in self.batch(held.half, cut).items():
                self._store[name][self._at(name, held.index[slice(*cut)])] = array
        self._held = replace(held, dirty=False)

    def _at(self, name: str, rows: int | Sequence[int] | np.ndarray) -> tuple[Any, ...]:
        """The index of some rows, or of one with its batch axis, in a state's array."""
        return (*(slice(None),) * self.axes[name], slice(rows, rows + 1) if isinstance(rows, int) else rows)
