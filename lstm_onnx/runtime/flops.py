"""Estimates a call's work from its states and inputs, to choose the number of threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from .tensor_info import ValueInfo
from .tuning import SMALL_CALL_FLOPS, SMALL_ROW_FLOPS


def step_flops(states: Iterable[np.ndarray]) -> float:
    """Approximate FLOPs of one time step: four gates per state, each the square of the state's last axis."""
    return float(sum(8.0 * state.size * state.shape[-1] for state in states if state.ndim))


def rows_of(infos: Mapping[str, ValueInfo], arrays: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Time steps of all sequences of a call: the product of the dynamic axes of its largest input."""
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
    """Whether a call of a bare LSTM with these states and other inputs is fastest on one thread; see `tuning`."""
    batch = max(1, rows_of(infos, states))
    row = step_flops(states.values()) / batch
    return 0 < row <= SMALL_ROW_FLOPS and (batch == 1 or row * max(batch, rows_of(infos, others)) <= SMALL_CALL_FLOPS)
