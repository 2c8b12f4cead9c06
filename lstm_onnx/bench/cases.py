"""The contenders of each case, over the same inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError, LSTMOnnxError
from ..runtime import Model
from ..runtime.providers import ort_errors
from .grid import Point, drawn_lengths, drawn_sequence
from .measure import Contender
from .pytorch import EAGER, TorchSide
from .servers import asyncio_waves, thread_waves
from .subject import Arrays, Opened, Subject

PLAIN, RUNTIME = "InferenceSession.run", "lstm-onnx"
PADDED_BATCH = 32
"""Sequences in a padded or packed batch."""
WAVES = 64
"""Steps that each client of a server takes in one timed call; to start and end it takes about as long as two."""
THREADS = 4
"""Of a server whose threads share the streams."""


@dataclass(frozen=True)
class Task:
    """One point, ready to be timed.

    Attributes:
        contenders: those that take part.
        baseline: the name of the one that ratios are against.
        unit: what times are told for.
        units: how many of them a call of each contender's `run` is; 1 for those that `units` does not name.
        needed: FLOPs and bytes of weights of one unit; None where not known.
        left_out: contenders that cannot take part, and why.
    """

    contenders: list[Contender]
    baseline: str
    unit: str
    units: Mapping[str, int]
    needed: tuple[float, float] | None
    left_out: dict[str, str] = field(default_factory=dict)


@contextmanager
def prepared(subject: Subject, point: Point) -> Iterator[Task]:
    """The point's task; what it holds is let go of at the end.

    Raises:
        LSTMOnnxError: the case does not apply to this model; the message says why.
    """
    with _TASKS[point.case](subject, point) as task:
        yield task


@contextmanager
def _steps(subject: Subject, point: Point) -> Iterator[Task]:
    """One step, or a chunk of them, the states carried on from call to call."""
    feeds = subject.feeds(point.batch, point.time)
    own = {name: array for name, array in feeds.items() if name not in subject.model.states}
    plain = _carried_plain(subject, subject.opened, feeds, subject.model.stream(point.batch).state)
    only = next(iter(own.values())) if len(own) == 1 else None

    def stepped(model: Model) -> Callable[[], Any]:
        stream = model.stream(point.batch)
        return functools.partial(stream, only) if only is not None else functools.partial(stream.run, own)

    contenders = [
        Contender(PLAIN, plain, numbers=functools.partial(_first, subject), errors=ort_errors()),
        *_ours(subject, stepped),
    ]
    yield _task(subject, _with_torch(subject, contenders, feeds, carried=True), point)


@contextmanager
def _batches(subject: Subject, point: Point) -> Iterator[Task]:
    """A batch of whole sequences of one length, from the states that the model starts with."""
    feeds = subject.feeds(point.batch, point.time)
    completed = subject.model.completed(feeds)
    start = {name: completed[name] for name in subject.model.states if name in completed}
    session, given = subject.opened.session, subject.session_feeds(subject.opened, feeds, start)

    def whole(model: Model) -> Callable[[], Any]:
        return (
            functools.partial(model, feeds["input"]) if model.spec is not None else functools.partial(model.run, feeds)
        )

    contenders = [
        Contender(
            PLAIN,
            functools.partial(session.run, None, given),
            numbers=functools.partial(_first, subject),
            errors=ort_errors(),
        ),
        *_ours(subject, whole),
    ]
    yield _task(subject, _with_torch(subject, contenders, feeds, carried=False), point)


def _ours(subject: Subject, call: Callable[[Model], Callable[[], Any]]) -> list[Contender]:
    """This runtime as it comes; and spinning as a plain session does, where there are threads to spin."""
    models = {RUNTIME: subject.model, f"{RUNTIME}, spinning": subject.spinning}
    return [
        Contender(name, call(model), numbers=functools.partial(_first, subject), ours=True)
        for name, model in models.items()
        if model is not None
    ]


@contextmanager
def _pools(subject: Subject, point: Point) -> Iterator[Task]:
    """Streams that take a step each: one at a time, together through the pool, or each from a client of its own."""
    streams = point.batch
    model = subject.model
    feeds = subject.feeds(streams, 1)
    own = {name: array for name, array in feeds.items() if name not in model.states}
    if len(own) != 1:
        raise ConfigError(f"the pool is timed with one input beside the states, and the model has {', '.join(own)}")
    (name, x), *_ = own.items()
    axis = next(subject.batch_axis(spec) for spec in subject.specs if spec.name == name)
    if axis is None:
        raise ConfigError(f"the input {name} has no batch axis, so that streams could not be stepped together")
    rows = [np.ascontiguousarray(np.take(x, [index], axis)) for index in range(streams)]
    pool = model.pool(slots=streams)
    slots = [pool.open() for _ in range(streams)]
    each = [_carried_plain(subject, subject.opened, {name: row}, model.stream(1).state) for row in rows]
    alone = [model.stream(1) for _ in rows]
    baseline = f"{PLAIN}, one at a time"
    contenders = [
        Contender(baseline, lambda: [run() for run in each], numbers=_firsts(subject), errors=ort_errors()),
        Contender(f"{RUNTIME} pool", lambda: pool.step(slots, x), numbers=_rows_first(axis), ours=True),
        Contender(
            f"{RUNTIME} stream, one at a time",
            lambda: [stream(row) for stream, row in zip(alone, rows, strict=True)],
            numbers=_firsts(subject),
            ours=True,
        ),
    ]
    if subject.spec is not None:
        stacked = np.stack(rows)
        theirs, left_out = _torch(subject, lambda side: side.contenders(lambda: side.carried_each(stacked)))
        contenders += theirs
    else:
        left_out = {EAGER: "a module's forward takes no states of one stream at a time"}
    with (
        thread_waves(model, rows, WAVES) as threaded,
        thread_waves(model, rows, WAVES, THREADS) as shared,
        asyncio_waves(model, rows, WAVES) as awaited,
    ):
        served = [
            Contender(f"{RUNTIME} batcher, a thread a stream", threaded, ours=True),
            Contender(f"{RUNTIME} batcher, {THREADS} threads", shared, ours=True),
            Contender(f"{RUNTIME} batcher, asyncio", awaited, ours=True),
        ]
        units = {contender.name: streams for contender in contenders}
        units |= {contender.name: streams * WAVES for contender in served}
        needed = None
        if subject.work is not None:
            flops, weights = subject.work.needed(streams, 1)
            needed = (flops / streams, weights / streams)
        yield Task([*contenders, *served], baseline, "step", units, needed, left_out)


@contextmanager
def _maps(subject: Subject, point: Point) -> Iterator[Task]:
    """Sequences of varying length, in the caller's order."""
    spec, opened = subject.spec, subject.padded
    if spec is None or opened is None:
        yield _module_maps(subject, point)
        return
    lengths = drawn_lengths(point.batch, subject.seed)
    sequences = [
        drawn_sequence(length, spec.input_size, spec.dtype, subject.seed + index)
        for index, length in enumerate(lengths)
    ]
    baseline = f"{PLAIN}, padded batches of {PADDED_BATCH}"
    padded = _padded_batches(opened, sequences)

    def mapped() -> list[np.ndarray]:
        return [output for output, _ in opened.model.map(sequences, workers=subject.threads)]

    contenders = [
        Contender(baseline, padded, numbers=_joined, errors=ort_errors()),
        Contender(f"{RUNTIME} map", mapped, numbers=_joined, ours=True),
        Contender(f"{PLAIN}, one by one", _one_by_one(opened, sequences), numbers=_joined, errors=ort_errors()),
    ]
    theirs, left_out = _torch(subject, lambda side: [side.packed_contender(sequences, PADDED_BATCH)])
    yield _map_task(subject, [*contenders, *theirs], lengths, left_out)


def _module_maps(subject: Subject, point: Point) -> Task:
    """The same for a module: dicts of arrays, and one by one is what it is compared with."""
    model, lengths = subject.model, drawn_lengths(point.batch, subject.seed)
    records = [subject.feeds(1, length) for length in lengths]
    runs = []
    for feeds in records:
        completed = model.completed(feeds)
        start = {name: completed[name] for name in model.states if name in completed}
        given = subject.session_feeds(subject.opened, feeds, start)
        runs.append(functools.partial(subject.opened.session.run, None, given))
    sequences = [subject.without_batch(feeds) for feeds in records]
    firsts = _firsts(subject)
    contenders = [
        Contender(f"{PLAIN}, one by one", lambda: [run() for run in runs], numbers=firsts, errors=ort_errors()),
        Contender(
            f"{RUNTIME} map",
            lambda: list(model.map(sequences, workers=subject.threads)),
            numbers=firsts,
            ours=True,
        ),
    ]
    theirs, left_out = _torch(
        subject, lambda side: side.contenders(lambda: side.called_each(subject.specs, records), compared=False)
    )
    return _map_task(subject, [*contenders, *theirs], lengths, left_out)


def _map_task(subject: Subject, contenders: list[Contender], lengths: list[int], left_out: dict[str, str]) -> Task:
    needed = None
    if subject.work is not None:
        flops, weights = subject.work.needed(sum(lengths), max(lengths))
        needed = (flops / len(lengths), weights / len(lengths))
    units = {contender.name: len(lengths) for contender in contenders}
    return Task(contenders, contenders[0].name, "sequence", units, needed, left_out)


_TASKS = {"step": _steps, "chunk": _steps, "batch": _batches, "pool": _pools, "map": _maps}


def _task(subject: Subject, contenders: tuple[list[Contender], dict[str, str]], point: Point) -> Task:
    found, left_out = contenders
    steps = point.batch * point.time
    needed = None
    if subject.work is not None:
        flops, weights = subject.work.needed(steps, point.time)
        needed = (flops / steps, weights / steps)
    return Task(found, PLAIN, "step", {item.name: steps for item in found}, needed, left_out)


def _with_torch(
    subject: Subject, contenders: list[Contender], feeds: Arrays, *, carried: bool
) -> tuple[list[Contender], dict[str, str]]:
    def make(side: TorchSide) -> list[Contender]:
        if subject.spec is None:
            return side.contenders(lambda: side.called(subject.specs, feeds), compared=False)
        run = side.carried if carried else side.whole
        return side.contenders(lambda: run(feeds["input"]))

    theirs, left_out = _torch(subject, make)
    return [*contenders, *theirs], left_out


def _torch(subject: Subject, make: Callable[[TorchSide], list[Contender]]) -> tuple[list[Contender], dict[str, str]]:
    """PyTorch's contenders, or why there are none."""
    if subject.torch is None:
        return [], {EAGER: subject.no_torch}
    try:
        return make(subject.torch), {}
    except LSTMOnnxError as error:
        return [], {EAGER: str(error)}


def _carried_plain(
    subject: Subject, opened: Opened, feeds: Arrays, start: Mapping[str, np.ndarray]
) -> Callable[[], list[Any]]:
    """A plain session fed the same again and again, its states carried on by hand."""
    held = subject.session_feeds(opened, feeds, start)
    held |= dict(start)
    names = [output.name for output in opened.session.get_outputs()]
    pairs = [(source, names.index(target)) for source, target in opened.model.states.items()]
    run = opened.session.run

    def step() -> list[Any]:
        results: list[Any] = run(None, held)
        for source, index in pairs:
            held[source] = results[index]
        return results

    return step


def _padded_batches(opened: Opened, sequences: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """What one writes first: batches as they come, padded with zeros, their lengths beside them."""
    spec = opened.model.spec
    assert spec is not None  # noqa: S101 - the caller's condition
    session, first = opened.session, spec.batch_first

    def run() -> list[np.ndarray]:
        outputs: list[np.ndarray] = []
        for start in range(0, len(sequences), PADDED_BATCH):
            part = sequences[start : start + PADDED_BATCH]
            lengths = np.array([len(sequence) for sequence in part], np.int32)
            longest = int(lengths.max())
            x = np.zeros(spec.sequence_shape(len(part), longest, spec.input_size), spec.dtype)
            for index, sequence in enumerate(part):
                x[(index, slice(len(sequence))) if first else (slice(len(sequence)), index)] = sequence
            feeds = {
                "input": x,
                "lengths": lengths,
                "h0": np.zeros(spec.h_shape(len(part)), spec.dtype),
                "c0": np.zeros(spec.c_shape(len(part)), spec.dtype),
            }
            output = session.run(["output", "hn", "cn"], feeds)[0]
            for index, length in enumerate(lengths):
                outputs.append(output[index, :length] if first else output[:length, index])
        return outputs

    return run


def _one_by_one(opened: Opened, sequences: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    spec = opened.model.spec
    assert spec is not None  # noqa: S101 - the caller's condition
    session, axis = opened.session, 0 if spec.batch_first else 1
    states = {"h0": np.zeros(spec.h_shape(1), spec.dtype), "c0": np.zeros(spec.c_shape(1), spec.dtype)}

    def run() -> list[np.ndarray]:
        outputs = []
        for sequence in sequences:
            feeds = {"input": np.expand_dims(sequence, axis), "lengths": np.array([len(sequence)], np.int32), **states}
            outputs.append(session.run(["output", "hn", "cn"], feeds)[0].squeeze(axis))
        return outputs

    return run


def _first(subject: Subject, result: Any) -> np.ndarray:
    """The first output that is no state, of whatever a run returns."""
    ends = set(subject.model.states.values())
    names = list(subject.model.outputs)
    index = next((place for place, name in enumerate(names) if name not in ends), 0)
    if isinstance(result, dict):
        return np.asarray(result[names[index]])
    if isinstance(result, np.ndarray):
        return result
    # A plain session gives every output in order; a bare LSTM called as nn.LSTM its output first.
    return np.asarray(result[0 if isinstance(result, tuple) else index])


def _firsts(subject: Subject) -> Callable[[list[Any]], np.ndarray]:
    return lambda results: np.concatenate([_first(subject, result).reshape(-1) for result in results])


def _rows_first(axis: int) -> Callable[[Any], np.ndarray]:
    """A batch's output, row by row."""
    return lambda result: np.moveaxis(np.asarray(result), axis, 0).reshape(-1)


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(output).reshape(-1) for output in outputs])
