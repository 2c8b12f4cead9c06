"""Where the states of a pool lie.

Those of all slots lie in one array for each state.  Those of the slots that stepped last lie in a second
place too, as the batch that the next step of the same slots takes: its memory has two halves, of which
a step reads one and writes the other, and nothing is copied from step to step.  Two batches of different
slots are held so, one at either end of that memory, for streams that step in two groups by turns.  Where
a batch is cut, so that several threads run it, each cut is contiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True, eq=False)
class Held:
    """Which rows lie in a batch, where in the memory, in which half and cut how.

    `dirty` is whether the slots' own arrays are behind it.
    """

    rows: list[int]
    index: np.ndarray
    place: int
    cuts: tuple[Cut, ...]
    half: int
    dirty: bool

    def parts(self) -> list[Cut]:
        """Its cuts as rows of the memory."""
        return [(self.place + start, self.place + stop) for start, stop in self.cuts]


class SlotStates:
    """The states of `slots` slots.  Not for two threads at once.

    `fresh` is what each state starts from, with a batch axis of 1; `axes` which one that is.
    """

    def __init__(self, fresh: Mapping[str, np.ndarray], axes: Mapping[str, int], slots: int) -> None:
        self.fresh = dict(fresh)
        self.axes = dict(axes)
        self.slots = slots
        self._store = {name: np.repeat(row, slots, axes[name]) for name, row in fresh.items()}
        self._halves = tuple(
            {name: np.empty(array.size, array.dtype) for name, array in self._store.items()} for _ in "ab"
        )
        self._held: list[Held] = []  # the one that stepped last is the last

    def read(self, row: int) -> Arrays:
        """A copy of a slot's states."""
        self._held = [self._written_back(held) if row in held.rows else held for held in self._held]
        return {name: array[self._at(name, row)].copy() for name, array in self._store.items()}

    def write(self, row: int, values: Mapping[str, np.ndarray]) -> None:
        """Set a slot's states."""
        self.let_go([row])
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
        parts = [self.batch(held.half, part) for part in held.parts()]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts], axis) for name, axis in self.axes.items()}

    def set_next(self, held: Held, values: Mapping[str, np.ndarray]) -> None:
        """Write a whole batch into the other half."""
        for cut, part in zip(held.cuts, held.parts(), strict=True):
            for name, array in self.batch(1 - held.half, part).items():
                np.copyto(array, values[name][(*(slice(None),) * self.axes[name], slice(*cut))])

    def place(self, rows: list[int]) -> int:
        """Where in the memory the batch of these rows lies, or is to lie: the first of its rows there.

        It is at either end, so that batches of as many rows are not in more than two places.
        """
        for held in self._held:
            if held.rows == rows:
                return held.place
        self.let_go(rows)
        if len(self._held) == 2:
            self.let_go(self._held[0].rows)
        return self.slots - len(rows) if self._held and self._held[0].place == 0 else 0

    def gathered(self, rows: list[int], place: int, cuts: tuple[Cut, ...]) -> Held:
        """The batch of these rows where `place` has it, cut so."""
        for held in self._held:
            if held.rows == rows:
                if held.cuts == cuts:
                    return held
                self.let_go(rows)
                break
        held = Held(rows, np.array(rows, np.intp), place, cuts, half=0, dirty=False)
        for cut, part in zip(cuts, held.parts(), strict=True):
            for name, out in self.batch(0, part).items():
                # The mode "raise" would copy twice.
                np.take(self._store[name], held.index[slice(*cut)], self.axes[name], out=out, mode="clip")
        self._held.append(held)
        return held

    def stepped(self, held: Held) -> None:
        """The other half counts from now on."""
        self._held.remove(held)
        self._held.append(replace(held, half=1 - held.half, dirty=True))

    def let_go(self, rows: Iterable[int]) -> None:
        """Bring the slots' own arrays up to date, before those of `rows` change."""
        own = set(rows)
        for held in list(self._held):
            if not own.isdisjoint(held.rows):
                self._written_back(held)
                self._held.remove(held)

    def _written_back(self, held: Held) -> Held:
        if not held.dirty:
            return held
        for cut, part in zip(held.cuts, held.parts(), strict=True):
            for name, array in self.batch(held.half, part).items():
                self._store[name][self._at(name, held.index[slice(*cut)])] = array
        return replace(held, dirty=False)

    def _at(self, name: str, rows: int | Sequence[int] | np.ndarray) -> tuple[Any, ...]:
        """The index of some rows, or of one with its batch axis, in a state's array."""
        return (*(slice(None),) * self.axes[name], slice(rows, rows + 1) if isinstance(rows, int) else rows)
