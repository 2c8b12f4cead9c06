"""A file that streams, run in chunks beside its source on whole sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, RunError
from ..input_spec import draw
from ..metadata import Streaming
from ..runtime import Model
from ..runtime.chunk_check import mismatch, rounded, taken
from ..symbolic_dims import ANY_SIZE, clamped, is_expression, size_of

Arrays = dict[str, np.ndarray]

_BATCH = 2
_OTHER = 5
"""The size of open axes that are neither batch nor time."""
_MOST_STEPS = 4096
"""Steps of the longest sequence that is drawn."""


@dataclass(frozen=True)
class StreamProof:
    """How a file in chunks was compared with its source.

    Attributes:
        steps: the lengths of the sequences.
        cuts: how many divisions into chunks were compared.
        problem: where they differ; "" where they do not.
        not_run: why nothing was compared; "" where something was.
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
        model: the same with `Metadata.streaming`.
        seed: of the sequences.
    """
    streaming = model.metadata.streaming
    assert streaming is not None  # noqa: S101 - the caller's condition
    rng = np.random.default_rng(seed)
    lengths, cuts, failed = [], 0, ""
    for steps in _lengths(streaming):
        feeds, states = draw_sequence(source, streaming.time, steps, rng)
        try:
            whole = source.run({**feeds, **states})
            near = source.run({**rounded(feeds), **rounded(states)})
        except (InputError, RunError) as error:
            failed = failed or error.reason
            continue
        lengths.append(steps)
        for cut in divisions(steps, streaming, rng):
            cuts += 1
            try:
                found = in_chunks(model, feeds, states, cut)
            except (InputError, RunError) as error:
                return StreamProof(tuple(lengths), cuts, f"in chunks of {_shown(cut)}: {error.reason}")
            problem = _difference(found, whole, near)
            if problem:
                return StreamProof(tuple(lengths), cuts, f"{steps} steps in chunks of {_shown(cut)}: {problem}")
    return StreamProof(tuple(lengths), cuts, not_run="" if lengths else failed or "no sequence fits it")


def _lengths(streaming: Streaming) -> list[int]:
    """One that is long enough for every stage to be busy, and one more that leaves other rests, or as few."""
    base = -(-(streaming.settled + 2 * streaming.period + 5) // streaming.multiple) * streaming.multiple
    other = base + streaming.multiple * max(1, streaming.period // 2 + 1)
    return [steps for steps in dict.fromkeys((base, other)) if steps <= _MOST_STEPS] or [
        -(-_MOST_STEPS // streaming.multiple) * streaming.multiple
    ]


def divisions(steps: int, streaming: Streaming, rng: np.random.Generator) -> Iterator[list[int]]:
    """Ways to divide a sequence: step by step, in hops, at once, and at random with chunks of no steps."""
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


def in_chunks(model: Model, feeds: Mapping[str, np.ndarray], states: Arrays, cut: list[int]) -> Arrays:
    """A sequence in chunks, and the rest: outputs concatenated, and the final states by their outputs' names."""
    streaming = model.metadata.streaming
    assert streaming is not None  # noqa: S101 - the caller's condition
    stream = model.stream(batch_of(model, feeds, states), check=False)
    stream.state = {**stream.state, **states}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in streaming.outputs}
    start = 0
    if streaming.last is None:  # what has no time axis may not be known before the first step
        cut = list(itertools.dropwhile(lambda size: size == 0, cut))
    for size in cut:
        chunk = taken(feeds, streaming.time, range(start, start + size))
        start += size
        for name, array in stream.run(chunk).items():
            parts[name].append(array)
    for name, array in stream.flush().items():
        parts[name].append(array)
    results = {
        name: arrays[-1] if (axis := streaming.outputs[name]) is None else np.concatenate(arrays, axis)
        for name, arrays in parts.items()
    }
    final = stream.state
    return results | {model.states[name]: final[name] for name in states}


def batch_of(model: Model, feeds: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]) -> int:
    """How many sequences are in drawn inputs; by the states where the batch has another name in each input."""
    from ..runtime.batch_axes import batch_name, state_batch_axis

    batch = batch_name(model)
    for name, array in feeds.items():
        shape = model.inputs[name].shape
        if batch is not None and batch in shape:
            return int(array.shape[shape.index(batch)])
    axes = {name: state_batch_axis(model.inputs[name]) for name in states}
    return next((states[name].shape[axis] for name, axis in axes.items() if axis is not None), 1)


def draw_sequence(model: Model, time: Mapping[str, int], steps: int, rng: np.random.Generator) -> tuple[Arrays, Arrays]:
    """Random inputs of so many steps, and random states of the model's own.

    Raises:
        InputError: an input is of another type than numbers.
    """
    names = {dim for name, axis in time.items() if isinstance(dim := model.inputs[name].shape[axis], str)}
    sizes: dict[str, int] = {}
    infos = dict(model.inputs.items())
    state_dims = {dim for name in model.states for dim in infos[name].shape if isinstance(dim, str)}
    named = [dim for info in infos.values() for dim in {*info.shape} if isinstance(dim, str)]
    # As of tf2onnx: each input has its own name for it.
    apart = len(set(named)) == len(named) and 0 not in time.values()
    first = {info.shape[0] for name, info in infos.items() if info.shape and (name in time or apart)}
    for info in infos.values():
        for dim in info.shape:
            if isinstance(dim, str) and not is_expression(dim):
                batch = dim == "batch" or dim in state_dims or dim in first
                wanted = steps if dim in names else _BATCH if batch else _OTHER
                sizes[dim] = clamped(wanted, model.metadata.axis_limits.get(dim, ANY_SIZE))
    feeds = draw([spec for spec in model.metadata.inputs if spec.name not in model.states], sizes, rng)
    states: Arrays = {}
    for name, info in infos.items():
        if name in feeds:
            continue
        shape = [(size_of(dim, sizes) if isinstance(dim, str) else dim) or _BATCH for dim in info.shape]
        if name in time:
            shape[time[name]] = steps
        if info.dtype is None or info.dtype.kind not in "fiub":
            raise InputError(f"no sequence can be drawn for {info}", name=name)
        values = rng.standard_normal(shape) if info.dtype.kind == "f" else rng.integers(0, 2, shape)
        if name in model.states:
            states[name] = np.asarray(np.tanh(values), info.dtype)
        else:
            feeds[name] = np.asarray(values, info.dtype)
    return feeds, states


def _difference(found: Arrays, whole: Mapping[str, np.ndarray], near: Mapping[str, np.ndarray]) -> str:
    for name, array in found.items():
        if array.shape != whole[name].shape:
            return f"{name} has shape {array.shape}, and {whole[name].shape} at once"
        problem = mismatch(array, whole[name], near[name])
        if problem:
            return f"{name}: {problem}"
    return ""


def _shown(cut: list[int]) -> str:
    text = "+".join(map(str, cut))
    return text if len(text) <= 40 else text[:40] + "..."
