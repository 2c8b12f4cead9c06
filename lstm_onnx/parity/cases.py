"""The cases that a file is compared on: shapes, states, lengths and values, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..input_spec import InputSpec, axes
from ..spec import LSTMSpec
from .amplify import InputGains
from .expected import Arrays

SHAPES = ((1, 1), (3, 1), (3, 2), (1, 7), (3, 7), (5, 12))
"""(batch, time): both 1, each 1, the shortest with an order in time, and two larger ones.

With these, a size that is baked into the file is always seen.
"""
LONG = (2, 60)
"""One more shape for an nn.LSTM, which shows how errors grow."""
_CHUNKINGS = ((12,), (1,) * 12, (5, 5, 2), (1, 4, 7), (11, 1))
"""Chunkings of 12 steps."""
_LARGE, _HUGE, _LARGEST_HALF = 10.0, 1000.0, 100.0
"""Factors that make drawn values large and huge, and the largest in float16, which ends at 65504."""
_LARGEST_FOLDED_H0 = 1.0
"""The largest factor of h0 where W_hr is folded into R: h0 then passes through an inverse, which amplifies rounding."""


@dataclass(frozen=True)
class Case:
    """One comparison's inputs, for a bare nn.LSTM.

    input ``(time, batch, I)``, or batch first as the spec says; states (h0, c0) or None; lengths
    int32 ``(batch,)`` or None.  `kind` and `chunkings` are those of `expected.Expected`.
    """

    label: str
    input: np.ndarray
    states: tuple[np.ndarray, np.ndarray] | None
    lengths: np.ndarray | None
    kind: str = "whole"
    chunkings: tuple[tuple[int, ...], ...] = ()

    def feeds(self) -> dict[str, np.ndarray]:
        """The arrays by the file's input names, without those that are None."""
        feeds = {"input": self.input}
        if self.states is not None:
            feeds["h0"], feeds["c0"] = self.states
        if self.lengths is not None:
            feeds["lengths"] = self.lengths
        return feeds

    def with_feeds(self, feeds: Arrays) -> Case:
        """The same case with other inputs and states, by the file's input names."""
        states = (feeds["h0"], feeds["c0"]) if "h0" in feeds else None
        return replace(self, input=feeds["input"], states=states, lengths=feeds.get("lengths"))


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
        cases += [_amplified(draw_case(spec, rng, batch, time), gains) for batch, time in ((3, 1), (3, 7))]
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
    """Zero, one-signed and large values for a bare nn.LSTM, of the input, the states and both; see `value_changes`.

    `folded` says whether the file may have its projections folded into R.
    """
    rng = np.random.default_rng([seed, 3])
    largest = {"h0": _LARGEST_FOLDED_H0} if folded else {}
    case = draw_case(spec, rng, 3, 4)
    for label, changed in value_changes((), ("h0", "c0"), case.feeds(), gain, spec.dtype, largest):
        yield replace(case.with_feeds({**case.feeds(), **changed}), label=f"{case.label}, {label}", kind="values")


def value_changes(
    specs: Sequence[InputSpec],
    states: Sequence[str],
    feeds: Arrays,
    gain: float,
    dtype: str,
    largest: Mapping[str, float] | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Labels, and the inputs and states that differ from drawn ones: zero, one-signed, large, at the end of a range.

    Args:
        specs: the inputs' specs; inputs with a range stay in it.
        states: the names of the inputs that are states.
        feeds: drawn inputs and states by name.
        gain: the factor that inputs of a model with small weights need; a huge input is 30 times that, so that
            gates pass the point where an operator may clip them.
        dtype: the model's.
        largest: the largest factor of some inputs.
    """
    ranged = {spec.name: spec for spec in specs if spec.low is not None}
    floats = [name for name, array in feeds.items() if array.dtype.kind == "f" and name not in ranged]
    inputs = [name for name in floats if name not in states]
    carried = [name for name in floats if name in states]
    most = _LARGEST_HALF if dtype == "float16" else _HUGE
    large, huge = min(_LARGE, most), max(most, 30 * gain)

    def scaled(names: Sequence[str], factor: float, sign: int) -> dict[str, np.ndarray]:
        limits = largest or {}
        return {name: _scaled(feeds[name], min(factor, limits.get(name, factor)), sign) for name in names}

    def ends(end: str) -> dict[str, np.ndarray]:
        limits = {name: getattr(spec, end) for name, spec in ranged.items() if name in feeds}
        open_axes = bool(axes(specs))
        changed = {
            name: np.full_like(feeds[name], limit)
            for name, limit in limits.items()
            if open_axes and not isinstance(limit, str)
        }
        for name, array in changed.items():
            if isinstance(ranged[name].high, str):  # lengths, of which the longest fills the axis
                array.reshape(-1)[:1] = feeds[name].max(initial=0)
        return changed

    changes = (
        ("all zeros", floats, 0.0, 0),
        ("input zeros", inputs if carried else [], 0.0, 0),
        ("states zeros", carried, 0.0, 0),
        ("all positive", floats, 1.0, 1),
        ("all negative", floats, 1.0, -1),
        ("large input", inputs, large, 0),
        ("huge input", inputs, huge, 0),
        ("huge positive input", inputs, huge, 1),
        ("large states", carried, large, 0),
        ("large positive states", carried, large, 1),
        ("large negative states", carried, large, -1),
        ("huge states", carried, most, 0),
    )
    for label, names, factor, sign in changes:
        if names:
            yield label, scaled(names, factor, sign)
    for label, end in (("least", "low"), ("largest", "high")):
        if changed := ends(end):
            yield f"{label} of {', '.join(changed)}", changed


def _scaled(array: np.ndarray, factor: float, sign: int) -> np.ndarray:
    signed = sign * np.abs(array) if sign else array
    # Adding 0 turns -0 into 0.
    return np.asarray(signed * np.float64(factor) + 0.0, array.dtype)


def amplified_cases(spec: LSTMSpec, *, lengths: bool, seed: int = 0) -> list[Case]:
    """The cases for a bare nn.LSTM with amplified weights; in the last, rounding has not grown yet."""
    rng = np.random.default_rng(seed)
    cases = [draw_case(spec, rng, 8, 7), draw_case(spec, rng, 8, 12, states=False), draw_case(spec, rng, 32, 2)]
    if lengths:
        cases.append(draw_case(spec, rng, 8, 7, lengths=True))
    return [replace(case, label=f"weights amplified, {case.label}") for case in cases]


def compositions(total: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut `total` steps into chunks, 2^(total - 1) of them."""
    if total == 0:
        yield ()
    for first in range(total, 0, -1):
        for rest in compositions(total - first):
            yield (first, *rest)


def _amplified(case: Case, gains: InputGains) -> Case:
    feeds = case.feeds()
    changed = {"input": feeds["input"] * gains.input, "h0": feeds["h0"] * gains.h0}
    cast = {name: array.astype(feeds[name].dtype) for name, array in changed.items()}
    return replace(case.with_feeds({**feeds, **cast}), label=f"{case.label}, amplified")


def draw_case(
    spec: LSTMSpec, rng: np.random.Generator, batch: int, time: int, *, states: bool = True, lengths: bool = False
) -> Case:
    """Random inputs of these sizes for a bare nn.LSTM, with states and lengths or without."""
    x = rng.standard_normal(spec.sequence_shape(batch, time, spec.input_size)).astype(spec.dtype)
    pair = None
    if states:
        # Never zero: with x = h0 = 0 a wrong weight has nothing to act on.  h is in tanh's range, c is not bounded.
        pair = (
            np.tanh(rng.standard_normal(spec.h_shape(batch))).astype(spec.dtype),
            rng.standard_normal(spec.c_shape(batch)).astype(spec.dtype),
        )
    counts = None
    if lengths:
        counts = rng.integers(1, time + 1, batch).astype(np.int32)
        # One sequence is always shorter and, in a batch, another one has full length.
        counts[0] = time // 2
        counts[1:2] = time
    parts = [f"batch {batch}", f"time {time}"]
    parts.append("states" if states else "no states")
    if counts is not None:
        parts.append(f"lengths {' '.join(map(str, counts))}")
    return Case(", ".join(parts), x, pair, counts)
