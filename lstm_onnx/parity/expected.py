"""What a file must give in a case: inputs, PyTorch's outputs and their float64 references; no torch is needed for it.

Verification draws them with PyTorch; a golden file keeps them for a machine that has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .criterion import EPSILON, TensorResult, compare, too_far_off
from .report import CaseResult, Location

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """One call: what goes in and, by output, what PyTorch gives in the model's own precision and in float64.

    `label` tells it from the other calls of a sweep; `least` is, for each output, what PyTorch's own error is taken
    to be at least.
    """

    feeds: Arrays
    own: Arrays
    reference: Arrays
    label: str = ""
    least: Mapping[str, float] = field(default_factory=dict)

    def own_error(self, name: str) -> float:
        """PyTorch's own largest error in an output; 0 for integers."""
        own, reference = self.own[name], self.reference[name]
        if reference.dtype.kind != "f" or own.shape != reference.shape or not own.size:
            return 0.0
        with np.errstate(invalid="ignore"):
            error = np.abs(own - reference)
        largest = float(error.max())
        return largest if math.isfinite(largest) else float(error[np.isfinite(error)].max(initial=0.0))

    def tells(self, dtype: str) -> bool:
        """Whether PyTorch's own error is small enough in every output to judge by."""
        epsilon = EPSILON["float32" if dtype == "float64" else dtype]
        return not any(
            too_far_off(self.own_error(name), size_of(self.reference[name]), epsilon) for name in self.reference
        )


@dataclass(frozen=True)
class Expected:
    """A case, ready to be run on a file.

    Attributes:
        label: what it is called in a report.
        calls: one for a whole run; several are calls in turn, of which each goes on from the states of
            the one before ("chunks", "pool"), or has its own ("steps", "sweep").
        dtype: the model's.
        scale: the largest |c| on the way, for the criterion's floor.
        scales: the criterion's scale of outputs for which it is not that.
        kind: how it is run, one of `report.KINDS`.
        chunkings: for "chunks" of a single call, the ways in which its time axis is cut.
        time_axes: of the inputs and outputs that have one.
        batch_axes: the same for the batch; "pool" needs them.
        least: for each output, what PyTorch's own error is taken to be at least, relative to its size.
        every: of an output of many features, that only each so manieth is held and compared.
        dtypes: of the outputs, as PyTorch gives them; of one that is not named there any dtype will do.
    """

    label: str
    calls: tuple[Call, ...]
    dtype: str
    scale: float
    kind: str = "whole"
    chunkings: tuple[tuple[int, ...], ...] = ()
    time_axes: Mapping[str, int] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    every: Mapping[str, int] = field(default_factory=dict)

    @property
    def inconclusive(self) -> bool:
        """Whether PyTorch's own error is too large for this case to say anything."""
        # PyTorch's outputs are held in float64, whatever they were.
        return replace(self, dtypes={}, every={}).judge([call.own for call in self.calls]).inconclusive

    def judge(self, outputs: Sequence[Arrays]) -> CaseResult:
        """Compare what a file gave, call by call; of each output the worst call counts.

        The label of a sweep's result names the calls that fail.
        """
        tensors: dict[str, TensorResult] = {}
        failed: list[str] = []
        for call, actual in zip(self.calls, outputs, strict=True):
            for name, reference in call.reference.items():
                if name not in actual:
                    there = ", ".join(actual)
                    return CaseResult(
                        self.label, error=f"the file has no output {name}; it has {there}", kind=self.kind
                    )
                given = np.asarray(actual[name])
                if given.dtype.kind not in "biuf":
                    return CaseResult(self.label, error=f"{name} is of {given.dtype}, not numbers", kind=self.kind)
                result = self._compared(name, given, call, reference)
                if not (result.passed or result.inconclusive) and call.label not in failed:
                    failed.append(call.label)
                held = tensors.get(name)
                if held is None or (result.inconclusive, not result.ratio <= held.ratio) > (held.inconclusive, False):
                    tensors[name] = result
        label = f"{self.label}: {some_of(failed)}" if failed and self.kind == "sweep" else self.label
        return CaseResult(label, tuple(tensors.values()), kind=self.kind)

    def as_if(self, predicted: Arrays) -> Expected:
        """The same case of one call, if PyTorch gave `predicted` in float64, and were as far off as it is here."""
        call = self.calls[0]
        own = {
            name: values + (call.own[name] - call.reference[name]) if values.dtype.kind == "f" else values
            for name, values in predicted.items()
        }
        return replace(self, calls=(Call(call.feeds, own, predicted),))

    def _compared(self, name: str, actual: np.ndarray, call: Call, reference: np.ndarray) -> TensorResult:
        wanted = self.dtypes.get(name, actual.dtype.name)
        if actual.dtype.name != wanted:
            problem = f"has dtype {actual.dtype}, PyTorch's is {wanted}"
            return TensorResult(name, math.inf, math.nan, math.inf, (), problem=problem)
        if name in self.every and actual.ndim:
            actual = actual[..., :: self.every[name]]
        size = size_of(reference)
        scale = max(1.0, self.scale, size if self.least else 0.0)
        return compare(
            name,
            actual,
            call.own[name],
            reference,
            dtype=self.dtype,
            scale=self.scales.get(name, scale),
            least_error=max(self.least.get(name, 0.0) * size, call.least.get(name, 0.0)),
            time_axis=self.time_axes.get(name),
        )


def rounded_otherwise(feeds: Arrays, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs in float64, each number off by up to a unit in its last place.

    What that does to a float64 reference is what rounding does to large numbers, which cancel, or do not: in a
    single run PyTorch's own error may be next to none by luck.
    """
    rng = np.random.default_rng(seed)
    unit = EPSILON["float32" if dtype == "float64" else dtype]
    moved = {}
    for name, array in feeds.items():
        off = 1 + unit * rng.uniform(-1, 1, array.shape)
        moved[name] = np.asarray(array.astype(np.float64) * off) if array.dtype.kind == "f" else np.asarray(array)
    return moved


def steadied(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Calls of rising size, each with PyTorch's own error in any of those before as its least.

    Rounding grows with size, and of many runs some have next to none by luck.
    """
    largest: dict[str, float] = {}
    found = []
    for call in calls:
        for name in call.reference:
            largest[name] = max(largest.get(name, 0.0), call.own_error(name))
        found.append(replace(call, least=dict(largest)))
    return tuple(found)


def farther(own: Arrays, other: Arrays, reference: Arrays) -> dict[str, np.ndarray]:
    """Of two results, number by number, the one that is farther from the reference."""
    found = {}
    for name, wanted in reference.items():
        mine, theirs = own[name], other[name]
        if wanted.dtype.kind == "f" and mine.shape == wanted.shape == theirs.shape:
            with np.errstate(invalid="ignore"):
                mine = np.where(np.abs(theirs - wanted) > np.abs(mine - wanted), theirs, mine)
        found[name] = mine
    return found


def first_difference(wrong: Sequence[tuple[Expected, CaseResult]]) -> Location | None:
    """Where in an output the first of the wrong cases differs, whole runs first; None where none ran to be wrong."""
    for expected, result in sorted(wrong, key=lambda pair: pair[0].kind in ("chunks", "pool")):
        tensors = [one for one in result.tensors if not one.passed and not one.mismatched]
        if not tensors:
            continue
        tensor = next((one for one in tensors if one.growth is not None), tensors[0])
        batch_axis = expected.batch_axes.get(tensor.output)
        row = tensor.where[batch_axis] if batch_axis is not None and batch_axis < len(tensor.where) else None
        step = tensor.growth.first if tensor.growth else None
        feature = tensor.where[-1] if len(tensor.where) > 1 else None
        return Location(result.label, tensor.output, step, row, feature)
    return None


def size_of(array: np.ndarray) -> float:
    """The largest finite magnitude; 0 for what is not floating-point."""
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array.reshape(-1)[:0]
    return float(np.abs(finite).max(initial=0.0))


_MOST_NAMED = 8
"""Calls of a sweep that a label names."""


def some_of(names: Sequence[str]) -> str:
    """As in ``time 61, time 62 and 9 more``."""
    if len(names) <= _MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
