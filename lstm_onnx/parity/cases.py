"""What is compared: a sweep of shapes, states and lengths, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..exporter.weights import StateDict
from ..spec import LSTMSpec, direction_suffixes

SHAPES = ((1, 1), (3, 1), (3, 2), (1, 7), (3, 7), (5, 12))
"""(batch, time): both alone, each alone, the shortest with an order in time, and two larger ones.

So nothing that is baked in can pass.
"""


LONG = (2, 60)
"""For an nn.LSTM one more, on which it shows how errors grow."""


@dataclass(frozen=True)
class Case:
    """One comparison's inputs.

    input ``(time, batch, I)`` or batch first as the spec says; states (h0, c0) or None; lengths
    int32 ``(batch,)`` or None.  `kind` and `chunkings` are as in `expected.Expected`.
    """

    label: str
    input: np.ndarray
    states: tuple[np.ndarray, np.ndarray] | None
    lengths: np.ndarray | None
    kind: str = "whole"
    chunkings: tuple[tuple[int, ...], ...] = ()

    def feeds(self) -> dict[str, np.ndarray]:
        """The arrays by the file's input names, absent ones left out."""
        feeds = {"input": self.input}
        if self.states is not None:
            feeds["h0"], feeds["c0"] = self.states
        if self.lengths is not None:
            feeds["lengths"] = self.lengths
        return feeds


@dataclass(frozen=True)
class Gains:
    """What x and h0 must be multiplied by for the gates of a quiet model to move.

    With weights of 0.001 every gate is 0.5 to within rounding, and two of them could be exchanged
    without a trace.  `input` is for x; `h0`, ``(L*D, 1, 1)``, for each layer and direction.
    """

    input: float
    h0: np.ndarray

    @property
    def needed(self) -> bool:
        """Whether the model is quiet at all."""
        return max(self.input, float(self.h0.max())) > _QUIET


_CHUNKINGS = ((12,), (1,) * 12, (5, 5, 2), (1, 4, 7), (11, 1))
"""Of 12 steps."""
_QUIET = 4.0
_MAX_GAIN = {"float16": 2.0**8, "float32": 2.0**12, "float64": 2.0**12}
"""float16 ends at 65504, and the products of a loud input must stay below it."""


def gains(spec: LSTMSpec, state: StateDict) -> Gains:
    """The gains at which ``W x`` of the first layer and ``R h0`` of every layer are about 1."""

    def gain(name: str) -> float:
        weight = state[name].astype(np.float64)
        size = float(np.sqrt(np.mean(weight**2) * weight.shape[1]))
        wanted = 1 / size if size > 0 else 1.0
        return min(max(wanted, 1.0), _MAX_GAIN[spec.dtype]) if np.isfinite(wanted) else 1.0

    suffixes = direction_suffixes(spec.bidirectional)
    per_layer = [gain(f"weight_hh_l{layer}{suffix}") for layer in range(spec.num_layers) for suffix in suffixes]
    return Gains(gain("weight_ih_l0"), np.array(per_layer).reshape(-1, 1, 1))


def cases(
    spec: LSTMSpec,
    *,
    lengths: bool,
    streams: bool = False,
    seed: int = 0,
    loud: Gains | None = None,
    shapes: Sequence[tuple[int, int]] = (*SHAPES, LONG),
) -> list[Case]:
    """Each of `shapes` with explicit states, then absent states, lengths that differ, and loud inputs.

    With `streams` also every chunking of a short sequence and some of a longer one, with and without
    explicit states, and the rows of a batch as streams of a pool.
    """
    rng = np.random.default_rng(seed)
    made = [drawn_case(spec, rng, batch, time) for batch, time in shapes]
    made += [drawn_case(spec, rng, batch, time, states=False) for batch, time in ((1, 7), (3, 7))]
    if lengths:
        made += [drawn_case(spec, rng, batch, time, lengths=True) for batch, time in ((1, 7), (3, 7), (5, 12))]
        made.append(drawn_case(spec, rng, 3, 7, states=False, lengths=True))
    if loud is not None and loud.needed:
        made += [_amplified(drawn_case(spec, rng, batch, time), loud) for batch, time in ((3, 1), (3, 7))]
    if streams:
        every, some, pooled = (
            drawn_case(spec, rng, 3, 7),
            drawn_case(spec, rng, 1, 12, states=False),
            drawn_case(spec, rng, 3, 5, states=False),
        )
        made += [
            replace(every, label=f"{every.label}, every chunking", kind="chunks", chunkings=tuple(compositions(7))),
            replace(some, label=f"{some.label}, some chunkings", kind="chunks", chunkings=_CHUNKINGS),
            replace(pooled, label=f"{pooled.label}, in a pool", kind="pool"),
        ]
    return made


_LARGE = (10.0, 1000.0)
"""What drawn inputs and states are multiplied by, to be large and to be huge."""
_LARGEST_HALF = 100.0
"""The same in float16, which ends at 65504."""


_LARGEST_FOLDED = 1.0
"""The same of h0 where W_hr is folded into R: it then goes through an inverse, whose rounding grows with it."""


def value_cases(spec: LSTMSpec, state: StateDict, seed: int = 0, *, folded: bool = False) -> list[Case]:
    """Zeros, numbers of one sign, and large ones: of the input, of the states, and of all.

    `folded` is whether the file may have its projections folded into R.

    A huge input of a quiet model is larger by its gain, so that the gates are moved past where an operator
    may clip them.
    """
    rng = np.random.default_rng([seed, 3])
    large, huge = (min(size, _LARGEST_HALF) if spec.dtype == "float16" else size for size in _LARGE)
    gain = gains(spec, state).input
    huge = max(huge, 30 * gain)

    def case(label: str, x: float, states: float, sign: int = 0) -> Case:
        drawn = drawn_case(spec, rng, 3, 4)
        assert drawn.states is not None  # noqa: S101 - drawn with them

        def made(array: np.ndarray, size: float) -> np.ndarray:
            signed = sign * np.abs(array) if sign else array
            # Adding 0 makes 0 of what would be -0.
            return (signed.astype(np.float64) * size + 0.0).astype(array.dtype)

        h0, c0 = drawn.states
        h_size = min(states, _LARGEST_FOLDED) if folded else states
        return Case(
            f"{drawn.label}, {label}", made(drawn.input, x), (made(h0, h_size), made(c0, states)), None, "values"
        )

    return [
        case("all zeros", 0, 0),
        case("input zeros", 0, 1),
        case("states zeros", 1, 0),
        case("all positive", 1, 1, 1),
        case("all negative", 1, 1, -1),
        case("large input", large, 1),
        case("huge input", huge, 1),
        case("huge positive input", huge, 1, 1),
        case("large states", 1, large),
        case("large positive states", 1, large, 1),
        case("large negative states", 1, large, -1),
        case("huge states", 1, _LARGEST_HALF if spec.dtype == "float16" else _LARGE[1]),
    ]


def loud_cases(spec: LSTMSpec, *, lengths: bool, seed: int = 0) -> list[Case]:
    """What a quiet model is compared on with its weights made loud; in the last, rounding has not grown yet."""
    rng = np.random.default_rng(seed)
    made = [drawn_case(spec, rng, 8, 7), drawn_case(spec, rng, 8, 12, states=False), drawn_case(spec, rng, 32, 2)]
    if lengths:
        made.append(drawn_case(spec, rng, 8, 7, lengths=True))
    return [replace(case, label=f"weights made loud, {case.label}") for case in made]


def compositions(total: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut `total` steps into chunks, 2^(total - 1) of them."""
    if total == 0:
        yield ()
    for first in range(total, 0, -1):
        for rest in compositions(total - first):
            yield (first, *rest)


def _amplified(case: Case, loud: Gains) -> Case:
    assert case.states is not None  # noqa: S101 - the caller's cases have them
    h0, c0 = case.states
    dtype = h0.dtype
    return Case(
        f"{case.label}, loud", (case.input * loud.input).astype(dtype), ((h0 * loud.h0).astype(dtype), c0), None
    )


def drawn_case(
    spec: LSTMSpec, rng: np.random.Generator, batch: int, time: int, *, states: bool = True, lengths: bool = False
) -> Case:
    """Inputs of these sizes."""
    x = rng.standard_normal(spec.sequence_shape(batch, time, spec.input_size)).astype(spec.dtype)
    pair = None
    if states:
        # Never zero: with x = h0 = 0 a wrong weight has nothing to act on.  h as tanh leaves it, c freely.
        pair = (
            np.tanh(rng.standard_normal(spec.h_shape(batch))).astype(spec.dtype),
            rng.standard_normal(spec.c_shape(batch)).astype(spec.dtype),
        )
    own = None
    if lengths:
        own = rng.integers(1, time + 1, batch).astype(np.int32)
        # One sequence is always cut, and in a batch another is whole.
        own[0] = time // 2
        own[1:2] = time
    parts = [f"batch {batch}", f"time {time}"]
    parts.append("states" if states else "no states")
    if own is not None:
        parts.append(f"lengths {' '.join(map(str, own))}")
    return Case(", ".join(parts), x, pair, own)
