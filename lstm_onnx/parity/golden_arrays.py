"""Stores the arrays of a golden file: each number only once, and small arrays joined.

An array of an .npz costs some 200 bytes besides its numbers, and a verification has a thousand arrays.  So those with
few numbers are stored one after another, in one flat array for each dtype.  An array that is a block of a stored one,
such as its first steps, or the last hidden state of an LSTM in its output, is not stored itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_MOST_JOINED = 4096
"""An array of at most this many numbers is joined with others."""
_LARGEST = 2**40
"""Longer than any axis."""


@dataclass(frozen=True)
class Stored:
    """An array, and where it is stored.

    Attributes:
        array: the array.
        name: of the stored array that contains it.
        starts: where it starts there, along each axis; or the one index among the numbers of a joined array.
        kind: "own" if it is the stored array, "block" if it is part of one of the same rank, "joined": see `starts`.
    """

    array: np.ndarray
    name: str
    starts: tuple[int, ...]
    kind: str

    @property
    def place(self) -> str | list[Any]:
        """The place for the file's JSON: the name; for a part also its shape and where it starts."""
        return self.name if self.kind == "own" else [self.name, list(self.array.shape), list(self.starts)]

    def block(self, array: np.ndarray, first: int) -> Stored | None:
        """The place of `array`, if it is the block of this one that starts at `first` on the first axis, else at 0."""
        whole = self.array
        if not array.ndim or array.ndim != whole.ndim or array.dtype != whole.dtype or first < 0:
            return None
        part = whole[(slice(first, first + len(array)), *map(slice, array.shape[1:]))]
        if array.shape != part.shape or array.tobytes() != part.tobytes():  # compare bytes because of -0.0 and NaN
            return None
        if self.kind != "joined":
            return Stored(array, self.name, (self.starts[0] + first, *self.starts[1:]), "block")
        if array.shape[1:] != whole.shape[1:]:
            return None  # it is not contiguous
        return Stored(array, self.name, (self.starts[0] + first * math.prod(array.shape[1:]),), "joined")


@dataclass(frozen=True)
class Store:
    """Collects the arrays of a golden file."""

    _own: dict[str, np.ndarray] = field(default_factory=dict)
    _joined: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _found: dict[tuple[str, tuple[int, ...], bytes], Stored] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays by name; those that are joined have the name of their dtype."""
        return {**self._own, **{name: np.concatenate(parts) for name, parts in self._joined.items()}}

    def add(self, name: str, array: np.ndarray, among: Iterable[Stored], *, join: bool) -> Stored:
        """Store an array, unless it is already stored.

        Args:
            name: for an array that is not joined with others.
            array: any array.
            among: arrays that may begin or end with it.
            join: whether it may be joined with others; a joined array cannot contain smaller blocks.
        """
        for other in among:
            for first in (0, len(other.array) - len(array)) if array.ndim and other.array.ndim else ():
                if (block := other.block(array, first)) is not None:
                    return block
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        found = self._found.get(key)
        if found is None or (found.kind == "joined" and not join):
            found = self._found[key] = self._stored(name, array, join=join and array.size <= _MOST_JOINED)
        return found

    def _stored(self, name: str, array: np.ndarray, *, join: bool) -> Stored:
        if not join:
            self._own[name] = array
            return Stored(array, name, (0,) * array.ndim, "own")
        parts = self._joined.setdefault(array.dtype.name, [])
        start = sum(part.size for part in parts)
        parts.append(array.reshape(-1))
        return Stored(array, array.dtype.name, (start,), "joined")


def taken(arrays: Mapping[str, np.ndarray], place: Any) -> np.ndarray:
    """The array at a `Stored.place` of a file.

    Raises:
        ValueError: there is none.
    """
    is_block = isinstance(place, list) and len(place) == 3
    name, shape, starts = place if is_block else (place, [], [])
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(f"its array {name!r} is missing")
    kept = arrays[name]
    if not is_block:
        return kept
    for numbers in (shape, starts):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < _LARGEST for number in numbers
        ):
            raise ValueError(f"a block of its array {name!r} has no shape or start")
    sizes = shape if len(shape) == kept.ndim else [math.prod(shape)]
    if not len(sizes) == len(starts) == kept.ndim:
        raise ValueError(f"a block of its array {name!r} has a different rank than it")
    block = kept[tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))]
    if list(block.shape) != sizes:
        raise ValueError(f"a block of its array {name!r} is larger than it")
    return block.reshape(shape)
