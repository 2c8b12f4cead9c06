"""Makes the cases of a bare nn.LSTM from a seed: shapes, states, lengths and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...spec import LSTMSpec
from ..amplify import InputGains
from ..cases import FEW_AND_MANY, FEW_AND_SOME, SHAPES, Case, compositions, value_cases
from ..sizes import MOST_NUMBERS, MOST_WORK

LONG = (2, 60)
"""One more shape for an nn.LSTM, which shows how errors grow."""
_CHUNKINGS = ((12,), (1,) * 12, (5, 5, 2), (1, 4, 7), (11, 1))
"""Ways to cut 12 steps into chunks."""
_KINDS = 24
"""The number of kinds of values."""
_LARGEST_FOLDED_H0 = 1.0
"""The largest factor of h0 if W_hr is folded into R: h0 then passes through an inverse, which amplifies rounding."""


def lstm_cases(
    spec: LSTMSpec,
    *,
    lengths: bool,
    streams: bool = False,
    seed: int = 0,
    gains: InputGains | None = None,
    shapes: Sequence[tuple[int, int]] = (*SHAPES, LONG),
) -> list[Case]:
    """The cases of a bare nn.LSTM.

    Each of `shapes` with explicit states, then cases without states, with varied lengths, and with amplified inputs.

    Args:
        spec: the LSTM's sizes.
        lengths: whether the file takes lengths.
        streams: whether to add streamed cases: every chunking of a short sequence and some of a longer one, with
            explicit states and without, and the rows of a batch as streams of a pool.
        seed: of the random values.
        gains: the factors of amplified inputs.
        shapes: (batch, time) pairs.
    """
    rng = np.random.default_rng(seed)
    cases = [draw_case(spec, rng, batch, time) for batch, time in shapes]
    cases += [draw_case(spec, rng, batch, time, states=False) for batch, time in ((1, 7), (3, 7))]
    if lengths:
        cases += [draw_case(spec, rng, batch, time, lengths=True) for batch, time in ((1, 7), (3, 7), (5, 12))]
        cases.append(draw_case(spec, rng, 3, 7, states=False, lengths=True))
    if gains is not None and gains.needed:
        factors: dict[str, float | np.ndarray] = {"input": gains.input, "h0": gains.h0}
        cases += [
            draw_case(spec, rng, batch, time).multiplied("amplified", factors) for batch, time in ((3, 1), (3, 7))
        ]
    if streams:
        every, some, pooled = (
            draw_case(spec, rng, 3, 7),
            draw_case(spec, rng, 1, 12, states=False),
            draw_case(spec, rng, 3, 5, states=False),
        )
        cases += [
            replace(every, label=f"{every.label}, every chunking", kind="chunks", chunkings=tuple(compositions(7))),
            replace(some, label=f"{some.label}, some chunkings", kind="chunks", chunkings=_CHUNKINGS),
            replace(pooled, label=f"{pooled.label}, in a pool", kind="pool"),
        ]
    return cases


def lstm_value_cases(spec: LSTMSpec, gain: float, seed: int = 0, *, folded: bool = False) -> Iterator[Case]:
    """Zero, small, one-signed and large values for a bare nn.LSTM, of input, states and both; see `value_cases`.

    `folded` says whether the file may have its projections folded into R.
    """
    largest = {"h0": _LARGEST_FOLDED_H0} if folded else {}
    axes = {"h0": 1, "c0": 1}, {"input": int(spec.batch_first)}
    rng = np.random.default_rng([seed, 3])
    for batch, time in ((3, 4), *_value_sizes(spec)):
        case = draw_case(spec, rng, batch, time)
        yield from value_cases(case, (), ("h0", "c0"), gain, spec.dtype, largest, *axes)


def _value_sizes(spec: LSTMSpec) -> Sequence[tuple[int, int]]:
    """Further sizes for every kind of values, small enough to take no longer than a sweep."""
    batch, time = FEW_AND_MANY[-1]
    numbers = batch * time * spec.num_directions * spec.hidden_size
    weights = 4 * spec.num_layers * spec.num_directions * spec.hidden_size * (spec.input_size + 2 * spec.hidden_size)
    large = _KINDS * batch * time * weights > MOST_WORK or _KINDS * numbers > MOST_NUMBERS
    return FEW_AND_SOME if large else FEW_AND_MANY


def amplified_cases(spec: LSTMSpec, *, lengths: bool, seed: int = 0) -> list[Case]:
    """The cases for a bare nn.LSTM with amplified weights; in the last of them, rounding has not grown yet."""
    rng = np.random.default_rng(seed)
    cases = [draw_case(spec, rng, 8, 7), draw_case(spec, rng, 8, 12, states=False), draw_case(spec, rng, 32, 2)]
    if lengths:
        cases.append(draw_case(spec, rng, 8, 7, lengths=True))
    return [replace(case, label=f"weights amplified, {case.label}") for case in cases]


def draw_case(
    spec: LSTMSpec, rng: np.random.Generator, batch: int, time: int, *, states: bool = True, lengths: bool = False
) -> Case:
    """Random inputs of these sizes for a bare nn.LSTM, with states and lengths or without."""
    x = rng.standard_normal(spec.sequence_shape(batch, time, spec.input_size)).astype(spec.dtype)
    feeds = {"input": x}
    label = f"batch {batch}, time {time}, {'states' if states else 'no states'}"
    if states:
        # Never zero: with x = h0 = 0 a wrong weight has no effect.  h is within tanh's range, c is not bounded.
        feeds["h0"] = np.tanh(rng.standard_normal(spec.h_shape(batch))).astype(spec.dtype)
        feeds["c0"] = rng.standard_normal(spec.c_shape(batch)).astype(spec.dtype)
    if lengths:
        counts = rng.integers(1, time + 1, batch).astype(np.int32)
        # One sequence is always shorter and, in a batch, another one has full length.
        counts[0] = time // 2
        counts[1:2] = time
        feeds["lengths"] = counts
        label += f", lengths {' '.join(map(str, counts))}"
    return Case(label, feeds)
