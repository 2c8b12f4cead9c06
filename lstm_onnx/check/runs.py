"""Tests whether a model runs at any batch and time: it is run at several sizes, so that no baked-in size fits all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from math import gcd, prod

import numpy as np

from ..errors import ConfigError, InputError, LSTMOnnxError, ModelError, RunError
from ..input_spec import InputSpec, draw
from ..input_spec import axes as axes_of
from ..isolation.stages import stage
from ..onnxgraph import Dim, axis_name, error_line, shown
from ..runtime import Model, ValueInfo
from ..runtime.ort_messages import first_line
from ..runtime.providers import ort_errors
from ..runtime.tensor_info import Limits
from ..symbolic_dims import ANY_SIZE, clamped, size_of
from .finding import Finding
from .rules.providers import RUNNABLE

_SIZES = ((1, (1,)), (3, (1,)), (1, (7, 5, 11)), (3, (5, 7, 11, 13, 17)), (2, (7, 5, 3, 11, 13)))
"""The batch, and the sizes of the other axes in turn: a baked-in size can equal one of these rows but not all.

A batch of 1 fails on its own, and so does a single step.
"""
_NEXT = ((1, (2,)), (1, (3,)))
"""Sizes just above a least size: if only every second or third size runs, it is not a least size."""
_ORDER = {"batch": 0, "time": 1}
_GUESSES = ("own", "first is batch", "by place", "one size")
_BATCH_NAMES = ("batch", "batch_size")
_LARGEST_LEAST = 1024
"""The largest size up to which the least size of the other axes is searched, for kernels, windows and paddings."""
_MULTIPLES = (*range(2, 17), *(2**power for power in range(5, 10)), 100, 160)
"""Numbers to try if a model takes only multiples of a size, such as whole frames of a signal."""
_MOST_ELEMENTS = 2**26
_MOST_SEARCHED = 2**22
_CORRECT_SHAPE = "correct the shape that the file declares for it; if the size should follow an input's, export again"
_NO_SIZE = f"fix what it names: none of the sizes that were tried runs, from 1 to {_LARGEST_LEAST}"


@dataclass(frozen=True)
class _Problem:
    """What went wrong in a run; `of_output` if it ran but an output's shape is not the declared one."""

    text: str
    of_output: bool = False


Shapes = Mapping[str, tuple[Dim, ...]]


def model_errors() -> tuple[type[Exception], ...]:
    """Errors from loading or running a model that are the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def run_error(error: BaseException) -> str:
    """The message of an error, without the file's name and "cannot run", which the report already has."""
    if not isinstance(error, LSTMOnnxError):
        return error_line(first_line(error))
    return error_line((error.ort_message if isinstance(error, RunError) else None) or error.reason)


def runnable(model: Model, batches: Mapping[str, str]) -> list[Finding]:
    """Run a model at several sizes: any batch, and any time from the least that its layers need (a kernel, a pool)."""
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [RUNNABLE.skipped(f"not tried: no random values can be made for {'; '.join(undrawable)}")]
    findings: list[Finding] = []
    for trials in _all_trials(model, batches):
        tried = _tried_at(trials)
        if any(finding.passed for finding in tried):
            return tried
        findings = findings or tried
    return findings


def _all_trials(model: Model, batches: Mapping[str, str]) -> Iterator[_Trials]:
    """The model with a name for each dynamic axis, and then with one name for several."""
    named = _named_shapes(model, batches)
    yield from (_Trials(model, shapes, batches) for shapes in named)
    if model.metadata.versions:
        return  # names in files from lstm-onnx are meaningful
    # Other tools make up a name for each axis of each input, even if several have the same size.
    open_dims = [[dim for dim in shape if isinstance(dim, str)] for shape in named[0].values()]
    counts = Counter(dim for dims in open_dims for dim in dims)
    made_up = {name for name, count in counts.items() if count == 1 and name.isidentifier()}
    first = [dims[0] for dims in open_dims if dims]
    batch = _together([name for name in first if name in made_up], batches)
    if batch:
        stays = next(iter(batch.values()))
        yield _Trials(model, _renamed(named[0], batch), {stays: stays, **batches}, batch)
    by_place: dict[str, str] = {}
    for column in zip_longest(*named[0].values()):
        by_place |= _together([str(dim) for dim in column if dim in made_up], batches)
    if by_place and by_place != batch:
        yield _Trials(model, _renamed(named[0], by_place), batches, by_place)


def _together(names: Sequence[str], batches: Mapping[str, str]) -> dict[str, str]:
    """The other names of axes that may be equal, each with the name that stays: a batch's, or else the first."""
    stays = next((name for name in names if name in batches), names[0] if names else "")
    return {name: stays for name in names if name != stays}


def _renamed(shapes: Shapes, names: Mapping[str, str]) -> Shapes:
    return {
        name: tuple(names.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)
        for name, shape in shapes.items()
    }


def _named_shapes(model: Model, batches: Mapping[str, str]) -> list[Shapes]:
    """The inputs' shapes with a name for each dynamic axis.

    The file does not say which axes without a name are equal.  Tried, in this order: only those that are the batch of a
    recurrent operator; the first of each input, as the batch; those at the same place in their inputs; all.
    """
    named: list[Shapes] = []
    for guess in _GUESSES:
        shapes: dict[str, tuple[Dim, ...]] = {}
        for name, info in model.inputs.items():
            sized = [isinstance(dim, int) and dim > 0 for dim in info.shape]
            shapes[name] = tuple(
                dim
                if isinstance(dim, str) or sized[axis]
                else _guessed(guess, axis_name(name, axis), axis, sized, batches)
                for axis, dim in enumerate(info.shape)
            )
        if shapes not in named:
            named.append(shapes)
    return named


def _guessed(guess: str, name: str, axis: int, sized: Sequence[bool], batches: Mapping[str, str]) -> str:
    """The name given to an axis without a name, so that equal axes have the same name."""
    if guess == "by place":
        return name if name in batches else f"axis {axis}"
    if guess == "first is batch" and all(sized[:axis]):
        return "batch"
    return "unnamed axes" if guess == "one size" else name


def _tried_at(trials: _Trials) -> list[Finding]:
    """The findings of runs at several sizes."""
    tried: dict[str, _Problem | None] = {}
    at: dict[str, Mapping[str, int]] = {}
    one_step: list[str] = []
    too_large = False
    for batch, others in _SIZES:
        sizes = trials.sizes(batch, others)
        label = _label(sizes)
        if label in tried:
            continue
        if trials.elements(sizes) > _MOST_ELEMENTS:
            too_large = True
            break
        tried[label], at[label] = trials.problem(sizes), sizes
        one_step += [label] if others == (1,) else []
    failures = {label: problem for label, problem in tried.items() if problem}
    note = ""
    open_axes = " and ".join(name for name, is_batch in trials.axes.items() if not is_batch)
    too_short = all(label in failures and not failures[label].of_output for label in one_step)
    if failures and too_short and not all(trials.axes.values()) and not too_large:
        # A kernel, a window or a padding may be longer than what was tried.
        least = trials.least_size()
        labels = trials.labels_where(lambda size: least + size - 1) if least else []
        if labels:
            note = f"; it needs {'a time of' if 'time' in trials.axes else open_axes} {least} or more"
            tried |= dict.fromkeys(labels)
            failures = {}
    if failures and open_axes and not too_large and not any(problem.of_output for problem in failures.values()):
        # It may process steps in pairs, or in larger groups.
        multiple, labels = trials.multiple([sizes for label, sizes in at.items() if label not in failures])
        if labels:
            note = f"; it needs a multiple of {multiple} as {open_axes}"
            tried |= dict.fromkeys(labels)
            failures = {}
    if failures:
        return _violations(failures, some_run=len(failures) < len(tried))
    if too_large:
        return [RUNNABLE.skipped(f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
    ran = "; ".join(label for label, problem in tried.items() if not problem)
    for name, first in trials.together.items():
        note += f"; {name} must be {first}"
    return [RUNNABLE.passed(f"runs at {ran}, and its outputs have the shapes that it declares{note}")]


def _violations(failures: Mapping[str, _Problem], *, some_run: bool) -> list[Finding]:
    """A finding for each size; for several with the same wrong output, only the first."""
    findings: dict[str, Finding] = {}
    for label, problem in failures.items():
        if problem.of_output:
            finding = RUNNABLE.violated("", f"at {label}: {problem.text}", _CORRECT_SHAPE)
            findings.setdefault(problem.text, finding)
        else:
            fix = "" if some_run else _NO_SIZE
            findings[label] = RUNNABLE.violated("", f"cannot run at {label}: {problem.text}", fix)
    return list(findings.values())


def _label(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items()) or "its fixed sizes"


@dataclass(frozen=True)
class _Trials:
    """Runs of a model whose dynamic axes all have a name.

    Attributes:
        model: the model.
        shapes: of its inputs.
        batches: the axes that are a batch, each with the first of its names.
        together: further names of axes, whose size is that of the axis that they lead to.
    """

    model: Model
    shapes: Shapes
    batches: Mapping[str, str]
    together: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def specs(self) -> list[InputSpec]:
        """The metadata's, of a module's inputs."""
        return [spec for spec in self.model.metadata.inputs if spec.name in self.model.inputs]

    @cached_property
    def axes(self) -> dict[str, bool]:
        """The axes to set, and whether each is a batch."""
        dims = [dim for shape in self.shapes.values() for dim in shape if isinstance(dim, str)]
        names: dict[str, bool] = {}
        for name in (*dims, *axes_of(self.specs)):
            group = self.batches.get(name)
            if group is None or all(self.batches.get(other) != group for other in names):
                names.setdefault(name, name in _BATCH_NAMES or group is not None)
        # The size of an axis such as 4*batch follows from the others.
        plain = {name: 1 for name in names if name.isidentifier()}
        own = [name for name in names if name in plain or size_of(name, plain) is None]
        return {name: names[name] for name in sorted(own, key=lambda name: _ORDER.get(name, len(_ORDER)))}

    @cached_property
    def limits(self) -> Limits:
        """The sizes that the metadata promises; an axis is as long as its shortest sequence."""
        limits = dict(self.model.metadata.axis_limits)
        for spec in self.specs:
            if isinstance(spec.high, str) and isinstance(spec.low, int):
                least, largest = limits.get(spec.high, ANY_SIZE)
                limits[spec.high] = max(least, spec.low), largest
        return limits

    def sizes(self, batch: int, others: tuple[int, ...]) -> dict[str, int]:
        """A size for each axis, as close to the wanted one as its limits allow."""
        sizes = {
            name: batch if self.axes[name] else others[index % len(others)] for index, name in enumerate(self.axes)
        }
        for name, size in sizes.items():
            sizes[name] = self.model.metadata.nearest_size(name, clamped(size, self.limits.get(name, ANY_SIZE)))
        return sizes

    def _all_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """`sizes`, and the same for the other names of each axis."""
        groups = {self.batches[name]: size for name, size in sizes.items() if name in self.batches}
        known = {**{name: groups[first] for name, first in self.batches.items() if first in groups}, **sizes}
        return {**{name: known[first] for name, first in self.together.items() if first in known}, **known}

    def _shapes_at(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The inputs' shapes at the sizes of all axes."""
        return {
            name: tuple(dim if isinstance(dim, int) else size_of(str(dim), sizes) or 1 for dim in self.shapes[name])
            for name in self.model.inputs
        }

    def elements(self, sizes: Mapping[str, int]) -> int:
        """How many numbers the inputs hold."""
        return sum(map(prod, self._shapes_at(self._all_sizes(sizes)).values()))

    def problem(self, sizes: Mapping[str, int]) -> _Problem | None:
        """What goes wrong at these sizes."""
        stage(f"a run at {_label(sizes)}")
        sizes = self._all_sizes(sizes)
        bound = self._shapes_at(sizes)
        none = next((name for name, shape in bound.items() if min(shape, default=1) < 1), None)
        if none is not None:  # an axis such as time - 2
            return _Problem(f"the input {none} would have the shape {bound[none]}")
        rng = np.random.default_rng(0)
        try:
            drawn = draw(self.specs, sizes, rng)
        except ConfigError as error:
            return _Problem(f"inputs like these contradict the metadata: {run_error(error)}")
        feeds = {name: _converted(array, self.model.inputs[name]) for name, array in drawn.items()}
        for name, info in self.model.inputs.items():
            if name not in feeds:
                feeds[name] = _drawn(rng, info, bound[name], sizes)
        if (steps := self.model.metadata.streaming_or_default.steps) in feeds:
            feeds[steps][...] = 0  # all sequences begin: others cannot always be stepped together
        problem = _run_problem(self.model, feeds, sizes)
        lengths = {spec.name: spec.high for spec in self.specs if isinstance(spec.high, str)}
        if problem is not None and lengths:
            # After kernels and strides a short sequence may have no step left, for which the module itself fails, too.
            whole = {name: np.full_like(feeds[name], size_of(axis, sizes) or 1) for name, axis in lengths.items()}
            return _run_problem(self.model, {**feeds, **whole}, sizes)
        return problem

    def least_size(self) -> int:
        """The least size of all axes but the batch at which the model runs; 0 where none is found.

        Found by doubling and bisection: a layer that needs some steps also runs with more.
        """

        def runs(size: int) -> bool:
            sizes = self.sizes(1, (size,))
            return self.elements(sizes) <= _MOST_SEARCHED and self.problem(sizes) is None

        found = next((2**power for power in range(1, _LARGEST_LEAST.bit_length()) if runs(2**power)), 0)
        below = found // 2
        while found - below > 1:
            middle = (found + below) // 2
            below, found = (below, middle) if runs(middle) else (middle, found)
        return found

    def multiple(self, ran: Sequence[Mapping[str, int]]) -> tuple[int, list[str]]:
        """The number of which all axes but the batch must be a multiple, and the sizes that were tried.

        The model must run at many multiples of it, and the sizes in `ran`, at which it ran, must be multiples of it.
        """
        running = gcd(*(size for sizes in ran for name, size in sizes.items() if not self.axes[name]))
        for step in (step for step in _MULTIPLES if running % step == 0):
            labels = self.labels_where(lambda size, step=step: step * size)  # type: ignore[misc]
            # Within narrow limits all are one size.  A number that was baked in for batch and time together runs at
            # multiples of it as a batch, too.
            if len(set(labels)) > len(_SIZES) and self.problem(self.sizes(step, (step + 1,))) is not None:
                return step, labels
        return 1, []

    def labels_where(self, changed: Callable[[int], int]) -> list[str]:
        """The sizes that are tried, each changed, where the model runs at all of them; empty where it does not."""
        labels: list[str] = []
        for batch, others in (*_SIZES, *_NEXT):
            sizes = self.sizes(batch, tuple(map(changed, others)))
            labels.append(_label(sizes))
            if self.elements(sizes) > _MOST_ELEMENTS or self.problem(sizes) is not None:
                return []
        return labels


def _converted(array: np.ndarray, info: ValueInfo) -> np.ndarray:
    """An array in the graph's dtype: the file may have been converted since its metadata was written."""
    kinds = array.dtype.kind + (info.dtype.kind if info.dtype is not None else "")
    return array.astype(info.dtype) if kinds in ("ff", "ii", "iu", "ui", "uu") else array


def _run_problem(model: Model, feeds: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> _Problem | None:
    """What goes wrong at these sizes."""
    try:
        results = model.run(feeds)
    except model_errors() as error:
        return _Problem(run_error(error))
    for name, info in model.outputs.items():
        value = results[name]
        if not isinstance(value, np.ndarray) or info.dtype is None:
            continue
        expected = [size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape]
        wrong = [e for e, size in zip(expected, value.shape, strict=False) if e is not None and 0 < e != size]
        if wrong or (info.shape and len(info.shape) != value.ndim):
            shape = f"the output {name} has shape {value.shape}, and the file says {shown(info.shape)}"
            return _Problem(shape, of_output=True)
    return None


def _drawn(rng: np.random.Generator, info: ValueInfo, shape: tuple[int, ...], sizes: Mapping[str, int]) -> np.ndarray:
    """Values that any model should accept: normally distributed floats, the tokens 0 and 1, full lengths."""
    dtype = info.dtype
    assert dtype is not None  # noqa: S101 - `runnable` skips such models
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and "len" in info.name.lower():
        return np.full(shape, sizes.get("time", 1), dtype)
    return rng.integers(0, 2, shape).astype(dtype)
