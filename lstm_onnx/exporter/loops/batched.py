"""Runs a loop whose steps do not depend on each other without a loop: each operator works on all steps at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from ..aten import argument, aten
from .program import Element, Here, Operator, by_step, positions_in, takes_step
from .scan import ScanInputs
from .steps import Steps


def run_at_once(inputs: ScanInputs, wanted: Collection[int]) -> bool:
    """Compute the values of all steps of a loop at once; returns whether all its operators allow that.

    Args:
        inputs: what the loop takes from outside; it carries nothing but tensors to fill.  Its module stores the
            results.
        wanted: positions whose values of all steps are used, beside the rows that fill the loop's buffers.
    """
    if not _has_rules(inputs, wanted):
        return False
    module, loop, buffers = inputs.module, inputs.loop, inputs.buffers
    here: dict[int, Steps] = {}
    for item in loop.body:
        if item.index in inputs.reads:
            base, dim, start = item.args
            whole = Steps(module.value(base), dim)
            here[item.index] = whole.range(module.number(start.at_first()), start.step, inputs.count)
            continue

        def value(part: Any) -> Any:
            if isinstance(part, Here):
                return here[part.position]
            if isinstance(part, Element) and by_step(part):
                whole = module.steps[part.loop, part.position]
                return whole.range(module.number(part.step.at_first()), part.step.step, inputs.count)
            return tuple(map(value, part)) if isinstance(part, tuple) else module.value(part)

        if item.index in buffers:
            row = value(item.args[1])
            if not isinstance(row, Steps):
                return False
            here[item.index] = row
            continue
        rule = _rule(item)
        assert rule is not None  # noqa: S101 - asked above
        result = rule(item, value(item.args), dict(value(item.kwargs)))
        if result is None:
            return False
        here[item.index] = result
    for position in (*wanted, *buffers):
        module.steps[loop.index, position] = here[position]
    return True


def _has_rules(inputs: ScanInputs, wanted: Collection[int]) -> bool:
    """Whether each operator of a loop has a rule, and Python numbers are only made into tensors."""
    body, free = inputs.loop.body, {*inputs.reads, *inputs.buffers}
    if inputs.counter is not None or any(body[p].target is not aten.select.int for p in inputs.reads):
        return False
    numbers = {item.index for item in body if item.shape is None}
    others = (item.arguments for item in body if item.target is not aten.scalar_tensor.default)
    if numbers & {*wanted, *positions_in(tuple(others))}:
        return False
    return all(item.index in free or _rule(item) is not None for item in body)


_Rule = Callable[[Operator, Any, dict[str, Any]], "Steps | None"]


def _rule(item: Operator) -> _Rule | None:
    """How an operator works on all steps at once; None if that is unknown, or if it takes the step number."""
    if takes_step(item.args) or by_step(item.kwargs):
        return None
    if torch.Tag.pointwise in getattr(item.target, "tags", ()):
        return _pointwise
    return _RULES.get(item.target)


def _pointwise(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
    """An operator element by element; operands that are plain tensors are the same in all steps."""
    rank = len(item.shape)
    steps = [arg for arg in args if isinstance(arg, Steps)]
    others = [arg for arg in args if isinstance(arg, Tensor)]
    if not steps or any(isinstance(arg, tuple) for arg in args) or any(isinstance(v, Steps) for v in kwargs.values()):
        return None
    dtypes = {*(s.tensor.dtype for s in steps), *(other.dtype for other in others)}
    if len(dtypes) > 1 and any(s.tensor.dim() == 1 for s in steps):
        return None  # beside tensors with axes, a 0-d tensor does not affect the dtype; a tensor of all steps would
    axis = steps[0].axis if len({s.axis for s in steps}) == 1 and _fit(steps, others, rank, steps[0].axis) else 0
    if any(s.tensor.dim() - 1 > rank for s in steps):
        return None
    given = [_aligned(arg, axis, rank) if isinstance(arg, Steps) else arg for arg in args]
    return Steps(item.target(*given, **kwargs), axis)


def _fit(steps: list[Steps], others: list[Tensor], rank: int, axis: int) -> bool:
    return all(s.tensor.dim() - 1 == rank for s in steps) and all(other.dim() <= rank - axis for other in others)


def _aligned(steps: Steps, axis: int, rank: int) -> Tensor:
    tensor = steps.along(axis)
    for _ in range(rank - (tensor.dim() - 1)):
        tensor = tensor.unsqueeze(1)
    return tensor


def _linear(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
    steps, *rest = args
    if not isinstance(steps, Steps) or any(isinstance(arg, Steps) for arg in rest):
        return None
    axis = steps.axis if steps.axis < len(item.shape) else 0
    return Steps(item.target(steps.along(axis), *rest, **kwargs), axis)


def _along_one(change: int) -> _Rule:
    """An operator along one axis of each step's entry, to which it adds `change` axes (-1 removes one)."""

    def rule(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
        steps, dim, *rest = args
        if not isinstance(steps, Steps) or not isinstance(dim, int) or kwargs:
            return None
        rank = steps.tensor.dim() - 1
        dim %= rank + (change > 0)
        before = dim < steps.axis
        axis = steps.axis + change if before else steps.axis
        return Steps(item.target(steps.tensor, dim if before else dim + 1, *rest), axis)

    return rule


def _embedding(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
    weight, steps, *rest = args
    if not isinstance(steps, Steps) or isinstance(weight, Steps):
        return None
    return Steps(item.target(weight, steps.tensor, *rest, **kwargs), steps.axis)


def _layer_norm(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
    steps, shape, *rest = args
    if not isinstance(steps, Steps) or any(isinstance(arg, Steps) for arg in rest):
        return None
    return Steps(item.target(steps.along(0), shape, *rest, **kwargs), 0)


def _cat(item: Operator, args: Any, kwargs: dict[str, Any]) -> Steps | None:
    parts, dim = args[0], argument(args, 1)
    if kwargs or not all(isinstance(part, Steps) for part in parts):
        return None
    dim %= len(item.shape)
    return Steps(item.target([part.along(0) for part in parts], dim + 1), 0)


def _item(_: Operator, args: Any, __: dict[str, Any]) -> Steps | None:
    """The Python number of a 0-d tensor, as that tensor."""
    return args[0] if isinstance(args[0], Steps) and args[0].tensor.dim() == 1 else None


def _scalar_tensor(item: Operator, args: Any, _: dict[str, Any]) -> Steps | None:
    return Steps(args[0].tensor.to(item.dtype), args[0].axis) if isinstance(args[0], Steps) else None


_RULES: dict[Any, _Rule] = {
    aten.item.default: _item,
    aten.scalar_tensor.default: _scalar_tensor,
    aten.cat.default: _cat,
    aten.linear.default: _linear,
    aten.unsqueeze.default: _along_one(1),
    aten.squeeze.dim: _along_one(-1),
    aten.select.int: _along_one(-1),
    aten.slice.Tensor: _along_one(0),
    aten.softmax.int: _along_one(0),
    aten.log_softmax.int: _along_one(0),
    aten.embedding.default: _embedding,
    aten.layer_norm.default: _layer_norm,
}
