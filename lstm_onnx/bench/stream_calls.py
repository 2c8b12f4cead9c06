"""Computes the cost of a stream's calls apart from their steps, from one sequence in many chunks and in few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..runtime import Model
from ..runtime.stream import Stream
from .measure import Candidate, Spread


@dataclass(frozen=True)
class ChunkCalls:
    """A sequence that is run in chunks.

    Attributes:
        stream: the candidate that streams it.
        inside: the candidate that makes only its runs of ONNX Runtime.
        count: the number of calls.
    """

    stream: str
    inside: str
    count: int


@dataclass(frozen=True)
class CallCost:
    """The cost of calls, from a line through the times for two numbers of calls.

    Attributes:
        compute: the time of the steps without the calls, divided by the time for the whole sequence at once.
        python: seconds of a call in this runtime's Python code, whatever its length.
        onnxruntime: seconds of a call in ONNX Runtime, whatever its length.
    """

    compute: Spread
    python: Spread
    onnxruntime: Spread


def inside(stream: Stream, feeds: Mapping[str, Any], name: str, count: int) -> list[Candidate]:
    """A candidate with only ONNX Runtime's runs, of `count` equal chunks; none if the stream's runs are not bound."""
    given = [array for key, array in feeds.items() if key not in stream.model.states]
    if len(given) != 1:
        return []
    for _ in range(3):
        stream(given[0])
    last = stream._last
    if last is None:
        return []
    execute = [binding.execute for binding in last.bindings]

    def run(_alive: Stream) -> None:  # the runs are bound to the stream's arrays
        for place in range(count):
            execute[place % 2]()

    return [Candidate(name, partial(run, stream))]


def call_cost(samples: Mapping[str, list[float]], whole: str, many: ChunkCalls, few: ChunkCalls) -> CallCost | None:
    """The cost of calls; None if a candidate was not timed.

    Args:
        samples: seconds of each candidate, round by round.
        whole: the candidate that computes the sequence at once.
        many: the sequence in many chunks.
        few: the sequence in few chunks.
    """
    names = (whole, many.stream, many.inside, few.stream, few.inside)
    calls = many.count - few.count
    if calls <= 0 or not all(name in samples for name in names):
        return None
    compute: list[float] = []
    python: list[float] = []
    runs: list[float] = []
    for at_once, long, long_runs, short, short_runs in zip(*(samples[name] for name in names), strict=True):
        call, own = (long - short) / calls, (long_runs - short_runs) / calls
        compute.append((short - few.count * call) / at_once)
        python.append(call - own)
        runs.append(own)
    return CallCost(Spread.of(compute), Spread.of(python), Spread.of(runs))


def end_input(model: Model) -> list[str]:
    """The input that is 1 at the end of a sequence, in a list; empty if there is none."""
    last = model.metadata.streaming_or_default.last
    return [] if last is None else [last]
