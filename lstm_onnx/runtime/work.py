"""How much there is to do in a call, by what its states and inputs say: enough to choose threads by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from .values import ValueInfo

_SMALL_ROW = 4e6
"""FLOPs of one step of one row; the weights of as many are about 8 MB."""
_SMALL_CALL = 3e7
"""FLOPs of a call."""


def row_work(states: Iterable[np.ndarray]) -> float:
    """FLOPs of one step of one row, about, by its states: four gates for each, of the square of its last axis."""
    return float(sum(8.0 * state.size * state.shape[-1] for state in states if state.ndim))


def rows_of(infos: Mapping[str, ValueInfo], arrays: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Rows that a call steps, each for one time step: as many as the open axes of its largest input have places."""
    return max(
        (
            prod(size for size, dim in zip(array.shape, infos[name].shape, strict=True) if not isinstance(dim, int))
            for name, array in arrays.items()
        ),
        default=1,
    )


def may_be_small(row: float) -> bool:
    """Whether calls of one row, each of `row` FLOPs a step, are fastest on one thread.

    ONNX Runtime's threads meet at every time step of an LSTM, and where they do not spin, meeting costs
    more than they save.  Measured on 2 cores, two threads against one: a step of I80 H256 L2 takes 1.5
    times as long, 50 steps 1.2 times; of I512 H512 L2, whose weights one core's cache does not hold, 0.86
    and 0.8 times.
    """
    return row <= _SMALL_ROW


def is_small(row: float, batch: int, rows: int) -> bool:
    """The same of a call of `rows` rows in all, `batch` of them at a time.

    Measured so, I80 H256 L2: 8 rows 1.3 times, 32 rows 0.9, and 50 steps of 8 rows 0.6.
    """
    return may_be_small(row) and (batch == 1 or row * rows <= _SMALL_CALL)
