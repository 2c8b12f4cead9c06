"""The rules that run the file: do its nodes go where they were asked to, does it run at any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..errors import ConfigError, InputError, LSTMOnnxError, ModelError, ProviderError, RunError
from ..inputs import InputSpec, draw
from ..inputs import axes as axes_of
from ..onnxgraph import Dim, shown
from ..runtime import Model, ValueInfo
from ..runtime.axes import size_of
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
from .report import BAKED, REEXPORT, Finding, failed, passed, skipped, words

_SIZES = ((1,), (3, 5, 7, 11, 13, 17), (2, 7, 5, 3, 11, 13))
"""What the axes are set to in each run, in turn: a baked-in size can equal one of these rows but not all."""
_MODULE_SIZES = ((1, (1,)), (3, (1,)), (1, (7, 5, 11)), (3, (5, 7, 11, 13, 17)), (2, (7, 5, 3, 11, 13)))
"""The batch, and what the other axes are set to in turn: a batch of 1 fails on its own, and so does a single step."""
_LONGEST_KERNEL = 5
_MOST_ELEMENTS = 2**26
_PROVIDER = "provider"
_RUNNABLE = "runnable"
_DOUBLE = "float64-on-cpu"
_PROVIDERS = {"cpu": CPU, "cuda": CUDA}
_MOST_NAMES = 5


@dataclass(frozen=True)
class Ran:
    """What became of a file on a provider: where it was opened, what the rules say, where each node is."""

    provider: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...] = ()


def unopened(provider: str, why: str) -> Ran:
    """Of a file that is better left alone."""
    return Ran(_used(provider), (skipped(_PROVIDER, why), skipped(_RUNNABLE, why)))


def on_provider(file: str, provider: str, *, require: bool = False) -> Ran:
    """Where the model runs, and whether it does; `require` asks for every single node.

    Raises:
        ProviderError: the provider itself cannot be used here.
    """
    try:
        session, used = open_session(file, provider, every_node=False)
    except ModelError as error:
        unknown = skipped(_PROVIDER, "not known, since it cannot be opened")
        refused = failed(_RUNNABLE, "", _run_words(error, file), f"mend what it names, or {REEXPORT}")
        return Ran(_used(provider), (unknown, refused))
    try:
        placed = tuple(placements(session))
    except _model_errors() as error:
        text = f"ONNX Runtime does not say where its nodes run: {words(first_line(error))}"
        placed, where = (), failed(_PROVIDER, "", text, "upgrade it")
    else:
        where = _placed(placed, provider, used, require=require)
    told: tuple[Finding, ...]
    try:
        # States are a matter of their own rule: here every input is given.
        model = Model(file, session, used, states={})
    except ProviderError as error:
        told = failed(_DOUBLE, "", _run_words(error, file)), skipped(_RUNNABLE, "not tried, since it cannot run")
    except _model_errors() as error:
        told = (failed(_RUNNABLE, "", f"it cannot be loaded: {_run_words(error, file)}"),)
    else:
        told = tuple(_module_runnable(model) if model.story.inputs else _runnable(model))
    return Ran(used, (where, *told), placed)


def _used(provider: str) -> str:
    """Where "auto" would have gone."""
    if provider != "auto":
        return provider
    return "cpu" if cuda_unavailable() is not None else "cuda"


def _model_errors() -> tuple[type[Exception], ...]:
    """What loading or running a model can raise that is the model's fault."""
    return (ModelError, RunError, InputError, MemoryError, AttributeError, *ort_errors())


def _run_words(error: BaseException, file: str) -> str:
    """What went wrong, without what a report on `file` that says "cannot run" has said already."""
    text = str(error) if isinstance(error, LSTMOnnxError) else first_line(error)
    return words(text.removeprefix(f"{file}: ").removeprefix("ONNX Runtime failed while running: "))


def _placed(placed: Sequence[Placement], provider: str, used: str, *, require: bool) -> Finding:
    """`require` asks for what ONNX Runtime keeps on the CPU by design, too."""
    if require or used == "cpu":
        elsewhere = [item for item in placed if item.provider != _PROVIDERS[used]]
    else:
        elsewhere = off_cuda(placed)
    names = ", ".join(f"{item.node or 'unnamed'} ({item.op_type})" for item in elsewhere[:_MOST_NAMES])
    names += ", ..." if len(elsewhere) > _MOST_NAMES else ""
    if elsewhere and (require or provider != "auto"):
        by_design = used == "cuda" and not off_cuda(elsewhere)
        fix = "these are on the CPU by design: leave out --require" if by_design else ""
        return failed(_PROVIDER, names, f"{len(elsewhere)} of {len(placed)} nodes are not on {used}", fix)
    rest = f", but {len(elsewhere)} on the CPU: {names}" if elsewhere else ""
    return passed(_PROVIDER, f"{len(placed)} nodes run on {used}{rest}")


def _runnable(model: Model) -> list[Finding]:
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [skipped(_RUNNABLE, f"not tried: no values can be drawn for {'; '.join(undrawable)}")]
    tried: list[str] = []
    found: list[Finding] = []
    for sizes in _bindings(model.inputs.values()):
        label = _label_of(sizes)
        shapes = {name: _bound(info, sizes) for name, info in model.inputs.items()}
        if sum(prod(shape) for shape in shapes.values()) > _MOST_ELEMENTS:
            return found or [skipped(_RUNNABLE, f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
        tried.append(label)
        rng = np.random.default_rng(0)
        feeds = {name: _drawn(rng, info, shapes[name], sizes) for name, info in model.inputs.items()}
        problem = _run_problem(model, feeds, sizes)
        if problem:
            found.append(failed(_RUNNABLE, "", f"cannot run at {label}: {problem}", BAKED))
    return found or [passed(_RUNNABLE, f"runs at {'; '.join(tried)}, and its outputs have the shapes that it declares")]


def _bindings(infos: Iterable[ValueInfo]) -> list[dict[str | None, int]]:
    """Sizes for the open axes, by name; None stands for all that have none, as nothing tells them apart."""
    open_axes = [_axis(dim) for info in infos for dim in info.shape if _is_open(dim)]
    axes = sorted(dict.fromkeys(open_axes), key=lambda axis: {"batch": 0, "time": 1}.get(axis or "", 2))
    rows = [{axis: row[index % len(row)] for index, axis in enumerate(axes)} for row in _SIZES]
    return rows if axes else [{}]


def _module_runnable(model: Model) -> list[Finding]:
    """A module runs at any batch, and at any time above what its own layers need at least (a kernel, a pool)."""
    ranges = {spec.name: spec for spec in model.story.inputs if spec.name in model.inputs}
    undrawable = [str(info) for info in model.inputs.values() if info.dtype is None or info.dtype == object]
    if undrawable:
        return [skipped(_RUNNABLE, f"not tried: no values can be drawn for {'; '.join(undrawable)}")]
    open_axes = [_axis(dim) for info in model.inputs.values() for dim in info.shape if _is_open(dim)]
    names = dict.fromkeys([*open_axes, *axes_of(list(ranges.values()))])
    # The size of an axis such as 4*batch follows from the others.
    plain = {name: 1 for name in names if name is not None and name.isidentifier()}
    names = {name: None for name in names if name is None or name in plain or size_of(name, plain) is None}
    tried: dict[str, str] = {}
    short: list[str] = []
    for batch, others in _MODULE_SIZES:
        sizes = {name: batch if name == "batch" else others[i % len(others)] for i, name in enumerate(names)}
        label = _label_of(sizes)
        if label in tried:
            continue
        problem = _module_problem(model, ranges, sizes)
        if problem is None:
            return [skipped(_RUNNABLE, f"not tried: its inputs hold more than {_MOST_ELEMENTS} numbers")]
        tried[label] = problem
        if others == (1,):
            short.append(label)
    failures = {label: problem for label, problem in tried.items() if problem}
    note = ""
    if failures and list(failures) == short and "time" in names:
        # Every run of one step fails, and no other: a kernel or a pool may be longer than that.
        note = _least_time(model, ranges, names)
        failures = {} if note else failures
    if failures:
        return [failed(_RUNNABLE, "", f"cannot run at {label}: {text}", BAKED) for label, text in failures.items()]
    ran = "; ".join(label for label, problem in tried.items() if not problem)
    return [passed(_RUNNABLE, f"runs at {ran}, and its outputs have the shapes that it declares{note}")]


def _label_of(sizes: Mapping[str | None, int]) -> str:
    return ", ".join(f"{axis or 'unnamed axes'} {size}" for axis, size in sizes.items()) or "its fixed sizes"


def _module_problem(model: Model, ranges: Mapping[str, InputSpec], sizes: Mapping[str | None, int]) -> str | None:
    """What goes wrong at these sizes, or ""; None where they are too large to be tried."""
    shapes = {name: _bound(info, sizes) for name, info in model.inputs.items()}
    if sum(prod(shape) for shape in shapes.values()) > _MOST_ELEMENTS:
        return None
    rng = np.random.default_rng(0)
    try:
        feeds = draw(list(ranges.values()), {name: size for name, size in sizes.items() if name is not None}, rng)
    except ConfigError:
        return ""  # such as lengths from 2 in one step: the model does not promise these sizes
    for name, info in model.inputs.items():
        if name not in feeds:
            feeds[name] = _drawn(rng, info, shapes[name], sizes)
    return _run_problem(model, feeds, sizes)


def _least_time(model: Model, ranges: Mapping[str, InputSpec], names: Iterable[str | None]) -> str:
    """From which time on the model runs at a batch of 1 and of 3, in words; "" where that is not found."""
    for time in range(2, _LONGEST_KERNEL + 1):
        rows = [{name: batch if name == "batch" else time for name in names} for batch in (1, 3)]
        if all(_module_problem(model, ranges, sizes) == "" for sizes in rows):
            return f"; it needs a time of {time} or more"
    return ""


def _is_open(dim: Dim) -> bool:
    return not isinstance(dim, int) or dim < 1


def _bound(info: ValueInfo, sizes: Mapping[str | None, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else _size(dim, sizes) or 1 for dim in info.shape)


def _size(dim: Dim, sizes: Mapping[str | None, int]) -> int | None:
    """The size of an open axis, None where it does not follow from those that are set."""
    if not isinstance(dim, str):
        return sizes.get(None)
    return size_of(dim, {name: size for name, size in sizes.items() if name is not None})


def _axis(dim: Dim) -> str | None:
    return dim if isinstance(dim, str) else None


def _run_problem(model: Model, feeds: Mapping[str, np.ndarray], sizes: Mapping[str | None, int]) -> str:
    """What goes wrong at these sizes, or ""."""
    try:
        results = model.run(feeds)
    except _model_errors() as error:
        return _run_words(error, model.path)
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
