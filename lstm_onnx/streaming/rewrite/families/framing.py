"""Windows that are gathered by step numbers: `Tensor.unfold`, `nn.Unfold`.

Exporters number the windows with a Range, and add the position of each step in its window; a Gather reads the steps of
these numbers.  They are followed from the Range to the Gather (`Static.places`); any other node gets them as a stream.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import ONE, Size, normal
from ..errors import RefusedError
from ..facts import Fact, Places, Shape, Static, Stream
from ..rewriter import Call, Rewriter, broadcast, require_shape
from ..stages import window


def placed(p: Rewriter, call: Call) -> list[Fact] | None:
    """The result of a node on step numbers, if it is step numbers again, or the steps of windows; otherwise None."""
    if call.op in ("Gather", "GatherND"):
        return _picked(p, call)
    found = [fact for fact in call.given if isinstance(fact, Static) and fact.places is not None]
    if len(found) != 1 or found[0].places is None:
        return None
    fact, places = found[0], found[0].places
    shape = require_shape(fact)
    if call.op == "Identity":
        return [fact]
    if call.op == "Cast" and (fact.dtype or np.dtype(bool)).kind == "i":
        dtype = p.output_dtype(call)
        return None if dtype is None or dtype.kind != "i" else [replace(fact, dtype=dtype)]
    if call.op == "Unsqueeze" and call.facts[0] is fact:
        return _unsqueezed(call, fact, places)
    other = next((each.array for each in call.given if isinstance(each, Static) and each.array is not None), None)
    if call.op not in ("Add", "Mul") or other is None or other.dtype.kind != "i":
        return None
    wanted = broadcast([shape, tuple(map(Size.of, other.shape))])
    axis = places.axis + len(wanted) - len(shape)
    if other.ndim >= len(wanted) - axis and other.shape[axis - len(wanted)] != 1:
        return None  # a different number for each window
    if call.op == "Add":
        return [replace(fact, shape=wanted, places=replace(places, axis=axis, offsets=places.offsets + other))]
    times = int(other.reshape(-1)[0]) if other.size == 1 else 0
    if times < 1:
        return None
    offsets = (places.offsets * times).reshape([1] * (len(wanted) - len(shape)) + list(places.offsets.shape))
    return [replace(fact, shape=wanted, places=Places(axis, places.stride * times, offsets))]


def _unsqueezed(call: Call, fact: Static, places: Places) -> list[Fact] | None:
    asked = call.integers(1)
    if asked is None:
        return None
    rank = places.offsets.ndim + len(asked)
    new = {normal(axis, rank) for axis in asked}
    old = [axis for axis in range(rank) if axis not in new]
    sizes = dict(zip(old, require_shape(fact), strict=True))
    offsets = np.expand_dims(places.offsets, tuple(new))
    shape = tuple(sizes.get(axis, ONE) for axis in range(rank))
    return [replace(fact, shape=shape, places=replace(places, axis=old[places.axis], offsets=offsets))]


def _picked(p: Rewriter, call: Call) -> list[Fact] | None:
    """The steps of each window."""
    f, index = call.fact(0), call.fact(1)
    if not isinstance(f, Stream) or not isinstance(index, Static) or index.places is None:
        return None
    places, sizes = index.places, require_shape(index)
    if not _goes_along_time(call, f, sizes):
        return None
    last = int(places.offsets.max())
    windows = p.lengths.floor(f.shape[f.axis] - Size.of(last + 1), places.stride) + ONE
    if places.offsets.min() < 0 or windows != sizes[places.axis]:
        raise RefusedError(
            f"picks windows of {last + 1} steps, {places.stride} apart, but not all of them",
            "x.unfold(dimension, size, step)",
        )
    x, found = window(p, p.name(call.node.input[0]), f, last + 1, places.stride)
    g = p.graph
    end = g.math("Mul", g.at_least_one(found.count), places.stride)
    bounds = [g.integers([Size.of(0)], scalar=True), g.add("Squeeze", end, g.ints(0))]
    starts = g.add("Range", *bounds, g.integers([Size.of(places.stride)], scalar=True), hint="starts")
    shape = [-1 if axis == places.axis else 1 for axis in range(len(sizes))]
    starts = g.add("Reshape", starts, g.ints(*shape), hint="starts")
    at = g.add("Add", starts, g.constant(places.offsets.astype(np.int64), "places"), hint="picked")
    p.copy(call, [x, at])
    return [
        replace(
            found,
            shape=(*f.shape[: f.axis], *(sizes if call.op == "Gather" else sizes[:-1]), *f.shape[f.axis + 1 :]),
            axis=f.axis + places.axis,
        )
    ]


def _goes_along_time(call: Call, f: Stream, sizes: Shape) -> bool:
    """Whether each index, or each row of indices, is a position along the time axis."""
    if call.op == "Gather":
        return normal(int(call.attributes.get("axis", 0)), f.rank) == f.axis
    return not call.attributes.get("batch_dims", 0) and f.axis == 0 and sizes[-1] == ONE
