"""Detects recurrent operators in float64, which ONNX Runtime's CPU provider opens but cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from .providers import ort_errors, placements
from .tensor_info import ValueInfo
from .tuning import MAX_FLOAT64_TRIAL_ELEMENTS

_OPERATORS = frozenset({"LSTM", "GRU"})
"""These operators open and then fail to run; a float64 RNN fails to open."""
REMEDY = 'export it as float32 or, with projection="scan", as Scans; or use provider "cuda"'
NOT_ON_CPU = "is float64, and ONNX Runtime's CPU provider has no LSTM or GRU operator for it"


def is_float64_error(error: BaseException) -> bool:
    """Whether ONNX Runtime failed because of float64."""
    return "does not support double" in str(error)


def cannot_run_float64(session: Any, inputs: Mapping[str, ValueInfo], outputs: Mapping[str, ValueInfo]) -> bool:
    """Whether a model cannot run because of float64.

    A session exposes neither its graph nor the dtypes of an LSTM's inputs.  So where an input or output is
    float64 and there is an LSTM, the model is run once at the smallest sizes.  This proves nothing if that run
    fails for another reason, or if only inner values are float64.
    """
    if not any(info.dtype == np.float64 for info in [*inputs.values(), *outputs.values()]):
        return False
    if not any(node.op_type in _OPERATORS for node in placements(session)):
        return False
    shapes = {name: info.smallest_shape() for name, info in inputs.items()}
    if sum(prod(shape) for shape in shapes.values()) > MAX_FLOAT64_TRIAL_ELEMENTS or any(
        min(shape, default=1) < 1 for shape in shapes.values()
    ):
        return False
    if any(info.dtype is None or info.dtype == object for info in inputs.values()):
        return False
    # Ones: lengths of 1, and token ids that nearly every vocabulary has.
    feeds = {name: np.ones(shapes[name], info.dtype) for name, info in inputs.items()}
    try:
        session.run(None, feeds)
    except ort_errors() as error:
        return is_float64_error(error)
    return False
