"""What the calls of a stream cost beside what their steps compute, from one sequence in many chunks and in few."""

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
    """A sequence in chunks.

    Attributes:
        stream: the candidate that streams it.
        inside: the one that makes ONNX Runtime's runs of it alone.
        count: how many calls that takes.
    """

    stream: str
    inside: str
    count: int


@dataclass(frozen=True)
class CallCost:
    """A line through two numbers of calls.

    Attributes:
        compute: the time of the steps without the calls, divided by that of the whole at once.
        python: seconds of a call in this runtime's Python code, whatever its length.
        onnxruntime: seconds of a call in ONNX Runtime, whatever its length.
    """

    compute: Spread
    python: Spread
    onnxruntime: Spread


def inside(stream: Stream, feeds: Mapping[str, Any], name: str, count: int) -> list[Candidate]:
    """ONNX Runtime's runs alone, of so many equal chunks; none where the stream has none that are bound."""
    given = [array for key, array in feeds.items() if key not in stream.model.states]
    if len(given) != 1:
        return []
    for _ in range(3):
        stream(given[0])
    last = stream._last
    if last is None:
        return []
    execute = last.execute

    def run(_alive: Stream) -> None:  # the runs are bound to the stream's arrays
        for place in range(count):
            execute[place % 2]()

    return [Candidate(name, partial(run, stream))]


def call_cost(samples: Mapping[str, list[float]], whole: str, many: ChunkCalls, few: ChunkCalls) -> CallCost | None:
    """What calls cost; None where a candidate was not timed.

    Args:
        samples: seconds of each candidate, round by round.
        whole: the candidate that computes the sequence at once.
        many: in many chunks.
        few: in few.
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
    """The input that is 1 where a sequence ends."""
    last = model.metadata.streaming_or_default.last
    return [] if last is None else [last]
