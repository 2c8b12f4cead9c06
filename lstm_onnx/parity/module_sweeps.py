"""A whole module at chosen values, at every small size of each axis, and at every row of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..input_spec import InputSpec, sizes_of
from .embeddings import Rows
from .expected import Call, Expected, steadied
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
    states = [*case.states, *verification.metadata.states]
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
    call = first.calls[0]
    every = feature_steps(call.reference)
    numbers = float(sum(array.size for array in _thinned(call.reference, every).values()))
    tables = {id(rows.table): rows.table for rows in verification.rows.values() if rows.table is not None}
    weights = verification.wide.weights - sum(table.numel() for table in tables.values())
    roles = sizes_of(specs, 2, 3)
    batch_axis = next((axis for axis, size in roles.items() if size == 2), None)
    for axis in base:
        others = base if axis == batch_axis or batch_axis is None else {**base, batch_axis: 1}
        others = {name: verification.axes.within(name, size) for name, size in others.items()}
        sizes = axis_sizes(axis, others, verification.axes, weights, numbers, batch=axis == batch_axis)
        cases = [(f"{axis} {each[axis]}", verification.case_at(specs, rng, each)) for each in sizes]
        done = _sweep(verification, cases, every)
        if done is not None:
            tried = spans(int(one.label.rpartition(" ")[2]) for one in done.calls)
            beside = "".join(f", {name} {size}" for name, size in others.items() if name != axis)
            yield replace(done, label=f"every {axis} of {tried}{beside}")
    for name, rows in verification.rows.items():
        most = most_tokens(weights, numbers / call.feeds[name].size)
        tokens = _tokens(verification, name, rows, most)
        each = call.feeds[name].size // (base[batch_axis] if batch_axis else 1)
        large = base
        if batch_axis is not None:
            large = {**base, batch_axis: verification.axes.within(batch_axis, min(-(-len(tokens) // each), 256))}
        size = verification.case_at(specs, rng, large).inputs[name].size
        cases = []
        for part in chunks_of(tokens, size):
            case = verification.case_at(specs, rng, large)
            array = part.reshape(case.inputs[name].shape).astype(case.inputs[name].dtype)
            label = f"{name} {part.min()} to {part.max()}"
            cases.append((label, replace(case, inputs={**case.inputs, name: array})))
        done = _sweep(verification, cases, every)
        if done is not None:
            yield replace(done, label=f"every {name} of {rows.low} to {rows.high}")


def _sweep(
    verification: ModuleVerification, cases: Sequence[tuple[str, ModuleCase]], every: Mapping[str, int]
) -> Expected | None:
    """Several cases as one, without those that the module does not run at or that say nothing."""
    calls: list[Call] = []
    last: Expected | None = None
    scale = 0.0
    for label, case in cases:
        expected = verification.whole(case)
        if expected is not None and tells(expected):
            call = expected.calls[0]
            calls.append(Call(call.feeds, _thinned(call.own, every), _thinned(call.reference, every), label))
            last, scale = expected, max(scale, expected.scale)
    return None if last is None else replace(last, calls=steadied(calls), kind="sweep", scale=scale, every=every)


def _tokens(verification: ModuleVerification, name: str, rows: Rows, most: int) -> np.ndarray:
    """Each integer that an input can be; of a large table as many as can be afforded, those that differ before all."""
    rng = np.random.default_rng([verification.seed, 3])
    count = rows.high - rows.low + 1
    if count <= most:
        return tokens_to_try(rows, most, np.zeros(0, np.int64), rng)
    model = verification.model
    table = None if rows.table is None else rows.table.detach().cpu().numpy().astype(verification.dtype)
    others = None if table is None else differing_rows(read_graph(model), folder_of(model), table)
    differing = np.zeros(0, np.int64) if others is None else others - rows.offset
    differing = differing[(differing >= rows.low) & (differing <= rows.high)]
    tokens = tokens_to_try(rows, most, differing, rng)
    told = f"of {name} {len(tokens)} of {count} integers were tried"
    if others is not None and not set(differing.tolist()) - set(tokens.tolist()):
        told += "; the rows of the others are the same bits in the file and in the module"
    verification.notes.append(told)
    return tokens


def tells(expected: Expected) -> bool:
    """Whether PyTorch gives finite numbers, and is near enough to itself in float64, for a file to be judged by."""
    finite = all(
        np.isfinite(array).all()
        for call in expected.calls
        for part in (call.own, call.reference)
        for array in part.values()
        if array.dtype.kind == "f"
    )
    return finite and all(call.tells(expected.dtype) for call in expected.calls)


def _thinned(arrays: Mapping[str, np.ndarray], every: Mapping[str, int]) -> dict[str, np.ndarray]:
    return {name: array[..., :: every[name]] if name in every else array for name, array in arrays.items()}
