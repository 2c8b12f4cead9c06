"""What a module that was made from a file remembers of it, for files that are exported from the module again.

A file may hold less than the module that it was exported from: parameters that no output needs are not in it, a
projected layer has the sum of its two biases, and a folded projection is in it only as a product with R.  As long as a
converted module has its file's numbers, its export has the same weights, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..onnxgraph.write import digest

_DIGESTS = "_lstm_onnx_digests"
_FOLDS = "_lstm_onnx_folds"


def keep_digest(module: Any, own: str, original: str | None) -> None:
    """Remember the digest of a converted module's parameters, and that of the file that it was made from."""
    if original is not None and own != original:
        module.__dict__[_DIGESTS] = (own, original)


def kept_digest(module: Any, own: str) -> str:
    """The digest of the file that a module was made from, if its parameters are still the same; else their own."""
    before, original = module.__dict__.get(_DIGESTS, (None, own))
    return str(original) if before == own else own


def keep_folds(module: Any, state: Mapping[str, np.ndarray], folds: Sequence[np.ndarray]) -> None:
    """Remember the products R W_hr of a file's folded layers, which the module's R and W_hr give but for rounding.

    Args:
        module: an nn.LSTM.
        state: its parameters.
        folds: the products of each layer, ``(directions, 4 * hidden_size, hidden_size)``, in ONNX's order of gates.
    """
    if folds:
        module.__dict__[_FOLDS] = (_factors(state), tuple(folds))


def kept_folds(module: Any, state: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
    """The remembered products of an nn.LSTM, if its parameters are still those of the file; else none.

    Args:
        module: any module.
        state: its parameters.
    """
    before, folds = module.__dict__.get(_FOLDS, ("", ()))
    return folds if folds and before == _factors(state) else ()


def _factors(state: Mapping[str, np.ndarray]) -> str:
    return digest({name: array for name, array in state.items() if name.startswith(("weight_hh", "weight_hr"))})
