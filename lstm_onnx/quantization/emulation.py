"""What an int8 layer computes, step by step in numpy, from the inputs and outputs that a file had.

The state before each step is the file's own output of the step before: a number at the middle between two integers
may be rounded to either, and a run of one's own would go another way from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .arithmetic import QuantizedWeight, product, quantize_weight
from .recurrent import Layer


@dataclass(frozen=True)
class Steps:
    """One direction of a layer, as a file ran it; float32 but for `lengths`.

    Attributes:
        x: ``(time, batch, input_size)``.
        h0, c0: ``(batch, H)``; c0 only of an LSTM.
        lengths: ``(batch,)``.
        output: ``(time, batch, H)``, zeros past the end of a sequence.
    """

    x: np.ndarray
    h0: np.ndarray
    c0: np.ndarray | None
    lengths: np.ndarray
    output: np.ndarray


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Without an overflow for large negative numbers, and as exact for them.
    small = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x >= 0, 1, small) / (1 + small)
    return result


def _relu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(x, 0)
    return result


_FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"Sigmoid": _sigmoid, "Tanh": np.tanh, "Relu": _relu}


def emulate(layer: Layer, index: int, steps: Steps, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """One direction of a layer, with integers as the file has them and all else in `dtype`.

    Returns:
        "output" ``(time, batch, H)``, "hn" ``(batch, H)`` and, of an LSTM, "cn" ``(batch, H)`` and "c", the largest
        |c| of each step and row ``(time, batch, 1)``.
    """
    gates = layer.R.shape[1]
    hidden = layer.hidden_size
    functions = [_FUNCTIONS[name] for name in layer.activations[index]]
    weight = quantize_weight(layer.W[index].T)
    parts = [layer.R[index]]
    if layer.op_type == "GRU" and not layer.reset_after:
        parts = [layer.R[index][: 2 * hidden], layer.R[index][2 * hidden :]]
    recurrent = [quantize_weight(part.T) for part in parts]
    bias = layer.B[index].astype(dtype)
    gx = product(steps.x, weight, dtype) + bias[:gates]
    bias_h = bias[gates:]
    h: np.ndarray = steps.h0.astype(dtype)
    c: np.ndarray | None = None if steps.c0 is None else steps.c0.astype(dtype)
    given = steps.h0
    time = len(steps.x)
    output: np.ndarray = np.zeros(steps.output.shape, dtype)
    largest = np.zeros((*steps.output.shape[:2], 1), dtype)
    for step in reversed(range(time)) if layer.reverse[index] else range(time):
        valid = (step < steps.lengths)[:, None]
        if layer.op_type == "GRU":
            new = _gru(layer, gx[step], given, recurrent, bias_h, functions, dtype)
        elif c is not None:
            total = gx[step] + product(given, recurrent[0], dtype) + bias_h
            i, o, f, g = np.split(total, 4, axis=-1)
            changed = functions[0](f) * c + functions[0](i) * functions[1](g)
            new = functions[0](o) * functions[2](changed)
            c = np.where(valid, changed, c)
            largest[step] = np.abs(c).max(axis=-1, keepdims=True)
        else:
            new = functions[0](gx[step] + product(given, recurrent[0], dtype) + bias_h)
        output[step] = np.where(valid, new, 0)
        h = np.where(valid, new, h)
        given = np.where(valid, steps.output[step], given)
    result = {"output": output, "hn": h}
    return result if c is None else {**result, "cn": c, "c": largest}


def _gru(
    layer: Layer,
    gx: np.ndarray,
    h: np.ndarray,
    recurrent: list[QuantizedWeight],
    bias_h: np.ndarray,
    functions: list[Callable[[np.ndarray], np.ndarray]],
    dtype: type,
) -> np.ndarray:
    hidden = layer.hidden_size
    products = product(h, recurrent[0], dtype)
    zr = functions[0](gx[:, : 2 * hidden] + products[:, : 2 * hidden] + bias_h[: 2 * hidden])
    z, r = np.split(zr, 2, axis=-1)
    if layer.reset_after:
        reset = r * (products[:, 2 * hidden :] + bias_h[2 * hidden :])
    else:
        reset = product(r * h, recurrent[1], dtype) + bias_h[2 * hidden :]
    n = functions[1](gx[:, 2 * hidden :] + reset)
    new: np.ndarray = n + z * (h.astype(dtype) - n)
    return new
