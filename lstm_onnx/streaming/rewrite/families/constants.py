"""Constants, tensors of one number, and Range, whose numbers of steps go on from call to call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import helper, numpy_helper

from ....onnxgraph.nodes import constant_of
from ...size import ONE, Size
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import AS_NUMBER, TWO_AXES, Call, Rewriter, family, stored


@family("Constant")
def constant(p: Rewriter, call: Call) -> list[Fact]:
    """A stored value."""
    tensor = constant_of(call.node)
    p.copy(call)
    return [Static(None) if tensor is None else stored(numpy_helper.to_array(tensor))]


@family("ConstantOfShape")
def constant_of_shape(p: Rewriter, call: Call) -> list[Fact]:
    """One number, repeated; an axis of time steps is kept as one step."""
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
    """From a constant, one number for each step of a stream."""
    bounds = [_bound(call.fact(place)) for place in range(3)]
    dtype = p.output_dtype(call) or np.dtype(np.int64)
    if any(bound is None for bound in bounds):
        if any(isinstance(fact, Static) and any(map(p.lengths.depends, _sizes(fact))) for fact in call.given):
            raise RefusedError(*AS_NUMBER)
        return p.plain(call)
    start, limit, delta = (bound for bound in bounds if bound is not None)
    size = limit - start
    if not p.lengths.depends(size) and not p.lengths.depends(start):
        return p.plain(call)
    first = start.number
    if first is None or delta.number != 1:
        raise RefusedError("counts the steps from another than the first", "torch.arange(x.shape[1])")
    count, g = p.count_of(size), p.graph
    g.used_positions = True
    begin = g.math("Add", g.before(count), first)
    end = g.math("Add", begin, g.at_least_one(count))
    scalars = [g.add("Squeeze", bound, g.ints(0)) for bound in (begin, end)]
    x = g.add("Range", *scalars, g.integers([Size.of(1)], scalar=True))
    if dtype != np.int64:
        x = g.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(dtype))
    p.emitted(call, x)
    return [Stream((size,), dtype, 0, count)]


def _bound(fact: Fact | None) -> Size | None:
    """A whole number, of any type; None where it is another, or not known."""
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
