"""Constant, ConstantOfShape, and Range, whose numbers may be step numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import numpy_helper

from ....onnxgraph.nodes import constant_of
from ...size import ONE, Size
from ..errors import RefusedError
from ..facts import Fact, Places, Static
from ..rewriter import AS_NUMBER, TWO_AXES, Call, Rewriter, family, stored

_LONGEST = 2**16
"""A Range of at most this many constant numbers is stored."""


@family("Constant")
def constant(p: Rewriter, call: Call) -> list[Fact]:
    """A stored value."""
    tensor = constant_of(call.node)
    p.copy(call)
    return [Static(None) if tensor is None else stored(numpy_helper.to_array(tensor))]


@family("ConstantOfShape")
def constant_of_shape(p: Rewriter, call: Call) -> list[Fact]:
    """One number, repeated; an axis of time steps is reduced to one step."""
    sizes = call.numbers(0)
    tensor = next((item.t for item in call.node.attribute if item.name == "value"), None)
    value = np.zeros(1, np.float32) if tensor is None else numpy_helper.to_array(tensor)
    if sizes is None:
        return [replace(fact, fill=float(value.reshape(-1)[0])) for fact in p.plain(call) if isinstance(fact, Static)]
    steps = [axis for axis, size in enumerate(sizes) if p.lengths.depends(size)]
    if len(steps) > 1:
        raise RefusedError(TWO_AXES)
    repeated = (steps[0], p.count_of(sizes[steps[0]])) if steps else None
    shape = [ONE if axis in steps else size for axis, size in enumerate(sizes)]
    p.copy(call, [p.graph.integers(shape)])
    return [Static(tuple(sizes), value.dtype, fill=float(value.reshape(-1)[0]), repeated=repeated)]


@family("Range")
def numbered(p: Rewriter, call: Call) -> list[Fact]:
    """Range: from a constant, one number for each step of a stream or each window of steps."""
    bounds = [_bound(call.fact(place)) for place in range(3)]
    dtype = p.output_dtype(call) or np.dtype(np.int64)
    if any(bound is None for bound in bounds):
        if any(isinstance(fact, Static) and any(map(p.lengths.depends, _sizes(fact))) for fact in call.given):
            raise RefusedError(*AS_NUMBER)
        return p.plain(call)
    start, limit, delta = (bound for bound in bounds if bound is not None)
    size = limit - start
    first, step = start.number, delta.number
    if not p.lengths.depends(size) and not p.lengths.depends(start):
        return _counted(p, call, size.number, first, step, dtype)
    if first is None or step is None or step < 1:
        raise RefusedError("counts the steps from one other than the first", "torch.arange(x.shape[1])")
    windows = p.lengths.floor(size + Size.of(step - 1), step)
    return [Static((windows,), dtype, places=Places(0, step, np.array([first])))]


def _counted(
    p: Rewriter, call: Call, size: int | None, first: int | None, step: int | None, dtype: np.dtype[Any]
) -> list[Fact]:
    """The same numbers for every sequence."""
    if size is None or first is None or not step or abs(size // step) > _LONGEST:
        return p.plain(call)
    array = np.arange(first, first + size, step).astype(dtype)
    p.emitted(call, p.graph.constant(array))
    return [stored(array)]


def _bound(fact: Fact | None) -> Size | None:
    """The bound of a Range, if it is an integer of any type; None if it is not, or is not known."""
    if not isinstance(fact, Static):
        return None
    if fact.array is not None and fact.array.size == 1 and fact.array.dtype.kind == "f":
        number = float(fact.array.reshape(-1)[0])
        return Size.of(int(number)) if number.is_integer() and abs(number) < 2**31 else None
    if fact.quotient is not None:
        return fact.quotient[0] if fact.quotient[1] == 1 else None
    return fact.numbers[0] if fact.numbers is not None and len(fact.numbers) == 1 else None


def _sizes(fact: Static) -> tuple[Size, ...]:
    return (*(fact.numbers or ()), *(fact.quotient or ())[:1])
