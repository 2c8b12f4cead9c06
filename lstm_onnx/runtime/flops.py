"""How much there is to do in a call, by what its states and inputs say: enough to choose threads by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from .tensor_info import ValueInfo

_SMALL_ROW = 5e6
"""FLOPs of one step of one row; the weights of as many are about 10 MB."""
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


def is_small(
    infos: Mapping[str, ValueInfo], states: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> bool:
    """Whether a call of a bare LSTM with these states and other inputs is fastest on one thread.

    ONNX Runtime's threads meet at every time step of an LSTM, and where they do not spin, meeting costs
    more than they save.  Measured on 2 cores, two threads against one: a step of I80 H256 L2 takes 1.5
    times as long, one in both directions 1.5 times, 50 steps 1.2 times, 8 rows at a time 1.3 times, 32 rows
    0.9, and 50 steps of 8 rows 0.6; a step of I512 H512 L2, whose weights one core's cache does not hold,
    0.86 times.
    """
    batch = max(1, rows_of(infos, states))
    row = row_work(states.values()) / batch
    return 0 < row <= _SMALL_ROW and (batch == 1 or row * max(batch, rows_of(infos, others)) <= _SMALL_CALL)
