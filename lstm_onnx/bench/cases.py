"""Makes the candidates of each case, on the same inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, LSTMOnnxError
from ..runtime import Model
from ..runtime.batch_axes import TIME
from ..runtime.chunk_check import taken
from ..runtime.providers import ort_errors
from ..runtime.stream import Stream
from ..runtime.streamable import stream_outputs
from .measure import Candidate
from .opened import Arrays, BenchmarkSubject, OpenedModel
from .pytorch import EAGER, TorchSide
from .sizes import Point, draw_lengths, random_sequence
from .stream_calls import ChunkCalls, end_input, inside

PLAIN, RUNTIME = "InferenceSession.run", "lstm-onnx"
PADDED_BATCH = 32
"""The number of sequences in a padded or packed batch."""


@dataclass(frozen=True)
class BenchmarkCase:
    """A case at one size, ready to be timed.

    Attributes:
        candidates: the candidates to time.
        baseline: the name of the candidate that the ratios refer to.
        unit: "step" (of one sequence) or "sequence".
        units: how many units one call of a candidate's `run` computes.
        left_out: candidates that cannot take part, and why.
        chunks: one sequence in many chunks and in few; empty for other cases.
    """

    candidates: list[Candidate]
    baseline: str
    unit: str
    units: int
    left_out: dict[str, str]
    chunks: tuple[ChunkCalls, ...] = ()


def make_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """Make the candidates of a point.

    Raises:
        LSTMOnnxError: the case does not apply to this model; the message says why.
    """
    if point.case not in _CASES:
        raise ConfigError(f"{point.case} is for a model with a table [generate]")
    return _CASES[point.case](subject, point)


def _streaming_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """One step, or a chunk of steps; each call continues from the states of the previous one."""
    feeds = subject.feeds(point.batch, point.time)
    inputs = _without_states(subject.model, feeds)
    plain = _carried_plain(subject, feeds, subject.model.stream(point.batch).state)

    def stepped(model: Model) -> Callable[[], Any]:
        return _stream_call(model.stream(point.batch), inputs)

    candidates = [_plain(PLAIN, plain, _first(subject)), *_runtime_candidates(subject, stepped)]
    return _step_case(_with_torch(subject, candidates, feeds, carried=True), point)


def _sequence_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """A whole sequence at once, and in chunks through a stream."""
    model, feeds = subject.model, subject.feeds(point.batch, point.time)
    inputs = _without_states(model, feeds)
    time = _time_axes(model)

    def chunked(steps: int) -> Callable[[], Any]:
        stream, size, total = model.stream(point.batch), steps * subject.hop, point.time * subject.hop
        calls = []
        for at in range(0, total, size):
            steps_of_call = range(at, min(at + size, total))
            calls.append(_stream_call(stream, taken(inputs, time, steps_of_call)))

        def run() -> Any:
            stream.reset()
            return [*[call() for call in calls], stream.flush()]

        return run

    def joined(results: list[Any]) -> np.ndarray:
        first = list(map(_first(subject), results))
        axis = _output_time_axis(subject)
        return first[-1] if axis is None else np.concatenate(first, axis)

    candidates = [_plain(f"{PLAIN}, at once", _whole_run(subject, feeds), _first(subject))]
    chunks = []
    for steps, named in ((1, "step by step"), (10, "chunks of 10 steps")):
        name, count = f"{RUNTIME} stream, {named}", -(-point.time // steps)
        candidates.append(_own(name, chunked(steps), joined))
        part = subject.feeds(point.batch, min(steps, point.time))
        runs = inside(model.stream(point.batch), part, f"ONNX Runtime's part, {named}", count)
        candidates += runs
        chunks += [ChunkCalls(name, run.name, count) for run in runs]
    return replace(_step_case((candidates, {}), point, candidates[0].name), chunks=tuple(chunks))


def _time_axes(model: Model) -> dict[str, int]:
    """The time axis of each input that has one."""
    streaming = model.metadata.streaming
    if streaming is not None:
        return dict(streaming.time)
    names = model.metadata.time_axes or (TIME,)
    return {
        name: info.shape.index(dim)
        for name, info in model.inputs.items()
        for dim in info.shape
        if dim in names and name not in model.states
    }


def _output_time_axis(subject: BenchmarkSubject) -> int | None:
    """The time axis of the first output that is not a state."""
    model = subject.model
    name = stream_outputs(model)[0]
    if model.metadata.streaming is not None:
        return model.metadata.streaming.outputs.get(name)
    names = model.metadata.time_axes or (TIME,)
    return next((axis for axis, dim in enumerate(model.outputs[name].shape) if dim in names), None)


def _batch_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """A batch of whole sequences of one length, from the initial states."""
    feeds = subject.feeds(point.batch, point.time)

    def run(model: Model) -> Callable[[], Any]:
        return (
            functools.partial(model, feeds["input"]) if model.spec is not None else functools.partial(model.run, feeds)
        )

    candidates = [_plain(PLAIN, _whole_run(subject, feeds), _first(subject)), *_runtime_candidates(subject, run)]
    return _step_case(_with_torch(subject, candidates, feeds, carried=False), point)


def _runtime_candidates(subject: BenchmarkSubject, call: Callable[[Model], Callable[[], Any]]) -> list[Candidate]:
    """This runtime with its defaults, and with threads that spin, as those of a plain session do."""
    models = {RUNTIME: subject.model, f"{RUNTIME}, spinning": subject.spinning}
    return [_own(name, call(model), _first(subject)) for name, model in models.items() if model is not None]


def _plain(name: str, run: Callable[[], Any], output: Callable[[Any], np.ndarray]) -> Candidate:
    """A candidate of plain ONNX Runtime."""
    return Candidate(name, run, output=output, errors=ort_errors())


def _own(name: str, run: Callable[[], Any], output: Callable[[Any], np.ndarray]) -> Candidate:
    """A candidate of this runtime."""
    return Candidate(name, run, output=output, is_lstm_onnx=True)


def _without_states(model: Model, feeds: Arrays) -> Arrays:
    return {name: array for name, array in feeds.items() if name not in model.states}


def _stream_call(stream: Stream, inputs: Arrays) -> Callable[[], Any]:
    """A stream's step, called with the array itself if there is only one input."""
    if len(inputs) == 1:
        return functools.partial(stream, *inputs.values())
    return functools.partial(stream.run, inputs)


def _whole_run(subject: BenchmarkSubject, feeds: Arrays) -> Callable[[], Any]:
    """A plain session on whole sequences, from the initial states."""
    model = subject.model
    completed = model.completed(dict(feeds))
    start = {name: completed[name] for name in (*model.states, *end_input(model)) if name in completed}
    return functools.partial(subject.opened.session.run, None, subject.session_feeds(subject.opened, feeds, start))


def _pool_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """Streams that run one step each, one at a time or together in a pool."""
    streams = point.batch
    model = subject.model
    feeds = subject.feeds(streams, 1)
    inputs = _without_states(model, feeds)
    if len(inputs) != 1:
        raise ConfigError(f"a pool is timed with one input besides the states, but the model has {', '.join(inputs)}")
    (name, x), *_ = inputs.items()
    axis = next(subject.batch_axis(spec) for spec in subject.specs if spec.name == name)
    if axis is None:
        raise ConfigError(f"the input {name} has no batch axis, so streams cannot be stepped together")
    rows = [np.ascontiguousarray(np.take(x, [index], axis)) for index in range(streams)]
    pool = model.pool(slots=streams)
    slots = [pool.open() for _ in range(streams)]
    each = [_carried_plain(subject, {name: row}, model.stream(1).state) for row in rows]
    alone = [model.stream(1) for _ in rows]
    baseline = f"{PLAIN}, one at a time"
    firsts = _first_outputs(subject)
    candidates = [
        _plain(baseline, lambda: [run() for run in each], firsts),
        _own(f"{RUNTIME} pool", lambda: pool.step(slots, x), _rows_first_output(axis)),
        _own(
            f"{RUNTIME} stream, one at a time",
            lambda: [stream(row) for stream, row in zip(alone, rows, strict=True)],
            firsts,
        ),
    ]
    if subject.spec is not None:
        stacked = np.stack(rows)
        theirs, left_out = _torch(subject, lambda side: side.candidates(lambda: side.carried_each(stacked)))
        candidates += theirs
    else:
        left_out = {EAGER: "a module's forward has no states per stream"}
    return BenchmarkCase(candidates, baseline, "step", streams, left_out)


def _map_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """Sequences of varying length, in the caller's order."""
    spec, opened = subject.spec, subject.padded
    if spec is None or opened is None:
        return _module_map_case(subject, point)
    lengths = draw_lengths(point.batch, subject.seed)
    sequences = [
        random_sequence(length, spec.input_size, spec.dtype, subject.seed + index)
        for index, length in enumerate(lengths)
    ]
    baseline = f"{PLAIN}, padded batches of {PADDED_BATCH}"
    padded = _padded_batches(opened, sequences)

    def mapped() -> list[np.ndarray]:
        return [output for output, _ in opened.model.map(sequences, workers=subject.threads)]

    candidates = [
        _plain(baseline, padded, _joined),
        _own(f"{RUNTIME} map", mapped, _joined),
        _plain(f"{PLAIN}, one by one", _one_by_one(opened, sequences), _joined),
    ]
    theirs, left_out = _torch(subject, lambda side: [side.packed_candidate(sequences, PADDED_BATCH)])
    return BenchmarkCase([*candidates, *theirs], baseline, "sequence", len(sequences), left_out)


def _module_map_case(subject: BenchmarkSubject, point: Point) -> BenchmarkCase:
    """As `_map_case`, for a module: a sequence is a dict of arrays, and the baseline runs them one by one."""
    model, lengths = subject.model, draw_lengths(point.batch, subject.seed)
    records = [subject.feeds(1, length) for length in lengths]
    runs = [_whole_run(subject, feeds) for feeds in records]
    sequences = [subject.without_batch(feeds) for feeds in records]
    firsts = _first_outputs(subject)
    candidates = [
        _plain(f"{PLAIN}, one by one", lambda: [run() for run in runs], firsts),
        _own(f"{RUNTIME} map", lambda: list(model.map(sequences, workers=subject.threads)), firsts),
    ]
    theirs, left_out = _torch(
        subject,
        lambda side: side.candidates(lambda: side.called_each(subject.specs, records, subject.call), compared=False),
    )
    return BenchmarkCase([*candidates, *theirs], candidates[0].name, "sequence", len(sequences), left_out)


_CASES = {
    "step": _streaming_case,
    "chunk": _streaming_case,
    "stream": _sequence_case,
    "batch": _batch_case,
    "sequence": _batch_case,
    "pool": _pool_case,
    "map": _map_case,
}


def _step_case(
    candidates: tuple[list[Candidate], dict[str, str]], point: Point, baseline: str = PLAIN
) -> BenchmarkCase:
    timed, left_out = candidates
    return BenchmarkCase(timed, baseline, "step", point.batch * point.time, left_out)


def _with_torch(
    subject: BenchmarkSubject, candidates: list[Candidate], feeds: Arrays, *, carried: bool
) -> tuple[list[Candidate], dict[str, str]]:
    def make(side: TorchSide) -> list[Candidate]:
        if subject.spec is None:
            return side.candidates(lambda: side.called(subject.specs, feeds, subject.call), compared=False)
        run = side.carried if carried else side.whole
        return side.candidates(lambda: run(feeds["input"]))

    theirs, left_out = _torch(subject, make)
    return [*candidates, *theirs], left_out


def _torch(
    subject: BenchmarkSubject, make: Callable[[TorchSide], list[Candidate]]
) -> tuple[list[Candidate], dict[str, str]]:
    """PyTorch's candidates, or the reason why there are none."""
    if subject.torch is None:
        return [], {EAGER: subject.no_torch}
    try:
        return make(subject.torch), {}
    except LSTMOnnxError as error:
        return [], {EAGER: str(error)}


def _carried_plain(
    subject: BenchmarkSubject, feeds: Arrays, start: Mapping[str, np.ndarray]
) -> Callable[[], list[Any]]:
    """A plain session that gets the same input each time, and its own states of the previous call."""
    opened = subject.opened
    current = {**subject.session_feeds(opened, feeds, start), **start}
    names = [output.name for output in opened.session.get_outputs()]
    pairs = [(source, names.index(target)) for source, target in opened.model.states.items()]
    run = opened.session.run

    def step() -> list[Any]:
        results: list[Any] = run(None, current)
        for source, index in pairs:
            current[source] = results[index]
        return results

    return step


def _padded_batches(opened: OpenedModel, sequences: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """Batches in arrival order, padded with zeros, with their lengths."""
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


def _one_by_one(opened: OpenedModel, sequences: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
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


def _first_output(subject: BenchmarkSubject, result: Any) -> np.ndarray:
    """The first output that is not a state, from what a candidate's `run` returned."""
    name = stream_outputs(subject.model)[0]
    if isinstance(result, dict):
        return np.asarray(result[name])
    if isinstance(result, np.ndarray):
        return result
    # A plain session returns a list of all outputs; a bare LSTM called like nn.LSTM returns (output, states).
    return np.asarray(result[0 if isinstance(result, tuple) else list(subject.model.outputs).index(name)])


def _first(subject: BenchmarkSubject) -> Callable[[Any], np.ndarray]:
    return functools.partial(_first_output, subject)


def _first_outputs(subject: BenchmarkSubject) -> Callable[[list[Any]], np.ndarray]:
    return lambda results: np.concatenate([_first_output(subject, result).reshape(-1) for result in results])


def _rows_first_output(axis: int) -> Callable[[Any], np.ndarray]:
    """A batch's output, row by row."""
    return lambda result: np.moveaxis(np.asarray(result), axis, 0).reshape(-1)


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(output).reshape(-1) for output in outputs])
