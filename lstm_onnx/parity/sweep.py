"""What is compared: a sweep of shapes, states and lengths, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spec import LSTMSpec

SHAPES = ((1, 1), (3, 1), (1, 7), (3, 7), (5, 12))
"""(batch, time): both alone, each alone, and two shapes, so that nothing baked in can pass."""


@dataclass(frozen=True)
class Case:
    """One comparison's inputs.

    input ``(time, batch, I)`` or batch first as the spec says; states (h0, c0) or None; lengths
    int32 ``(batch,)`` or None.
    """

    label: str
    input: np.ndarray
    states: tuple[np.ndarray, np.ndarray] | None
    lengths: np.ndarray | None

    def feeds(self) -> dict[str, np.ndarray]:
        """The arrays by the file's input names, absent ones left out."""
        feeds = {"input": self.input}
        if self.states is not None:
            feeds["h0"], feeds["c0"] = self.states
        if self.lengths is not None:
            feeds["lengths"] = self.lengths
        return feeds


def cases(spec: LSTMSpec, *, lengths: bool, seed: int = 0) -> list[Case]:
    """Every shape of `SHAPES` with explicit states, then absent states, then lengths that differ."""
    rng = np.random.default_rng(seed)
    made = [_case(spec, rng, batch, time) for batch, time in SHAPES]
    made += [_case(spec, rng, batch, time, states=False) for batch, time in ((1, 7), (3, 7))]
    if lengths:
        made += [_case(spec, rng, batch, time, lengths=True) for batch, time in ((1, 7), (3, 7), (5, 12))]
        made.append(_case(spec, rng, 3, 7, states=False, lengths=True))
    return made


def _case(
    spec: LSTMSpec, rng: np.random.Generator, batch: int, time: int, *, states: bool = True, lengths: bool = False
) -> Case:
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
