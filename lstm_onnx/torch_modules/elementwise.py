"""ONNX's operators that compute entry by entry, as functions of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Equal": lambda a, b: a == b,
    "Less": lambda a, b: a < b,
    "Greater": lambda a, b: a > b,
    "LessOrEqual": lambda a, b: a <= b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}
_SIZES = ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")
"""Those that a graph computes sizes with."""
_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _binary(function: Callable[[Any, Any], Any], *, sizes: bool) -> Operator:
    def operator(inputs: list[Value], _: Attributes) -> Any:
        a, b = inputs
        if is_number(a) and is_number(b) and sizes:
            return function(a, b)
        if isinstance(a, list) and isinstance(b, list) and sizes and 1 in (len(a), len(b)):
            longer = max(len(a), len(b))
            wide = [item * longer if len(item) == 1 else item for item in (a, b)]
            return [function(x, y) for x, y in zip(*wide, strict=True)]
        if isinstance(a, list) or isinstance(b, list) or (is_host(a) and is_host(b)):
            a, b = tensors([a, b])
        return function(a, b)

    return operator


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(tensor(inputs[0]))


def _divide(a: Any, b: Any) -> Any:
    """ONNX's Div: of integers it is rounded towards zero."""
    if is_number(a) and is_number(b):
        return a / b if isinstance(a, float) else a // b  # sizes are positive
    floating = any(
        isinstance(item, float) or (isinstance(item, Tensor) and item.is_floating_point()) for item in (a, b)
    )
    return a / b if floating else torch.div(a, b, rounding_mode="trunc")


def _mod(inputs: list[Value], attributes: Attributes) -> Any:
    a, b = inputs
    if is_number(a) and is_number(b):
        return a % b
    a, b = tensors(inputs)
    return torch.fmod(a, b) if attributes.get("fmod") else torch.remainder(a, b)


def _power(inputs: list[Value], _: Attributes) -> Any:
    base, exponent = inputs
    return torch.pow(tensor(base), exponent if is_number(exponent) else tensor(exponent))


def _extreme(function: Callable[[Tensor, Tensor], Tensor], of_sizes: Callable[..., Any]) -> Operator:
    def operator(inputs: list[Value], _: Attributes) -> Any:
        if all(map(is_number, inputs)):
            return of_sizes(*inputs)
        result, *others = tensors(inputs)
        for other in others:
            result = function(result, other)
        return result

    return operator


def _sum(inputs: list[Value], _: Attributes) -> Any:
    result, *others = tensors(inputs)
    for other in others:
        result = result + other
    return result


def _mean(inputs: list[Value], attributes: Attributes) -> Any:
    return _sum(inputs, attributes) / len(inputs)


def _where(inputs: list[Value], _: Attributes) -> Any:
    condition, a, b = inputs
    if isinstance(condition, bool) and is_host(a) and is_host(b):
        return a if condition else b
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = tensors([a, b])
    return torch.where(tensor(condition), a, b)


def _cast(inputs: list[Value], attributes: Attributes) -> Any:
    return cast_to(inputs[0], torch_dtype(attributes["to"]))


def cast_to(value: Value, dtype: torch.dtype) -> Any:
    """A value as of a dtype; integers that stay integers stay Python's."""
    if is_host(value) and dtype == torch.int64 and not isinstance(value, (bool, float)):
        return value
    return tensor(value).to(dtype)


def torch_dtype(elem_type: int) -> torch.dtype:
    """ONNX's element type as torch's dtype."""
    dtype = getattr(torch, str(helper.tensor_dtype_to_np_dtype(elem_type)), None)
    assert isinstance(dtype, torch.dtype)  # noqa: S101 - `unsupported` names the others before anything runs
    return dtype


def _cast_like(inputs: list[Value], _: Attributes) -> Any:
    return cast_to(inputs[0], tensor(inputs[1]).dtype)


def _clip(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    low, high = [*inputs[1:], None, None][:2] if len(inputs) > 1 else (attributes.get("min"), attributes.get("max"))
    if low is None and high is None:
        return x
    if high is None:
        return torch.clamp_min(x, low)  # type: ignore[arg-type]
    return torch.clamp_max(x, high) if low is None else torch.clamp(x, low, high)  # type: ignore[arg-type]


def _is_inf(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    positive, negative = attributes.get("detect_positive", 1), attributes.get("detect_negative", 1)
    return (torch.isposinf(x) & bool(positive)) | (torch.isneginf(x) & bool(negative))


def _leaky_relu(inputs: list[Value], attributes: Attributes) -> Any:
    return functional.leaky_relu(tensor(inputs[0]), attributes.get("alpha", 0.01))


def _elu(inputs: list[Value], attributes: Attributes) -> Any:
    return functional.elu(tensor(inputs[0]), attributes.get("alpha", 1.0))


def _celu(inputs: list[Value], attributes: Attributes) -> Any:
    return functional.celu(tensor(inputs[0]), attributes.get("alpha", 1.0))


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


def _thresholded_relu(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    return torch.where(x > attributes.get("alpha", 1.0), x, torch.zeros_like(x))


ELEMENTWISE: dict[str, Operator] = {
    **{name: _binary(function, sizes=name in _SIZES) for name, function in _ARITHMETIC.items()},
    **{name: _unary(function) for name, function in _UNARY.items()},
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": _celu,
    "Clip": _clip,
    "Div": _binary(_divide, sizes=True),
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "Max": _extreme(torch.maximum, torch.sym_max),
    "Mean": _mean,
    "Min": _extreme(torch.minimum, torch.sym_min),
    "Mod": _mod,
    "PRelu": _prelu,
    "Pow": _power,
    "Selu": _selu,
    "Sum": _sum,
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
}
