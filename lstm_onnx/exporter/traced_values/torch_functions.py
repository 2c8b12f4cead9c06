"""Replacements for torch's functions in a trace, such as those of complex numbers, byte masks or mixed dtypes.

For these, torch.onnx has no translation or a wrong one, or torch.export fixes the size or rejects the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._python_dispatch import _disable_current_modes

from ...errors import ExportError
from ..user_code import user_line
from .constants import Constants
from .inverse_stft import istft
from .ranges import is_symbolic
from .smaller_functions import SMALLER_FUNCTIONS


def _times(_constants: Constants, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """A product with a Python complex number."""
    number = next((item for item in args if isinstance(item, complex)), None)
    x = next((item for item in args if isinstance(item, Tensor)), None)
    if number is None or x is None:
        return None
    if not x.is_complex():
        return (torch.complex(x * number.real, x * number.imag),)
    real, imaginary = x.real * number.real - x.imag * number.imag, x.real * number.imag + x.imag * number.real
    return (torch.complex(real, imaginary),)


def _copy(constants: Constants, func: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
    """`copy_` that broadcasts its source: torch.onnx's result would have the source's shape."""
    if len(args) < 2 or not isinstance(args[1], Tensor):
        return None
    x, source, *rest = args
    ones = zip(reversed(x.shape), reversed(source.shape), strict=False)
    fewer = any(type(one) is int and one == 1 and not (type(size) is int and size == 1) for size, one in ones)
    if source.dim() == x.dim() and not fewer:
        return None
    return (constants.call(func, (x, source.expand_as(x), *rest), kwargs),)


def _exp(_constants: Constants, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    return (torch.polar(args[0].real.exp(), args[0].imag),) if args[0].is_complex() else None


def _angle(_constants: Constants, _func: Any, args: Any, _kwargs: Any) -> tuple[Tensor] | None:
    """torch.onnx's is -pi for negative real numbers, as in the first and last bin of a Fourier transform."""
    return (torch.atan2(args[0].imag, args[0].real),) if args[0].is_complex() else None


def _linspace(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """The numbers as PyTorch computes them: from both ends to the middle; a fixed count as its kernel does."""
    named = dict(zip(("start", "end", "steps"), args, strict=False)) | kwargs
    dtype = named.pop("dtype", None) or torch.get_default_dtype()
    device = named.pop("device", None)
    known = named.keys() == {"start", "end", "steps"} and dtype.is_floating_point
    if not known or any(isinstance(named[end], Tensor) for end in ("start", "end")):
        return None
    if not any(map(is_symbolic, named.values())):
        with _disable_current_modes():
            numbers = func(**named, dtype=dtype).tolist()
        return (constants.call(torch.tensor, (numbers,), {"dtype": dtype, "device": device}),)
    if not is_symbolic(named["steps"]):
        return None
    start, end = (_double(named[end], device) for end in ("start", "end"))
    steps = named["steps"]
    count = torch.scalar_tensor(steps, dtype=torch.float64, device=device)
    step = ((end - start) / (count - 1).clamp(min=1)).to(dtype)
    number = torch.arange(steps, device=device)
    from_start = number < torch.floor(count / 2).clamp(min=1)  # a single number is the start
    up, down = start + step * number.to(dtype), end - step * (steps - 1 - number).to(dtype)
    return (torch.where(from_start, up, down),)


def _istft(_constants: Constants, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    samples = istft(*args, **kwargs)
    return None if samples is None else (samples,)


def _fill_diagonal(constants: Constants, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """For a matrix: torch.export would write through a strided view, whose strides it fixes."""
    named = dict(zip(("self", "fill_value", "wrap"), args, strict=False)) | kwargs
    x = named["self"]
    if x.dim() != 2 or named.get("wrap"):
        return None
    diagonal = constants.call(Tensor.diagonal, (x,), {})
    constants.call(Tensor.fill_, (diagonal, named["fill_value"]), {})
    return (x,)


def _double(number: Any, device: Any) -> Any:
    """A bound in the precision in which PyTorch uses it; it may be a size, as in ``linspace(0, steps - 1, steps)``."""
    return torch.scalar_tensor(number, dtype=torch.float64, device=device) if is_symbolic(number) else float(number)


def _where(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """A choice by a uint8 mask, which PyTorch used before it had bool; torch.export traces only bool."""
    at = 1 if func is Tensor.where else 0
    condition = args[at] if len(args) > at else kwargs.get("condition")
    if len(args) + len(kwargs) < 3 or not isinstance(condition, Tensor) or condition.dtype != torch.uint8:
        return None
    mask = constants.call(Tensor.bool, (condition,), {})
    if len(args) > at:
        args = (*args[:at], mask, *args[at + 1 :])
    else:
        kwargs = {**kwargs, "condition": mask}
    return (constants.call(func, args, kwargs),)


def _symbolic_one_hot(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    if isinstance(classes, torch.SymInt):
        return (constants.call(one_hot, (args[0], classes), {}),)
    if classes != -1:
        return None
    try:
        return (constants.call(func, args, kwargs),)
    except (GuardOnDataDependentSymNode, DataDependentOutputException):
        raise ExportError(
            f"at {user_line()}: one_hot makes as many classes as the largest number asks for, so a result's size would "
            "depend on the numbers; pass num_classes"
        ) from None


def one_hot(numbers: Tensor, classes: Any) -> Tensor:
    """torch.nn.functional.one_hot with a number of classes that may be symbolic."""
    return (numbers.unsqueeze(-1) == torch.arange(classes, device=numbers.device)).to(torch.int64)


def _clamp(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    """Integers clamped to a float, which the decomposition for ONNX rejects: computed in floats, as in PyTorch."""
    x, bounds = args[0], [*args[1:], *kwargs.values()]
    fractions = [bound for bound in bounds if isinstance(bound, (float, torch.SymFloat))]
    if not fractions or any(isinstance(bound, Tensor) for bound in bounds):
        return None
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    named = {name: _as_fraction(bound) for name, bound in kwargs.items()}
    return (constants.call(func, (x, *map(_as_fraction, args[1:])), named),)


def _as_fraction(bound: Any) -> Any:
    return float(bound) if isinstance(bound, int) else bound


def _pow(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    """With two dtypes, ONNX's result has the first one, PyTorch's the wider one."""
    if len(args) != 2 or not all(isinstance(item, Tensor) for item in args) or args[0].dtype == args[1].dtype:
        return None
    wide = torch.result_type(*args)
    return (constants.call(func, tuple(item.to(wide) for item in args), kwargs),)


def _floor_divide(constants: Constants, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    """Floor division of floats, for which torch.onnx has no translation."""
    whole = all(isinstance(item, int) or (isinstance(item, Tensor) and item.dtype in INTEGERS) for item in args)
    if whole or len(args) != 2 or kwargs or any(isinstance(item, (torch.SymInt, torch.SymFloat)) for item in args):
        return None
    return (constants.call(torch.div, args, {"rounding_mode": "floor"}),)


def _floor_divided_by(constants: Constants, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    """Floor division of a number by a tensor."""
    tensor, number = args
    if type(number) not in (int, float):
        return None
    both = torch.full((), number, dtype=torch.result_type(tensor, number)), tensor
    return _floor_divide(constants, None, both, kwargs) or (constants.call(torch.floor_divide, both, kwargs),)


def _attention(constants: Constants, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """Attention on tensors with three axes; torch.onnx has a translation only for four."""
    names = ("query", "key", "value", "attn_mask")
    found = dict(zip(names, args[:4], strict=False)) | {name: kwargs[name] for name in names if name in kwargs}
    if any(found[name].dim() != 3 for name in names[:3]):
        return None
    mask = found.get("attn_mask")
    if isinstance(mask, Tensor) and mask.dim() == 3:
        found["attn_mask"] = mask.unsqueeze(1)
    found |= {name: found[name].unsqueeze(1) for name in names[:3]}
    others = {name: value for name, value in kwargs.items() if name not in names}
    others |= dict(zip(("dropout_p", "is_causal"), args[4:], strict=False))
    return (constants.call(func, (), {**found, **others}).squeeze(1),)


INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
TORCH_FUNCTIONS: Mapping[str, Callable[[Constants, Any, Any, dict[str, Any]], tuple[Tensor] | None]] = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _times),
    "copy_": _copy,
    "exp": _exp,
    "angle": _angle,
    "linspace": _linspace,
    "one_hot": _symbolic_one_hot,
    "istft": _istft,
    "fill_diagonal_": _fill_diagonal,
    "where": _where,
    **dict.fromkeys(
        (f"{name}{place}" for name in ("clamp", "clip", "clamp_min", "clamp_max") for place in ("", "_")), _clamp
    ),
    **dict.fromkeys(("pow", "__pow__"), _pow),
    **dict.fromkeys(("floor_divide", "__floordiv__"), _floor_divide),
    "__rfloordiv__": _floor_divided_by,
    "scaled_dot_product_attention": _attention,
    **SMALLER_FUNCTIONS,
}
"""By names of torch's functions, as in `function_mode`."""
