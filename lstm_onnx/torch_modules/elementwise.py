"""ONNX's elementwise operators as torch functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from .values import Value, is_host, is_number, tensor, tensors

Attributes = Mapping[str, Any]
Operator = Callable[[list[Value], Attributes], Any]
"""Takes the inputs and the attributes of a node; returns its output, or a tuple of them."""

_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Equal": operator.eq,
    "Less": operator.lt,
    "Greater": operator.gt,
    "LessOrEqual": operator.le,
    "GreaterOrEqual": operator.ge,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
SIZES = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")
"""Operators with which a graph computes sizes."""
_OF_TORCH = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor IsNaN Log Neg Reciprocal Relu Round Sigmoid Sign "
    "Sin Sinh Sqrt Tan Tanh"
)
_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(torch, name.lower()) for name in _OF_TORCH.split()},
    **{name: getattr(functional, name.lower()) for name in ("HardSwish", "Mish", "Softplus", "Softsign")},
    "Not": torch.logical_not,
}


def _binary(function: Callable[[Any, Any], Any], inputs: list[Value], _: Attributes, *, sizes: bool) -> Any:
    a, b = inputs
    if _are_sizes(inputs) and sizes:
        return function(a, b)
    if isinstance(a, list) and isinstance(b, list) and sizes and 1 in (len(a), len(b)):
        longer = max(len(a), len(b))
        wide = [item * longer if len(item) == 1 else item for item in (a, b)]
        return [function(x, y) for x, y in zip(*wide, strict=True)]
    if any(isinstance(item, (list, bool)) for item in inputs) or all(map(is_host, inputs)):
        a, b = tensors(inputs)
    return function(a, b)


def _are_sizes(values: list[Value]) -> bool:
    """Whether all are Python ints; floats have a dtype, to which each operator rounds."""
    return all(is_number(value) and not isinstance(value, (bool, float)) for value in values)


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(tensor(inputs[0]))


def _divide(a: Any, b: Any) -> Any:
    """ONNX's Div, which rounds towards zero for integers."""
    if is_number(a) and is_number(b):
        opposite = type(a) is type(b) is int and (a < 0) != (b < 0)  # the sizes of a trace are positive
        return -(-a // b) if opposite else a // b
    floating = any(
        isinstance(item, float) or (isinstance(item, Tensor) and item.is_floating_point()) for item in (a, b)
    )
    return a / b if floating else torch.div(a, b, rounding_mode="trunc")


def _mod(inputs: list[Value], attributes: Attributes) -> Any:
    a, b = inputs
    if is_number(a) and is_number(b) and not attributes.get("fmod"):
        return a % b
    a, b = tensors(inputs)
    return torch.fmod(a, b) if attributes.get("fmod") else torch.remainder(a, b)


def _power(inputs: list[Value], _: Attributes) -> Any:
    base, exponent = tensor(inputs[0]), inputs[1]
    result = torch.pow(base, exponent if is_number(exponent) else tensor(exponent))
    # The result has the base's dtype; a number as the base may take the exponent's, if both are floats or integers.
    alike = is_number(inputs[0]) and result.is_floating_point() == base.is_floating_point()
    return result if alike or result.dtype == base.dtype else result.to(base.dtype)


def _extreme(function: Callable[[Tensor, Tensor], Tensor], of_sizes: Callable[..., Any]) -> Operator:
    return lambda inputs, _: of_sizes(*inputs) if _are_sizes(inputs) else reduce(function, tensors(inputs))


def _sum(inputs: list[Value], _: Attributes) -> Any:
    return reduce(operator.add, tensors(inputs))


def _mean(inputs: list[Value], attributes: Attributes) -> Any:
    return _sum(inputs, attributes) / len(inputs)


def _where(inputs: list[Value], _: Attributes) -> Any:
    condition, a, b = inputs
    alike = (is_number(a) and is_number(b)) or (isinstance(a, list) and isinstance(b, list) and len(a) == len(b))
    if isinstance(condition, bool) and alike:  # others are broadcast
        return a if condition else b
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = tensors([a, b])
    return torch.where(tensor(condition), a, b)


def cast_to(value: Value, dtype: torch.dtype) -> Any:
    """A value cast to a dtype; Python ints stay Python ints if the dtype is an integer."""
    if is_host(value) and dtype == torch.int64 and not isinstance(value, (bool, float)):
        return value
    return tensor(value).to(dtype)


def torch_dtype(elem_type: int) -> torch.dtype:
    """ONNX's element type as torch's dtype."""
    dtype = getattr(torch, str(helper.tensor_dtype_to_np_dtype(elem_type)), None)
    assert isinstance(dtype, torch.dtype)  # noqa: S101 - `unsupported` names the others before anything runs
    return dtype


def _clip(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    low, high = [*inputs[1:], None, None][:2] if len(inputs) > 1 else (attributes.get("min"), attributes.get("max"))
    if low is None and high is None:
        return x
    if high is None:
        return torch.clamp_min(x, low)  # type: ignore[arg-type]
    if low is None:
        return torch.clamp_max(x, high)  # type: ignore[arg-type]
    if isinstance(low, Tensor) != isinstance(high, Tensor):  # torch takes two tensors or two numbers
        low, high = tensor(low, x), tensor(high, x)
    return torch.clamp(x, low, high)  # type: ignore[arg-type]


def _is_inf(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    positive, negative = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    return (torch.isposinf(x) & bool(positive)) | (torch.isneginf(x) & bool(negative))


def _activation(function: Callable[[Tensor, float], Tensor], alpha: float) -> Operator:
    """An activation with one number, the attribute `alpha`, and its default."""
    return lambda inputs, attributes: function(tensor(inputs[0]), attributes.get("alpha", alpha))


def _selu(inputs: list[Value], attributes: Attributes) -> Any:
    alpha, gamma = attributes.get("alpha", 1.6732632), attributes.get("gamma", 1.0507010)
    x = tensor(inputs[0])
    return gamma * (torch.relu(x) + alpha * torch.clamp(torch.expm1(x), max=0))


def _hard_sigmoid(inputs: list[Value], attributes: Attributes) -> Any:
    return torch.clamp(tensor(inputs[0]) * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1)


def _gelu(inputs: list[Value], attributes: Attributes) -> Any:
    return functional.gelu(tensor(inputs[0]), approximate=str(attributes.get("approximate", "none")))


def _prelu(inputs: list[Value], _: Attributes) -> Any:
    x, slope = tensors(inputs)
    return torch.clamp(x, min=0) + slope * torch.clamp(x, max=0)


ELEMENTWISE: dict[str, Operator] = {
    **{name: partial(_binary, function, sizes=name in SIZES) for name, function in _ARITHMETIC.items()},
    **{name: _unary(function) for name, function in _UNARY.items()},
    "Cast": lambda inputs, attributes: cast_to(inputs[0], torch_dtype(attributes["to"])),
    "CastLike": lambda inputs, _: cast_to(inputs[0], tensor(inputs[1]).dtype),
    "Celu": _activation(functional.celu, 1.0),
    "Clip": _clip,
    "Div": partial(_binary, _divide, sizes=True),
    "Elu": _activation(functional.elu, 1.0),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "IsInf": _is_inf,
    "LeakyRelu": _activation(functional.leaky_relu, 0.01),
    "Max": _extreme(torch.maximum, torch.sym_max),
    "Mean": _mean,
    "Min": _extreme(torch.minimum, torch.sym_min),
    "Mod": _mod,
    "PRelu": _prelu,
    "Pow": _power,
    "Selu": _selu,
    "Sum": _sum,
    "ThresholdedRelu": _activation(lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)), 1.0),
    "Where": _where,
}
