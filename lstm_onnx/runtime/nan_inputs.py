"""NaN in a model's inputs, which ONNX Runtime's recurrent operators on the CPU turn into ordinary numbers.

A NaN at one time step makes every later result of PyTorch's nn.LSTM NaN.  ONNX Runtime's LSTM, GRU and RNN (1.31, on
the CPU) limit what they compute to a range, and a NaN becomes a bound of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from .providers import CPU, placements

if TYPE_CHECKING:
    from .model import Model

_OPERATORS = {"LSTM", "GRU", "RNN"}


def hides_nan(session: Any) -> bool:
    """Whether an open session runs such an operator on the CPU."""
    return any(node.op_type in _OPERATORS and node.provider == CPU for node in placements(session))


def has_nan(array: np.ndarray) -> bool:
    """Whether an array of floats has a NaN; of infinities alone the sum of squares is infinite.

    Takes a third of the time of `numpy.isnan`.
    """
    return array.dtype.kind == "f" and isnan(np.vdot(array, array))


def warn_of_nan(model: Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Warn of inputs with a NaN (RuntimeWarning) that a model's results would hide.

    A bare LSTM computes no steps past a sequence's ``lengths``.
    """
    if not model.hides_nan:
        return
    for name, array in arrays.items():
        if not has_nan(array):
            continue
        if name == "input" and model.spec is not None and "lengths" in arrays:
            batch_first = array if model.spec.batch_first else array.swapaxes(0, 1)
            if not has_nan(batch_first[np.arange(batch_first.shape[1]) < np.asarray(arrays["lengths"])[:, None]]):
                continue
        warnings.warn(
            f"{model.path}: {name} has a NaN; from its time step on ONNX Runtime's LSTM gives numbers where PyTorch's "
            "gives NaN: replace it before the run",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The `stacklevel` of the line that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("lstm_onnx."):
        level, frame = level + 1, frame.f_back
    return level
