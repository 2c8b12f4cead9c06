"""Constants, and tensors of one number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import numpy_helper

from ...node import constant_of
from ...size import ONE
from ..facts import Fact, RefusedError, Static
from ..rewriter import Call, Rewriter, family, stored


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
        raise RefusedError("makes two axes of the number of time steps: every step meets every other")
    repeated = (steps[0], p.count_of(sizes[steps[0]])) if steps else None
    shape = [ONE if axis in steps else size for axis, size in enumerate(sizes)]
    p.copy(call, [p.graph.integers(shape)])
    return [Static(tuple(sizes), value.dtype, fill=float(value.reshape(-1)[0]), repeated=repeated)]
