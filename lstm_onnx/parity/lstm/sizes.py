"""Compares a bare nn.LSTM at every size of an axis, at the cost of a few runs of PyTorch.

The rows of a batch are independent, so one large batch has the outputs of every smaller one; and in a batch of
packed sequences of different lengths each has the outputs that it would have alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from ...spec import LSTMSpec
from ..cases import Case
from ..comparison import Models
from ..expected import Arrays, Call, Expected, with_least_errors
from ..sizes import DENSE_BATCH, LARGEST_TIME, LONG, MOST_NUMBERS, MOST_WORK, SEVERAL_ROWS, Axes, spans
from .cases import draw_case
from .reference import Outputs, run_torch

_STEPS = 3
"""Time steps of the sweep over batch sizes."""
_LEAST_STEPS = 200
"""The least total number of steps of the sweep over time, without the long case, for any model."""
_MOST_STEPS = 16_000
_LARGEST_BATCH = 1024
_SHORT = 64


def _run(models: Models[nn.LSTM], feeds: Arrays) -> tuple[Outputs, Outputs]:
    """PyTorch's outputs in the native precision, and in float64."""
    return run_torch(models.native, feeds), run_torch(models.float64, feeds)


def batch_sweep(
    models: Models[nn.LSTM], spec: LSTMSpec, *, axes: Axes, lengths: bool, seed: int
) -> tuple[Case, list[Call]]:
    """One call for each batch size: the first rows of the largest batch."""
    layers = spec.num_layers * spec.num_directions
    row = _STEPS * spec.output_size + layers * (spec.hidden_size + (spec.proj_size or spec.hidden_size))
    weights = _weights(models.float64)
    sizes = axes.to_try(
        "batch",
        lambda size: size * _STEPS * weights,
        max(MOST_WORK, 100 * _STEPS * weights),
        first=(64,),
        largest=min(max(MOST_NUMBERS // row, 64), _LARGEST_BATCH),
        dense=DENSE_BATCH,
    )
    steps = axes.within("time", _STEPS)
    case = draw_case(spec, np.random.default_rng([seed, 1]), max(sizes), steps, lengths=lengths)
    native, reference = _run(models, case.feeds)
    calls = []
    for size in sizes:
        feeds, own, float64 = (
            {name: _take(name, array, 0, size, spec) for name, array in arrays.items()}
            for arrays in (case.feeds, native, reference)
        )
        calls.append(Call(feeds, own, float64, f"batch {size}"))
    return replace(case, label=f"every batch of {spans(sizes)}, time {steps}", kind="sweep"), calls


def time_sweep(models: Models[nn.LSTM], spec: LSTMSpec, *, axes: Axes, seed: int) -> tuple[Case, list[Call]]:
    """One call for each number of time steps: the first steps of the same sequence."""
    most = min(max(MOST_WORK / _weights(models.float64), _LEAST_STEPS + LONG), _MOST_STEPS)
    if spec.bidirectional:  # the first steps of a longer sequence have other outputs
        most = min(most, max(MOST_NUMBERS // spec.output_size, _LEAST_STEPS + LONG))
    sizes = axes.to_try("time", float, float(most), first=(LONG,), largest=LARGEST_TIME)
    batch = axes.within("batch", 1)
    longest = draw_case(spec, np.random.default_rng([seed, 2]), batch, max(sizes))
    calls = []
    whole = _run(models, longest.feeds)
    axis = 1 if spec.batch_first else 0
    for group in _groups(sizes):
        packed = _run(models, _as_one_batch(longest.feeds, group, spec))
        for at, size in enumerate(group):
            feeds = {**longest.feeds, "input": longest.feeds["input"].take(range(size), axis=axis)}
            outputs: list[Outputs] = []
            for part, one in zip(packed, whole, strict=True):
                taken = {name: _take(name, array, at * batch, batch, spec) for name, array in part.items()}
                # The outputs of the longest run, which a golden file then stores once.
                source = taken["output"] if spec.bidirectional else one["output"]
                outputs.append({**taken, "output": source[(slice(None),) * axis + (slice(size),)]})
            calls.append(Call(feeds, outputs[0], outputs[1], f"time {size}"))
    return replace(longest, label=f"batch {batch}, every time of {spans(sizes)}", kind="sweep"), calls


def several_rows(
    models: Models[nn.LSTM], spec: LSTMSpec, *, axes: Axes, lengths: bool, seed: int
) -> tuple[Case, list[Call]]:
    """Several long sequences in a call, of different lengths where the file takes lengths."""
    rng = np.random.default_rng([seed, 4])
    weights, numbers = _weights(models.float64), 0
    calls: list[Call] = []
    for batch, time in SEVERAL_ROWS:
        size = axes.within("batch", batch), axes.within("time", time)
        numbers += size[0] * size[1]
        if calls and numbers > min(max(MOST_WORK / weights, _LEAST_STEPS), MOST_NUMBERS / spec.output_size):
            break
        case = draw_case(spec, rng, *size, lengths=lengths)
        native, reference = _run(models, case.feeds)
        calls.append(Call(case.feeds, native, reference, f"batch {size[0]}, time {size[1]}"))
    return replace(case, label=f"{len(calls)} larger sizes of batch and time together", kind="sweep"), calls


def conclusive_calls(expected: Expected) -> Expected | None:
    """`expected` with its conclusive calls; None where there is none."""
    calls = [call for call in expected.calls if call.conclusive(expected.dtype)]
    return replace(expected, calls=with_least_errors(calls, expected.dtype)) if calls else None


def _weights(module: nn.LSTM) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _take(name: str, array: np.ndarray, start: int, size: int, spec: LSTMSpec) -> np.ndarray:
    """Rows of the batch, as a view."""
    axis = 0 if name == "lengths" or (spec.batch_first and name in ("input", "output")) else 1
    return array[(slice(None),) * axis + (slice(start, start + size),)]


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Short sizes and long ones apart, so that most of a batch is not padding."""
    for group in ([size for size in sizes if size <= _SHORT], [size for size in sizes if size > _SHORT]):
        if group:
            yield group


def _as_one_batch(feeds: Arrays, times: Sequence[int], spec: LSTMSpec) -> Arrays:
    """The first steps of a sequence, once for each of `times`, as one batch of packed sequences."""
    axis = 1 if spec.batch_first else 0
    x = feeds["input"].take(range(max(times)), axis=axis)
    tiles = (len(times), 1, 1) if spec.batch_first else (1, len(times), 1)
    states = {name: np.tile(feeds[name], (1, len(times), 1)) for name in ("h0", "c0")}
    lengths = np.repeat(np.array(times, np.int32), x.shape[1 - axis])
    return {"input": np.tile(x, tiles), **states, "lengths": lengths}
