"""The criterion of parity: an output's error in units of PyTorch's own rounding error.

A fixed tolerance fails both ways: wrong graphs with small weights pass it, and right ones with large weights do not.
So the error against a float64 run of the same PyTorch module is measured in units of the error that PyTorch itself
makes in the model's native precision:

    max|actual - ref64|  <=  K * max( max|torch - ref64|, floor )

The floor is absolute and on the gates' scale, since a saturated gate may give exactly 0 in one library and 6e-17 in
the other: eps for h, which is within 1, eps times the norm of a projection, and eps * max(1, |c|) for c.  The
constants are in `tolerances`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .tolerances import CHAOS, COARSEST, EPSILON, LARGEST_FLIPPED_SHARE, K

MOST_BINS = 64
"""Cells of a heat map along each axis."""
_LEAST_UNIT = float(np.finfo(np.float32).tiny)
"""The unit of an output that can only be 0, such as that of a projection of zeros, and so has no scale."""


@dataclass(frozen=True)
class Growth:
    """The error of an output along its time axis, for a curve and a heat map.

    `error` and `torch_error` are the largest |actual - ref64| and PyTorch's own at each time step, over batch and
    features; a step with an error above `bound` fails.  `heat[i][j]` is the largest error from step `steps[i]` and
    feature `features[j]` up to the next ones.
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
    """The comparison of one output in one case.

    `error` is max|actual - ref64|, `torch_error` PyTorch's own, and `where` the index of the largest error.
    `allowed` is the largest error that passes: K times PyTorch's own error or the floor, whichever is larger;
    `ratio` is K times `error / allowed`, the K that this tensor would have needed.  `inconclusive` marks a run in
    which PyTorch's own error is too large to judge by.  A wrong shape, a wrong dtype and a NaN that the reference
    does not have give an infinite ratio.  `growth` is there for outputs that have a time axis.
    """

    output: str
    error: float
    torch_error: float
    ratio: float
    where: tuple[int, ...]
    inconclusive: bool = False
    problem: str = ""
    growth: Growth | None = field(default=None, repr=False)
    allowed: float = math.nan

    @property
    def mismatched(self) -> bool:
        """Whether its shape or dtype is wrong, so that its numbers were not compared."""
        return self.problem.startswith(("has shape", "has dtype"))

    @property
    def tipped(self) -> bool:
        """Whether it passed with some integers that differ."""
        return self.passed and self.error > 0 == self.ratio

    @property
    def passed(self) -> bool:
        """Whether the ratio is at most K; NaN is not."""
        return self.ratio <= K


def compare(
    output: str,
    actual: np.ndarray,
    native: np.ndarray,
    reference: np.ndarray,
    *,
    dtype: str,
    scale: float,
    least_error: float = 0.0,
    time_axis: int | None = None,
    jumps: tuple[np.ndarray, np.ndarray] | None = None,
    units: np.ndarray | None = None,
    ties: np.ndarray | None = None,
) -> TensorResult:
    """Judge `actual` by the criterion.

    Args:
        output: the output's name, for the report.
        actual: the file's output.
        native: PyTorch's output in the model's dtype, as float64; for a float64 model, in float32, whose error is
            then scaled by the ratio of the two epsilons.
        reference: PyTorch's output in float64.
        dtype: the model's.
        scale: the floor is eps times this.
        least_error: a lower bound of PyTorch's own error, from a larger run of the same module.
        time_axis: the output's time axis, where it has one: `growth` then has its error step by step.
        jumps: how far a right number may be below and above `reference`; see `modules.jumps`.
        units: smaller units to divide by instead: an array that broadcasts, such as one for each feature, or a scalar.
        ties: for integers, the results of several runs of the module with other roundings: any other integer is wrong.

    A share of LARGEST_FLIPPED_SHARE of integers and bools, such as an argmax (and at least one of several), may differ
    where PyTorch's two precisions agree, and all may where they do not; with `ties`, only those.
    """
    nan = float("nan")
    if actual.shape != reference.shape:
        problem = f"has shape {actual.shape}, PyTorch's is {reference.shape}"
        return TensorResult(output, float("inf"), nan, float("inf"), (), problem=problem)
    if reference.dtype.kind in "iub":
        return _compare_integers(output, actual, native, reference, ties)
    epsilon = EPSILON[dtype]
    scale = scale if math.isfinite(scale) else max(1.0, magnitude(reference))  # an infinite one would allow any error
    with np.errstate(invalid="ignore", over="ignore"):
        found = actual.astype(np.float64)
        right = reference if jumps is None else np.clip(found, reference + jumps[0], reference + jumps[1])
        difference = np.abs(found - right)
        torch_difference = np.abs(native.astype(np.float64) - reference)
    if not math.isfinite(float(torch_difference.sum()) + float(difference.sum())):
        # Where the reference itself is not finite, the same NaN or infinity is right; so is PyTorch's in the model's
        # precision, such as for 0 / max(0, 1e-12) in half precision, in which 1e-12 is 0.
        same = _same(actual, reference) | (_same(actual, native) & ~np.isfinite(native))
        difference = np.where(same, 0.0, difference)
        torch_difference = np.where(np.isfinite(torch_difference), torch_difference, 0.0)
    if not difference.size:
        return TensorResult(output, 0.0, 0.0, 0.0, (), allowed=K * epsilon * scale)
    torch_error = float(torch_difference.max())
    if dtype == "float64":
        torch_error *= epsilon / EPSILON["float32"]
        least_error *= epsilon / EPSILON["float32"]
    unit = max(torch_error, least_error, epsilon * scale, _LEAST_UNIT)
    # A feature with a smaller unit has a larger weight.
    weights = np.ones(()) if units is None else np.maximum(1.0, unit / units)
    # argmax treats NaN as larger than any number, even infinity.
    where = tuple(int(i) for i in np.unravel_index(int(np.argmax(difference * weights)), difference.shape))
    error = float(difference[where])
    weight = float(np.broadcast_to(weights, difference.shape)[where])
    unit /= weight
    growth = None
    if time_axis is not None:
        scaled = weights / weight
        growth = _growth(difference * scaled, torch_difference * scaled, K * unit, time_axis)
    if not np.isfinite(error):
        finite = np.isfinite(reference[where])
        problem = "is not finite where PyTorch is" if finite else "is another number where PyTorch's is not finite"
        return TensorResult(output, error, torch_error, math.inf, where, False, problem, growth, K * unit)
    inconclusive = is_inconclusive(native, reference, torch_error, epsilon)
    return TensorResult(output, error, torch_error, error / unit, where, inconclusive, growth=growth, allowed=K * unit)


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))


def is_inconclusive(native: np.ndarray, reference: np.ndarray, torch_error: float, epsilon: float) -> bool:
    """Whether PyTorch's own error in an output is too large for a verdict, or its native run has no finite number."""
    if not np.isfinite(native).any() and np.isfinite(reference).any():
        return True  # a file that is not finite either would prove nothing
    # No bound is below epsilon.
    return torch_error > epsilon and torch_error > largest_conclusive_error(reference, epsilon)


def largest_conclusive_error(reference: np.ndarray, epsilon: float) -> float:
    """The largest error of PyTorch's own at which an output can be judged."""
    return max(min(CHAOS * epsilon, COARSEST) * magnitude(reference), epsilon)


def magnitude(array: np.ndarray) -> float:
    """The largest finite absolute value; 0 for integers and bools."""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array.reshape(-1)[:0]
    return float(np.abs(finite).max(initial=0.0))


def nan_as_inf(ratio: float) -> float:
    """`ratio`, for comparisons with others: NaN counts as infinite."""
    return math.inf if math.isnan(ratio) else ratio


def _growth(difference: np.ndarray, torch_difference: np.ndarray, bound: float, time_axis: int) -> Growth | None:
    """Errors by time step and feature, the largest over all other axes; features are the last axis."""
    if difference.ndim < 2 or time_axis >= difference.ndim - 1:
        return None

    def by_time(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array, time_axis, 0)
        return np.asarray(moved.reshape(moved.shape[0], -1, moved.shape[-1]).max(axis=1))

    errors, torch_errors = by_time(difference), by_time(torch_difference)
    # The starts of at most `MOST_BINS` equal parts of each axis.
    steps, features = (list(range(0, size, -(-size // MOST_BINS))) for size in errors.shape)
    heat = np.maximum.reduceat(np.maximum.reduceat(errors, steps, axis=0), features, axis=1)
    return Growth(
        tuple(map(float, errors.max(axis=1))),
        tuple(map(float, torch_errors.max(axis=1))),
        bound,
        tuple(steps),
        tuple(features),
        tuple(tuple(map(float, row)) for row in heat),
    )


def _compare_integers(
    output: str, actual: np.ndarray, native: np.ndarray, reference: np.ndarray, ties: np.ndarray | None
) -> TensorResult:
    wrong = (actual != reference) & (native == reference)
    if ties is not None:
        wrong &= (ties != actual).all(axis=0)
    count = int(wrong.sum())
    first = np.argwhere(wrong)
    where = tuple(int(i) for i in first[0]) if len(first) else (0,) * reference.ndim
    allowed = max(1, int(LARGEST_FLIPPED_SHARE * wrong.size)) if wrong.size > 1 and ties is None else 0
    right = count <= allowed
    problem = "" if right else f"differs in {count} of {wrong.size} integers"
    return TensorResult(
        output,
        float(count),
        float((native != reference).sum()),
        0.0 if right else float("inf"),
        where,
        problem=problem,
        allowed=float(allowed),
    )
