"""ONNX's LSTM operator in float64, written from its specification (onnx.ai/onnx/operators/onnx__LSTM.html).

Row by row and step by step, for reading and not for speed.  The specification leaves two things
open, and here they are as ONNX Runtime has them: a row of length 0 gives zeros and not its initial
state, and what lies behind a row's end in Y is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Result(NamedTuple):
    """Y ``(time, D, batch, H)``, Y_h and Y_c ``(D, batch, H)``; batch first with layout 1."""

    y: Array
    y_h: Array
    y_c: Array


class _Function(NamedTuple):
    """An activation of x, alpha and beta, and the operator's defaults; None where it takes no such argument."""

    apply: Callable[[Array, float, float], Array]
    alpha: float | None = None
    beta: float | None = None


ACTIVATIONS: dict[str, _Function] = {
    "sigmoid": _Function(lambda x, _a, _b: (1 + np.tanh(x / 2)) / 2),
    "tanh": _Function(lambda x, _a, _b: np.tanh(x)),
    "relu": _Function(lambda x, _a, _b: np.maximum(x, 0)),
    "softsign": _Function(lambda x, _a, _b: x / (1 + np.abs(x))),
    "softplus": _Function(lambda x, _a, _b: np.logaddexp(0, x)),
    "leakyrelu": _Function(lambda x, a, _b: np.where(x >= 0, x, a * x), 0.01),
    "thresholdedrelu": _Function(lambda x, a, _b: np.where(x >= a, x, 0), 1.0),
    "elu": _Function(lambda x, a, _b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), 1.0),
    "hardsigmoid": _Function(lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    # These two are of no operator, so that there is no default to take: give both.
    "affine": _Function(lambda x, a, b: a * x + b, np.nan, np.nan),
    "scaledtanh": _Function(lambda x, a, b: a * np.tanh(b * x), np.nan, np.nan),
}


def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    direction: str = "forward",
    activations: Sequence[str] = (),
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float | None = None,
    input_forget: int = 0,
    layout: int = 0,
    hidden_size: int | None = None,
    clip_cell: bool = True,
) -> Result:
    """The operator, its inputs and its attributes in their own order and by their own names.

    Args:
        x: ``(time, batch, I)``.
        w: ``(D, 4H, I)``, gates in the order i, o, f, c.
        r: ``(D, 4H, H)``.
        b: ``(D, 8H)``, the biases of W and then of R.
        sequence_lens: ``(batch,)``.
        initial_h: ``(D, batch, H)``.
        initial_c: ``(D, batch, H)``.
        p: ``(D, 3H)``, peepholes of i, o, f.
        direction: "forward", "reverse" or "bidirectional".
        activations: f, g, h for each direction.
        activation_alpha: one for each of those that takes it, in their order.
        activation_beta: the same.
        clip: bounds what goes into every activation, the cell state of h included.
        input_forget: 1 takes 1 - i for the forget gate.
        layout: 1 has x, initial states and outputs batch first.
        hidden_size: only compared with r.
        clip_cell: False leaves what goes into h as it is, as ONNX Runtime does (its issue 27224).
    """
    directions, hidden = r.shape[0], r.shape[2]
    if hidden_size not in (None, hidden):
        raise ValueError(f"hidden_size {hidden_size} and R {r.shape} disagree")
    if directions != (2 if direction == "bidirectional" else 1):
        raise ValueError(f"direction {direction} and R {r.shape} disagree")
    functions = _functions(activations or ["sigmoid", "tanh", "tanh"] * directions, activation_alpha, activation_beta)
    x = _wide(x) if layout == 0 else _wide(x).swapaxes(0, 1)
    time, batch = x.shape[:2]
    h0, c0 = (_states(given, (directions, batch, hidden), layout) for given in (initial_h, initial_c))
    lengths = np.full(batch, time) if sequence_lens is None else np.asarray(sequence_lens)
    y = np.zeros((time, directions, batch, hidden))
    y_h, y_c = np.zeros_like(h0), np.zeros_like(c0)
    bias = np.zeros((directions, 8 * hidden)) if b is None else _wide(b)
    peepholes = np.zeros((directions, 3 * hidden)) if p is None else _wide(p)
    bound = np.inf if clip is None else float(clip)
    for d in range(directions):
        backwards = direction == "reverse" or d == 1
        w_d, r_d, b_d = _wide(w[d]), _wide(r[d]), bias[d, : 4 * hidden] + bias[d, 4 * hidden :]
        f, g, h_of = functions[3 * d : 3 * d + 3]
        f, g, h_of = _clipped(f, bound), _clipped(g, bound), _clipped(h_of, bound if clip_cell else np.inf)
        p_i, p_o, p_f = np.split(peepholes[d], 3)
        for row in range(batch):
            h, c = h0[d, row], c0[d, row]
            steps = range(int(lengths[row]))
            for t in reversed(steps) if backwards else steps:
                z_i, z_o, z_f, z_c = np.split(w_d @ x[t, row] + r_d @ h + b_d, 4)
                i = f(z_i + p_i * c)
                forget = 1 - i if input_forget else f(z_f + p_f * c)
                c = forget * c + i * g(z_c)
                h = f(z_o + p_o * c) * h_of(c)
                y[t, d, row] = h
            if len(steps) > 0:
                y_h[d, row], y_c[d, row] = h, c
    if layout == 1:
        return Result(y.transpose(2, 0, 1, 3), y_h.swapaxes(0, 1), y_c.swapaxes(0, 1))
    return Result(y, y_h, y_c)


def _functions(names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]) -> list[Callable[[Array], Array]]:
    """Each function with its own arguments: the lists hold one for each function that takes it, in turn."""
    rest_a, rest_b = list(alphas), list(betas)
    bound = []
    for name in names:
        function = ACTIVATIONS[name.lower()]
        a, b = (
            np.nan if default is None else rest.pop(0) if rest else default
            for default, rest in ((function.alpha, rest_a), (function.beta, rest_b))
        )
        bound.append(_with(function, float(a), float(b)))
    if rest_a or rest_b:
        raise ValueError(f"{len(rest_a)} alphas and {len(rest_b)} betas are left over after {', '.join(names)}")
    return bound


def _with(function: _Function, alpha: float, beta: float) -> Callable[[Array], Array]:
    return lambda x: function.apply(x, alpha, beta)


def _clipped(function: Callable[[Array], Array], bound: float) -> Callable[[Array], Array]:
    return lambda x: function(np.clip(x, -bound, bound))


def _wide(array: Array) -> Array:
    return np.asarray(array, np.float64)


def _states(given: Array | None, shape: tuple[int, ...], layout: int) -> Array:
    if given is None:
        return np.zeros(shape)
    return _wide(given) if layout == 0 else _wide(given).swapaxes(0, 1)
