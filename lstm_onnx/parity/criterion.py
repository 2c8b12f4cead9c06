"""When is an output right?  PyTorch's own rounding is the yardstick.

A fixed tolerance fails both ways: wrong graphs with small weights pass it, and right ones with large
weights do not.  What is compared here is the error against a float64 run of the same PyTorch module,
in units of the error that PyTorch itself makes in the model's own precision:

    max|actual - ref64|  <=  K * max( max|torch - ref64|, floor )

The floor is absolute and on the gates' scale, since a saturated gate may give exactly 0 in one library
and 6e-17 in the other: eps for h, which is within 1, eps times what a projection makes of that, and
eps * max(1, |c|) for c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

K = 32.0
"""Largest ratio that counts as parity.

Settled on samples like that of tests/parity/test_criterion_evidence.py, which draws right models and the weakest
of wrong ones (weights x0.001 to x4, H 1-64, L 1-4, up to 80 steps, both directions, projections, lengths, three
dtypes): run it with ``--models`` for its figures.  Of 60 models 4 479 right tensors had ratios of 0.2 in the middle
and 2.5 at most, and all of 3 331 wrong models were rejected.

An earlier sample of 300 float32 models had 6 714 right tensors
(median 0.13, p99 1.5, largest 6.5) and 600 wrong models, each above 90, and above 1000 but for weights of a few
thousandths, where all gates are nearly 0.5 (the sweep's loud inputs are for them).
"""
EPSILON = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""The spacing of numbers at 1, by dtype."""
_CHAOS = 2.0**13
"""Relative error of PyTorch itself, in units of EPSILON, past which a run says nothing (1e-3 in float32)."""
_COARSEST = 1 / (2 * K)
"""The same in units of the output's largest number: past it the bound is half of that number or more (float16)."""


MOST_BINS = 64
"""Of a heat map, along each axis."""


@dataclass(frozen=True)
class Growth:
    """How the error of an output runs along its time axis, for a curve and a heat map.

    `error` and `torch_error` hold for each time step the largest |actual - ref64| and PyTorch's own,
    over batch and features; above `bound` a step fails.  `heat[i][j]` is the largest error from step
    `steps[i]` and feature `features[j]` on to the next of each.
    """

    error: tuple[float, ...]
    torch_error: tuple[float, ...]
    bound: float
    steps: tuple[int, ...]
    features: tuple[int, ...]
    heat: tuple[tuple[float, ...], ...]

    @property
    def first(self) -> int | None:
        """The first step whose error is not within the bound."""
        return next((step for step, error in enumerate(self.error) if not error <= self.bound), None)


@dataclass(frozen=True)
class TensorResult:
    """One output in one case.

    `error` is max|actual - ref64|, `torch_error` PyTorch's own, `ratio` the error in units of the
    yardstick, which is also the K that this tensor would have needed, and `where` the index of the
    largest error.  `inconclusive` marks a run in which PyTorch's own error is too large to judge by.
    A wrong shape, a wrong dtype and a NaN that the reference does not have give an infinite ratio.
    `growth` is there for outputs that have a time axis.  `allowed` is the largest error that passes: K
    times the yardstick, which is PyTorch's own error or the floor, whichever is larger.
    """

    output: str
    error: float
    torch_error: float
    ratio: float
    where: tuple[int, ...]
    inconclusive: bool = False
    problem: str = ""
    growth: Growth | None = None
    allowed: float = math.nan

    @property
    def mismatched(self) -> bool:
        """Whether it is of another shape or dtype, so that its numbers were not compared."""
        return self.problem.startswith(("has shape", "has dtype"))

    @property
    def passed(self) -> bool:
        """Whether the ratio is within K; a NaN is not."""
        return self.ratio <= K


def compare(
    output: str,
    actual: np.ndarray,
    torch_own: np.ndarray,
    reference: np.ndarray,
    *,
    dtype: str,
    scale: float,
    least_error: float = 0.0,
    time_axis: int | None = None,
) -> TensorResult:
    """Judge `actual` by the criterion.

    Args:
        output: the output's name, for the report.
        actual: what the file gave.
        torch_own: what PyTorch gave in the model's dtype, as float64; for a float64 model, in
            float32, whose error is then scaled by the ratio of the two epsilons.
        reference: what PyTorch gave in float64.
        dtype: the model's.
        scale: the floor is eps times this.
        least_error: what PyTorch's own error is taken to be at least, from a larger run of the same.
        time_axis: of the output, where it has one: its error is then told step by step.

    Integers and bools, such as an argmax, are right where they are equal; PyTorch in the two
    precisions may itself differ, and what differs there is no fault.
    """
    nan = float("nan")
    if actual.shape != reference.shape:
        problem = f"has shape {actual.shape}, PyTorch's is {reference.shape}"
        return TensorResult(output, float("inf"), nan, float("inf"), (), problem=problem)
    if reference.dtype.kind in "iub":
        return _discrete(output, actual, torch_own, reference)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(actual.astype(np.float64) - reference)
        own = np.abs(torch_own.astype(np.float64) - reference)
    if not math.isfinite(float(own.sum()) + float(difference.sum())):
        # Where the reference itself is not finite, the same NaN or infinity is the right answer.
        same = (actual == reference) | (np.isnan(actual) & np.isnan(reference))
        difference = np.where(same, 0.0, difference)
        own = np.where(np.isfinite(own), own, 0.0)
    # A NaN is the largest to argmax, and comes before infinities.
    where = tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), difference.shape))
    error, torch_error = float(difference[where]), float(own.max())
    epsilon = EPSILON[dtype]
    if dtype == "float64":
        torch_error *= epsilon / EPSILON["float32"]
        least_error *= epsilon / EPSILON["float32"]
    yardstick = max(torch_error, least_error, epsilon * scale)
    growth = None if time_axis is None else _growth(difference, own, K * yardstick, time_axis)
    if not np.isfinite(error):
        right = np.isfinite(reference[where])
        problem = "is not finite where PyTorch is" if right else "is another number where PyTorch's is not finite"
        return TensorResult(output, error, torch_error, math.inf, where, False, problem, growth, K * yardstick)
    size = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
    inconclusive = too_far_off(torch_error, size, epsilon)
    ratio = error / yardstick
    return TensorResult(output, error, torch_error, ratio, where, inconclusive, growth=growth, allowed=K * yardstick)


def too_far_off(torch_error: float, size: float, epsilon: float) -> bool:
    """Whether PyTorch's own error is too large to judge by, in an output whose largest number is `size`."""
    return torch_error > min(_CHAOS * epsilon, _COARSEST) * size and torch_error > epsilon


def _growth(difference: np.ndarray, own: np.ndarray, bound: float, time_axis: int) -> Growth | None:
    """Errors by time step and feature, the largest over all else; features are the last axis."""
    if difference.ndim < 2 or difference.size == 0 or time_axis >= difference.ndim - 1:
        return None

    def by_time(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array, time_axis, 0)
        flat: np.ndarray = moved.reshape(moved.shape[0], -1, moved.shape[-1]).max(axis=1)
        return flat

    errors, owns = by_time(difference), by_time(own)
    steps, features = (_bins(size) for size in errors.shape)
    heat = np.maximum.reduceat(np.maximum.reduceat(errors, steps, axis=0), features, axis=1)
    return Growth(
        tuple(map(float, errors.max(axis=1))),
        tuple(map(float, owns.max(axis=1))),
        bound,
        tuple(steps),
        tuple(features),
        tuple(tuple(map(float, row)) for row in heat),
    )


def _bins(size: int) -> list[int]:
    """Where each of at most `MOST_BINS` equal parts of `size` begins."""
    width = -(-size // MOST_BINS)
    return list(range(0, size, width))


_MOST_FLIPS = 0.02
"""The share of integers that may differ where PyTorch's two precisions agree: an argmax of two near equals."""


def _discrete(output: str, actual: np.ndarray, torch_own: np.ndarray, reference: np.ndarray) -> TensorResult:
    wrong = (actual != reference) & (torch_own == reference)
    count = int(wrong.sum())
    first = np.argwhere(wrong)
    where = tuple(int(i) for i in first[0]) if len(first) else (0,) * reference.ndim
    allowed = max(1, int(_MOST_FLIPS * wrong.size)) if wrong.size > 1 else 0
    right = count <= allowed
    problem = "" if right else f"differs in {count} of {wrong.size} integers"
    return TensorResult(
        output,
        float(count),
        float((torch_own != reference).sum()),
        0.0 if right else float("inf"),
        where,
        problem=problem,
        allowed=float(allowed),
    )
