"""Functions of complex numbers, written with real ones, for which torch.onnx has no translation or a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def _times(_mode: Any, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """A product with a complex number of Python's."""
    number = next((item for item in args if isinstance(item, complex)), None)
    x = next((item for item in args if isinstance(item, Tensor)), None)
    if number is None or x is None:
        return None
    if not x.is_complex():
        return (torch.complex(x * number.real, x * number.imag),)
    real, imaginary = x.real * number.real - x.imag * number.imag, x.real * number.imag + x.imag * number.real
    return (torch.complex(real, imaginary),)


def _exp(_mode: Any, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    return (torch.polar(args[0].real.exp(), args[0].imag),) if args[0].is_complex() else None


def _angle(_mode: Any, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """torch.onnx's is -pi for negative real numbers, as in the first and last bin of a Fourier transform."""
    x = args[0]
    if x.is_complex():
        return (torch.atan2(x.imag, x.real),)
    return None


COMPLEX: Mapping[str, Callable[[Any, Any, Any, dict[str, Any]], tuple[Tensor] | None]] = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _times),
    "exp": _exp,
    "angle": _angle,
}
"""By the names of torch's functions, as in `function_mode`."""
