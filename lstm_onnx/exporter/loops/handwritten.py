"""Replaces LSTM, GRU and RNN cells written out in the user's code by recurrent modules with the same weights."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...onnxgraph.builder import unique_name
from ..aten import aten
from ..opaque.recurrent_module import RecurrentModule
from .canonical import RECURRENT
from .gate_match import gates_in
from .program import Carry, Here, Loop, Operator, Program, Result, positions_in
from .read_off import Cell, read_cell, weights_alone


def with_recurrent_operators(
    program: Program, modules: Mapping[str, RecurrentModule]
) -> tuple[Program, dict[str, RecurrentModule]]:
    """The program with such cells as calls of recurrent modules, and all recurrent modules by path."""
    known = weights_alone(program)
    found_modules = dict(modules)
    for index in [loop.index for loop in program.loops]:
        while True:
            loop = next(item for item in program.loops if item.index == index)
            cell = _cell(program, loop, known)
            if cell is None:
                break
            base = loop.body[cell.gates.h.position].module or cell.spec.op_type.lower()
            path = unique_name(base, set(found_modules))
            found_modules[path] = RecurrentModule(
                path,
                cell.spec,
                cell=True,
                weights=cell.weights,
                peepholes=cell.peepholes,
                reset_before=cell.reset_before,
            )
            program = _replaced(program, loop, cell, path)
    return program, found_modules


def _replaced(program: Program, loop: Loop, cell: Cell, path: str) -> Program:
    """The program with a call of a recurrent module in place of a loop's cell."""
    fresh = 1 + max(item.index for item in program.items)
    before, new, moved = _as_call(loop, cell, path, fresh)
    items: list[Operator | Loop] = []
    for item in program.items:
        items += [*before, new] if item is loop else [item]
    moves = {loop.index: {old: (loop.index, at) for old, at in moved.items()}}
    return replace(program, items=tuple(items)).moved(moves)


def _cell(program: Program, loop: Loop, known: Mapping[Any, Tensor]) -> Cell | None:
    for gates in gates_in(loop, [carry for carry in loop.carries if carry.back == 1]):
        cell = read_cell(program, loop, gates, known)
        if cell is not None and _is_alone(program, loop, cell):
            return cell
    return None


def _is_alone(program: Program, loop: Loop, cell: Cell) -> bool:
    """Whether nothing outside of a cell reads any part of it but its states."""
    others = replace(program, items=tuple(item for item in program.items if item is not loop))
    read = {at for index, at in others.reads() if index == loop.index}
    for item in loop.body:
        if item.index not in cell.inside:
            read |= positions_in(item.arguments)
    states = {state.position for state in cell.gates.states}
    replaced = set() if cell.read is None else {cell.read.index}
    return not read & ((cell.inside | replaced) - states)


def _as_call(loop: Loop, cell: Cell, path: str, fresh: int) -> tuple[list[Operator], Loop, dict[int, int]]:
    """A loop with a call of a recurrent module in place of its cell.

    Returns:
        The operators before the loop, numbered from `fresh` on; the loop; and the new place of each position that
        stays.
    """
    line, at = loop.line, loop.body[cell.gates.h.position]
    shape, dtype, row = at.shape, at.dtype, (1, *at.shape)
    before = [
        Operator(aten.unsqueeze.default, (state.initial[0], 0), (), fresh + i, row, dtype, line)
        for i, state in enumerate(cell.gates.states)
    ]
    stays = [item for item in loop.body if item.index not in cell.inside]
    # The cell's input comes before it, and whatever reads its states after it.
    first = cell.source.position + 1 if isinstance(cell.source, Here) else 0
    head = [item for item in stays if item.index < first]
    moved = {item.index: i for i, item in enumerate(head)}
    body: list[Operator] = [cell.read if cell.read and item.index == cell.read.index else item for item in head]

    def add(target: Any, args: Any, kwargs: Any = (), own_shape: Any = row, own_dtype: Any = dtype) -> Here:
        body.append(Operator(target, args, kwargs, len(body), own_shape, own_dtype, line, at.module))
        return Here(len(body) - 1)

    source = Here(moved[cell.source.position]) if isinstance(cell.source, Here) else cell.source
    x = add(aten.unsqueeze.default, (source, 0), (), (1, shape[0], cell.spec.input_size))
    call = len(body)  # its results follow
    count = len(cell.gates.states)
    carried: list[Any] = [Carry(call + 2 + i, 1, (Result(fresh + i),)) for i in range(count)]
    size = cell.spec.hidden_size
    c_size = size if count > 1 else 0
    sizes = {"batch_first": False, "c_size": c_size, "h_size": size, "output_size": size, "rows": 1}
    states = (*carried, *[None] * (2 - count))
    add(RECURRENT, (x, *states, None), (("module", path), *sizes.items()), (row, row, row), "several")
    results = [add(operator.getitem, (Here(call), i)) for i in range(1 + count)]
    for state, result in zip(cell.gates.states, results[1:], strict=True):
        moved[state.position] = add(aten.squeeze.dim, (result, 0), (), shape).position
    rest = stays[len(head) :]
    moved |= {item.index: len(body) + i for i, item in enumerate(rest)}

    def new(value: Any) -> Any:
        if isinstance(value, Here):
            return Here(moved[value.position])
        if isinstance(value, Carry):
            return replace(value, position=moved[value.position])
        return None

    made = [item.mapped(new, i) for i, item in enumerate(body[: len(head)])]
    made += body[len(head) :]
    made += [item.mapped(new, len(made) + i) for i, item in enumerate(rest)]
    return before, Loop(loop.index, loop.count, tuple(made)), moved
