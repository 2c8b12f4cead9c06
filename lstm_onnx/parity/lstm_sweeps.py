"""A bare nn.LSTM at every size of an axis, for the price of a few runs of PyTorch.

The rows of a batch do not know of each other, so that one large batch has the outputs of every smaller
one; and in a batch of packed sequences of different lengths each is as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ..spec import LSTMSpec
from .cases import Case, drawn_case
from .expected import Call, Expected, steadied
from .reference import Outputs, run_torch
from .sizes import LONG, Axes, spans

_STEPS = 3
"""Of the sweep over batch sizes."""
_MOST_WORK = 6e9
"""Multiplications of a sweep over one axis, in each of three runs (PyTorch twice, and the file)."""
_LEAST_STEPS = 200
"""Of the sweep over time, besides the long case, however large the model is."""
_MOST_STEPS = 16_000
_MOST_NUMBERS = 2**19
"""Of a sweep's outputs, so that a golden file stays small."""
_LARGEST_BATCH = 1024
_DENSE_BATCH = 33
_LONGEST = 513
_SHORT = 64


@dataclass(frozen=True)
class Pair:
    """An LSTM in its own precision and in float64, to be run on the same inputs."""

    own: nn.LSTM
    wide: nn.LSTM

    def run(self, case: Case) -> tuple[Outputs, Outputs]:
        """PyTorch's own outputs, and the references."""
        return run_torch(self.own, case), run_torch(self.wide, case)


def batch_sweep(
    pair: Pair,
    spec: LSTMSpec,
    *,
    axes: Axes,
    lengths: bool,
    seed: int,
) -> tuple[Case, list[Call]]:
    """One call for each batch size: the first rows of the largest batch."""
    layers = spec.num_layers * spec.num_directions
    row = _STEPS * spec.output_size + layers * (spec.hidden_size + (spec.proj_size or spec.hidden_size))
    weights = _weights(pair.wide)
    sizes = axes.to_try(
        "batch",
        lambda size: size * _STEPS * weights,
        max(_MOST_WORK, 100 * _STEPS * weights),
        first=(64,),
        largest=min(max(_MOST_NUMBERS // row, 64), _LARGEST_BATCH),
        dense=_DENSE_BATCH,
    )
    steps = axes.within("time", _STEPS)
    case = drawn_case(spec, np.random.default_rng([seed, 1]), max(sizes), steps, lengths=lengths)
    own, wide = pair.run(case)
    calls = []
    for size in sizes:
        feeds, mine, reference = (_rows(part, size, spec) for part in (case.feeds(), own, wide))
        calls.append(Call(feeds, mine, reference, f"batch {size}"))
    return replace(case, label=f"every batch of {spans(sizes)}, time {steps}", kind="sweep"), calls


def time_sweep(pair: Pair, spec: LSTMSpec, *, axes: Axes, seed: int) -> tuple[Case, list[Call]]:
    """One call for each number of time steps: the first steps of the same sequence."""
    weights = _weights(pair.wide)
    most = min(max(_MOST_WORK / weights, _LEAST_STEPS + LONG), _MOST_STEPS)
    if spec.bidirectional:  # each has outputs of its own, of which the first steps are not those of a longer one
        most = min(most, max(_MOST_NUMBERS // spec.output_size, _LEAST_STEPS + LONG))
    sizes = axes.to_try("time", float, float(most), first=(LONG,), largest=_LONGEST)
    batch = axes.within("batch", 1)
    longest = drawn_case(spec, np.random.default_rng([seed, 2]), batch, max(sizes))
    calls = []
    whole = pair.run(longest)
    axis = 1 if spec.batch_first else 0
    for group in _groups(sizes):
        own, wide = pair.run(_beside(longest, group, spec))
        for at, size in enumerate(group):
            feeds = {**longest.feeds(), "input": longest.input.take(range(size), axis=axis)}
            outputs: list[Outputs] = []
            for part, one in zip((own, wide), whole, strict=True):
                mine = {name: _take(name, array, at * batch, batch, spec) for name, array in part.items()}
                # Those of the longest run, which a golden file then keeps once.
                source = mine["output"] if spec.bidirectional else one["output"]
                outputs.append({**mine, "output": source[(slice(None),) * axis + (slice(size),)]})
            calls.append(Call(feeds, outputs[0], outputs[1], f"time {size}"))
    label = f"batch {batch}, every time of {spans(sizes)}"
    return replace(longest, label=label, kind="sweep"), calls


def judged(expected: Expected) -> Expected | None:
    """`expected` with the calls that say something; None where there is none."""
    calls = [call for call in expected.calls if call.tells(expected.dtype)]
    return replace(expected, calls=steadied(calls)) if calls else None


def _weights(module: nn.LSTM) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _rows(arrays: Mapping[str, np.ndarray], size: int, spec: LSTMSpec) -> dict[str, np.ndarray]:
    return {name: _take(name, array, 0, size, spec) for name, array in arrays.items()}


def _take(name: str, array: np.ndarray, start: int, size: int, spec: LSTMSpec) -> np.ndarray:
    """Rows of the batch, as a view."""
    axis = 0 if name == "lengths" or (spec.batch_first and name in ("input", "output")) else 1
    return array[(slice(None),) * axis + (slice(start, start + size),)]


def _groups(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Short sizes and long ones, so that not all of a batch is padding."""
    for group in ([size for size in sizes if size <= _SHORT], [size for size in sizes if size > _SHORT]):
        if group:
            yield group


def _beside(case: Case, times: Sequence[int], spec: LSTMSpec) -> Case:
    """The first steps of a case, once for each of `times`, as one batch of packed sequences."""
    axis = 1 if spec.batch_first else 0
    x = case.input.take(range(max(times)), axis=axis)
    assert case.states is not None  # noqa: S101 - drawn with them
    h, c = (np.tile(state, (1, len(times), 1)) for state in case.states)
    batch = x.shape[1 - axis]
    tiles = (len(times), 1, 1) if spec.batch_first else (1, len(times), 1)
    return Case("", np.tile(x, tiles), (h, c), np.repeat(np.array(times, np.int32), batch))
