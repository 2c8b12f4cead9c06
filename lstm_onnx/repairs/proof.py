"""Compares a repaired file with its source."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from ..errors import InputError, ModelError, RunError
from ..runtime import Model
from ..runtime.chunk_check import LARGEST_INTEGERS, mismatch, rounded
from ..runtime.providers import open_session, ort_errors
from ..runtime.tensor_info import ValueInfo
from ..symbolic_dims import is_expression, names_in, size_of

Array = np.ndarray[Any, Any]
_SIZES = ((2, 6), (1, 1), (3, 9), (1, 12))
"""The sizes of the first dynamic axis and of the others, in each comparison."""
LARGEST_SIZE = 1031
_LONG_SIZES = ((5, 61, 17, 31), (1, LARGEST_SIZE, 7, 11), (1, 7, LARGEST_SIZE, 11), (LARGEST_SIZE, 2, 3, 5))
"""The sizes of the first dynamic axes, in order, and the last number of all others, in further comparisons.

Sizes that are equal by chance differ in these, and reach numbers with which a graph compares them, such as the most
steps that a file reads.  If axes of different names must be equal, the source does not run.
"""
_SHARED_SIZES = ((2, LARGEST_SIZE), (LARGEST_SIZE, 3))
"""Large sizes that several inputs share by position (see `random_inputs`)."""
_MARKED = 1 / 3
_ROWS = 3
"""How many batches of the source's fixed size the repaired file gets at once."""


@dataclass(frozen=True)
class Proof:
    """How a repaired file was compared.

    Attributes:
        runs: the comparisons.
        problem: how the files differ; "" if they do not.
    """

    runs: int = 0
    problem: str = ""

    def __str__(self) -> str:
        """For people."""
        return f"compared with the source in {self.runs} runs: no difference beyond rounding"


def prove(
    source: Model, repaired: Model, *, seed: int = 0, fixed: tuple[int, int] | None = None, marks: Sequence[float] = ()
) -> Proof:
    """Compare two files at several sizes.

    Args:
        source: the file before.
        repaired: the file after, whose further inputs are states.
        seed: of the inputs.
        fixed: the batch axis of the source's inputs and its size, if it is dynamic in the repaired file.
        marks: numbers that mark steps in the inputs, such as the 0 of padding (see `marks_of`).

    Raises:
        ModelError: the source runs at none of the sizes, or gives other numbers each time, as Dropout in training mode.
    """
    runs, failed = 0, ""
    short, together = _Outputs(), _Outputs()
    compared = [short]
    for sizes in _sizes(source):
        try:
            feeds, whole = _run(source, sizes, seed + runs, marks)
            near = source.run(rounded(feeds))
        except (InputError, RunError) as error:
            failed = failed or error.reason
            continue
        again = _Outputs()
        if not runs and (again.add(source.run(feeds), whole, whole) or again.difference()):
            raise ModelError("cannot be compared: it gives other numbers each time it runs", path=source.path)
        alone = short
        if sizes not in _SIZES:
            if not all(np.isfinite(array).all() for array in whole.values() if array.dtype.kind == "f"):
                continue  # its states grow with each step
            alone = _Outputs()  # rounding may have grown, too
            compared.append(alone)
        runs += 1
        try:
            found = repaired.run(feeds)
        except (InputError, RunError) as error:
            return Proof(runs, error.reason)
        if problem := alone.add(found, whole, near):
            return Proof(runs, problem)
        if fixed is None or alone is not short:
            continue
        if problem := _batched(source, repaired, sizes, seed, fixed, marks, together):
            return Proof(runs, problem)
    if not runs:
        raise ModelError(f"cannot be compared: it does not run on random inputs ({failed})", path=source.path)
    if problem := next(filter(None, (alone.difference() for alone in compared)), ""):
        return Proof(runs, problem)
    problem = together.difference()
    return Proof(runs, f"in a larger batch: {problem}" if problem else "")


def _run(
    source: Model, sizes: Sequence[int], seed: int, marks: Sequence[float]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Random inputs, of integers as large as the source takes, and its outputs (InputError, RunError)."""
    *larger, least = LARGEST_INTEGERS
    for most in larger:
        feeds = random_inputs(source, sizes, seed, marks, most)
        with contextlib.suppress(InputError, RunError):
            return feeds, source.run(feeds)
    feeds = random_inputs(source, sizes, seed, marks, least)
    return feeds, source.run(feeds)


def _batched(
    source: Model,
    repaired: Model,
    sizes: Sequence[int],
    seed: int,
    fixed: tuple[int, int],
    marks: Sequence[float],
    outputs: _Outputs,
) -> str:
    """Add a larger batch, and the source's batches one by one, to `outputs`; returns what does not fit, or ""."""
    axis, _ = fixed
    parts = [random_inputs(source, sizes, 100 + seed + number, marks) for number in range(_ROWS)]
    together = {
        name: np.concatenate([part[name] for part in parts], axis) if array.ndim > axis else array
        for name, array in parts[0].items()
    }
    try:
        found = repaired.run(together)
    except (InputError, RunError) as error:
        return error.reason
    for number, part in enumerate(parts):
        whole, near = source.run(part), source.run(rounded(part))
        cut: dict[str, Array] = {}
        for name, array in whole.items():
            places = (axis, *range(array.ndim)) if found[name].ndim == array.ndim > axis else ()
            ways = [at for at in places if found[name].shape[at] == _ROWS * array.shape[at]]
            if not ways:
                return f"{name} has shape {found[name].shape} for {_ROWS} batches of {array.shape}"
            cut[name] = np.split(found[name], _ROWS, ways[0])[number]
        if problem := outputs.add(cut, whole, near):
            return f"in a larger batch: {problem}"
    return ""


@dataclass
class _Outputs:
    """The outputs of both files in all runs.

    A number may be close to zero by chance, and its rounding as large as the number, so the scale comes from all runs.
    """

    found: dict[str, list[Array]] = field(default_factory=dict)
    whole: dict[str, list[Array]] = field(default_factory=dict)
    near: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, found: Mapping[str, Array], whole: Mapping[str, Array], near: Mapping[str, Array]) -> str:
        """Add a run; returns which output has another shape, or ""."""
        for name, array in whole.items():
            if found[name].shape != array.shape:
                return f"{name} has shape {found[name].shape} instead of {array.shape}"
            close = near[name] if near[name].shape == array.shape else array  # a size may depend on numbers
            for kept, one in ((self.found, found[name]), (self.whole, array), (self.near, close)):
                kept.setdefault(name, []).append(one.ravel())
        return ""

    def difference(self) -> str:
        """How the files differ by more than rounding; "" if they do not."""
        for name in self.whole:
            found, whole, near = (np.concatenate(kept[name]) for kept in (self.found, self.whole, self.near))
            if problem := mismatch(found, whole, near):
                return f"{name}: {problem}"
        return ""


def marks_of(nodes: Iterable[NodeProto], arrays: Mapping[str, Array]) -> tuple[float, ...]:
    """The numbers with which a graph compares inputs, such as to distinguish padding from other steps."""
    compared = [arrays[name] for node in nodes if node.op_type == "Equal" for name in node.input if name in arrays]
    return tuple(dict.fromkeys(float(item) for item in compared if item.size == 1 and item.dtype.kind == "f"))


def random_inputs(
    model: Model, sizes: Sequence[int], seed: int, marks: Sequence[float] = (), most: int = 1
) -> dict[str, Array]:
    """Random inputs: the first dynamic axis has the first size, the next axis the next size, and all others the last.

    Axes are identified by name.  If the inputs share no names, as in files of tf2onnx, which names each axis of each
    input separately, or if axes have no names, they are identified by position: the batch of all inputs has one size.
    So do two sequences then, unless there are more than two sizes.  An axis such as 2*time has the size that follows.

    Args:
        model: the model that takes them.
        sizes: see above.
        seed: of the numbers.
        marks: numbers with which a third of the entries of the first two axes of floats are filled.
        most: the largest integer.
    """
    rng = np.random.default_rng(seed)
    known: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    infos = {name: info for name, info in model.inputs.items() if name not in model.states}
    by_place = _by_place(infos.values())
    for name, info in infos.items():
        shape = []
        for axis, dim in enumerate(info.shape):
            if isinstance(dim, int):
                shape.append(dim)
                continue
            placed = by_place and (axis == 0 or len(sizes) == len(_SIZES[0]))
            label = f"axis {axis}" if placed else dim if isinstance(dim, str) else f"{name}.{axis}"
            follows = size_of(str(dim), known) if is_expression(dim) else None
            size = known.setdefault(label, follows or sizes[min(len(known), len(sizes) - 1)])
            shape.append(size)
        dtype = np.dtype(np.float32 if info.dtype is None else info.dtype)
        array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, most + 1, shape)
        for mark in marks if dtype.kind == "f" and len(shape) > 1 else ():
            array[rng.random(shape[:2]) < _MARKED] = mark
        feeds[name] = np.asarray(array, dtype)
    return feeds


def _by_place(infos: Iterable[ValueInfo]) -> bool:
    """Whether no axis of an input has the name of another input's."""
    named = [name for info in infos for dim in {*info.shape} if isinstance(dim, str) for name in names_in(dim)]
    return len(set(named)) == len(named)


def _sizes(model: Model) -> tuple[tuple[int, ...], ...]:
    infos = [info for name, info in model.inputs.items() if name not in model.states]
    shared = len(infos) > 1 and _by_place(infos)
    return (*_SIZES, *_LONG_SIZES, *(_SHARED_SIZES if shared else ()))


def sizes_in_runs(model: Model, *, seed: int = 0) -> list[tuple[dict[str, int], dict[str, tuple[int, ...]]]]:
    """Where a file runs: the sizes of its inputs' dynamic axes by name, and the shapes of its outputs."""
    found = []
    for sizes in _sizes(model):
        feeds = random_inputs(model, sizes, seed)
        with contextlib.suppress(InputError, RunError):
            results = model.run(feeds)
            dims = [pair for name in feeds for pair in zip(model.inputs[name].shape, feeds[name].shape, strict=True)]
            axes = {dim: size for dim, size in dims if isinstance(dim, str)}
            found.append((axes, {name: np.shape(array) for name, array in results.items()}))
    return found


def values_of(model: ModelProto, source: Model, names: Sequence[str], *, seed: int) -> dict[str, Array]:
    """The values of a graph that do not depend on the elements of inputs; values that are not computed are left out.

    Raises:
        ModelError: it runs at none of the sizes.
    """
    if not names:
        return {}
    found = next(values_at_sizes(model, source, names, seed=seed), None)
    if found is None:
        raise ModelError("cannot be compared: it does not run on random inputs", path=source.path)
    return found


def values_at_sizes(model: ModelProto, source: Model, names: Sequence[str], *, seed: int) -> Iterator[dict[str, Array]]:
    """The values of a graph at each of the sizes at which it runs.

    Args:
        model: outputs are added to it.
        source: its file.
        names: of the values.
        seed: of the inputs.
    """
    wanted = list(dict.fromkeys(names))
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted if name not in outputs)
    try:
        session, _ = open_session(model.SerializeToString(), "cpu", 1)
    except ModelError:
        return
    for sizes in _sizes(source) if wanted else ():
        with contextlib.suppress(*ort_errors()):
            yield dict(zip(wanted, session.run(wanted, random_inputs(source, sizes, seed)), strict=True))
