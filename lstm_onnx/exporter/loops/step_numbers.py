"""Runs operators that take the step number, which inside a Scan is a tensor and not a Python number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..aten import aten
from .program import Affine, NotRolled, Operator, takes_step

_NAMES = (
    *("add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod", "pow"),
    *("gt", "ge", "lt", "le", "eq", "ne", "clamp", "clamp_min", "clamp_max", "where", "masked_fill"),
)
_WITH_TENSORS: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in _NAMES}
"""Operators that accept a 0-d tensor in place of a number, by their names in aten."""
_FILLED = {aten.full.default: 1, aten.new_full.default: 2, aten.full_like.default: 1, aten.fill.Scalar: 1}
"""Operators that fill a tensor with one number, and the index of that argument."""


def run_in_step(module: Any, item: Operator, value: Any) -> Any:
    """The result of an operator in one step.

    Args:
        module: the `RolledModule` that runs.
        item: the operator.
        value: gives its arguments in this step.

    Raises:
        NotRolled: an argument is computed from the step number, and the operator accepts no tensor there.
    """
    if not takes_step(item.args):
        return module.call(item, value)
    args, kwargs = value(item.args), dict(value(item.kwargs))
    if item.target is aten.select.int and not takes_step(item.args[:2]):
        return torch.index_select(args[0], args[1], args[2].reshape(1)).squeeze(args[1])
    if item.target is aten.slice.Tensor and not takes_step(item.args[:2]) and item.args[4] == 1:
        return _window(item, args)
    if item.target is aten.select_scatter.default and not takes_step(item.args[:3]):
        base, row, dim, at = args
        return torch.index_copy(base, dim, at.reshape(1), row.unsqueeze(dim))
    place = _FILLED.get(item.target)
    if place is not None and not takes_step(item.args[:place]):
        return _filled(item, args, args[place])
    name = str(getattr(item.target, "__name__", item.target)).split(".")[0]
    if name not in _WITH_TENSORS or takes_step(item.kwargs):
        raise NotRolled(f"{name} takes the number of the step as an argument", item.line)
    if name == "pow" and item.dtype.is_floating_point:  # ONNX's Pow has the type of its base
        args = args[0].to(item.dtype), args[1]
    return _WITH_TENSORS[name](*args, **kwargs).to(item.dtype)


def _filled(item: Operator, args: Any, number: Tensor) -> Tensor:
    shape = args[0] if item.target is aten.full.default else args[0].shape
    shape = args[1] if item.target is aten.new_full.default else shape
    return number.to(item.dtype).expand(shape).clone()


def _window(item: Operator, args: Any) -> Tensor:
    start, end = item.args[2], item.args[3]
    affine = isinstance(start, Affine) and isinstance(end, Affine)
    if not affine or (start.step, start.sizes) != (end.step, end.sizes):
        raise NotRolled("a slice is longer in each step", item.line)
    return torch.index_select(args[0], args[1], args[2] + torch.arange(end.const - start.const))
