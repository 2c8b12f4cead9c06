"""Operators that take the number of the step, which in a Scan is a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..aten import aten
from .program import Affine, NotRolled, Operator, by_step

_COMPARISONS = {getattr(aten, name).Scalar: getattr(aten, name).Tensor for name in ("gt", "ge", "lt", "le", "eq", "ne")}
_ARITHMETIC: dict[Any, Any] = {aten.rsub.Scalar: torch.rsub} | {
    getattr(getattr(aten, name), kind): getattr(torch, name)
    for name in ("add", "sub", "mul", "div")
    for kind in ("Tensor", "Scalar")
}


def with_step_number(item: Operator, value: Any) -> Any:
    """The result of an operator of which an argument is made of the number of the step.

    Raises:
        NotRolled: it takes no tensor in its place.
    """
    args = value(item.args)
    if item.target is aten.select.int and not by_step(item.args[:2]):
        return torch.index_select(args[0], args[1], args[2].reshape(1)).squeeze(args[1])
    if item.target is aten.slice.Tensor and not by_step(item.args[:2]) and item.args[4] == 1:
        return _window(item, args)
    if item.target is aten.select_scatter.default and not by_step(item.args[:3]):
        base, row, dim, at = args
        rows = torch.arange(base.shape[dim]).reshape([-1] + [1] * (base.dim() - 1 - dim))
        return torch.where(rows == at, row.unsqueeze(dim), base)
    if item.target is aten.full.default and not by_step(item.args[0]):
        number = args[1].to(dict(item.kwargs).get("dtype") or torch.int64)
        return number.expand(args[0]).clone()
    if item.target in _COMPARISONS:
        return _COMPARISONS[item.target](*args)
    if item.target in _ARITHMETIC:
        return _ARITHMETIC[item.target](*args, **dict(value(item.kwargs)))
    name = str(getattr(item.target, "__name__", item.target)).split(".")[0]
    raise NotRolled(f"{name} takes the number of the step", item.line)


def _window(item: Operator, args: Any) -> Tensor:
    start, end = item.args[2], item.args[3]
    affine = isinstance(start, Affine) and isinstance(end, Affine)
    if not affine or (start.step, start.sizes) != (end.step, end.sizes):
        raise NotRolled("a slice is longer in each step", item.line)
    return torch.index_select(args[0], args[1], args[2] + torch.arange(end.const - start.const))
