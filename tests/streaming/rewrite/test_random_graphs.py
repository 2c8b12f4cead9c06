"""Random graphs in chunks beside whole runs; and that each mistake in the pass is seen by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lstm_onnx.streaming.rewrite import RefusedError, counts, graph, stages
from lstm_onnx.streaming.rewrite.families import convolutions, recurrent

from .chunks import ChunkRun, difference, rewritten, session
from .random_graphs import random_graph, time_axis

SIZES = ((1, 48), (2, 60), (2, 37))
"""(batch, time) of the sequences."""


def compared(seed: int) -> str | None:
    """Where a graph in chunks differs; "" where it does not, None where nothing could be compared."""
    model = random_graph(seed, 3 + seed % 6)
    axis = time_axis(model)
    whole = session(model, optimised=False)
    try:
        done = rewritten(model, {"x": axis})
    except RefusedError:
        return None
    run = ChunkRun(done, {"x": axis})
    found = None
    for batch, time in SIZES:
        x = np.random.default_rng(seed).standard_normal((batch, 4, time) if axis == 2 else (batch, time, 4))
        feeds = {"x": x.astype(np.float32)}
        try:
            whole.run(None, feeds)
        except Exception:  # noqa: BLE001, S112 - a sequence that the whole model does not take
            continue
        if time % done.streaming.multiple:
            continue
        found = difference(run, whole, feeds, batch, seed)
        if found:
            return found
    return found


@pytest.mark.sweep(3)
@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_a_graph_in_chunks_gives_the_whole(seed: int) -> None:
    assert not compared(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000))
def test_many_graphs_in_chunks_give_the_whole(seed: int) -> None:
    assert not compared(seed)


def test_most_graphs_stream() -> None:
    assert sum(compared(seed) == "" for seed in range(1, 400, 20)) >= 15


Patch = Callable[[pytest.MonkeyPatch], None]


def _stale(patch: pytest.MonkeyPatch) -> None:
    own = graph.Graph.feed
    patch.setattr(graph.Graph, "feed", lambda self, state, _value: own(self, state, state.name))


def _starts_from_ones(patch: pytest.MonkeyPatch) -> None:
    own = stages.cache
    patch.setattr(stages, "cache", lambda p, f, steps, fill=0.0, kind="cache": own(p, f, steps, fill + 1, kind))


def _window_late(patch: pytest.MonkeyPatch) -> None:
    own = stages.window

    def wrong(p: Any, x: str, f: Any, kernel: int, stride: int = 1, left: int = 0, right: int = 0, fill: float = 0.0):
        shift = 1 if right else 0
        return own(p, x, f, kernel, stride, left + shift, right - shift, fill)

    patch.setattr(convolutions, "window", wrong)


def _not_aligned(patch: pytest.MonkeyPatch) -> None:
    own = stages.hold_back
    patch.setattr(
        stages,
        "hold_back",
        lambda p, x, f, count, steps, kind="cache": x if kind == "wait" else own(p, x, f, count, steps),
    )


def _kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recurrent, "kept", lambda _p, _f, after, _before: after)


def _nothing_before(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph.Graph, "before", lambda self, _count: self.number(0))


def _never_started(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph.Graph, "started", lambda self: self.number(0))


def _no_maximum(patch: pytest.MonkeyPatch) -> None:
    own = stages.window
    patch.setattr(convolutions, "window", lambda *args: own(*args[:7], 0.0))


def _positions_restart(patch: pytest.MonkeyPatch) -> None:
    own = stages.Rewriter.numbered

    def wrong(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(graph.Graph, "before", lambda self, _count: self.number(0))
            return own(*arguments)

    patch.setattr(stages.Rewriter, "numbered", wrong)


def _end_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph.Graph, "last", lambda self: self.number(0))


def _capacity_short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stages, "largest_lead", lambda ahead, behind: max(0, counts.largest_lead(ahead, behind) - 1))


def _real_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stages, "real", lambda _p, x, _f: x)


MISTAKES: dict[str, Patch] = {
    "caches are never written": _stale,
    "caches start from ones": _starts_from_ones,
    "look-ahead is off by one": _window_late,
    "branches are not aligned": _not_aligned,
    "a call without steps changes states": _kept,
    "the steps so far are forgotten": _nothing_before,
    "the start repeats": _never_started,
    "a maximum pads with zeros": _no_maximum,
    "positions restart": _positions_restart,
    "the end is not seen": _end_ignored,
    "a cache is one step short": _capacity_short,
    "steps that are not real are kept": _real_ignored,
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_pass_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MISTAKES[mistake](monkeypatch)
    for seed in range(60):
        try:
            if compared(seed):
                return
        except Exception:  # noqa: BLE001 - a file that does not load, or does not run
            return
    pytest.fail("no graph of 60 showed it")
