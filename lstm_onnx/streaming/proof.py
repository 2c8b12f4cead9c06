"""Compares a file that streams, run in chunks, with its source, run on whole sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RunError
from ..metadata import Streaming
from ..runtime import Model
from ..runtime.chunk_check import cut, mismatch, rounded
from ..runtime.chunks import joined
from ..runtime.random_sequence import batch_of, random_sequence

Arrays = dict[str, np.ndarray]

_MOST_STEPS = 4096
"""The number of steps of the longest random sequence."""


@dataclass(frozen=True)
class StreamProof:
    """How a file in chunks was compared with its source.

    Attributes:
        steps: the lengths of the sequences.
        cuts: how many divisions into chunks were compared.
        problem: how they differ; "" if they do not.
        not_run: why nothing was compared; "" if something was.
    """

    steps: tuple[int, ...] = ()
    cuts: int = 0
    problem: str = ""
    not_run: str = ""

    def __str__(self) -> str:
        """For people."""
        if self.not_run:
            return f"not compared with the source: {self.not_run}"
        return (
            f"compared with the source: {self.cuts} divisions of sequences of {', '.join(map(str, self.steps))} steps"
        )


def prove_stream(source: Model, model: Model, *, seed: int = 0) -> StreamProof:
    """Compare a file in chunks with its source.

    Args:
        source: takes whole sequences.
        model: the file that streams, with `Metadata.streaming`.
        seed: of the sequences.
    """
    streaming = model.metadata.streaming
    assert streaming is not None  # noqa: S101 - the caller's condition
    rng = np.random.default_rng(seed)
    lengths, cuts, failed = [], 0, ""
    for steps in _lengths(streaming):
        feeds, states = random_sequence(source, streaming.time, steps, rng)
        try:
            whole = source.run({**feeds, **states})
            near = source.run({**rounded(feeds), **rounded(states)})
        except (InputError, RunError) as error:
            failed = failed or error.reason
            continue
        lengths.append(steps)
        for sizes in divisions(steps, streaming, rng):
            cuts += 1
            try:
                found = in_chunks(model, feeds, states, sizes)
            except (InputError, RunError) as error:
                return StreamProof(tuple(lengths), cuts, f"in chunks of {_shown(sizes)}: {error.reason}")
            problem = _difference(found, whole, near)
            if problem:
                return StreamProof(tuple(lengths), cuts, f"{steps} steps in chunks of {_shown(sizes)}: {problem}")
    return StreamProof(tuple(lengths), cuts, not_run="" if lengths else failed or "no sequence fits it")


def _lengths(streaming: Streaming) -> list[int]:
    """A length that is long enough to use every stage, and one that leaves different remainders."""
    fewest = max(streaming.settled, streaming.least - 1)
    base = -(-(fewest + 2 * streaming.period + 5) // streaming.multiple) * streaming.multiple
    other = base + streaming.multiple * max(1, streaming.period // 2 + 1)
    return [steps for steps in dict.fromkeys((base, other)) if steps <= _MOST_STEPS] or [
        -(-_MOST_STEPS // streaming.multiple) * streaming.multiple
    ]


def divisions(steps: int, streaming: Streaming, rng: np.random.Generator) -> Iterator[list[int]]:
    """Ways to divide a sequence: step by step, in hops, at once, and at random, including empty chunks."""
    unit = streaming.chunk
    units = steps // unit
    if units <= 128:
        yield [unit] * units
    for size in dict.fromkeys((max(streaming.hop, unit), 7 * unit, steps)):
        yield [min(size, steps - start) for start in range(0, steps, size)]
    chunks: list[int] = []
    while (left := units - sum(chunks)) > 0:
        chunks.append(min(left, int(rng.integers(0, max(4, units // 6)))))
    yield [size * unit for size in chunks]


def in_chunks(model: Model, feeds: Mapping[str, np.ndarray], states: Arrays, sizes: list[int]) -> Arrays:
    """The outputs of a sequence in chunks, concatenated, and the final states by their outputs' names."""
    streaming = model.metadata.streaming
    assert streaming is not None  # noqa: S101 - the caller's condition
    stream = model.stream(batch_of(model, feeds, states), check=False)
    stream.state = {**stream.state, **states}
    if streaming.last is None:  # an output without a time axis may not exist before the first step
        sizes = list(itertools.dropwhile(lambda size: size == 0, sizes))
    parts = [stream.run(chunk) for chunk in cut(feeds, streaming.time, sizes)]
    parts.append(stream.flush())
    axes = {name: axis for name, axis in streaming.outputs.items() if axis is not None}
    final = stream.state
    return joined(parts, axes) | {model.states[name]: final[name] for name in states}


def _difference(found: Arrays, whole: Mapping[str, np.ndarray], near: Mapping[str, np.ndarray]) -> str:
    for name, array in found.items():
        if array.shape != whole[name].shape:
            return f"{name} has shape {array.shape}, and {whole[name].shape} at once"
        problem = mismatch(array, whole[name], near[name])
        if problem:
            return f"{name}: {problem}"
    return ""


def _shown(sizes: list[int]) -> str:
    text = "+".join(map(str, sizes))
    return text if len(text) <= 40 else text[:40] + "..."
