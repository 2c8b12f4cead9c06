"""The file in ONNX Runtime: whether it opens, where its nodes run, and whether it runs at any batch and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..errors import ConfigError, InputError, LSTMOnnxError, ModelError, ProviderError, RunError
from ..input_spec import InputSpec, draw
from ..input_spec import axes as axes_of
from ..isolation.stages import share, stage
from ..onnxgraph import Dim, axis_name, error_line, shown
from ..runtime import Model, ValueInfo
from ..runtime.providers import (
    CPU,
    CUDA,
    Placement,
    cuda_unavailable,
    first_line,
    off_cuda,
    open_session,
    ort_errors,
    placements,
)
from ..runtime.tensor_info import Limits
from ..symbolic_dims import size_of
from .finding import Finding
from .report import CheckResults
from .rules.precision import FLOAT64_ON_CPU
from .rules.providers import PLACEMENT, RUNNABLE

_PROVIDERS = {"cpu": CPU, "cuda": CUDA}
_MOST_NAMES = 5
_SIZES = ((1, (1,)), (3, (1,)), (1, (7, 5, 11)), (3, (5, 7, 11, 13, 17)), (2, (7, 5, 3, 11, 13)))
"""The batch, and what the other axes are set to in turn: a baked-in size can equal one of these rows but not all.

A batch of 1 fails on its own, and so does a single step.
"""
_NEXT = ((1, (2,)), (1, (3,)))
"""Right above a least size: where only every second or third size runs, it is none."""
_ORDER = {"batch": 0, "time": 1}
_GUESSES = ("own", "first is batch", "by place", "one size")
_BATCH_NAMES = ("batch", "batch_size")
_LARGEST_LEAST = 1024
"""Up to here the least size of the other axes is searched for: kernels, windows and paddings of signals need some."""
_MOST_ELEMENTS = 2**26
_MOST_SEARCHED = 2**22
_CORRECT_SHAPE = "correct the shape that the file declares for it; if the size should follow an input's, export again"
_NO_SIZE = f"mend what it names: none of the sizes that were tried runs, from 1 to {_LARGEST_LEAST}"


@dataclass(frozen=True)
class _Problem:
    """What went wrong in a run; `of_output` if it ran, and an output has another shape than the file declares."""

    text: str
    of_output: bool = False


Shapes = Mapping[str, tuple[Dim, ...]]


@dataclass(frozen=True)
class Execution:
    """The provider that a file was opened on, the findings there, and where each node runs."""

    provider: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...] = ()


def not_opened(provider: str, reason: str) -> Execution:
    """For a file that is not opened."""
    return Execution(expected_provider(provider), (PLACEMENT.skipped(reason), RUNNABLE.skipped(reason)))


def execute(file: str, provider: str, *, require: bool, batches: Mapping[str, str]) -> Execution:
    """Open a file, and run it at several sizes.

    Args:
        file: the .onnx file.
        provider: "cpu", "cuda" or "auto".
        require: every node must be on the provider, also those that ONNX Runtime keeps on the CPU by design.
        batches: the axes that are a batch, each with the first of its names.

    Raises:
        ProviderError: the provider cannot be used on this machine.
    """
    stage("session creation")
    try:
        session, where = open_session(file, provider, every_node=False)
    except ModelError as error:
        unknown = PLACEMENT.skipped("not known, since it cannot be opened")
        refused = RUNNABLE.violated("", _run_error(error), "mend what it names, or export the model again")
        return Execution(expected_provider(provider), (unknown, refused))
    try:
        placed = tuple(placements(session))
    except _model_errors() as error:
        message = f"ONNX Runtime does not say where its nodes run: {error_line(first_line(error))}"
        placed, placement = (), PLACEMENT.violated("", message, "upgrade it")
    else:
        placement = _placement(placed, provider, where, require=require)
    share(CheckResults(where, (placement,), (), placed).to_dict())
    stage("the first run")
    runs: tuple[Finding, ...]
    try:
        # States have a rule of their own: here every input is passed.
        model = Model(file, session, where, states={})
    except ProviderError as error:
        runs = (
            FLOAT64_ON_CPU.violated("", _run_error(error)),
            RUNNABLE.skipped("not tried, since it cannot run"),
        )
    except _model_errors() as error:
        runs = (RUNNABLE.violated("", f"it cannot be loaded: {_run_error(error)}"),)
    else:
        runs = tuple(_runnable(model, batches))
    return Execution(where, (placement, *runs), placed)


def expected_provider(provider: str) -> str:
    """The provider that "auto" stands for on this machine."""
    if provider != "auto":
        return provider
    return "cpu" if cuda_unavailable() is not None else "cuda"


def _placement(placed: Sequence[Placement], provider: str, used: str, *, require: bool) -> Finding:
    """Whether the nodes are on the provider; with `require` also those that are on the CPU by design."""
    if require or used == "cpu":
        elsewhere = [item for item in placed if item.provider != _PROVIDERS[used]]
    else:
        elsewhere = off_cuda(placed)
    names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:_MOST_NAMES])
    names += ", ..." if len(elsewhere) > _MOST_NAMES else ""
    if elsewhere and (require or provider != "auto"):
        by_design = used == "cuda" and not off_cuda(elsewhere)
        fix = "these are on the CPU by design: leave out --require" if by_design else ""
        return PLACEMENT.violated(names, f"{len(elsewhere)} of {len(placed)} nodes are not on {used}", fix)
    rest = f", but {len(elsewhere)} on the CPU: {names}" if elsewhere else ""
    return PLACEMENT.passed(f"{len(placed)} nodes run on {used}{rest}")


def _runnable(model: Model, batches: Mapping[str, str]) -> list[Finding]:
    """Run a model at several sizes: any batch, and any time from the least that its layers need (a kernel, a pool)."""
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [RUNNABLE.skipped(f"not tried: no values can be drawn for {'; '.join(undrawable)}")]
    findings: list[Finding] = []
    for shapes in _named_shapes(model, batches):
        tried = _tried_at(model, shapes, batches)
        if any(finding.passed for finding in tried):
            return tried
        findings = findings or tried
    return findings


def _named_shapes(model: Model, batches: Mapping[str, str]) -> list[Shapes]:
    """The inputs' shapes with a name for each open axis.

    Which of the axes without a name have one size is not in the file.  In the order in which they are tried: none but
    those that are the batch of a recurrent operator; the first of each input, as the batch; those at the same place in
    their inputs; all.
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
    """What an axis without a name is called, so that axes of one size have one name."""
    if guess == "by place":
        return name if name in batches else f"axis {axis}"
    if guess == "first is batch" and all(sized[:axis]):
        return "batch"
    return "unnamed axes" if guess == "one size" else name


def _tried_at(model: Model, shapes: Shapes, batches: Mapping[str, str]) -> list[Finding]:
    """What running at several sizes gives, with these names of axes."""
    axes = _open_axes(model, shapes, batches)
    limits = model.metadata.axis_limits
    tried: dict[str, _Problem | None] = {}
    one_step: list[str] = []
    too_large = False
    for batch, others in _SIZES:
        sizes = _sizes(axes, batch, others, limits)
        label = _label(sizes)
        if label in tried:
            continue
        if _elements(model, shapes, sizes, batches) > _MOST_ELEMENTS:
            too_large = True
            break
        stage(f"a run at {label}")
        tried[label] = _problem(model, shapes, sizes, batches)
        one_step += [label] if others == (1,) else []
    failures = {label: problem for label, problem in tried.items() if problem}
    note = ""
    too_short = all(label in failures and not failures[label].of_output for label in one_step) and not all(
        axes.values()
    )
    if failures and too_short and not too_large:
        # A kernel, a window or a padding may be longer than what was tried.
        least = _least_size(model, shapes, axes, batches)
        labels = _labels_from(model, shapes, axes, batches, least)
        if labels:
            names = "a time of" if "time" in axes else " and ".join(name for name in axes if not axes[name])
            note = f"; it needs {names} {least} or more"
            tried |= dict.fromkeys(labels)
            failures = {}
    if failures:
        return _violations(failures, some_run=len(failures) < len(tried))
    if too_large:
        return [RUNNABLE.skipped(f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
    ran = "; ".join(label for label, problem in tried.items() if not problem)
    return [RUNNABLE.passed(f"runs at {ran}, and its outputs have the shapes that it declares{note}")]


def _violations(failures: Mapping[str, _Problem], *, some_run: bool) -> list[Finding]:
    """One for each size; of several with the same wrong output, the first."""
    findings: dict[str, Finding] = {}
    for label, problem in failures.items():
        if problem.of_output:
            finding = RUNNABLE.violated("", f"at {label}: {problem.text}", _CORRECT_SHAPE)
            findings.setdefault(problem.text, finding)
        else:
            fix = "" if some_run else _NO_SIZE
            findings[label] = RUNNABLE.violated("", f"cannot run at {label}: {problem.text}", fix)
    return list(findings.values())


def _model_errors() -> tuple[type[Exception], ...]:
    """Errors from loading or running a model that are the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def _run_error(error: BaseException) -> str:
    """The message of an error, without its mention of the file and of running, which the report has already."""
    if not isinstance(error, LSTMOnnxError):
        return error_line(first_line(error))
    return error_line((error.ort_message if isinstance(error, RunError) else None) or error.reason)


def _open_axes(model: Model, shapes: Shapes, batches: Mapping[str, str]) -> dict[str, bool]:
    """The axes to set, and whether each is a batch."""
    dims = [dim for shape in shapes.values() for dim in shape if isinstance(dim, str)]
    dims += axes_of(list(_ranges(model).values()))
    names: dict[str, bool] = {}
    for name in dims:
        known = [other for other in names if name in batches and batches.get(other) == batches[name]]
        if not known:
            names.setdefault(name, name in _BATCH_NAMES or name in batches)
    # The size of an axis such as 4*batch follows from the others.
    plain = {name: 1 for name in names if name.isidentifier()}
    own = [name for name in names if name in plain or size_of(name, plain) is None]
    return {name: names[name] for name in sorted(own, key=lambda name: _ORDER.get(name, len(_ORDER)))}


def _ranges(model: Model) -> dict[str, InputSpec]:
    """The metadata's specs of a module's inputs."""
    return {spec.name: spec for spec in model.metadata.inputs if spec.name in model.inputs}


def _sizes(axes: Mapping[str, bool], batch: int, others: tuple[int, ...], limits: Limits) -> dict[str, int]:
    """A size for each axis, as near to what is wanted as its limits allow."""
    sizes = {name: batch if axes[name] else others[index % len(others)] for index, name in enumerate(axes)}
    for name, size in sizes.items():
        least, largest = limits.get(name, (1, None))
        sizes[name] = max(least, size if largest is None else min(size, largest))
    return sizes


def _label(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items()) or "its fixed sizes"


def _shapes_at(model: Model, shapes: Shapes, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The inputs' shapes at the sizes of all axes."""
    return {
        name: tuple(dim if isinstance(dim, int) else size_of(str(dim), sizes) or 1 for dim in shapes[name])
        for name in model.inputs
    }


def _all_sizes(sizes: Mapping[str, int], batches: Mapping[str, str]) -> dict[str, int]:
    """`sizes`, and the same for the other names of each batch."""
    groups = {batches[name]: size for name, size in sizes.items() if name in batches}
    return {**{name: groups[first] for name, first in batches.items() if first in groups}, **sizes}


def _elements(model: Model, shapes: Shapes, sizes: Mapping[str, int], batches: Mapping[str, str]) -> int:
    """How many numbers the inputs hold."""
    return sum(prod(shape) for shape in _shapes_at(model, shapes, _all_sizes(sizes, batches)).values())


def _problem(model: Model, shapes: Shapes, sizes: Mapping[str, int], batches: Mapping[str, str]) -> _Problem | None:
    """What goes wrong at these sizes."""
    sizes = _all_sizes(sizes, batches)
    bound = _shapes_at(model, shapes, sizes)
    none = next((name for name, shape in bound.items() if min(shape, default=1) < 1), None)
    if none is not None:  # an axis such as time - 2
        return _Problem(f"the input {none} would have the shape {bound[none]}")
    rng = np.random.default_rng(0)
    try:
        feeds = draw(list(_ranges(model).values()), sizes, rng)
        feeds = {name: _converted(array, model.inputs[name]) for name, array in feeds.items()}
    except ConfigError:
        return None  # such as lengths from 2 with one step: the metadata does not promise these sizes
    for name, info in model.inputs.items():
        if name not in feeds:
            feeds[name] = _drawn(rng, info, bound[name], sizes)
    return _run_problem(model, feeds, sizes)


def _converted(array: np.ndarray, info: ValueInfo) -> np.ndarray:
    """In the graph's dtype: the file may have been converted since its metadata was written."""
    kinds = array.dtype.kind + (info.dtype.kind if info.dtype is not None else "")
    return array.astype(info.dtype) if kinds in ("ff", "ii", "iu", "ui", "uu") else array


def _least_size(model: Model, shapes: Shapes, axes: Mapping[str, bool], batches: Mapping[str, str]) -> int:
    """The least size of all axes but the batch at which the model runs; 0 where none is found.

    By doubling and then by halves: a layer that needs some steps runs with more, too.
    """

    def runs(size: int) -> bool:
        sizes = _sizes(axes, 1, (size,), model.metadata.axis_limits)
        if _elements(model, shapes, sizes, batches) > _MOST_SEARCHED:
            return False
        stage(f"a run at {_label(sizes)}")
        return _problem(model, shapes, sizes, batches) is None

    found = next((2**power for power in range(1, _LARGEST_LEAST.bit_length()) if runs(2**power)), 0)
    below = found // 2
    while found - below > 1:
        middle = (found + below) // 2
        below, found = (below, middle) if runs(middle) else (middle, found)
    return found


def _labels_from(
    model: Model, shapes: Shapes, axes: Mapping[str, bool], batches: Mapping[str, str], least: int
) -> list[str]:
    """The sizes from `least` on that were tried, where the model runs at all of them; empty where it does not."""
    labels: list[str] = []
    for batch, others in (*_SIZES, *_NEXT) if least else ():
        larger = tuple(least + size - 1 for size in others)
        sizes = _sizes(axes, batch, larger, model.metadata.axis_limits)
        labels.append(_label(sizes))
        stage(f"a run at {labels[-1]}")
        large = _elements(model, shapes, sizes, batches) > _MOST_ELEMENTS
        if large or _problem(model, shapes, sizes, batches) is not None:
            return []
    return labels


def _run_problem(model: Model, feeds: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> _Problem | None:
    """What goes wrong at these sizes."""
    try:
        results = model.run(feeds)
    except _model_errors() as error:
        return _Problem(_run_error(error))
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
    assert dtype is not None  # noqa: S101 - _runnable skips such models
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and "len" in info.name.lower():
        return np.full(shape, sizes.get("time", 1), dtype)
    return rng.integers(0, 2, shape).astype(dtype)
