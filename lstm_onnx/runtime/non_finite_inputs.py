"""Warns of NaN and infinity in inputs, which ONNX Runtime's recurrent operators on the CPU turn into ordinary numbers.

A NaN at one time step makes every later result of PyTorch's nn.LSTM NaN, and so do two infinities whose products with
the weights have opposite signs, as the logarithms of silence do.  ONNX Runtime's LSTM, GRU and RNN (1.31, on the CPU)
limit what they compute to a range, and a NaN becomes a bound of it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from math import isfinite

import numpy as np

from .loaded_model import LoadedModel


def is_finite(array: np.ndarray) -> bool:
    """Whether an array has neither NaN nor infinity.

    The sum of squares of a finite array is finite, or too large for the dtype.  BLAS computes it in a third of the time
    that `numpy.isfinite` takes.
    """
    return array.dtype.kind != "f" or isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def warn_of_non_finite(model: LoadedModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Warn of inputs with NaN or infinity (RuntimeWarning) that a model's results would hide."""
    if not model.hides_nan:
        return
    for name, array in arrays.items():
        if is_finite(array):
            continue
        info = model.inputs.get(name)
        if info is None or array.dtype != info.dtype or array.ndim != len(info.shape):
            continue  # our own validation reports it
        if name in model.states and not np.isnan(array).any():
            continue  # the state of a running maximum starts from minus infinity
        if is_finite(_within_lengths(model, name, arrays)):
            continue
        warnings.warn(
            f"{model.path}: {name} has a NaN or an infinity; where PyTorch's LSTM gives NaN from this time step on, "
            "ONNX Runtime's gives numbers: replace it before the run",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )


def _within_lengths(model: LoadedModel, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """An input without the steps past the end of each sequence, from which nothing is computed."""
    array, shape = arrays[name], model.inputs[name].shape
    for lengths, count in model.counts.items():
        batch = model.inputs[lengths].shape
        if lengths in arrays and len(batch) == 1 and batch[0] in shape and count.axis in shape:
            sequences = np.moveaxis(array, (shape.index(batch[0]), shape.index(count.axis)), (0, 1))
            if np.shape(arrays[lengths]) != sequences.shape[:1]:
                return array  # our own validation reports it
            return sequences[np.arange(sequences.shape[1]) < np.asarray(arrays[lengths])[:, None]]
    return array


def _callers_level() -> int:
    """The `stacklevel` of the line that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("lstm_onnx."):
        level, frame = level + 1, frame.f_back
    return level
