"""Compares a module's streams: every chunking of a sequence must give PyTorch's outputs for the whole sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm

import numpy as np

from ...errors import ConfigError, ExportError, InputError
from ...input_spec import InputSpec, draw, sizes_of, unbounded_inputs
from ...runtime import Model
from ...runtime.batch_axes import axis_roles
from ...runtime.chunk_check import taken
from ...symbolic_dims import names_in
from ..cases import HUGE, HUGE_HALF, Case, compositions
from ..expected import Call, Expected
from .inputs import BATCH, TIME, axes_of_size
from .subject import Subject

_BATCHES, _STEPS = (1, 3), 6
"""The lengths of the sequences that are cut in every possible way."""
_COUNTED = 40
"""The number of calls if a state is an integer: a ring buffer wraps around, a counter passes its limit."""
_LONG_STEPS, _MOST_STEPS, _MOST_STREAM_WORK = 130, 4096, 1e9
"""Limits of a longer stream: chunks of the least size, steps, and multiplications."""
_OTHER_CHUNKS = (*range(1, 13), 16, 17, 15, 32, 33, 31, 64, 65, 63)
"""Sizes of chunks, in units of the least one, by importance; each is followed by another."""
_OTHER_BATCHES = (2, 4, 5, 6, 7, 8, 9, 16, 17, 32, 33)
_SHORT_CHUNKS = (1, 1, 2, 1)
"""The chunks of streams of other batches."""


def streamed_cases(subject: Subject, notes: list[str]) -> Iterator[Expected]:
    """The cases that run through streams.

    They cut whole sequences or, where a call is one step whatever its size, compare several calls in turn.  Anything
    not compared is added to `notes`.
    """
    model = subject.model
    if not model.metadata.states:
        return
    try:
        model.stream(check=not _says_that_it_streams(model))
    except InputError as error:
        notes.append(f"streams were not compared: {error.reason}")
        return
    mixes = model.metadata.batch_mixes
    if mixes:
        notes.append(f"streams were not compared in a pool, which refuses the file: {mixes}")
    yield from (case for case in _streamed_cases(subject) if case.kind != "pool" or not mixes)


def _says_that_it_streams(model: Model) -> bool:
    """Whether its metadata does: then the comparison is ours, also where another tool has changed the file since."""
    return model.metadata.not_streamable == ""


def _streamed_cases(subject: Subject) -> Iterator[Expected]:
    if subject.model.metadata.time_axes and subject.model.metadata.inputs:  # not a repaired file
        yield from _chunked_cases(subject)
        return
    for label, cases, states in _sequences(subject):
        yield from _carried_cases(subject, label, cases, states)


@dataclass(frozen=True)
class TimeAxes:
    """The time axes of a file's inputs and outputs.

    Attributes:
        names: the names of the time axes.
        axes: the time axis of every input and output that has one; for a single sequence also where time is a factor of
            a dimension, as in ``batch*time``.
        folded: whether an output has such a dimension, in which several sequences cannot be separated.
        lengths: the inputs that are lengths of sequences.
        batch_axes: the batch axis of every input and output that has one.
    """

    names: frozenset[str]
    axes: Mapping[str, int]
    folded: bool
    lengths: tuple[str, ...]
    batch_axes: Mapping[str, int]

    @classmethod
    def of(cls, model: Model, specs: Sequence[InputSpec], batch_axes: Mapping[str, int]) -> TimeAxes:
        """From the names of the axes."""
        time = frozenset(model.metadata.time_axes)
        carried = {*model.states, *model.states.values()}
        axes: dict[str, int] = {}
        folded = False
        lengths = tuple(spec.name for spec in specs if spec.high in time)
        given = {dim for info in model.inputs.values() for dim in info.shape}
        for name, info in {**model.inputs, **model.outputs}.items():
            for axis, dim in enumerate(info.shape):
                if name in carried or not isinstance(dim, str):
                    continue
                if names_in(dim) & time:
                    axes[name] = axis
                    folded = folded or dim not in time
                elif lengths and dim.isidentifier() and dim not in given:  # the longest of the lengths
                    axes[name] = axis
        if (streaming := model.metadata.streaming) is not None:
            axes |= {name: axis for name, axis in streaming.outputs.items() if axis is not None}
        return cls(time, axes, folded, lengths, batch_axes)


def _draw_feeds(
    subject: Subject, time: TimeAxes, sizes: tuple[int, int], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and states of whole sequences of `sizes` (batch, steps), all of full length."""
    specs = subject.specs
    batch, steps = sizes
    named = sizes_of(specs, batch, steps, known=axis_roles(subject.model))
    inputs = draw(specs, named, rng)
    for name in time.lengths:
        inputs[name] = np.full_like(inputs[name], steps)
    states = subject.draw_states(named, rng)
    inputs = {name: array for name, array in inputs.items() if name not in states}
    return inputs, _possible(subject, inputs, states)


def _possible(
    subject: Subject, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """States that the module can have."""
    feeds = subject.models.float64.with_possible_states({**inputs, **states})
    return {name: feeds[name] for name in states}


def _chunked_cases(subject: Subject) -> Iterator[Expected]:
    """Whole sequences, cut in every way, of a file whose metadata names its time axes."""
    model = subject.model
    time = TimeAxes.of(model, subject.specs, axes_of_size(model, subject.specs, BATCH))
    rng = np.random.default_rng(subject.seed + 1)
    streaming = model.metadata.streaming
    least, most = _least_and_most(subject, time)
    steps = min(_STEPS, most // least)
    if steps < 2:
        return
    for batch in _BATCHES[:1] if time.folded else _BATCHES:
        for explicit in (True, False):
            inputs, states = _draw_feeds(subject, time, (batch, steps * least), rng)
            label = f"batch {batch}, {steps * least} steps, {'states' if explicit else 'no states'}"
            whole = _expect_stream(subject, label, inputs, states if explicit else {})
            if whole is None:
                continue
            if time.lengths:
                for chunking in dict.fromkeys([(1,) * steps, (steps - 1, 1), (1, steps - 1)]):
                    chunks = tuple(size * least for size in chunking)
                    calls = _calls(whole.calls[0], time, chunks, model)
                    named = f"{label}, chunks of {'+'.join(map(str, chunks))}"
                    yield replace(whole, label=named, kind="chunks", calls=calls)
                continue
            every = tuple(tuple(size * least for size in chunking) for chunking in compositions(steps))
            if streaming is not None and streaming.chunk == 1:  # chunks of single steps and of none as well
                every += ((1,) * (steps * least), (0, 1, 0, steps * least - 1, 0))
            yield replace(whole, label=f"{label}, every chunking", kind="chunks", chunkings=every, time_axes=time.axes)
            names = {*whole.calls[0].feeds, *whole.calls[0].reference}
            pooled = streaming is not None or least == 1
            if pooled and batch > 1 and not explicit and names <= time.batch_axes.keys():
                yield replace(whole, label=f"{label}, in a pool", kind="pool", time_axes=time.axes)
    if streaming is not None and not time.lengths:
        yield from _long_stream(subject, time, least, most)
        yield from _other_sizes(subject, time, least, most)


def _long_stream(subject: Subject, time: TimeAxes, least: int, most: int) -> Iterator[Expected]:
    """A stream of many steps, in long chunks and single steps: a cache may be wrong past some step.

    Nothing else shows that: whole sequences start without a cache, and the module has none.
    """
    work = subject.models.float64.weights * least
    count = min(_LONG_STEPS, most // least, _MOST_STEPS // least, int(_MOST_STREAM_WORK / max(work, 1)))
    if count <= 2 * _STEPS:
        return
    rng = np.random.default_rng([subject.seed, 6])
    batch = _BATCHES[0] if time.folded else 2
    inputs, _ = _draw_feeds(subject, time, (batch, count * least), rng)
    label = f"batch {batch}, {count * least} steps, no states, a few chunkings"
    whole = _expect_stream(subject, label, inputs, {})
    if whole is None or whole.inconclusive:
        return
    half = count // 2
    sizes = ((half, *(1,) * _STEPS, count - half - _STEPS), (*(1,) * _STEPS, count - _STEPS))
    chunkings = tuple(tuple(size * least for size in chunking) for chunking in sizes)
    yield replace(whole, label=label, kind="chunks", chunkings=chunkings, time_axes=time.axes)


def _other_sizes(subject: Subject, time: TimeAxes, least: int, most: int) -> Iterator[Expected]:
    """A stream whose chunks have many sizes, and short streams of batches of many sizes.

    What a cache holds after them shows in the chunks that follow, and nowhere else.
    """
    work = subject.models.float64.weights * least
    rng = np.random.default_rng([subject.seed, 12])
    sizes = _sizes_of_chunks(min(most // least, _MOST_STEPS // least, int(_MOST_STREAM_WORK / max(work, 1))))
    streams = [(_BATCHES[0], sizes, f"chunks of 1 to {max(sizes)}")] if len(sizes) > 1 else []
    roles = sizes_of(subject.specs, BATCH, TIME)
    axis = next((name for name, size in roles.items() if size == BATCH), None)
    if axis is not None and not time.folded and most >= sum(_SHORT_CHUNKS) * least:
        batches = [size for size in _OTHER_BATCHES if subject.axes.within(axis, size) == size]
        streams += [(size, _SHORT_CHUNKS, "single chunks") for size in batches if work * size <= _MOST_STREAM_WORK]
    for batch, chunks, what in streams:
        chunking = tuple(size * least for size in chunks)
        inputs, _ = _draw_feeds(subject, time, (batch, sum(chunking)), rng)
        label = f"batch {batch}, {sum(chunking)} steps, no states, {what}"
        whole = _expect_stream(subject, label, inputs, {})
        if whole is not None and not whole.inconclusive:
            yield replace(whole, label=label, kind="chunks", chunkings=(chunking,), time_axes=time.axes)


def streams_of_huge_inputs(subject: Subject) -> Iterator[Expected]:
    """A short stream of huge inputs, which a cache may store differently; no whole sequence shows that."""
    model = subject.model
    streaming = model.metadata.streaming
    inputs = unbounded_inputs(subject.specs)
    if streaming is None or not (model.metadata.states and model.metadata.time_axes and inputs):
        return
    time = TimeAxes.of(model, subject.specs, axes_of_size(model, subject.specs, BATCH))
    least, most = _least_and_most(subject, time)
    chunking = tuple(size * least for size in _SHORT_CHUNKS)
    if time.lengths or sum(chunking) > most:
        return
    try:
        model.stream(check=not _says_that_it_streams(model))
    except InputError:
        return
    batch = _BATCHES[0] if time.folded else _BATCHES[1]
    rng = np.random.default_rng([subject.seed, 23])
    feeds, _ = _draw_feeds(subject, time, (batch, sum(chunking)), rng)
    factor = HUGE_HALF if subject.dtype == "float16" else HUGE
    huge = {name: np.asarray(feeds[name] * factor, feeds[name].dtype) for name in inputs if name in feeds}
    label = f"batch {batch}, {sum(chunking)} steps, no states, huge input, single chunks"
    whole = _expect_stream(subject, label, {**feeds, **huge}, {}, kind="values")
    if whole is not None and not whole.inconclusive:
        yield replace(whole, kind="chunks", chunkings=(chunking,), time_axes=time.axes)


def _least_and_most(subject: Subject, time: TimeAxes) -> tuple[int, int]:
    """The least number of steps of a chunk, and the most of a sequence."""
    streaming = subject.model.metadata.streaming
    limits = [subject.model.metadata.axis_limits.get(name, (1, None)) for name in time.names]
    least = max([1 + subject.extra_steps, *(low for low, _ in limits)])
    if streaming is not None:
        least = lcm(max(least, streaming.least), streaming.multiple)
    return least, min((high for _, high in limits if high is not None), default=_LONG_STEPS * least)


def _sizes_of_chunks(most: int) -> tuple[int, ...]:
    """The sizes of chunks to try, as many as `most` steps allow; a single step follows the last."""
    found: list[int] = []
    for size in _OTHER_CHUNKS:
        if sum(found) + size < most:
            found.append(size)
    return (*found, 1)


def _expect_stream(
    subject: Subject,
    label: str,
    inputs: dict[str, np.ndarray],
    states: dict[str, np.ndarray],
    kind: str = "whole",
) -> Expected | None:
    """What PyTorch gives for a whole sequence; states that are arguments of forward are always passed."""
    try:
        started = _argument_states(subject, inputs)
    except ExportError:
        return None
    return subject.expect(Case(label, {**inputs, **started, **states}, kind))


def _calls(whole: Call, time: TimeAxes, chunking: Sequence[int], model: Model) -> tuple[Call, ...]:
    """A whole sequence as several calls one after another; outputs without a time axis are compared after the last."""
    calls = []
    start = 0
    for index, size in enumerate(chunking):
        last = index == len(chunking) - 1
        steps = range(start, start + size)
        start += size
        given = {name: array for name, array in whole.feeds.items() if not (name in model.states and index)}
        feeds = taken(given, time.axes, steps) | {name: np.full_like(given[name], size) for name in time.lengths}
        native, reference = (
            taken({name: array for name, array in arrays.items() if last or name in time.axes}, time.axes, steps)
            for arrays in (whole.native, whole.reference)
        )
        calls.append(Call(feeds, native, reference))
    return tuple(calls)


def _argument_states(subject: Subject, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The initial values of states that are arguments of forward, which PyTorch does not start.

    Raises:
        ExportError: the file has none at these sizes.
    """
    names = [name for name in subject.metadata.states if name in subject.models.native.arguments]
    start = subject.model.completed(dict(inputs)) if names else {}
    if missing := [name for name in names if name not in start]:  # a file of one batch has none for others
        raise ExportError(f"{', '.join(missing)} has no value to start from")
    return {name: start[name] for name in names}


def _sequences(subject: Subject) -> Iterator[tuple[str, list[Case], dict[str, np.ndarray]]]:
    """Calls to make one after another, each from the states of the one before; equal calls also as streams of a pool.

    The last ones start from random states: a cell whose inputs are zeros stays at zeros otherwise.
    """
    rng = np.random.default_rng(subject.seed + 1)
    every = [(1, (1, 1, 1, 1), False), (3, (2, 1, 4), False), (3, (1, 1, 1), False), (2, (1, 1, 1), True)]
    if any(subject.model.inputs[name].is_whole for name in subject.metadata.states):
        every.append((1, (1,) * _COUNTED, False))
    for batch, sizes, explicit in every:
        cases = []
        for size in sizes:
            case = subject.case(rng, batch, size, states=False)
            inputs = {name: array for name, array in case.feeds.items() if name not in subject.model.states}
            cases.append(replace(case, feeds=inputs, kind="chunks"))
        label = f"batch {batch}, chunks of {'+'.join(str(size + subject.extra_steps) for size in sizes)}"
        if not explicit:
            yield label, cases, {}
        elif subject.metadata.states:
            states = subject.draw_states(subject.sizes(batch, sizes[0]), rng)
            yield f"{label}, states", cases, _possible(subject, cases[0].feeds, states)


def _carried_cases(
    subject: Subject, label: str, cases: Sequence[Case], states: Mapping[str, np.ndarray]
) -> Iterator[Expected]:
    """Several calls one after another, from `states`, or else from those that the file starts from.

    Where PyTorch's own error grows too large during the sequence, each call is also compared separately, from the
    float64 states.
    """
    model, (native_run, float64_run) = subject.model, (subject.models.native, subject.models.float64)
    pairs = float64_run.state_pairs
    calls: list[Call] = []
    steps: list[Call] = []
    cell = 0.0
    try:
        float64_states = _argument_states(subject, cases[0].feeds) | dict(states)
        native_states = dict(float64_states)
        for case in cases:
            cast = {
                name: state.astype(model.inputs[name].dtype) if name in model.inputs else state
                for name, state in float64_states.items()
            }
            reference = float64_run({**case.feeds, **float64_states})
            ends = {**reference, **float64_run.left_out}
            cell = max(cell, float64_run.largest_cell)
            native = native_run({**case.feeds, **native_states}, float64_run.roundings)
            native_ends = {**native, **native_run.left_out}
            exact = {**case.feeds, **cast}
            exact_reference = float64_run(exact)
            given = {name: array for name, array in exact.items() if name in model.inputs}
            steps.append(Call(given, native_run(exact, float64_run.roundings), exact_reference))
            calls.append(Call({**case.feeds, **({} if calls else states)}, native, reference))
            if unknown := [after for after in pairs.values() if after not in ends]:
                raise ConfigError(
                    f"the module does not give the file's state {', '.join(unknown)}, so its chunks cannot be "
                    "compared; pass the module as it was at the export, before further calls (a state that repair "
                    "has added was compared with the source of the file)"
                )
            float64_states = {name: ends[after] for name, after in pairs.items()}
            native_states = {name: native_ends[after] for name, after in pairs.items()}
    except ExportError:
        return
    time, batch = (axes_of_size(model, subject.specs, size) for size in (TIME, BATCH))
    chunks = Expected(label, tuple(calls), subject.dtype, cell, "chunks", (), time, batch)
    yield chunks
    if chunks.inconclusive:
        yield replace(chunks, label=f"{label}, from float64 states", calls=tuple(steps), kind="steps")
    inputs = cases[0].feeds
    equal = all(case.feeds[name].shape == array.shape for case in cases for name, array in inputs.items())
    if equal and not states and {*inputs, *reference} <= batch.keys() and chunks.batch > 1:
        yield replace(chunks, label=f"{label}, in a pool", kind="pool")
