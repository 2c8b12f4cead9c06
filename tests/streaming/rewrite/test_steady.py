"""Graphs for chunks of equal steps: fewer nodes, the same numbers; and what has no such graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from lstm_onnx.streaming.rewrite import RefusedError, Rewritten, stages

from .chunks import ChunkRun, difference, rewritten, session
from .graphs import graph_of
from .random_graphs import Builder, random_graph, time_axis


def causal(b: Builder, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
    reach = (kernel - 1) * dilation
    b.x = b.add("Conv", b.x, b.weight(4, 4, kernel), kernel_shape=[kernel], strides=[stride], dilations=[dilation],
                pads=[reach - stride + 1, 0])  # fmt: skip


def encoder(b: Builder) -> str:
    """Two strides, a residual over dilated convolutions, a pool that is causal, an LSTM."""
    causal(b, 4, stride=2)
    causal(b, 5, stride=3)
    before = b.x
    causal(b, 3, dilation=2)
    b.x = b.add("Add", before, b.add("Relu", b.x))
    b.x = b.add("MaxPool", b.x, kernel_shape=[2], pads=[1, 0])
    b.x = b.add("CumSum", b.x, b.const(2))
    return b.add("LSTM", b.time_first(), b.weight(1, 12, 4), b.weight(1, 12, 3), hidden_size=3)


def compared(model: ModelProto, done: Rewritten, unit: int, seed: int = 0) -> str:
    axis = time_axis(model) if model.metadata_props else 2
    whole, run = session(model, optimised=False), ChunkRun(done, {"x": axis})
    for batch, units in ((1, 12), (2, 7)):
        steps = unit * units
        x = np.random.default_rng(seed).standard_normal((batch, 4, steps) if axis == 2 else (batch, steps, 4))
        found = difference(run, whole, {"x": x.astype(np.float32)}, batch, seed, unit)
        if found:
            return found
    return ""


def test_a_steady_graph_has_half_of_the_nodes_and_no_count_of_steps() -> None:
    model = graph_of(encoder)
    steady, general = rewritten(model, {"x": 2}, chunk=12), rewritten(model, {"x": 2})
    assert len(steady.model.graph.node) < 0.6 * len(general.model.graph.node)
    assert (steady.streaming.steps, steady.streaming.last) == (None, None)
    assert (steady.streaming.hop, steady.streaming.period) == (6, 6)
    assert general.streaming.steps is not None
    assert not compared(model, steady, 6)
    assert not compared(model, steady, 12)


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_chunks_that_are_not_whole_hops_are_refused(chunk: int) -> None:
    with pytest.raises(RefusedError, match=f"chunks of {chunk} steps do not all give the same") as caught:
        rewritten(graph_of(encoder), {"x": 2}, chunk=chunk)
    assert caught.value.instead == "chunks of multiples of 6"


@pytest.mark.parametrize("pads", [[1, 1], [0, 0], [3, 0]])
def test_look_ahead_and_first_steps_of_their_own_are_refused(pads: list[int]) -> None:
    model = graph_of(lambda b: b.add("Conv", "x", b.weight(2, 4, 3), kernel_shape=[3], pads=pads))
    with pytest.raises(RefusedError, match="its first or last chunk gives another number of steps than the others"):
        rewritten(model, {"x": 2}, chunk=6)


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
def test_padding_at_the_end_that_whole_chunks_never_reach(op: str) -> None:
    """A kernel of 3 by a stride of 2, padded by 1: of an even number of steps the last window ends with them."""

    def halved(b: Builder) -> str:
        for _ in range(2):
            weight = [b.weight(4, 4, 3)] if op == "Conv" else []
            b.x = b.add(op, b.x, *weight, kernel_shape=[3], strides=[2], pads=[1, 1])
        return b.add("Add", b.x, b.cut(b.cut("x", 0, 2**40, 2, 2), 0, 2**40, 2, 2))

    model = graph_of(halved)
    assert rewritten(model, {"x": 2}).streaming.delay == 1
    done = rewritten(model, {"x": 2}, chunk=8)
    assert (done.streaming.delay, done.streaming.last, done.streaming.multiple) == (0, None, 8)
    assert not compared(model, done, 8)


def steady_difference(seed: int) -> str | None:
    """Where a random graph's steady form differs; None where it has none."""
    model = random_graph(seed, 2 + seed % 4)
    try:
        period = rewritten(model, {"x": time_axis(model)}).streaming.period
        done = rewritten(model, {"x": time_axis(model)}, chunk=period)
    except RefusedError:
        return None
    return compared(model, done, period, seed)


@pytest.mark.parametrize("seed", [16, 37, 57, 65, 81, 92, 100, 113, 116])
def test_some_random_graphs_in_equal_chunks(seed: int) -> None:
    assert steady_difference(seed) == ""  # None: no such graph


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000))
def test_random_graphs_in_equal_chunks(seed: int) -> None:
    assert not steady_difference(seed)


def test_a_cache_of_the_wrong_length_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, own = graph_of(encoder), stages._held

    def longer(p: object, x: str, f: object, steps: int, fill: float, kind: str = "cache") -> str:
        return own(p, x, f, steps + 1, fill, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "_held", longer)
    assert compared(model, rewritten(model, {"x": 2}, chunk=6), 6)
