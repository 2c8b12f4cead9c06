"""What calls cost, of times that are known."""

from __future__ import annotations

import pytest

from lstm_onnx.bench.stream_calls import ChunkCalls, call_cost

MANY, FEW = ChunkCalls("many", "many inside", 100), ChunkCalls("few", "few inside", 10)


def samples(compute: float, python: float, inside: float) -> dict[str, list[float]]:
    """A sequence that takes 2 seconds at once."""
    found = {"whole": [2.0]}
    for calls in (MANY, FEW):
        found[calls.stream] = [compute + calls.count * (python + inside)]
        found[calls.inside] = [compute + calls.count * inside]
    return found


def test_calls_and_steps_are_told_apart() -> None:
    cost = call_cost(samples(3.0, 0.25, 0.75), "whole", MANY, FEW)
    assert cost is not None
    found = (cost.compute.median, cost.python.median, cost.onnxruntime.median)
    assert found == pytest.approx((1.5, 0.25, 0.75))


def test_a_candidate_that_was_not_timed_leaves_it_open() -> None:
    known = samples(3.0, 0.25, 0.75)
    del known["few inside"]
    assert call_cost(known, "whole", MANY, FEW) is None
    assert call_cost(samples(3.0, 0.25, 0.75), "whole", MANY, MANY) is None
