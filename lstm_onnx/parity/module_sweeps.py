"""A whole module at chosen values, at every small size of each axis, and at every row of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..inputs import InputSpec, sizes_of
from .embeddings import Rows
from .expected import Call, Expected
from .module_choices import (
    axis_sizes,
    chunks_of,
    differing_rows,
    feature_steps,
    most_tokens,
    tokens_to_try,
    value_changes,
)
from .mutants import folder_of, read_graph
from .sizes import spans

if TYPE_CHECKING:
    from .modules import ModuleCase, ModuleVerification


def value_cases(
    verification: ModuleVerification, specs: Sequence[InputSpec], rng: np.random.Generator, gain: float
) -> Iterator[ModuleCase]:
    """Zeros, numbers of one sign, large ones, and the ends of ranges."""
    case = verification.case_at(specs, rng, verification.sizes(specs, 3, 4 + verification.longer))
    states = [*case.states, *verification.story.states]
    for label, changed in value_changes(specs, states, case.feeds, gain, verification.dtype):
        feeds = {**case.feeds, **changed}
        inputs, held = ({name: feeds[name] for name in part} for part in (case.inputs, case.states))
        yield replace(case, label=f"{case.label}, {label}", inputs=inputs, states=held, kind="values")


def sweeps(verification: ModuleVerification) -> Iterator[Expected]:
    """Every small size of each axis and some large ones, and every row of the tables."""
    rng = np.random.default_rng([verification.seed, 2])
    specs, base = verification.specs, verification.base_sizes(verification.specs)
    first = verification.whole(verification.case_at(specs, rng, base))
    if first is None:
        return
    numbers = float(sum(array.size for array in first.calls[0].reference.values()))
    weights = verification.wide.weights
    batch_axis = next((axis for axis, size in sizes_of(specs, 2, 3).items() if size == 2), None)
    for axis in base:
        batch = axis == batch_axis
        sizes = axis_sizes(axis, base, verification.axes, weights, numbers, batch=batch)
        cases = [(f"{axis} {each[axis]}", verification.case_at(specs, rng, each)) for each in sizes]
        done = _sweep(verification, cases)
        if done is not None:
            tried = spans(int(call.label.rpartition(" ")[2]) for call in done.calls)
            others = "".join(f", {name} {size}" for name, size in base.items() if name != axis)
            yield replace(done, label=f"every {axis} of {tried}{others}")
    for name, rows in verification.rows.items():
        done = _rows_sweep(verification, name, rows, weights, first)
        if done is not None:
            yield replace(done, label=f"every {name} of {rows.low} to {rows.high}")


def _sweep(verification: ModuleVerification, cases: Sequence[tuple[str, ModuleCase]]) -> Expected | None:
    """Several cases as one, without those that the module does not run at or that say nothing."""
    calls: list[Call] = []
    last: Expected | None = None
    scale = 0.0
    for label, case in cases:
        expected = verification.whole(case)
        if expected is not None and tells(expected):
            calls.append(replace(expected.calls[0], label=label))
            last, scale = expected, max(scale, expected.scale)
    return None if last is None else replace(last, calls=tuple(calls), kind="sweep", scale=scale)


def _rows_sweep(
    verification: ModuleVerification, name: str, rows: Rows, weights: int, first: Expected
) -> Expected | None:
    """Each integer that an input can be, or, of a large table, as many as can be afforded."""
    rng = np.random.default_rng([verification.seed, 3])
    every = feature_steps(first.calls[0].reference)
    reference = first.calls[0].reference
    numbers = sum(array.size / every.get(output, 1) for output, array in reference.items())
    table = None if rows.table is None else rows.table.detach().cpu().numpy()
    own = 0 if table is None else table.size
    most = most_tokens(weights - own, numbers / first.calls[0].feeds[name].size)
    count = rows.high - rows.low + 1
    others: np.ndarray | None = None
    if count > most and table is not None:
        others = differing_rows(
            read_graph(verification.model), folder_of(verification.model), table.astype(verification.dtype)
        )
    hinted = np.zeros(0, np.int64) if others is None else others - rows.offset
    hinted = hinted[(hinted >= rows.low) & (hinted <= rows.high)]
    tokens = tokens_to_try(rows, most, hinted, rng)
    base = verification.base_sizes(verification.specs)
    batch = next(iter(base), None)
    if batch is not None:
        each = first.calls[0].feeds[name].size // base[batch]
        base[batch] = verification.axes.within(batch, min(max(-(-len(tokens) // max(each, 1)), 1), 256))
    cases = []
    size = verification.case_at(verification.specs, rng, base).inputs[name].size
    for part in chunks_of(tokens, size):
        case = verification.case_at(verification.specs, rng, base)
        array = part.reshape(case.inputs[name].shape).astype(case.inputs[name].dtype)
        label = f"{name} {part.min()} to {part.max()}"
        cases.append((label, replace(case, inputs={**case.inputs, name: array})))
    done = _sweep(verification, cases)
    if count > most:
        told = f"of {name} {len(tokens)} of {count} integers were tried"
        if others is not None and len(hinted) <= most // 2:
            told += "; the rows of the others are the same bits in the file and in the module"
        verification.notes.append(told)
    if done is None or not every:
        return done
    calls = tuple(
        replace(call, own=_thinned(call.own, every), reference=_thinned(call.reference, every)) for call in done.calls
    )
    return replace(done, calls=calls, every=every)


def tells(expected: Expected) -> bool:
    """Whether PyTorch gives finite numbers, and is near enough to itself in float64, for a file to be judged by."""
    finite = all(
        np.isfinite(array).all()
        for call in expected.calls
        for part in (call.own, call.reference)
        for array in part.values()
        if array.dtype.kind == "f"
    )
    return finite and not replace(expected, time_axes={}).inconclusive


def _thinned(arrays: Mapping[str, np.ndarray], every: Mapping[str, int]) -> dict[str, np.ndarray]:
    return {name: array[..., :: every[name]] if name in every else array for name, array in arrays.items()}
