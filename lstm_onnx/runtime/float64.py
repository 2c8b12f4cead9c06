"""Recurrent operators in float64, which ONNX Runtime's CPU provider opens and cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from .providers import ort_errors, placements
from .tensor_info import ValueInfo

_OPERATORS = frozenset({"LSTM", "GRU"})
"""Those that are opened and then refuse; an RNN of float64 is refused when it is opened."""
_MOST_ELEMENTS = 2**20
REMEDY = 'export it as float32, or use provider "cuda"'


def refuses_double(error: BaseException) -> bool:
    """Whether that is why ONNX Runtime failed."""
    return "does not support double" in str(error)


def runs_no_double(session: Any, inputs: Mapping[str, ValueInfo], outputs: Mapping[str, ValueInfo]) -> bool:
    """Whether a model cannot run for that reason.

    Neither the graph nor the dtypes of an LSTM's inputs can be asked of a session.  Where float64
    comes in or goes out and there is an LSTM, one run at the smallest sizes tells; it proves
    nothing where it fails for another reason, or where a model keeps its float64 inside.
    """
    infos = [*inputs.values(), *outputs.values()]
    if not any(info.dtype == np.float64 for info in infos):
        return False
    if not any(item.op_type in _OPERATORS for item in placements(session)):
        return False
    shapes = {name: info.smallest_shape() for name, info in inputs.items()}
    if sum(prod(shape) for shape in shapes.values()) > _MOST_ELEMENTS or any(
        min(s, default=1) < 1 for s in shapes.values()
    ):
        return False
    if any(info.dtype is None or info.dtype == object for info in inputs.values()):
        return False
    # Ones: the lengths of whole sequences, and tokens that nearly every vocabulary has.
    feeds = {name: np.ones(shapes[name], info.dtype) for name, info in inputs.items()}
    try:
        session.run(None, feeds)
    except ort_errors() as error:
        return refuses_double(error)
    return False
