"""Loops whose body is an LSTM or a GRU in the user's own code, as calls of nn.LSTM or nn.GRU with the same weights.

The gates' sigmoids, tanhs and products are matched by structure.  What is within the gates must be affine in the
step's input and in h; its weights are then read off in float64, at zero and at each unit vector.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...spec import DTYPES, GRUSpec, LSTMSpec
from ..opaque.operators import RecurrentModule
from .canonical import RECURRENT
from .cells import is_read
from .gate_match import Match
from .program import Affine, Carry, Element, Here, Leaf, Loop, Operator, Program, Result, Run, by_step, found, mapped

aten = torch.ops.aten
_AFFINE = {
    aten.linear.default,
    aten.add.Tensor,
    aten.cat.default,
    aten.slice.Tensor,
    aten.addmm.default,
    aten.mm.default,
    aten.matmul.default,
    aten.t.default,
}
_PRODUCTS = {aten.linear.default, aten.matmul.default, aten.mm.default}
_MOST_FEATURES = 4096


def with_recurrent_operators(
    program: Program, modules: Mapping[str, RecurrentModule]
) -> tuple[Program, dict[str, RecurrentModule]]:
    """The program with such loops as calls of recurrent modules, and these by path beside those that there are."""
    known = _weights_alone(program)
    found_modules = dict(modules)
    changed: dict[int, dict[int, int]] = {}
    items: list[Operator | Loop] = []
    fresh = 1 + max((item.index for item in program.items), default=0)
    for item in program.items:
        cell = _cell(program, item, known) if isinstance(item, Loop) else None
        if cell is None or not isinstance(item, Loop):
            items.append(item)
            continue
        path = _path(cell, found_modules)
        found_modules[path] = RecurrentModule(path, cell.spec, cell=True, weights=cell.weights)
        before, loop, moved = _as_call(item, cell, path, fresh)
        fresh += len(before)
        items += [*before, loop]
        changed[item.index] = moved
    if not changed:
        return program, found_modules
    items = [_moved(item, changed) for item in items]
    return replace(program, items=tuple(items), outputs=mapped(program.outputs, _mover(changed))), found_modules


@dataclass(frozen=True)
class _Cell:
    """A loop that is an LSTM or a GRU: its states, what it gets, and what the file's operator needs.

    `stays` are the positions of the body that are not part of it.
    """

    h: Carry
    c: Carry | None
    source: Any
    spec: LSTMSpec | GRUSpec
    weights: dict[str, np.ndarray]
    module: str
    stays: frozenset[int] = frozenset()

    @property
    def states(self) -> tuple[Carry, ...]:
        """h, and c of an LSTM."""
        return (self.h,) if self.c is None else (self.h, self.c)


def _path(cell: _Cell, modules: Mapping[str, RecurrentModule]) -> str:
    base = cell.module or cell.spec.op_type.lower()
    path, number = base, 1
    while path in modules:
        number += 1
        path = f"{base}_{number}"
    return path


def _weights_alone(program: Program) -> dict[Any, Tensor]:
    """The values that depend on weights alone."""
    known: dict[Any, Any] = {Leaf(name): tensor for name, tensor in program.leaves.items()}
    for item in program.items:
        if isinstance(item, Loop) or item.target is RECURRENT or item.dtype == "several":
            continue
        parts = [part for part in _flat((item.args, item.kwargs)) if isinstance(part, (Leaf, Result, Element, Affine))]
        if (
            parts
            and all(part in known for part in parts if not isinstance(part, Affine))
            and not any(isinstance(part, Affine) for part in parts)
        ):
            value = item.target(*_valued(item.args, known), **dict(_valued(item.kwargs, known)))
            if isinstance(value, Tensor):
                known[Result(item.index)] = value
    return known


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _valued(value: Any, known: Mapping[Any, Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_valued(part, known) for part in value)
    return known[value] if isinstance(value, (Leaf, Result, Here, Carry, Element)) else value


def _cell(program: Program, loop: Loop, known: Mapping[Any, Tensor]) -> _Cell | None:
    carries = list(dict.fromkeys(c for item in loop.body for c in found(Carry, (item.args, item.kwargs))))
    if any(carry.back != 1 for carry in carries):
        return None
    pairs = [(carries[0], None)] if len(carries) == 1 else [tuple(carries), tuple(carries[::-1])]
    for h, c in pairs if 1 <= len(carries) <= 2 else ():
        match = Match(loop)
        gates = match.gru(h) if c is None else match.lstm(h, c)
        if gates is not None:
            cell = _affine(loop, match.used, gates, h, c, known)
            return None if cell is None else _alone(program, loop, match.used, gates, cell)
    return None


def _alone(program: Program, loop: Loop, used: set[int], gates: Mapping[str, Any], cell: _Cell) -> _Cell | None:
    """The cell, if nothing but its states is used of its parts."""
    source = {cell.source.position} if isinstance(cell.source, Here) else set()
    inside = (used | _needed(loop, gates.values())) - source
    stays = frozenset({item.index for item in loop.body} - inside)
    states = {state.position for state in cell.states}
    read = _read_outside(program, loop)
    for i in stays - source:
        parts = loop.body[i].args, loop.body[i].kwargs
        read |= {here.position for here in found(Here, parts)} | {carry.position for carry in found(Carry, parts)}
    return replace(cell, stays=stays) if not read & (inside - states) else None


def _affine(
    loop: Loop, used: set[int], gates: Mapping[str, Any], h: Carry, c: Carry | None, known: Mapping[Any, Tensor]
) -> _Cell | None:
    """The cell, where its gates are affine in the input and in h alone."""
    needed = _needed(loop, gates.values())
    sources = {part for i in needed for part in _sources(loop, loop.body[i])}
    if len(sources) != 1 or needed & used:
        return None
    (source,) = sources
    inner = [loop.body[i] for i in sorted(needed) if not (isinstance(source, Here) and i == source.position)]
    if c is not None and any(c.position == carry.position for item in inner for carry in found(Carry, item.args)):
        return None
    if not all(_is_affine(item, known) for item in inner):
        return None
    shape = loop.body[h.position].shape
    dtype = str(loop.body[h.position].dtype).removeprefix("torch.")
    if len(shape) != 2 or dtype not in DTYPES:
        return None
    features = loop.body[source.position].shape[-1] if isinstance(source, Here) else None
    weights = _read_off(inner, gates, source, h, shape[-1], features, known)
    if weights is None:
        return None
    size = weights["weight_ih_l0"].shape[1]
    kind = GRUSpec if c is None else LSTMSpec
    arrays = {name: value.to(loop.body[h.position].dtype).numpy() for name, value in weights.items()}
    spec = kind(input_size=size, hidden_size=shape[-1], dtype=dtype)
    return _Cell(h, c, source, spec, arrays, loop.body[h.position].module)


def _needed(loop: Loop, values: Any) -> set[int]:
    needed: set[int] = set()
    todo = list(values)
    while todo:
        for here in found(Here, todo.pop()):
            if here.position not in needed:
                needed.add(here.position)
                if not is_read(loop.body[here.position]):
                    todo.append((loop.body[here.position].args, loop.body[here.position].kwargs))
    return needed


def _sources(loop: Loop, item: Operator) -> Iterator[Any]:
    """What an operator takes of a sequence in each step; picks of the same entry are one."""
    if is_read(item):
        first = next(other for other in loop.body if other.target is item.target and other.args == item.args)
        yield Here(first.index)
    else:
        for element in found(Element, (item.args, item.kwargs)):
            if by_step(element):
                yield element


def _is_affine(item: Operator, known: Mapping[Any, Tensor]) -> bool:
    """Whether an operator is affine in what is not known, row by row."""
    if is_read(item):
        return True
    if item.target not in _AFFINE or len(item.shape or ()) != 2 or by_step(item.kwargs):
        return False
    outside = [part for part in _flat(item.args) if isinstance(part, (Leaf, Result, Affine))]
    if any(part not in known for part in outside):
        return False
    rest = [part for part in _flat(item.args[1:]) if not isinstance(part, (int, float, type(None)))]
    if item.target in _PRODUCTS:
        return all(part in known for part in rest) and not item.kwargs
    if item.target is aten.addmm.default:
        return item.args[2] in known and not item.kwargs
    if item.target in (aten.cat.default, aten.slice.Tensor):
        return len(item.args) > 1 and item.args[1] in (1, -1)
    return not item.kwargs


def _read_off(
    inner: list[Operator],
    gates: Mapping[str, Any],
    source: Any,
    h: Carry,
    hidden: int,
    features: int | None,
    known: Mapping[Any, Tensor],
) -> dict[str, Tensor] | None:
    """The weights of the gates: their values at zero and at each unit vector of input and h."""
    for size in [features] if features is not None else range(1, _MOST_FEATURES):
        rows = torch.cat([torch.zeros(1, size + hidden), torch.eye(size + hidden)]).double()
        values: dict[Any, Any] = {name: tensor.double() for name, tensor in known.items() if tensor.is_floating_point()}
        values |= {source: rows[:, :size], h: rows[:, size:]}
        try:
            for item in inner:
                if is_read(item):
                    values[Here(item.index)] = rows[:, :size]
                else:
                    result = item.target(*_valued(item.args, values), **dict(_valued(item.kwargs, values)))
                    values[Here(item.index)] = result
        except RuntimeError:
            continue  # another number of features
        read = {name: values[gate] for name, gate in gates.items()}
        if any(gate.shape != (len(rows), hidden) for gate in read.values()):
            return None
        return _lstm_weights(read, size) if "o" in read else _gru_weights(read, size)
    return None


def _lstm_weights(read: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """From the gates' values at zero and at each unit vector."""
    bias = torch.cat([read[name][0] for name in "ifgo"])
    matrix = torch.cat([(read[name][1:] - read[name][0]).T for name in "ifgo"])
    return {
        "weight_ih_l0": matrix[:, :size].contiguous(),
        "weight_hh_l0": matrix[:, size:].contiguous(),
        "bias_ih_l0": bias,
        "bias_hh_l0": torch.zeros_like(bias),
    }


def _gru_weights(read: Mapping[str, Tensor], size: int) -> dict[str, Tensor] | None:
    """The same; None where the part of n that r multiplies is of the input too, or the other one is of h."""
    z = read["z"] if "z" in read else -read["1-z"]  # 1 - sigmoid(a) is sigmoid(-a)
    parts = (read["r"], z, read["n of x"], read["n of h"])
    biases = [part[0] for part in parts]
    matrices = [(part[1:] - part[0]).T for part in parts]
    if matrices[2][:, size:].any() or matrices[3][:, :size].any():
        return None
    zero = torch.zeros_like(biases[0])
    return {
        "weight_ih_l0": torch.cat([matrix[:, :size] for matrix in matrices[:3]]).contiguous(),
        "weight_hh_l0": torch.cat([matrices[i][:, size:] for i in (0, 1, 3)]).contiguous(),
        "bias_ih_l0": torch.cat(biases[:3]),
        "bias_hh_l0": torch.cat([zero, zero, biases[3]]),
    }


def _as_call(loop: Loop, cell: _Cell, path: str, fresh: int) -> tuple[list[Operator], Loop, dict[int, int]]:
    """A loop with a call of a recurrent module in the place of its cell.

    Returns:
        What is computed before the loop, from the number `fresh` on; the loop; where the positions that stay went.
    """
    line, shape, dtype = loop.line, loop.body[cell.h.position].shape, loop.body[cell.h.position].dtype
    row = (1, *shape)
    before = [
        Operator(aten.unsqueeze.default, (state.initial[0], 0), (), fresh + i, row, dtype, line)
        for i, state in enumerate(cell.states)
    ]
    body: list[Operator] = []

    def add(target: Any, args: Any, kwargs: Any = (), own_shape: Any = row, own_dtype: Any = dtype) -> Here:
        body.append(Operator(target, args, kwargs, len(body), own_shape, own_dtype, line, cell.module))
        return Here(len(body) - 1)

    moved: dict[int, int] = {}
    source = cell.source
    if isinstance(source, Here):
        body.append(replace(loop.body[source.position], index=0))
        moved[source.position] = 0
        source = Here(0)
    x = add(aten.unsqueeze.default, (source, 0), (), (1, shape[0], cell.spec.input_size))
    first = len(body)  # of the call, after which its results follow
    count = len(cell.states)
    carried: list[Any] = [Carry(first + 2 + i, 1, (Result(fresh + i),)) for i in range(count)]
    size = cell.spec.hidden_size
    c_size = size if count > 1 else 0
    sizes = {"batch_first": False, "c_size": c_size, "h_size": size, "output_size": size, "rows": 1}
    states = (*carried, *[None] * (2 - count))
    call = add(RECURRENT, (x, *states, None), (("module", path), *sizes.items()), (row, row, row), "several")
    results = [add(operator.getitem, (call, i)) for i in range(1 + count)]
    for position, result in zip((state.position for state in cell.states), results[1:], strict=True):
        moved[position] = add(aten.squeeze.dim, (result, 0), (), shape).position
    rest = [item for item in loop.body if item.index in cell.stays and item.index not in moved]
    moved |= {item.index: len(body) + i for i, item in enumerate(rest)}

    def new(value: Any) -> Any:
        if isinstance(value, Here):
            return Here(moved[value.position])
        if isinstance(value, Carry):
            return replace(value, position=moved[value.position])
        return None

    for item in rest:
        args, kwargs = mapped(item.args, new), mapped(item.kwargs, new)
        body.append(replace(item, args=args, kwargs=kwargs, index=len(body)))
    return before, Loop(loop.index, loop.count, tuple(body)), moved


def _mover(changed: Mapping[int, Mapping[int, int]]) -> Callable[[Any], Any]:
    def new(value: Any) -> Any:
        if isinstance(value, Element) and value.loop in changed:
            return Element(value.loop, changed[value.loop][value.position], value.step)
        if isinstance(value, Run):
            block = tuple((loop, changed[loop][at] if loop in changed else at) for loop, at in value.block)
            return replace(value, block=block)
        return None

    return new


def _moved(item: Operator | Loop, changed: Mapping[int, Mapping[int, int]]) -> Operator | Loop:
    new = _mover(changed)

    def renewed(own: Operator) -> Operator:
        return replace(own, args=mapped(own.args, new), kwargs=mapped(own.kwargs, new))

    return replace(item, body=tuple(map(renewed, item.body))) if isinstance(item, Loop) else renewed(item)


def _read_outside(program: Program, loop: Loop) -> set[int]:
    """The positions of a loop that other parts of the program read."""
    parts: list[Any] = [program.outputs]
    for item in program.items:
        if item is not loop:
            parts += [(own.args, own.kwargs) for own in (item.body if isinstance(item, Loop) else (item,))]
    read = {element.position for part in parts for element in found(Element, part) if element.loop == loop.index}
    return read | {at for part in parts for run in found(Run, part) for index, at in run.block if index == loop.index}
