"""torch's functions that a trace computes otherwise: of complex numbers, of byte masks, and of as many numbers as an
axis is long.

For these, torch.onnx has no translation, or a wrong one, and torch.export fixes the size or takes no such argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .inverse_stft import istft
from .ranges import is_symbolic

if TYPE_CHECKING:
    from .function_mode import TracingMode


def _times(_mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """A product with a complex number of Python's."""
    number = next((item for item in args if isinstance(item, complex)), None)
    x = next((item for item in args if isinstance(item, Tensor)), None)
    if number is None or x is None:
        return None
    if not x.is_complex():
        return (torch.complex(x * number.real, x * number.imag),)
    real, imaginary = x.real * number.real - x.imag * number.imag, x.real * number.imag + x.imag * number.real
    return (torch.complex(real, imaginary),)


def _copy(mode: TracingMode, func: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
    """`copy_` of fewer numbers than there are places: torch.onnx's result has the shape of what is copied."""
    if len(args) < 2 or not isinstance(args[1], Tensor):
        return None
    x, source, *rest = args
    ones = zip(reversed(x.shape), reversed(source.shape), strict=False)
    fewer = any(type(one) is int and one == 1 and not (type(size) is int and size == 1) for size, one in ones)
    if source.dim() == x.dim() and not fewer:
        return None
    return (mode.constants.call(func, (x, source.expand_as(x), *rest), kwargs),)


def _exp(_mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    return (torch.polar(args[0].real.exp(), args[0].imag),) if args[0].is_complex() else None


def _angle(_mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """torch.onnx's is -pi for negative real numbers, as in the first and last bin of a Fourier transform."""
    return (torch.atan2(args[0].imag, args[0].real),) if args[0].is_complex() else None


def _linspace(_mode: TracingMode, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """The numbers as PyTorch computes them: from both ends to the middle; None where their count is fixed."""
    named = dict(zip(("start", "end", "steps"), args, strict=False)) | kwargs
    dtype = named.pop("dtype", None) or torch.get_default_dtype()
    device = named.pop("device", None)
    known = named.keys() == {"start", "end", "steps"} and dtype.is_floating_point
    if not known or not is_symbolic(named["steps"]) or any(isinstance(named[end], Tensor) for end in ("start", "end")):
        return None
    start, end = (_double(named[end], device) for end in ("start", "end"))
    steps = named["steps"]
    count = torch.scalar_tensor(steps, dtype=torch.float64, device=device)
    step = ((end - start) / (count - 1).clamp(min=1)).to(dtype)
    number = torch.arange(steps, device=device)
    from_start = number < torch.floor(count / 2).clamp(min=1)  # a single number is the start
    up, down = start + step * number.to(dtype), end - step * (steps - 1 - number).to(dtype)
    return (torch.where(from_start, up, down),)


def _istft(_mode: TracingMode, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    samples = istft(*args, **kwargs)
    return None if samples is None else (samples,)


def _fill_diagonal(_mode: TracingMode, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """Of a matrix: torch.export writes to memory, at steps that it counts in numbers."""
    named = dict(zip(("self", "fill_value", "wrap"), args, strict=False)) | kwargs
    x = named["self"]
    if x.dim() != 2 or named.get("wrap"):
        return None
    x.diagonal().fill_(named["fill_value"])
    return (x,)


def _double(number: Any, device: Any) -> Any:
    """An end as PyTorch computes with it, also one that is a size: ``linspace(0, steps - 1, steps)``."""
    return torch.scalar_tensor(number, dtype=torch.float64, device=device) if is_symbolic(number) else float(number)


def _where(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """A choice by a mask of uint8, as PyTorch had them before bool; torch.export traces bool alone."""
    at = 1 if func is Tensor.where else 0
    condition = args[at] if len(args) > at else kwargs.get("condition")
    if len(args) + len(kwargs) < 3 or not isinstance(condition, Tensor) or condition.dtype != torch.uint8:
        return None
    mask = mode.constants.call(Tensor.bool, (condition,), {})
    if len(args) > at:
        args = (*args[:at], mask, *args[at + 1 :])
    else:
        kwargs = {**kwargs, "condition": mask}
    return (mode.constants.call(func, args, kwargs),)


def _symbolic_one_hot(mode: TracingMode, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes")
    return (mode.constants.call(one_hot, (args[0], classes), {}),) if isinstance(classes, torch.SymInt) else None


def one_hot(numbers: Tensor, classes: Any) -> Tensor:
    """As torch.nn.functional.one_hot, whose number of classes may be a symbol."""
    return (numbers.unsqueeze(-1) == torch.arange(classes, device=numbers.device)).to(torch.int64)


TORCH_FUNCTIONS: Mapping[str, Callable[[TracingMode, Any, Any, dict[str, Any]], tuple[Tensor] | None]] = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _times),
    "copy_": _copy,
    "exp": _exp,
    "angle": _angle,
    "linspace": _linspace,
    "one_hot": _symbolic_one_hot,
    "istft": _istft,
    "fill_diagonal_": _fill_diagonal,
    "where": _where,
}
"""By the names of torch's functions, as in `function_mode`."""
