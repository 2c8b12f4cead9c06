"""Compares the number of steps that a stream has returned after each step of its input with the file's metadata.

Callers rely on `delay`, `hop` and `first`, and pools step slots of one phase together.  All outputs of a stream are
compared with the whole sequence elsewhere, but that does not show when it returns them; this needs no PyTorch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RunError
from ..metadata import Streaming
from ..runtime import Model
from ..runtime.chunk_check import taken
from ..runtime.random_sequence import batch_of, random_sequence
from ..runtime.streamable import stream_inputs

_MOST_CALLS = 512
"""The approximate number of chunks for a stream that repeats itself only after many steps."""
_MOST_STEPS = 2**16
"""The most steps of a random sequence."""


@dataclass(frozen=True)
class _Counts:
    """The numbers of steps that a stream returned.

    Attributes:
        available: for each output with a time axis, its number of steps by the number of input steps.
        rest: the number of steps from `flush`, the most of any output, by the number of input steps.
        counted: the state that counts steps, by the number of input steps.
    """

    available: dict[str, dict[int, int]]
    rest: dict[int, int]
    counted: dict[int, int]


def stream_problems(model: Model) -> Iterator[str]:
    """Statements of a file's metadata about its streams that are wrong; none for a file without such metadata."""
    streaming = model.metadata.streaming
    if streaming is None or model.metadata.not_streamable or not model.states:
        return
    places, apart = _places(streaming)
    if not places or places[-1] > _MOST_STEPS:
        return
    try:
        counts = _counted(model, streaming, places)
    except (InputError, RunError) as error:
        if model.metadata.inputs:  # the ranges of other files' inputs are not known
            yield f"the file does not run as its metadata say: {error.reason}"
        return
    for name, available in counts.available.items():
        yield from _of_first_step(name, available, streaming)
        for what, size in (("hop", streaming.hop), ("period", streaming.period)):
            later = [m for m in available if m >= streaming.settled and m + size in available]
            if len({available[m + size] - available[m] for m in later}) > 1:
                found = f"the metadata's {what} of the stream is {size}, but this many steps"
                yield f"{found} return varying numbers of steps of {name}"
    yield from _of_delay(counts.rest, streaming, every=apart == 1)
    wrong = next((m for m, count in counts.counted.items() if count != m), None)
    if wrong is not None:
        yield f"the metadata's count of steps, {streaming.steps}, is {counts.counted[wrong]} after {wrong} steps"


def _of_first_step(name: str, available: dict[int, int], streaming: Streaming) -> Iterator[str]:
    first = streaming.first.get(name)
    found = next((m for m, count in available.items() if count), None)
    if first is None:
        yield f"the metadata do not say after how many steps of a stream {name} begins"
    elif found is not None and first != found and (first in available or first > max(available)):
        yield f"the metadata say that {name} of a stream begins after {first} steps, but it begins after {found}"
    elif found is None and first <= max(available, default=0):
        yield f"the metadata say that {name} of a stream begins after {first} steps, but it does not begin"


def _of_delay(rest: dict[int, int], streaming: Streaming, *, every: bool) -> Iterator[str]:
    most = max(rest.values(), default=0)
    # If only multiples, or a few lengths, are possible, the length with the largest delay may not be among them.
    exact = every and streaming.multiple == 1
    if most > streaming.delay or (exact and most < streaming.delay):
        yield f"the metadata's delay of the stream is {streaming.delay}, but flush returns up to {most} steps"


def _places(streaming: Streaming) -> tuple[list[int], int]:
    """The numbers of input steps at which to count, and their distance once the stream repeats itself."""
    unit, period, hop = streaming.chunk, streaming.period, streaming.hop
    span = period + max(period, hop)
    both = np.gcd(period, hop)
    dividing = (size for size in range(1, both + 1) if both % size == 0 and size % unit == 0)
    apart = next((size for size in dividing if span // size <= _MOST_CALLS), None)
    if apart is None:
        apart = max(int(both), unit)
        span = min(span, _MOST_CALLS * apart)
    start = -(-max(streaming.settled, streaming.least) // unit) * unit
    firsts = {m for first in streaming.first.values() for m in (first - 1, first)}
    early = range(min(start, _MOST_CALLS // 4)) if unit == 1 else ()
    found = {*early, *firsts, *range(start, start + span + 1, apart)}
    return sorted(m for m in found if m > 0 and m % unit == 0), apart


def _counted(model: Model, streaming: Streaming, places: Sequence[int]) -> _Counts:
    """Run a random sequence in chunks that end at `places`.

    Raises:
        InputError, RunError: no random sequence can be made, or the file fails on it.
    """
    feeds, states = random_sequence(model, streaming.time, places[-1], np.random.default_rng(0))
    feeds = {name: feeds[name] for name in stream_inputs(model)}
    batch = batch_of(model, feeds, states)
    stream, ended = model.stream(batch, check=False), model.stream(batch, check=False)
    outputs = {name: axis for name, axis in streaming.outputs.items() if axis is not None}
    counts = _Counts({name: {} for name in outputs}, {}, {})
    total = dict.fromkeys(outputs, 0)
    for start, end in itertools.pairwise((0, *places)):
        given = stream.run(taken(feeds, streaming.time, range(start, end)))
        state = stream.state
        for name, axis in outputs.items():
            total[name] += given[name].shape[axis]
            counts.available[name][end] = total[name]
        if streaming.steps is not None:
            counts.counted[end] = int(state[streaming.steps].reshape(-1)[0])
        if streaming.last is None:
            counts.rest[end] = 0
        elif end >= max(streaming.settled, streaming.least) and end % streaming.multiple == 0:
            ended.state = state
            if streaming.chunk == 1:  # the inputs may have no time axis
                ended.run(taken(feeds, streaming.time, range(0)))
            rest = ended.flush()
            counts.rest[end] = max((rest[name].shape[axis] for name, axis in outputs.items()), default=0)
    return counts
