"""Norms and softmax over other axes than time."""

from __future__ import annotations

from collections.abc import Iterable

from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal
from .reductions import WHOLE

_AXIS, _FROM_AXIS, _CHANNELS, _ALL_BUT_BATCH = "axis", "from axis", "channels", "all but batch"
_TAKEN_TOGETHER = {
    **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "Softmax"), _AXIS),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _FROM_AXIS),
    **dict.fromkeys(("BatchNormalization", "LRN"), _CHANNELS),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), _ALL_BUT_BATCH),
    "MeanVarianceNormalization": "axes",
}
"""The axes over which an operator computes one mean, maximum or sum."""


@family(*_TAKEN_TOGETHER)
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
    axis = normal(int(call.attributes.get("axis", -1)), rank)
    if call.attributes.get("training_mode", 0):
        return range(rank)
    return {
        _AXIS: [axis],
        _FROM_AXIS: range(axis, rank),
        _CHANNELS: [1],
        _ALL_BUT_BATCH: range(1, rank),
        "axes": [normal(each, rank) for each in call.attributes.get("axes", [0, 2, 3])],
    }[_TAKEN_TOGETHER[call.op]]
