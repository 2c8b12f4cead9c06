"""Norms and softmax over other axes than time."""

from __future__ import annotations

from collections.abc import Iterable

from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal
from .reductions import WHOLE

_FROM_AXIS = ("LayerNormalization", "RMSNormalization")


@family(
    *[
        "BatchNormalization",
        "GroupNormalization",
        "Hardmax",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
    ],
    *["LpNormalization", "MeanVarianceNormalization", "RMSNormalization", "Softmax", "LRN"],
)
def norm(p: Rewriter, call: Call) -> list[Fact]:
    """The node as it is, where it does not take steps together."""
    fact = call.fact(0)
    if any(not isinstance(other, Static) for other in call.given[1:]):
        raise RefusedError("has a scale that varies with time")
    if not isinstance(fact, Stream):
        return p.plain(call)
    if fact.axis in _taken_together(call, fact.rank):
        over = "computes a softmax" if "oftmax" in call.op else "normalises"
        raise RefusedError(f"{over} over all steps: needs the whole sequence", WHOLE)
    if any(name for name in call.node.output[1:]):
        raise RefusedError("gives out the mean and the deviation")
    p.copy(call)
    return [fact]


def _taken_together(call: Call, rank: int) -> Iterable[int]:
    """The axes over which it computes one mean, maximum or sum."""
    if call.op == "BatchNormalization":
        return range(rank) if call.attributes.get("training_mode", 0) else [1]
    if call.op == "InstanceNormalization":
        return range(1, rank)
    if call.op == "GroupNormalization":
        return range(1, rank)
    if call.op == "LRN":
        return [1]
    if call.op == "MeanVarianceNormalization":
        return [normal(axis, rank) for axis in call.attributes.get("axes", [0, 2, 3])]
    axis = normal(int(call.attributes.get("axis", -1)), rank)
    return range(axis, rank) if call.op in _FROM_AXIS else [axis]
