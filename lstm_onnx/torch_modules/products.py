"""ONNX's products, convolutions, norms, poolings and reductions as torch functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .elementwise import Attributes, Operator
from .values import Value, axes_of, integer, tensor, tensors


def linear(inputs: list[Value], _: Attributes) -> Any:
    """``functional.linear`` of an input, a weight ``(out, in)`` and an optional bias."""
    x, weight, *bias = tensors(inputs)
    return functional.linear(x, weight, bias[0] if bias else None)


def _gemm(inputs: list[Value], attributes: Attributes) -> Any:
    a, b, *bias = tensors([item for item in inputs if item is not None])
    a = a.transpose(0, 1) if attributes.get("transA") else a
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if attributes.get("transB") and alpha == beta == 1.0:
        return functional.linear(a, b, bias[0] if bias else None)
    product = a @ (b.transpose(0, 1) if attributes.get("transB") else b)
    product = product if alpha == 1.0 else product * alpha
    return product + (bias[0] if beta == 1.0 else bias[0] * beta) if bias else product


def padding_of(attributes: Attributes, axes: int) -> tuple[list[int], list[int]]:
    """The padding of a convolution or a pooling before and after each of its axes."""
    pads = list(attributes.get("pads") or [0] * (2 * axes))
    return pads[:axes], pads[axes:]


def _padded(x: Tensor, attributes: Attributes, axes: int, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The input, padded so far that the remaining padding, returned as well, is the same on both sides."""
    before, after = padding_of(attributes, axes)
    if before == after:
        return x, before
    flat = [size for pair in zip(before[::-1], after[::-1], strict=True) for size in pair]
    return functional.pad(x, flat, value=value), [0] * axes


def _conv(inputs: list[Value], attributes: Attributes) -> Any:
    x, weight, *bias = tensors([item for item in inputs if item is not None])
    axes = weight.dim() - 2
    x, padding = _padded(x, attributes, axes)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    strides, dilations = attributes.get("strides") or [1] * axes, attributes.get("dilations") or [1] * axes
    return function(x, weight, bias[0] if bias else None, strides, padding, dilations, attributes.get("group", 1))


def _conv_transpose(inputs: list[Value], attributes: Attributes) -> Any:
    x, weight, *bias = tensors([item for item in inputs if item is not None])
    axes = weight.dim() - 2
    before, after = padding_of(attributes, axes)
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[axes - 1]
    strides, dilations = attributes.get("strides") or [1] * axes, attributes.get("dilations") or [1] * axes
    added = list(attributes.get("output_padding") or [0] * axes)
    added = [more + b - a for more, b, a in zip(added, before, after, strict=True)]
    group = attributes.get("group", 1)
    y = function(
        x, weight, bias[0] if bias else None, strides, before, [max(more, 0) for more in added], group, dilations
    )
    for axis, more in enumerate(added):
        y = y.narrow(axis + 2, 0, y.shape[axis + 2] + more) if more < 0 else y
    return y


def _batch_norm(inputs: list[Value], attributes: Attributes) -> Any:
    x, scale, bias, mean, variance = tensors(inputs)
    return functional.batch_norm(x, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _instance_norm(inputs: list[Value], attributes: Attributes) -> Any:
    x, scale, bias = tensors(inputs)
    return functional.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _layer_norm(inputs: list[Value], attributes: Attributes) -> Any:
    x, scale, *bias = tensors([item for item in inputs if item is not None])
    axis = attributes.get("axis", -1) % x.dim()
    shape = list(x.shape[axis:])
    wide = [item.expand(shape) if list(item.shape) != shape else item for item in (scale, *bias)]
    return functional.layer_norm(x, shape, wide[0], wide[1] if bias else None, attributes.get("epsilon", 1e-5))


def _rms_norm(inputs: list[Value], attributes: Attributes) -> Any:
    x, scale = tensors(inputs)
    axis = attributes.get("axis", -1) % x.dim()
    return functional.rms_norm(x, list(x.shape[axis:]), scale, attributes.get("epsilon", 1e-5))


def _group_norm(inputs: list[Value], attributes: Attributes) -> Any:
    x, scale, bias = tensors(inputs)
    groups = attributes["num_groups"]
    if scale.shape[0] != x.shape[1]:  # before opset 21 there was one number per group
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x, groups, scale, bias, attributes.get("epsilon", 1e-5))


def _lp_normalization(inputs: list[Value], attributes: Attributes) -> Any:
    x, axis = tensor(inputs[0]), attributes.get("axis", -1)
    norm = x.norm(p=attributes.get("p", 2), dim=axis, keepdim=True)
    return x / torch.where(norm == 0, 1, norm)  # zeros stay zeros


def _softmax(function: Callable[..., Tensor], inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    if attributes["opset"] >= 13:
        return function(x, dim=attributes.get("axis", -1))
    axis = attributes.get("axis", 1) % x.dim()
    if axis == x.dim() - 1:
        return function(x, dim=axis)
    return function(x.flatten(axis), dim=axis).reshape(x.shape)  # before opset 13: over this axis and all later ones


def _max_pool(inputs: list[Value], attributes: Attributes) -> Any:
    x, kernel = tensor(inputs[0]), attributes["kernel_shape"]
    x, padding = _padded(x, attributes, len(kernel), float("-inf"))
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
    strides, dilations = attributes.get("strides") or [1] * len(kernel), attributes.get("dilations") or 1
    return function(x, kernel, strides, padding, dilations, ceil_mode=bool(attributes.get("ceil_mode")))


def _average_pool(inputs: list[Value], attributes: Attributes) -> Any:
    x, kernel = tensor(inputs[0]), attributes["kernel_shape"]
    counted = bool(attributes.get("count_include_pad"))
    x, padding = _padded(x, attributes, len(kernel)) if counted else (x, padding_of(attributes, len(kernel))[0])
    function: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    strides = attributes.get("strides") or [1] * len(kernel)
    return function(x, kernel, strides, padding, bool(attributes.get("ceil_mode")), counted)


def _global_pool(function: Callable[..., Tensor], inputs: list[Value], _: Attributes) -> Any:
    x = tensor(inputs[0])
    return function(x, dim=tuple(range(2, x.dim())), keepdim=True)


_OF_ONE_AXIS: dict[Callable[..., Tensor], Any] = {torch.amax: torch.max, torch.amin: torch.min}


_Whole = Callable[[Tensor], Tensor] | None
"""The function that reduces all axes to one number, if torch has a separate one."""


def _reduction(function: Callable[..., Tensor], whole: _Whole, inputs: list[Value], attributes: Attributes) -> Any:
    """A reduction whose axes are an input in newer operator sets, and an attribute in older ones."""
    x = tensor(inputs[0])
    return _of_its_dtype(_reduced(function, whole, x, inputs, attributes), x)


def _of_its_dtype(result: Tensor, x: Tensor) -> Tensor:
    """The result in the input's dtype: torch adds up and multiplies all integers as int64."""
    return result if result.dtype == x.dtype else result.to(x.dtype)


def _reduced(
    function: Callable[..., Tensor], whole: _Whole, x: Tensor, inputs: list[Value], attributes: Attributes
) -> Any:
    axes = axes_of(inputs, attributes)
    keep = bool(attributes.get("keepdims", 1))
    if not axes:
        if attributes.get("noop_with_empty_axes"):
            return function(x.unsqueeze(0), (0,), False)  # reduce each element separately
        if whole is not None and not keep:
            return whole(x)
    if axes and len(axes) == 1 and function in _OF_ONE_AXIS and "noop_with_empty_axes" in attributes:
        return _OF_ONE_AXIS[function](x, axes[0], keep).values  # exported like x.max(dim).values
    return function(x, tuple(axes) if axes else tuple(range(x.dim())), keep)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    count = prod(x.shape[axis] for axis in axes)
    return torch.div(torch.sum(x, axes, keep), count, rounding_mode="trunc")


def _norm(p: int) -> Callable[..., Tensor]:
    return lambda x, axes, keep: torch.linalg.vector_norm(x, p, axes, keep)


def _best(function: Callable[..., Tensor], inputs: list[Value], attributes: Attributes) -> Any:
    x, axis = tensor(inputs[0]), attributes.get("axis", 0)
    keep = bool(attributes.get("keepdims", 1))
    if not attributes.get("select_last_index"):
        return function(x, dim=axis, keepdim=keep)
    return x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=keep)


def _top_k(inputs: list[Value], attributes: Attributes) -> Any:
    x, count = tensor(inputs[0]), integer(inputs[1]) if len(inputs) > 1 else attributes["k"]
    axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
    # Among equal numbers ONNX takes the first ones, torch.topk any.
    return tuple(item.narrow(axis, 0, count) for item in torch.sort(x, dim=axis, descending=largest, stable=True))


def _cumulative_sum(inputs: list[Value], attributes: Attributes) -> Any:
    x, axis = tensor(inputs[0]), integer(inputs[1])
    x = x.flip(axis) if attributes.get("reverse") else x
    result = _of_its_dtype(torch.cumsum(x, axis), x)
    if attributes.get("exclusive"):
        first = torch.zeros_like(x.narrow(axis, 0, 1))
        result = torch.cat([first, result.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return result.flip(axis) if attributes.get("reverse") else result


PRODUCTS: dict[str, Operator] = {
    "ArgMax": partial(_best, torch.argmax),
    "ArgMin": partial(_best, torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": _cumulative_sum,
    "Einsum": lambda inputs, attributes: torch.einsum(attributes["equation"], *tensors(inputs)),
    "Gemm": _gemm,
    "GlobalAveragePool": partial(_global_pool, torch.mean),
    "GlobalMaxPool": partial(_global_pool, torch.amax),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": partial(_softmax, torch.log_softmax),
    "LpNormalization": _lp_normalization,
    "MatMul": lambda inputs, _: torch.matmul(*tensors(inputs)),
    "MaxPool": _max_pool,
    "RMSNormalization": _rms_norm,
    "ReduceL1": partial(_reduction, _norm(1), None),
    "ReduceL2": partial(_reduction, _norm(2), None),
    "ReduceLogSumExp": partial(_reduction, torch.logsumexp, None),
    "ReduceMax": partial(_reduction, torch.amax, torch.max),
    "ReduceMean": partial(_reduction, _mean, None),
    "ReduceMin": partial(_reduction, torch.amin, torch.min),
    "ReduceProd": partial(_reduction, _product, None),
    "ReduceSum": partial(_reduction, torch.sum, torch.sum),
    "ReduceSumSquare": partial(_reduction, lambda x, axes, keep: (x * x).sum(axes, keep), None),
    "Softmax": partial(_softmax, torch.softmax),
    "TopK": _top_k,
}
