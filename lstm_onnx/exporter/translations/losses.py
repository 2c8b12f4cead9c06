"""The translation of a loss of which torch.onnx leaves out an argument without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxscript.function_libs.torch_lib.ops.nn import aten_cross_entropy_loss

from ...errors import ExportError
from .size_arithmetic import is_fraction


def _cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    if label_smoothing != 0 or is_fraction(target):
        what = "label_smoothing" if label_smoothing != 0 else "a probability for each class"
        raise ExportError(f"cross_entropy with {what} has no translation to ONNX; write it with log_softmax")
    return aten_cross_entropy_loss(x, target, weight, reduction, ignore_index)


LOSSES: Mapping[Any, Callable[..., Any]] = {torch.ops.aten.cross_entropy_loss.default: _cross_entropy}
