"""Compares a module at every small size of each axis, and at every row of its tables.

A module's rows and steps may depend on each other in any way, so each size is a separate run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from ...errors import ExportError
from ...input_spec import sizes_of
from ...runtime.batch_axes import axis_roles
from ..cases import Case
from ..expected import Call, Expected, some_features, with_least_errors
from ..mutants.self_test import folder_of
from ..sizes import DENSE, DENSE_BATCH, LARGEST_TIME, LONG, MOST_NUMBERS, MOST_WORK, SEVERAL_ROWS, Axes, spans
from .inputs import BATCH, TIME, Rows
from .subject import Subject

_CALL = 5e7
"""The least cost of a call, in multiplications."""
_OPERATOR = 5e4
"""The cost of an operator in PyTorch: a call with a loop in Python over many steps takes far longer than `_CALL`."""
_MOST_LOOKUPS = 2e10
"""The most multiplications of the sweep over a table's rows."""
_WIDE = 64
"""If an output has more features, a sweep compares only some of them."""


def sweeps(subject: Subject, notes: list[str]) -> Iterator[Expected]:
    """A case for each axis, at every small size and some large ones, and one for each table, at every row.

    Integers that were not tried are added to `notes`.
    """
    rng = np.random.default_rng([subject.seed, 2])
    base = subject.sizes(BATCH, TIME)
    first = subject.expect(subject.case_at(rng, base))
    if first is None:  # such as where indices of steps have a range that so few steps do not have
        base = subject.accepted_sizes
        first = subject.expect(subject.case_at(rng, base))
    if first is None:
        return
    call = first.calls[0]
    steps = feature_steps(call.reference)
    numbers = float(sum(array.size for array in some_features(call.reference, steps).values()))
    tables = {id(rows.table): rows.table for rows in subject.rows.values() if rows.table is not None}
    weights = max(subject.models.float64.weights - sum(table.numel() for table in tables.values()), 0)
    roles = sizes_of(subject.specs, BATCH, TIME, known=axis_roles(subject.model))
    batch_axis = next((axis for axis, size in roles.items() if size == BATCH), None)
    for axis in base:
        others = base if axis == batch_axis or batch_axis is None else {**base, batch_axis: 1}
        others = {name: subject.axes.within(name, size) for name, size in others.items()}
        count = _operators(subject, axis, others)
        sizes = axis_sizes(axis, others, subject.axes, weights, numbers, batch=axis == batch_axis, count=count)
        cases = [(f"{axis} {each[axis]}", subject.case_at(rng, each)) for each in sizes]
        swept = _sweep(subject, cases, steps)
        if swept is not None:
            tried = spans(int(one.label.rpartition(" ")[2]) for one in swept.calls)
            beside = "".join(f", {name} {size}" for name, size in others.items() if name != axis)
            yield replace(swept, label=f"every {axis} of {tried}{beside}")
    if batch_axis is not None and len(base) > 1:
        count = _operators(subject, next(axis for axis in base if axis != batch_axis), base)
        together = sizes_together(base, subject.sizes, weights, numbers, count)
        cases = [(_label(sizes), subject.case_at(rng, sizes)) for sizes in together]
        swept = _sweep(subject, cases, steps)
        if swept is not None:
            yield replace(swept, label=f"{len(swept.calls)} larger sizes of {' and '.join(base)} together")
    for name, rows in subject.rows.items():
        most = most_tokens(weights, numbers / call.feeds[name].size)
        tokens = _tokens(subject, name, rows, most, notes)
        each = call.feeds[name].size // (base[batch_axis] if batch_axis else 1)
        large = base
        if batch_axis is not None:
            large = {**base, batch_axis: subject.axes.within(batch_axis, min(-(-len(tokens) // each), 256))}
        size = subject.case_at(rng, large).feeds[name].size
        cases = []
        for part in chunks_of(tokens, size):
            case = subject.case_at(rng, large)
            array = part.reshape(case.feeds[name].shape).astype(case.feeds[name].dtype)
            cases.append((f"{name} {part.min()} to {part.max()}", case.changed("", {name: array})))
        swept = _sweep(subject, cases, steps)
        if swept is not None:
            yield replace(swept, label=f"every {name} of {rows.low} to {rows.high}")


def _operators(subject: Subject, axis: str, base: Mapping[str, int]) -> Callable[[Mapping[str, int]], float]:
    """How many operators the module runs at other sizes of an axis, from those at its own and a larger one."""
    rng = np.random.default_rng([subject.seed, 19])
    larger = subject.axes.within(axis, 2 * base[axis] + 2)
    try:
        own, more = (
            subject.models.float64.operators(subject.case_at(rng, {**base, axis: size}).feeds)
            for size in (base[axis], larger)
        )
    except ExportError:
        return lambda _: 0.0
    each = max(more - own, 0) / max(larger - base[axis], 1)
    return lambda sizes: own + each * (sizes[axis] - base[axis])


def _sweep(subject: Subject, cases: Sequence[tuple[str, Case]], steps: Mapping[str, int]) -> Expected | None:
    """Several cases as one, without those that are inconclusive or at which the module does not run."""
    calls: list[Call] = []
    last: Expected | None = None
    scale = 0.0
    for label, case in cases:
        expected = subject.expect(case)
        if expected is not None and is_conclusive(expected):
            last = expected.with_features(steps)
            calls.append(replace(last.calls[0], label=label))
            scale = max(scale, expected.scale)
    if last is None:
        return None
    return replace(last, calls=with_least_errors(calls, last.dtype), kind="sweep", scale=scale)


def _tokens(subject: Subject, name: str, rows: Rows, most: int, notes: list[str]) -> np.ndarray:
    """Each integer that an input can be; of a large table, as many as the budget allows, rows that differ first."""
    rng = np.random.default_rng([subject.seed, 3])
    count = rows.high - rows.low + 1
    if count <= most:
        return tokens_to_try(rows, most, np.zeros(0, np.int64), rng)
    table = None if rows.table is None else rows.table.detach().cpu().numpy().astype(subject.dtype)
    others = None if table is None else differing_rows(subject.graph, folder_of(subject.model), table)
    differing = np.zeros(0, np.int64) if others is None else others - rows.offset
    differing = differing[(differing >= rows.low) & (differing <= rows.high)]
    tokens = tokens_to_try(rows, most, differing, rng)
    note = f"of {name} {len(tokens)} of {count} integers were tried"
    if others is not None and not set(differing.tolist()) - set(tokens.tolist()):
        note += "; the table's other rows are the same bits in the file and in the module"
    notes.append(note)
    return tokens


def is_conclusive(expected: Expected) -> bool:
    """Whether PyTorch's numbers are close enough to float64 for a verdict on a file.

    Infinities, such as those of logits that are masked, must be the same in both precisions, and so must NaN; among
    special values there may be no NaN, since a kernel may not pass it on.
    """
    settled = all(
        _are_settled(call.native[name], array, nan=expected.kind != "values")
        for call in expected.calls
        for name, array in call.reference.items()
        if array.dtype.kind == "f"
    )
    return settled and all(call.conclusive(expected.dtype) for call in expected.calls)


def _are_settled(native: np.ndarray, reference: np.ndarray, *, nan: bool) -> bool:
    if native.shape != reference.shape:
        return False
    same = (native == reference) | (nan & np.isnan(native) & np.isnan(reference))
    return bool((same | (np.isfinite(native) & np.isfinite(reference))).all())


def axis_sizes(
    axis: str,
    base: Mapping[str, int],
    limits: Axes,
    weights: int,
    numbers: float,
    *,
    batch: bool,
    count: Callable[[Mapping[str, int]], float] = lambda _: 0.0,
) -> list[dict[str, int]]:
    """The sizes of all axes in each call of a sweep over one of them.

    Args:
        axis: the axis to vary.
        base: the sizes of the others.
        limits: the axes' limits and boundaries.
        weights: the number of the module's parameters.
        numbers: the number of elements of an output at the base sizes.
        batch: whether it is the batch axis, for which fewer sizes suffice.
        count: the number of operators at other sizes.
    """
    cells = float(np.prod([size for name, size in base.items() if name != axis], initial=1.0))

    def cost(size: int) -> float:
        work = (max(_CALL, _OPERATOR * count({**base, axis: size})) + weights * cells * size) / MOST_WORK
        return max(work, numbers * size / max(base[axis], 1) / MOST_NUMBERS)

    first, largest = ((64,), 129) if batch else ((LONG,), LARGEST_TIME)
    sizes = limits.to_try(
        axis, cost, 0.5 if batch else 1.0, first=first, largest=largest, dense=DENSE_BATCH if batch else DENSE
    )
    return [{**base, axis: size} for size in sizes]


def sizes_together(
    base: Mapping[str, int],
    sizes_of: Callable[[int, int], dict[str, int]],
    weights: int,
    numbers: float,
    count: Callable[[Mapping[str, int]], float] = lambda _: 0.0,
) -> list[dict[str, int]]:
    """Sizes of all axes that are large together: a fault past some time may occur only with several rows.

    Args:
        base: sizes of the axes, at which outputs have `numbers` elements.
        sizes_of: the axes' sizes at a batch and a time.
        weights: the number of the module's parameters.
        numbers: see `base`.
        count: the number of operators at other sizes.
    """
    found: list[dict[str, int]] = []
    work = elements = 0.0
    for batch, time in SEVERAL_ROWS:
        sizes = sizes_of(batch, time)
        cells = float(np.prod(list(sizes.values())))
        work += max(_CALL, _OPERATOR * count(sizes)) + weights * cells
        elements += numbers * cells / float(np.prod(list(base.values())))
        if work > MOST_WORK or elements > MOST_NUMBERS:
            break
        if sizes not in found:
            found.append(sizes)
    return found


def _label(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def tokens_to_try(rows: Rows, most: int, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distinct integers of an input: all that it can be, or `most` of them, including `first` and the ends."""
    count = rows.high - rows.low + 1
    if count <= most:
        return rng.permutation(np.arange(rows.low, rows.high + 1))
    chosen = [rows.high, rows.low, *first[: most // 2].tolist()]
    others = rng.choice(count, most, replace=False) + rows.low
    return np.array(list(dict.fromkeys([*chosen, *others.tolist()]))[:most])


def most_tokens(weights: int, numbers: float) -> int:
    """How many rows of a table the budget allows, by the module's parameters and the numbers that each row gives."""
    return max(int(min(_MOST_LOOKUPS / max(weights, 1), MOST_NUMBERS / max(numbers, 1.0))), 64)


def feature_steps(references: Mapping[str, np.ndarray]) -> dict[str, int]:
    """For outputs with many features, the step between those that are compared."""
    return {
        name: -(-array.shape[-1] // (_WIDE // 2))
        for name, array in references.items()
        if array.ndim > 1 and array.dtype.kind == "f" and array.shape[-1] > _WIDE
    }


def of_some_features(expected: Expected) -> Expected:
    """A further case that, unlike the usual cases, keeps only some features of outputs with many.

    All features of a language model with 50 000 tokens would take gigabytes, and a fault in a recurrent layer shows in
    any of them.
    """
    return expected.with_features(feature_steps(expected.calls[0].reference))


def differing_rows(graph: onnx.ModelProto, folder: str, table: np.ndarray, least: float = 0.0) -> np.ndarray | None:
    """The rows of `table` that differ in a file by more than `least`, largest differences first.

    None where the table is not found.
    """
    found: np.ndarray | None = None
    for tensor in graph.graph.initializer:
        if tuple(tensor.dims) != table.shape:
            continue
        array = numpy_helper.to_array(tensor, folder)
        if array.dtype.kind != "f":
            continue
        differences = np.abs(array.astype(np.float64) - table.astype(np.float64)).reshape(len(table), -1).max(axis=1)
        order = np.argsort(-differences, kind="stable")
        rows = order[: int(np.count_nonzero(~(differences <= least)))]
        if found is None or len(rows) < len(found):
            found = rows
    return found


def chunks_of(tokens: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`tokens` in chunks of `size`; the last one is filled up from the start."""
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        yield np.fromiter(itertools.islice(itertools.chain(part, itertools.cycle(tokens)), size), np.int64, size)
