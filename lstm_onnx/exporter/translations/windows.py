"""Translations of windows of a fixed size, which are constants, for which torch.onnx has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from ...errors import ExportError
from .size_arithmetic import FLOAT, constant


def _window(make: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def translated(window_length: Any, *options: Any, dtype: int | None = None, **_: Any) -> Any:
        if not isinstance(window_length, int):
            raise ExportError("a window as long as an axis has no translation to ONNX; give it a fixed length")
        kind = FLOAT if dtype in (None, -1) else ir.DataType(dtype)
        window = make(window_length, *options, dtype=torch.float64).numpy()
        return constant(window.astype(kind.numpy()), kind)

    return translated


_aten = torch.ops.aten
WINDOWS: Mapping[Any, Callable[..., Any]] = {
    getattr(operator, overload): _window(make)
    for operator, make, overloads in (
        (_aten.bartlett_window, torch.bartlett_window, ("default", "periodic")),
        (_aten.hamming_window, torch.hamming_window, ("default", "periodic", "periodic_alpha", "periodic_alpha_beta")),
        (_aten.kaiser_window, torch.kaiser_window, ("default", "periodic", "beta")),
    )
    for overload in overloads
}
