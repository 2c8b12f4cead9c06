"""The expected results of a case: inputs, PyTorch's outputs and their float64 references, without importing torch.

A verification computes them with PyTorch; a golden file stores them for a machine without it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .criterion import TensorResult, compare, is_inconclusive, largest_conclusive_error, magnitude, nan_as_inf
from .results import CaseResult, Location
from .sizes import spans
from .tolerances import COARSEST, EPSILON, NATIVE_EPSILON

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """One call: its inputs and, by output, what PyTorch gives in the model's native precision and in float64.

    Both are float64 arrays, except integers and bools.  `label` names the call in a sweep; `least` is a lower bound
    of PyTorch's own error for each output; `jumps` are those of `modules.jumps`, and `ties` are integers that runs with
    other roundings gave, stacked.
    """

    feeds: Arrays
    native: Arrays
    reference: Arrays
    label: str = ""
    least: Mapping[str, float] = field(default_factory=dict)
    jumps: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    ties: Mapping[str, np.ndarray] = field(default_factory=dict)
    _sizes: dict[str, tuple[float, float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """`magnitude` and `torch_error` of each output, cached since every mutant needs them."""
    _conclusive: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def integers(self) -> set[str]:
        """The outputs of integers and bools."""
        return {name for name, array in self.reference.items() if array.dtype.kind in "iub"}

    def magnitude(self, name: str) -> float:
        """The largest finite absolute value of an output in float64."""
        return self._size(name)[0]

    def torch_error(self, name: str) -> float:
        """PyTorch's own largest error in an output; 0 for integers."""
        return self._size(name)[1]

    def _size(self, name: str) -> tuple[float, float]:
        if name not in self._sizes:
            self._sizes[name] = magnitude(self.reference[name]), self._largest_error(name)
        return self._sizes[name]

    def _largest_error(self, name: str) -> float:
        native, reference = self.native[name], self.reference[name]
        if reference.dtype.kind != "f" or native.shape != reference.shape or not native.size:
            return 0.0
        with np.errstate(invalid="ignore"):
            error = np.abs(native - reference)
        largest = float(error.max())
        return largest if math.isfinite(largest) else float(error[np.isfinite(error)].max(initial=0.0))

    def conclusive(self, dtype: str) -> bool:
        """Whether PyTorch's own error is small enough in every output to judge by."""
        if dtype not in self._conclusive:
            self._conclusive[dtype] = not any(
                is_inconclusive(self.native[name], reference, self.torch_error(name), NATIVE_EPSILON[dtype])
                for name, reference in self.reference.items()
            )
        return self._conclusive[dtype]


@dataclass(frozen=True)
class Expected:
    """A case, ready to be run on a file.

    Attributes:
        label: its name in a report.
        calls: one for a single run; if there are several, each continues from the states of the one before ("chunks",
            "pool") or has its own ("steps", "sweep").
        dtype: the model's.
        scale: the largest |c| during the run, for the criterion's floor.
        scales: the criterion's scale of outputs that have another one.
        units: the criterion's unit of the features of outputs in which some are small, see `modules.small_features`.
        kind: how it is run, one of `results.KINDS`.
        chunkings: for "chunks" of a single call, the ways to cut its time axis.
        time_axes: the time axis of the inputs and outputs that have one.
        batch_axes: the same for the batch; "pool" needs them.
        least: a lower bound of PyTorch's own error for each output, relative to the output's magnitude.
        feature_steps: the step between the features that are stored and compared, for outputs with many.
        dtypes: the outputs' dtypes in PyTorch; an output that is not in it may have any.
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
    units: Mapping[str, np.ndarray] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    feature_steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def inconclusive(self) -> bool:
        """Whether PyTorch's own error is too large for this case to be judged."""
        return not all(call.conclusive(self.dtype) for call in self.calls)

    @property
    def batch(self) -> int:
        """The number of rows of its inputs; 1 where none has a batch axis."""
        feeds = self.calls[0].feeds
        return next((feeds[name].shape[axis] for name, axis in self.batch_axes.items() if name in feeds), 1)

    def judge(self, outputs: Sequence[Arrays]) -> CaseResult:
        """Compare the `compared` part of a file's outputs, call by call; an output's result is that of its worst call.

        The label of a sweep's result names the calls that fail.
        """
        tensors: dict[str, TensorResult] = {}
        failed: list[str] = []
        for call, actual in zip(self.calls, outputs, strict=True):
            for name, reference in call.reference.items():
                if name not in actual:
                    names = ", ".join(actual)
                    return CaseResult(
                        self.label, error=f"the file has no output {name}; it has {names}", kind=self.kind
                    )
                array = np.asarray(actual[name])
                if array.dtype.kind not in "biuf":
                    return CaseResult(self.label, error=f"{name} is of {array.dtype}, not numbers", kind=self.kind)
                result = self._compare(name, array, call, reference)
                if _fails(result) and call.label not in failed:
                    failed.append(call.label)
                if name not in tensors or _severity(result) > _severity(tensors[name]):
                    tensors[name] = result
        label = (
            f"{self.label}: {abbreviated(failed, len(self.calls))}" if failed and self.kind == "sweep" else self.label
        )
        return CaseResult(label, tuple(tensors.values()), kind=self.kind)

    def compared(self, outputs: Arrays) -> dict[str, np.ndarray]:
        """The part of a run's outputs that is compared; see `feature_steps`."""
        return some_features(outputs, self.feature_steps)

    def with_features(self, steps: Mapping[str, int]) -> Expected:
        """The same case, in which only some features of these outputs are stored and compared."""
        calls = (
            replace(call, native=some_features(call.native, steps), reference=some_features(call.reference, steps))
            for call in self.calls
        )
        return replace(self, calls=tuple(calls), units=some_features(self.units, steps), feature_steps=steps)

    def as_if(self, predicted: Arrays) -> Expected:
        """The same case, of a single call, as if float64 gave `predicted` and PyTorch's own errors were unchanged."""
        call = self.calls[0]
        predicted = {name: values for name, values in predicted.items() if name in call.reference}
        native = {
            name: values + (call.native[name] - call.reference[name]) if values.dtype.kind == "f" else values
            for name, values in predicted.items()
        }
        return replace(self, calls=(Call(call.feeds, native, predicted),))

    def _compare(self, name: str, actual: np.ndarray, call: Call, reference: np.ndarray) -> TensorResult:
        wanted = self.dtypes.get(name)
        if wanted is not None and _name(actual.dtype) != wanted:
            problem = f"has dtype {actual.dtype}, PyTorch's is {wanted}"
            return TensorResult(name, math.inf, math.nan, math.inf, (), problem=problem)
        size = call.magnitude(name)
        # States of an unstable layer can be huge where the output is not; see `tolerances.COARSEST`.
        largest = max(1.0, size) * COARSEST / EPSILON[self.dtype]
        scale = max(1.0, min(self.scale, largest), size if self.least else 0.0)
        return compare(
            name,
            actual,
            call.native[name],
            reference,
            dtype=self.dtype,
            scale=self.scales.get(name, scale),
            least_error=max(self.least.get(name, 0.0) * size, call.least.get(name, 0.0)),
            time_axis=self.time_axes.get(name),
            jumps=call.jumps.get(name),
            units=self.units.get(name),
            ties=call.ties.get(name),
        )


def some_features(outputs: Arrays, steps: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Outputs with only every `steps`-th feature, as copies: views would keep all features in memory."""
    return {
        name: array[..., :: steps[name]].copy() if name in steps and array.ndim else array
        for name, array in outputs.items()
    }


def fits(unit: np.ndarray, array: np.ndarray) -> bool:
    """Whether the units of features, along any axes, are those of an output."""
    sizes = zip(unit.shape[::-1], array.shape[::-1], strict=False)
    return unit.ndim <= array.ndim and all(one in (1, size) for one, size in sizes)


def constant_outputs(cases: Iterable[Expected]) -> dict[str, np.ndarray]:
    """The outputs that are the same number in all cases, and that number: no case shows on what it depends."""
    found: dict[str, np.ndarray] = {}
    others: set[str] = set()
    for name, array in ((name, array) for one in cases for call in one.calls for name, array in call.reference.items()):
        if array.size and name not in others:
            found.setdefault(name, array.reshape(-1)[0])
            if not (array == found[name]).all():
                others.add(name)
    return {name: value for name, value in found.items() if name not in others}


_FEW_CALLS = 8
"""In this few calls an output may be the same by chance, or since the inputs hardly differ."""


def steady_outputs(cases: Iterable[Expected]) -> set[str]:
    """The outputs whose features are all the same in all cases, up to less than a rounding.

    In this dtype they cannot reveal a fault before them, such as before a relu whose inputs are all below 0.
    """
    least: dict[str, np.ndarray] = {}
    largest: dict[str, np.ndarray] = {}
    others: set[str] = set()
    calls: dict[str, int] = {}
    epsilon = 0.0
    for case, call in ((one, call) for one in cases for call in one.calls):
        epsilon = EPSILON[case.dtype]
        for name, array in call.reference.items():
            if not array.size or name in others:
                continue
            calls[name] = calls.get(name, 0) + 1
            rows = np.asarray(array, np.float64).reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
            low, high = least.setdefault(name, rows[0]), largest.setdefault(name, rows[0])
            if low.shape != rows.shape[1:] or not np.isfinite(rows).all():
                others.add(name)
                continue
            least[name], largest[name] = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return {
        name
        for name, low in least.items()
        if name not in others
        and calls[name] > _FEW_CALLS
        and bool((largest[name] - low <= epsilon * np.maximum(np.abs(low), np.abs(largest[name]))).all())
    }


def as_float64(arrays: Arrays) -> dict[str, np.ndarray]:
    """Floating-point arrays in float64, and others as they are."""
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def halves(array: np.ndarray) -> np.ndarray:
    """Each number rounded to the nearest half."""
    return np.round(array * 2) / 2


def perturbed(feeds: Arrays, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs in float64, each number off by up to one unit in its last place; inputs that are all halves stay exact.

    How far that moves a float64 reference shows the effect of rounding on large numbers, which may cancel: in a single
    run PyTorch's own error may be nearly 0 by chance.
    """
    rng = np.random.default_rng(seed)
    moved = {}
    for name, array in feeds.items():
        off = 1 + NATIVE_EPSILON[dtype] * rng.uniform(-1, 1, array.shape)
        exact = array.dtype.kind != "f" or np.array_equal(array, halves(array))
        moved[name] = np.asarray(array if exact else array.astype(np.float64) * off)
    return moved


def with_least_errors(calls: Sequence[Call], dtype: str) -> tuple[Call, ...]:
    """Calls of increasing size, each with PyTorch's largest error in it and all before as its lower bound.

    Rounding errors grow with size, and in some of many runs they are nearly 0 by chance.  An output that becomes
    smaller, such as ``1 / variance``, has a bound at which it can still be judged.
    """
    largest: dict[str, float] = {}
    bounded = []
    for call in calls:
        least = {}
        for name, reference in call.reference.items():
            largest[name] = max(largest.get(name, 0.0), call.torch_error(name))
            least[name] = min(largest[name], largest_conclusive_error(reference, NATIVE_EPSILON[dtype]))
        bounded.append(replace(call, least=least))
    return tuple(bounded)


def largest_relative_errors(cases: Iterable[Expected]) -> dict[str, float]:
    """PyTorch's largest own error of each output in any conclusive case, relative to the output's magnitude.

    An error within one rounding of 1 does not count: if an output is nearly 0 in a case, such as ``1 - cos`` of equal
    vectors, it can be millions of times the output, and would allow any error in all other cases.
    """
    largest: dict[str, float] = {}
    for dtype, call in ((case.dtype, call) for case in cases for call in case.calls):
        for name in call.reference:
            error = call.torch_error(name)
            relative = error / call.magnitude(name) if error > NATIVE_EPSILON[dtype] else 0.0
            largest[name] = max(largest.get(name, 0.0), relative)
    return largest


def with_largest_errors(cases: Sequence[Expected]) -> list[Expected]:
    """The cases, each with the `largest_relative_errors` of all cases as the lower bound of PyTorch's own error."""
    least = largest_relative_errors(cases)
    return [replace(case, least=least) for case in cases]


def farther(first: Arrays, second: Arrays, reference: Arrays) -> dict[str, np.ndarray]:
    """Element by element, that number of `first` and `second` which is farther from the reference, or not it."""
    chosen = {}
    for name, wanted in reference.items():
        one, other = first[name], second[name]
        if one.shape == wanted.shape == other.shape:
            with np.errstate(invalid="ignore"):
                floats = wanted.dtype.kind == "f"
                one = np.where(np.abs(other - wanted) > np.abs(one - wanted) if floats else one == wanted, other, one)
        chosen[name] = one
    return chosen


def first_difference(wrong: Sequence[tuple[Expected, CaseResult]]) -> Location | None:
    """The location of the first difference in an output, single runs first; None where no case has numbers."""
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


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    """`dtype.name`, which NumPy makes anew each time."""
    return dtype.name


def _fails(result: TensorResult) -> bool:
    """Whether it does not pass although PyTorch's own error is small enough to judge by."""
    return not (result.passed or result.inconclusive)


def _severity(result: TensorResult) -> tuple[bool, bool, float, bool]:
    """A sort key of results: failures, inconclusive ones, ratios, and integers that differ."""
    return _fails(result), result.inconclusive, nan_as_inf(result.ratio), result.tipped


_MOST_NAMED = 8
"""The most calls of a sweep that a label names."""


def abbreviated(names: Sequence[str], of: int) -> str:
    """Names for some of `of` calls: ``time 1 to 61, 64``, or the first ones ``and 9 more``, or ``all``."""
    if len(names) == of > 1:
        return "all"
    sizes: dict[str, list[int]] = {}
    for axis, _, size in (name.rpartition(" ") for name in names):
        if not (axis.isidentifier() and size.isdecimal()):
            break
        sizes.setdefault(axis, []).append(int(size))
    else:
        return ", ".join(f"{axis} {spans(found)}" for axis, found in sizes.items())
    if len(names) <= _MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
