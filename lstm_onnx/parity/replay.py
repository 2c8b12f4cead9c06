"""Runs a file on a case: in one call, in chunks through a stream, or in slots of a pool."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..runtime import Model
from ..runtime.chunk_check import cut, taken
from ..runtime.chunks import concatenated, joined
from ..runtime.counts import require_whole_chunks
from ..runtime.pool.pool import Pool
from ..runtime.pool.state_memory import Slot
from .expected import Arrays, Call, Expected, abbreviated
from .results import CaseResult

_SLOTS = 2
"""The number of slots of the pool, fewer than the rows, so that a slot is reused."""


def replay(model: Model, expected: Expected) -> CaseResult:
    """Run `model` on a case and compare its outputs; if the run raises an error, the result fails."""
    try:
        with warnings.catch_warnings():
            if expected.kind != "data":  # a NaN can only be in states that a wrong file returned
                warnings.filterwarnings("ignore", ".* has a NaN", RuntimeWarning)
            if expected.kind == "chunks":
                return _run_chunks(model, expected)
            if expected.kind == "pool":
                return expected.judge(_run_pool(model, expected))
            if expected.kind == "sweep":
                return _run_sweep(model, expected)
            return expected.judge([expected.compared(model.run(call.feeds)) for call in expected.calls])
    except (InputError, RunError) as error:
        return CaseResult(expected.label, error=str(error), kind=expected.kind)


def passes(model: Model, expected: Expected, calls: tuple[Call, ...]) -> bool:
    """Whether a file passes some calls of a case, or these cannot be judged."""
    result = replay(model, replace(expected, calls=calls))
    return result.passed or result.inconclusive


def _run_sweep(model: Model, expected: Expected) -> CaseResult:
    """Run each call separately; report the first error, if any."""
    outputs: list[Arrays] = []
    errors: dict[str, str] = {}
    for call in expected.calls:
        try:
            outputs.append(expected.compared(model.run(call.feeds)))
        except (InputError, RunError) as error:
            errors[call.label] = str(error)
    if errors:
        label = f"{expected.label}: {abbreviated(list(errors), len(expected.calls))}"
        return CaseResult(label, error=next(iter(errors.values())), kind=expected.kind)
    # Curves over time are computed only for failures, since there are many calls.
    result = replace(expected, time_axes={}).judge(outputs)
    return result if result.passed or not expected.time_axes else expected.judge(outputs)


def _run_chunks(model: Model, expected: Expected) -> CaseResult:
    """Run all chunkings one after the other through a single stream; return the worst result."""
    first = expected.calls[0].feeds
    streaming = model.metadata.streaming
    stream = model.stream(batch=expected.batch, check=False)
    initial = {name: first[name] for name in model.states if name in first}

    def run(parts: Iterable[Arrays]) -> list[dict[str, Any]]:
        stream.reset()
        if initial:
            stream.state = {**stream.state, **initial}
        outputs = []
        for part in parts:
            outputs.append(dict(stream.run({name: array for name, array in part.items() if name not in model.states})))
            state = stream.state
            if streaming is not None:  # saved and restored
                stream.state = state
            outputs[-1] |= {output: state[name] for name, output in model.states.items()}
        if streaming is not None:
            stream_rest = stream.flush()
            state = stream.state
            outputs.append(stream_rest | {output: state[name] for name, output in model.states.items()})
        return outputs

    if not expected.chunkings:
        return expected.judge(run(call.feeds for call in expected.calls))
    results = []
    for chunking in expected.chunkings:
        outputs = joined(run(cut(first, expected.time_axes, chunking)), expected.time_axes)
        result = expected.judge([outputs])
        if not result.passed:
            result = replace(result, label=f"{result.label}, {'+'.join(map(str, chunking))}")
        results.append(result)
    # An output that cannot be judged must not hide another one that fails, whatever its ratio.
    return max(results, key=lambda result: (not (result.passed or result.inconclusive), result.ratio))


def _row(name: str, array: np.ndarray, at: int, axis: int) -> np.ndarray:
    """A row of the batch.

    Raises:
        RunError: the output does not have this row, since the file is wrong.
    """
    try:
        return np.take(array, [at], axis=axis)
    except IndexError as error:
        raise RunError(f"{name} has shape {np.shape(array)}, but no row {at} along axis {axis}") from error


def _run_pool(model: Model, expected: Expected) -> list[dict[str, np.ndarray]]:
    """Run each row of the batch as its own stream, started and paused at different times, in reused slots."""
    single = len(expected.calls) == 1
    if single:
        feeds = expected.calls[0].feeds
        name = next(iter(set(expected.time_axes) & set(feeds)))
        time = feeds[name].shape[expected.time_axes[name]]
        streaming = model.metadata.streaming_or_default
        require_whole_chunks(streaming, {name: time})
        unit = streaming.chunk
        steps: list[Arrays] = list(cut(feeds, expected.time_axes, [unit] * (time // unit)))
    else:
        steps = [call.feeds for call in expected.calls]
    axes = expected.batch_axes
    inputs = [{name: array for name, array in step.items() if name not in model.states} for step in steps]
    rows = _rows(model, inputs, axes, expected.batch)
    if single:  # each row as a whole, since the number of steps per call may depend on the place in the sequence
        return [_batch([joined(row, expected.time_axes) for row in rows], axes)]
    return [_batch([row[at] for row in rows], axes) for at in range(len(steps))]


def _batch(rows: Sequence[dict[str, Any]], axes: Mapping[str, int]) -> dict[str, Any]:
    return {name: concatenated(name, [row[name] for row in rows], axes[name]) for name in rows[0] if name in axes}


def _rows(
    model: Model, steps: list[dict[str, np.ndarray]], axes: Mapping[str, int], batch: int
) -> list[list[dict[str, np.ndarray]]]:
    """The outputs of each row, step by step and at its end, with the states after each under their outputs' names.

    As in a `Batcher`, slots of the same phase are stepped together.
    """
    pool = model.pool(slots=min(_SLOTS, batch), check=False)
    ends = model.metadata.streaming_or_default.last is not None
    waiting = list(range(batch))
    streams: dict[int, Any] = {}
    done: list[list[dict[str, np.ndarray]]] = [[] for _ in range(batch)]
    tick = 0
    while waiting or streams:
        if waiting and len(streams) < pool.slots:
            streams[waiting[0]] = pool.open()
            waiting.pop(0)
        # Odd rows pause at every third tick; their states must not change meanwhile.
        active = [row for row in streams if not (row % 2 and tick % 3 == 2)] or list(streams)
        for together in _of_one_phase(pool, streams, active):
            x = {
                name: np.concatenate(
                    [np.take(steps[len(done[row])][name], [row], axis=axes[name]) for row in together], axes[name]
                )
                for name in steps[0]
            }
            y = pool.step([streams[row] for row in together], x)
            for at, row in enumerate(together):
                state = pool.state(streams[row])
                outputs = {name: _row(name, array, at, axes[name]) for name, array in y.items() if name in axes}
                done[row].append(outputs | {output: state[name] for name, output in model.states.items()})
        for row in [row for row in streams if len(done[row]) == len(steps)]:
            if ends:
                given = {name: np.take(array, [row], axis=axes[name]) for name, array in steps[-1].items()}
                done[row].append(_end_of(model, pool.state(streams[row]), given))
            pool.close(streams.pop(row))
        tick += 1
    return done


def _of_one_phase(pool: Pool, streams: Mapping[int, Slot], rows: Iterable[int]) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(pool.phase(streams[row]), []).append(row)
    return list(found.values())


def _end_of(model: Model, state: Arrays, last: Arrays) -> dict[str, np.ndarray]:
    """The outputs after a stream's last step, which only a `Stream` returns, so one gets the slot's state."""
    stream = model.stream(check=False)
    stream.state = state
    stream.run(taken(last, model.metadata.streaming_or_default.time, range(0)))  # passes the inputs without steps, too
    rest = stream.flush()
    ended = stream.state
    return {**rest, **{output: ended[name] for name, output in model.states.items()}}
