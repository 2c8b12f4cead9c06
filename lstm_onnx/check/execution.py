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
from ..onnxgraph import Dim, error_line, shown
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
_ORDER = {"batch": 0, "time": 1}
_LONGEST_KERNEL = 5
_MOST_ELEMENTS = 2**26


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
    axes = _open_axes(model, batches)
    tried: dict[str, str] = {}
    short: list[str] = []
    too_large = False
    for batch, others in _SIZES:
        sizes = _sizes(axes, batch, others, model.metadata.axis_limits)
        label = ", ".join(f"{axis or 'unnamed axes'} {size}" for axis, size in sizes.items()) or "its fixed sizes"
        if label in tried:
            continue
        stage(f"a run at {label}")
        problem = _problem(model, sizes, batches)
        if problem is None:
            too_large = True
            break
        tried[label] = problem
        if others == (1,):
            short.append(label)
    failures = {label: problem for label, problem in tried.items() if problem}
    note = ""
    if failures and list(failures) == short and not too_large and not all(axes.values()):
        # Only the runs of one step fail: a kernel or a pool may be longer.
        note = _least_time(model, axes, batches)
        failures = {} if note else failures
    if failures:
        return [RUNNABLE.violated("", f"cannot run at {label}: {text}") for label, text in failures.items()]
    if too_large:
        return [RUNNABLE.skipped(f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
    ran = "; ".join(label for label, problem in tried.items() if not problem)
    return [RUNNABLE.passed(f"runs at {ran}, and its outputs have the shapes that it declares{note}")]


def _model_errors() -> tuple[type[Exception], ...]:
    """Errors from loading or running a model that are the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def _run_error(error: BaseException) -> str:
    """The message of an error, without its mention of the file and of running, which the report has already."""
    if not isinstance(error, LSTMOnnxError):
        return error_line(first_line(error))
    return error_line((error.ort_message if isinstance(error, RunError) else None) or error.reason)


def _open_axes(model: Model, batches: Mapping[str, str]) -> dict[str | None, bool]:
    """The axes to set, and whether each is a batch; None stands for all axes without a name."""
    dims = [dim for info in model.inputs.values() for dim in info.shape if not isinstance(dim, int) or dim < 1]
    dims += axes_of(list(_ranges(model).values()))
    names: dict[str | None, bool] = {}
    for dim in dims:
        name = dim if isinstance(dim, str) else None
        known = [other for other in names if name in batches and batches.get(str(other)) == batches[str(name)]]
        if not known:
            names.setdefault(name, name == "batch" or name in batches)
    # The size of an axis such as 4*batch follows from the others.
    plain = {name: 1 for name in names if name is not None and name.isidentifier()}
    own = [name for name in names if name is None or name in plain or size_of(name, plain) is None]
    return {name: names[name] for name in sorted(own, key=lambda name: _ORDER.get(name or "", len(_ORDER)))}


def _ranges(model: Model) -> dict[str, InputSpec]:
    """The metadata's specs of a module's inputs."""
    return {spec.name: spec for spec in model.metadata.inputs if spec.name in model.inputs}


def _sizes(
    axes: Mapping[str | None, bool], batch: int, others: tuple[int, ...], limits: Limits
) -> dict[str | None, int]:
    """A size for each axis, as near to what is wanted as its limits allow."""
    sizes = {name: batch if axes[name] else others[index % len(others)] for index, name in enumerate(axes)}
    for name, size in sizes.items():
        least, largest = limits.get(name or "", (1, None))
        sizes[name] = max(least, size if largest is None else min(size, largest))
    return sizes


def _problem(model: Model, sizes: Mapping[str | None, int], batches: Mapping[str, str]) -> str | None:
    """What goes wrong at these sizes, or ""; None where they are too large to be tried."""
    groups = {batches[name]: size for name, size in sizes.items() if name is not None and name in batches}
    sizes = {**{name: groups[first] for name, first in batches.items() if first in groups}, **sizes}
    shapes = {name: _bound(info, sizes) for name, info in model.inputs.items()}
    none = next((name for name, shape in shapes.items() if min(shape, default=1) < 1), None)
    if none is not None:  # an axis such as time - 2
        return f"the input {none} would have the shape {shapes[none]}"
    if sum(prod(shape) for shape in shapes.values()) > _MOST_ELEMENTS:
        return None
    rng = np.random.default_rng(0)
    try:
        named = {name: size for name, size in sizes.items() if name is not None}
        feeds = draw(list(_ranges(model).values()), named, rng)
        feeds = {name: _converted(array, model.inputs[name]) for name, array in feeds.items()}
    except ConfigError:
        return ""  # such as lengths from 2 with one step: the metadata does not promise these sizes
    for name, info in model.inputs.items():
        if name not in feeds:
            feeds[name] = _drawn(rng, info, shapes[name], sizes)
    return _run_problem(model, feeds, sizes)


def _converted(array: np.ndarray, info: ValueInfo) -> np.ndarray:
    """In the graph's dtype: the file may have been converted since its metadata was written."""
    kinds = array.dtype.kind + (info.dtype.kind if info.dtype is not None else "")
    return array.astype(info.dtype) if kinds in ("ff", "ii", "iu", "ui", "uu") else array


def _least_time(model: Model, axes: Mapping[str | None, bool], batches: Mapping[str, str]) -> str:
    """The least time at which the model runs with batch 1 and batch 3, in words; "" if there is none."""
    for time in range(2, _LONGEST_KERNEL + 1):
        limits = model.metadata.axis_limits
        if all(_problem(model, _sizes(axes, batch, (time,), limits), batches) == "" for batch in (1, 3)):
            return f"; it needs a time of {time} or more"
    return ""


def _bound(info: ValueInfo, sizes: Mapping[str | None, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else _size(dim, sizes) or 1 for dim in info.shape)


def _size(dim: Dim, sizes: Mapping[str | None, int]) -> int | None:
    """The size of an open axis, None if it does not follow from those that are set."""
    if not isinstance(dim, str):
        return sizes.get(None)
    return size_of(dim, {name: size for name, size in sizes.items() if name is not None})


def _run_problem(model: Model, feeds: Mapping[str, np.ndarray], sizes: Mapping[str | None, int]) -> str:
    """What goes wrong at these sizes, or ""."""
    try:
        results = model.run(feeds)
    except _model_errors() as error:
        return _run_error(error)
    for name, info in model.outputs.items():
        value = results[name]
        if not isinstance(value, np.ndarray) or info.dtype is None:
            continue
        expected = [_size(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape]
        wrong = [e for e, size in zip(expected, value.shape, strict=False) if e is not None and 0 < e != size]
        if wrong or (info.shape and len(info.shape) != value.ndim):
            return f"the output {name} has shape {value.shape}, and the file says {shown(info.shape)}"
    return ""


def _drawn(
    rng: np.random.Generator, info: ValueInfo, shape: tuple[int, ...], sizes: Mapping[str | None, int]
) -> np.ndarray:
    """Values that any model should accept: normally distributed floats, the tokens 0 and 1, full lengths."""
    dtype = info.dtype
    assert dtype is not None  # noqa: S101 - _runnable skips such models
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and "len" in info.name.lower():
        return np.full(shape, sizes.get("time", 1), dtype)
    return rng.integers(0, 2, shape).astype(dtype)
