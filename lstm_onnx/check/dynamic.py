"""The rule that runs the file: does it do so at any batch and time, and are its outputs as declared."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from ..errors import ConfigError, InputError, LSTMOnnxError, ModelError, RunError
from ..input_spec import InputSpec, draw
from ..input_spec import axes as axes_of
from ..isolation.stages import stage
from ..onnxgraph import Dim, shown
from ..runtime import Model, ValueInfo
from ..runtime.providers import first_line, ort_errors
from ..runtime.symbolic_dims import size_of
from ..runtime.tensor_info import Limits
from .report import BAKED, Finding, failed, passed, skipped, words

_SIZES = ((1, (1,)), (3, (1,)), (1, (7, 5, 11)), (3, (5, 7, 11, 13, 17)), (2, (7, 5, 3, 11, 13)))
"""The batch, and what the other axes are set to in turn: a baked-in size can equal one of these rows but not all.

A batch of 1 fails on its own, and so does a single step.
"""
_ORDER = {"batch": 0, "time": 1}
_LONGEST_KERNEL = 5
_MOST_ELEMENTS = 2**26
_RUNNABLE = "runnable"


def runnable(model: Model, batches: Mapping[str, str]) -> list[Finding]:
    """Run it at several sizes: any batch, and any time above what its own layers need at least (a kernel, a pool).

    `batches` are the axes that are a batch, each with the first of its names.
    """
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [skipped(_RUNNABLE, f"not tried: no values can be drawn for {'; '.join(undrawable)}")]
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
        # Every run of one step fails, and no other: a kernel or a pool may be longer than that.
        note = _least_time(model, axes, batches)
        failures = {} if note else failures
    if failures:
        return [failed(_RUNNABLE, "", f"cannot run at {label}: {text}", BAKED) for label, text in failures.items()]
    if too_large:
        return [skipped(_RUNNABLE, f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
    ran = "; ".join(label for label, problem in tried.items() if not problem)
    return [passed(_RUNNABLE, f"runs at {ran}, and its outputs have the shapes that it declares{note}")]


def model_errors() -> tuple[type[Exception], ...]:
    """What loading or running a model can raise that is the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def run_words(error: BaseException) -> str:
    """What went wrong, without what a report on the file that says "cannot run" has said already."""
    if not isinstance(error, LSTMOnnxError):
        return words(first_line(error))
    return words((error.ort_message if isinstance(error, RunError) else None) or error.reason)


def _open_axes(model: Model, batches: Mapping[str, str]) -> dict[str | None, bool]:
    """The axes to set, and whether each is a batch; None stands for all without a name, as nothing tells them apart."""
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
    """What the metadata says of a module's inputs."""
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
        return ""  # such as lengths from 2 in one step: the model does not promise these sizes
    for name, info in model.inputs.items():
        if name not in feeds:
            feeds[name] = _drawn(rng, info, shapes[name], sizes)
    return _run_problem(model, feeds, sizes)


def _converted(array: np.ndarray, info: ValueInfo) -> np.ndarray:
    """In the graph's dtype, to which the file may have been converted since its metadata was written."""
    kinds = array.dtype.kind + (info.dtype.kind if info.dtype is not None else "")
    return array.astype(info.dtype) if kinds in ("ff", "ii", "iu", "ui", "uu") else array


def _least_time(model: Model, axes: Mapping[str | None, bool], batches: Mapping[str, str]) -> str:
    """From which time on the model runs at a batch of 1 and of 3, in words; "" where that is not found."""
    for time in range(2, _LONGEST_KERNEL + 1):
        limits = model.metadata.axis_limits
        if all(_problem(model, _sizes(axes, batch, (time,), limits), batches) == "" for batch in (1, 3)):
            return f"; it needs a time of {time} or more"
    return ""


def _bound(info: ValueInfo, sizes: Mapping[str | None, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else _size(dim, sizes) or 1 for dim in info.shape)


def _size(dim: Dim, sizes: Mapping[str | None, int]) -> int | None:
    """The size of an open axis, None where it does not follow from those that are set."""
    if not isinstance(dim, str):
        return sizes.get(None)
    return size_of(dim, {name: size for name, size in sizes.items() if name is not None})


def _run_problem(model: Model, feeds: Mapping[str, np.ndarray], sizes: Mapping[str | None, int]) -> str:
    """What goes wrong at these sizes, or ""."""
    try:
        results = model.run(feeds)
    except model_errors() as error:
        return run_words(error)
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
    """Values that any model should take: normal numbers, the tokens 0 and 1, whole sequences."""
    dtype = info.dtype
    assert dtype is not None  # noqa: S101 - the caller leaves such models alone
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and "len" in info.name.lower():
        return np.full(shape, sizes.get("time", 1), dtype)
    return rng.integers(0, 2, shape).astype(dtype)
