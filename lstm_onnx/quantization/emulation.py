"""Emulates an int8 layer step by step in numpy, from the inputs and outputs of a run of the file.

The state before each step is the file's own output of the step before: a number halfway between two integers may be
rounded to either, and an independent run would diverge from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .arithmetic import QuantizedWeight
from .dynamic_lstm import batch_product
from .kernels import DYNAMIC_QUANTIZE_LSTM
from .recurrent import Layer


@dataclass(frozen=True)
class Steps:
    """One direction of a layer in a run of the file; float32 except `lengths`.

    Attributes:
        x: ``(time, batch, input_size)``.
        h0, c0: ``(batch, H)``; c0 only for an LSTM.
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
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


_FUNCTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Relu": partial(np.maximum, 0),
}
_Product = Callable[[np.ndarray], np.ndarray]


def product_or_nan(product: _Product, rows: np.ndarray) -> np.ndarray:
    """A product of rows ``(..., in)``, which is NaN for a row with a number that is not finite."""
    finite = np.isfinite(rows).all(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # it also overflows in the file
        result: np.ndarray = np.where(finite, product(np.where(finite, rows, 0)), np.nan)
    return result


def _products(layer: Layer, index: int, dtype: type) -> tuple[_Product, list[_Product]]:
    """A direction's products in the arithmetic of its kernel: by W, and by R or its parts."""
    products: list[_Product] = [
        partial(batch_product, weight=weight, dtype=dtype)
        if layer.kernel == DYNAMIC_QUANTIZE_LSTM and isinstance(weight, QuantizedWeight)
        else partial(product_or_nan, partial(weight.product, dtype=dtype))
        for weight in layer.quantized[index]
    ]
    return products[0], products[1:]


def emulate(layer: Layer, index: int, steps: Steps, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """One direction of a layer, with the file's integers and all else in `dtype`.

    Returns:
        "output" ``(time, batch, H)``, "hn" ``(batch, H)`` and, of an LSTM, "cn" ``(batch, H)`` and "c", the largest
        |c| of each step and row ``(time, batch, 1)``.
    """
    if layer.kernel == DYNAMIC_QUANTIZE_LSTM:
        # Numbers that are not finite are 0 for the operator, and marked after it.
        x, h0 = _finite(steps.x), _finite(steps.h0)
        steps = replace(steps, x=x, h0=h0, c0=None if steps.c0 is None else _finite(steps.c0))
    if layer.kernel == DYNAMIC_QUANTIZE_LSTM and layer.reverse[index]:
        # Reversed sequences start from their own ends and share a step's scale.
        turned = replace(steps, x=_turned(steps.x, steps.lengths), output=_turned(steps.output, steps.lengths))
        result = _forward(layer, index, turned, range(len(steps.x)), dtype)
        return {
            name: _turned(array, steps.lengths) if name in ("output", "c") else array for name, array in result.items()
        }
    order = reversed(range(len(steps.x))) if layer.reverse[index] else range(len(steps.x))
    return _forward(layer, index, steps, order, dtype)


def _finite(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, np.float32(0))


def _turned(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """An array ``(time, batch, ...)`` with each sequence reversed and its padding in place."""
    time = np.arange(len(array))[:, None]
    return array[np.where(time < lengths, lengths - 1 - time, time), np.arange(array.shape[1])]


def _forward(layer: Layer, index: int, steps: Steps, order: Iterable[int], dtype: type) -> dict[str, np.ndarray]:
    gates = layer.R.shape[1]
    functions = [_FUNCTIONS[name] for name in layer.activations[index]]
    by_W, by_R = _products(layer, index, dtype)  # noqa: N806
    bias = layer.B[index].astype(dtype)
    # Steps after the longest sequence are ignored.
    longest = int(steps.lengths.max(initial=0))
    gx = np.zeros((*steps.x.shape[:2], gates), dtype)
    gx[:longest] = by_W(steps.x[:longest]) + bias[:gates]
    bias_h = bias[gates:]
    peepholes = [] if layer.P is None else np.split(layer.P[index].astype(dtype), 3)
    h: np.ndarray = steps.h0.astype(dtype)
    c: np.ndarray | None = None if steps.c0 is None else steps.c0.astype(dtype)
    given = steps.h0
    output: np.ndarray = np.zeros(steps.output.shape, dtype)
    largest = np.zeros((*steps.output.shape[:2], 1), dtype)
    for step in order:
        valid = (step < steps.lengths)[:, None]
        rows = given
        if layer.kernel == DYNAMIC_QUANTIZE_LSTM:  # a finished sequence adds zeros to the scale from its second step
            rows = np.where((step <= steps.lengths)[:, None], given, 0)
        if layer.op_type == "GRU":
            new = _gru(layer, gx[step], given, by_R, bias_h, functions, dtype)
        elif c is not None:
            i, o, f, g = np.split(gx[step] + by_R[0](rows) + bias_h, 4, axis=-1)
            if peepholes:
                i, f = i + peepholes[0] * c, f + peepholes[2] * c
            changed = functions[0](f) * c + functions[0](i) * functions[1](g)
            new = functions[0](o + peepholes[1] * changed if peepholes else o) * functions[2](changed)
            c = np.where(valid, changed, c)
            largest[step] = np.abs(c).max(axis=-1, keepdims=True)
        else:
            new = functions[0](gx[step] + by_R[0](rows) + bias_h)
        output[step] = np.where(valid, new, 0)
        h = np.where(valid, new, h)
        given = np.where(valid, steps.output[step], given)
    result = {"output": output, "hn": h}
    return result if c is None else {**result, "cn": c, "c": largest}


def _gru(
    layer: Layer,
    gx: np.ndarray,
    h: np.ndarray,
    by_R: list[_Product],  # noqa: N803
    bias_h: np.ndarray,
    functions: list[Callable[[np.ndarray], np.ndarray]],
    dtype: type,
) -> np.ndarray:
    hidden = layer.hidden_size
    products = by_R[0](h)
    zr = functions[0](gx[:, : 2 * hidden] + products[:, : 2 * hidden] + bias_h[: 2 * hidden])
    z, r = np.split(zr, 2, axis=-1)
    if layer.reset_after:
        reset = r * (products[:, 2 * hidden :] + bias_h[2 * hidden :])
    else:
        reset = by_R[1](r * h) + bias_h[2 * hidden :]
    n = functions[1](gx[:, 2 * hidden :] + reset)
    return np.asarray(n + z * (h.astype(dtype) - n))
