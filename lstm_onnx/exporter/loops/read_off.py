"""Computes a cell's weights from its gates, if these are affine in the step's input and in the states.

The gates are computed in float64, at zero and at each unit vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...spec import GRUSpec, LSTMSpec, RNNSpec
from ..aten import aten, aten_operators
from .canonical import RECURRENT
from .cells import is_read, is_result
from .gate_match import Gates
from .program import Affine, Carry, Element, Here, Leaf, Loop, Operator, Program, Result, all_of, by_step, mapped

_AFFINE = aten_operators("linear add.Tensor sub.Tensor mul.Tensor neg cat slice.Tensor addmm mm matmul t")
_PRODUCTS = aten_operators("linear matmul mm")
_DTYPES = ("float32", "float16")
"""ONNX Runtime has no recurrent operators in float64, where a Scan is used."""
_MOST_FEATURES = 4096
_SEQUENCE_RANK = 3
_SPECS: dict[str, Any] = {"LSTM": LSTMSpec, "GRU": GRUSpec, "RNN": RNNSpec}


@dataclass(frozen=True)
class Cell:
    """A loop that is an LSTM, a GRU or an RNN: its states, its input, and what the file's operator needs.

    Attributes:
        gates: its nonlinear part.
        source: its input in each step: a position, or an `Element` of an earlier loop.
        read: replaces the operator at `source`: it picks the step from the tensor from which `source` is computed.
        spec: its sizes.
        weights: by torch's names.
        peepholes: ``(1, 3*H)``, of the input, output and forget gates; None if there are none.
        inside: the positions of the body that are part of it.
    """

    gates: Gates
    source: Any
    read: Operator | None
    spec: LSTMSpec | GRUSpec | RNNSpec
    weights: dict[str, np.ndarray]
    peepholes: np.ndarray | None
    inside: frozenset[int]

    @property
    def reset_before(self) -> bool:
        """Whether r multiplies h before the product with the weights."""
        return "r h" in self.gates.inner


@dataclass(frozen=True)
class _Source:
    """The one sequence that the gates see: a value of the body, and how it is computed from another sequence."""

    value: Any
    features: int | None
    read: Operator | None = None
    ways: Mapping[int, Sequence[Operator]] = field(default_factory=dict)


def read_cell(program: Program, loop: Loop, gates: Gates, known: Mapping[Any, Tensor]) -> Cell | None:
    """The cell, where its gates are affine in one input and in its states alone, as the file's operator needs them.

    Args:
        program: of which the loop is a part.
        loop: the loop.
        gates: the cell's nonlinear part.
        known: the values that depend on weights alone.
    """
    inner_values = {here.position for here in gates.inner.values()}
    needed = loop.reached(gates.arguments.values(), lambda item: item.index in inner_values or _is_given(loop, item))
    needed -= inner_values
    source = _source(program, loop, needed, known)
    if source is None or needed & gates.used:
        return None
    sources = {source.value.position} if isinstance(source.value, Here) else set()
    inner = [loop.body[i] for i in sorted(needed - sources) if not _is_given(loop, loop.body[i])]
    carries = {carry for item in inner for carry in all_of(Carry, item.arguments)}
    if not carries <= set(gates.states) or not all(_is_affine(item, known) for item in inner):
        return None
    if not _has_product(inner, {gates.h, *gates.inner.values()} - {Here(gates.states[-1].position)}):
        return None  # each unit has a factor of its own: a matrix would be far larger
    at, given = loop.body[gates.h.position], _operator(program, loop, source.value)
    dtype = str(at.dtype).removeprefix("torch.")
    if len(at.shape) != 2 or dtype not in _DTYPES:
        return None
    if given.dtype != at.dtype or given.shape[:-1] != at.shape[:-1]:
        return None  # PyTorch converts the input, or all rows share one; the file's operator does neither
    parts = _read_off(loop, inner, needed, gates, source, at.shape[-1], known)
    weights = None if parts is None else WEIGHTS[gates.op_type](parts, gates)
    if weights is None:
        return None
    peepholes = weights.pop("peepholes", None)
    arrays = {name: value.to(at.dtype).numpy() for name, value in weights.items()}
    sizes: dict[str, Any] = {"input_size": arrays["weight_ih_l0"].shape[1], "hidden_size": at.shape[-1], "dtype": dtype}
    if gates.op_type == "RNN":
        sizes["nonlinearity"] = gates.nonlinearity
    return Cell(
        gates,
        source.value,
        source.read,
        _SPECS[gates.op_type](**sizes),
        arrays,
        None if peepholes is None else peepholes.to(at.dtype).numpy(),
        frozenset(gates.used | needed) - sources,
    )


def _is_given(loop: Loop, item: Operator) -> bool:
    """Whether it is a cell's input: an entry picked from a sequence, or a recurrent module's result in this step."""
    return is_read(item) or is_result(loop, item)


def _source(program: Program, loop: Loop, needed: set[int], known: Mapping[Any, Tensor]) -> _Source | None:
    """The sequence that the gates see, or the one that theirs are computed from; None where there are several."""
    given = [loop.body[i] for i in sorted(needed) if _is_given(loop, loop.body[i])]
    others = [loop.body[i] for i in sorted(needed) if not _is_given(loop, loop.body[i])]
    elements = {e for item in others for e in all_of(Element, item.arguments) if by_step(e)}
    reads = [item for item in given if is_read(item)]
    if len(reads) < len(given):  # a module's result can only be the single source
        return _Source(Here(given[0].index), given[0].shape[-1]) if len(given) == 1 and not elements else None
    if elements:
        (first, *more) = elements
        shape = _operator(program, loop, first).shape
        return None if more or reads else _Source(first, shape[-1] if shape else None)
    if not reads:
        return None
    if all(item.args == reads[0].args and item.target is reads[0].target for item in reads):
        way = _way(program, reads[0].args[0], known)
        last = max((i for i, item in enumerate(way) if item.target is aten.linear.default), default=-1)
        return _rooted(reads, [way[: last + 1]] * len(reads), known)
    return _rooted(reads, [_way(program, item.args[0], known) for item in reads], known)


def _operator(program: Program, loop: Loop, value: Here | Element) -> Operator:
    """The one that makes a value of this loop or of an earlier one."""
    if isinstance(value, Element):
        loop = next(item for item in program.loops if item.index == value.loop)
    return loop.body[value.position]


def _way(program: Program, base: Any, known: Mapping[Any, Tensor]) -> list[Operator]:
    """The linear maps and slices of features that a sequence has passed through, the last one first."""
    operators = program.results
    way: list[Operator] = []
    while isinstance(base, Result):
        item = operators.get(base.index)
        if item is None or item.kwargs or len(item.shape or ()) != _SEQUENCE_RANK:
            break
        product = item.target is aten.linear.default and all(part is None or part in known for part in item.args[1:])
        numbers = all(type(part) is int for part in item.args[1:])
        part_of = item.target is aten.slice.Tensor and numbers and item.args[1] == _SEQUENCE_RANK - 1
        if not product and not part_of:
            break
        way.append(item)
        base = item.args[0]
    return way


def _rooted(
    reads: Sequence[Operator], ways: Sequence[Sequence[Operator]], known: Mapping[Any, Tensor]
) -> _Source | None:
    """The source that all reads pick from, each by its own way; None where there are several."""
    first = reads[0]
    roots = {way[-1].args[0] if way else item.args[0] for item, way in zip(reads, ways, strict=True)}
    places = {item.args[1:] for item in reads}
    if len(roots) != 1 or len(places) != 1 or any(item.target is not first.target for item in reads):
        return None
    # None picks along the axis of the features.
    keep = [item.args[1] in (0, 1) and len(item.shape) == _SEQUENCE_RANK - 1 for item in reads]
    if any(way and not kept for kept, way in zip(keep, ways, strict=True)):
        return None
    (root,) = roots
    at = Here(first.index)
    if not any(ways):
        return _Source(at, first.shape[-1])
    products = [way[-1] for way in ways if way and way[-1].target is aten.linear.default]
    if not products:
        return None
    width = known[products[0].args[1]].shape[1]
    read = Operator(
        first.target, (root, *first.args[1:]), (), first.index, (*first.shape[:-1], width), first.dtype, first.line
    )
    return _Source(at, width, read, {item.index: tuple(way) for item, way in zip(reads, ways, strict=True)})


def _is_affine(item: Operator, known: Mapping[Any, Tensor]) -> bool:
    """Whether an operator is affine, row by row, in its arguments that are not known."""
    if item.target not in _AFFINE or len(item.shape or ()) != 2 or item.kwargs:
        return False
    parts = list(_flat(item.args))
    outside = [part for part in parts if isinstance(part, (Leaf, Result, Affine))]
    if any(part not in known for part in outside):
        return False
    rest = [part for part in _flat(item.args[1:]) if not isinstance(part, (int, float, type(None)))]
    if item.target in _PRODUCTS:
        return all(part in known for part in rest)
    if item.target is aten.addmm.default:
        return item.args[2] in known and len(item.args) == 3
    if item.target in (aten.cat.default, aten.slice.Tensor):
        return len(item.args) > 1 and item.args[1] in (1, -1)
    if item.target is aten.mul.Tensor and sum(isinstance(part, (Here, Carry, Element)) for part in parts) != 1:
        return False
    # A tensor with a number for each row would look like a function of the row.
    return all(known[part].dim() < 2 or known[part].shape[0] == 1 for part in outside)


def _has_product(inner: Sequence[Operator], states: set[Any]) -> bool:
    """Whether a state is multiplied by a matrix."""
    reached = set(states)
    for item in inner:
        if reached & set(_flat(item.args)):
            reached.add(Here(item.index))
            if item.target in _PRODUCTS or item.target is aten.addmm.default:
                return True
    return False


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _valued(value: Any, known: Mapping[Any, Any]) -> Any:
    return mapped(value, lambda part: known[part] if isinstance(part, (Leaf, Result, Here, Carry, Element)) else None)


def weights_alone(program: Program) -> dict[Any, Tensor]:
    """The values that depend on weights alone."""
    known: dict[Any, Any] = {Leaf(name): tensor for name, tensor in program.leaves.items()}
    for item in program.items:
        if isinstance(item, Loop) or item.target is RECURRENT or item.dtype == "several":
            continue
        parts = [part for part in _flat(item.arguments) if isinstance(part, (Leaf, Result, Element, Affine))]
        if parts and all(part in known for part in parts):
            value = item.target(*_valued(item.args, known), **dict(_valued(item.kwargs, known)))
            if isinstance(value, Tensor):
                known[Result(item.index)] = value
    return known


def _read_off(
    loop: Loop,
    inner: Sequence[Operator],
    needed: set[int],
    gates: Gates,
    source: _Source,
    hidden: int,
    known: Mapping[Any, Tensor],
) -> dict[str, dict[str, Tensor]] | None:
    """For each gate, its "bias" ``(H,)`` and its matrices ``(H, I)`` of "x" and ``(H, H)`` of each variable."""
    parts_read = {*gates.arguments.values(), *(part for item in inner for part in _flat(item.args))}
    variables = {name: value for name, value in gates.variables.items() if value in parts_read}
    constants = {name: tensor.double() for name, tensor in known.items() if tensor.is_floating_point()}
    for size in [source.features] if source.features is not None else range(1, _MOST_FEATURES):
        ends = [size + hidden * i for i in range(len(variables) + 1)]
        rows = torch.cat([torch.zeros(1, ends[-1]), torch.eye(ends[-1])]).double()
        x, *states = rows.tensor_split(ends[:-1], dim=1)
        values: dict[Any, Any] = {**constants, source.value: x, **dict(zip(variables.values(), states, strict=True))}
        try:
            for i in sorted(needed):
                if _is_given(loop, loop.body[i]):
                    values[Here(i)] = _along(x, source.ways.get(i, ()), values)
            for item in inner:
                values[Here(item.index)] = item.target(*_valued(item.args, values))
        except RuntimeError:
            continue  # another number of features
        read = {name: values[gate] for name, gate in gates.arguments.items() if gate in values}
        if len(read) < len(gates.arguments) or any(gate.shape != (len(rows), hidden) for gate in read.values()):
            return None
        parts: dict[str, dict[str, Tensor]] = {}
        for name, gate in read.items():
            matrix = (gate[1:] - gate[0]).T
            parts[name] = {"bias": gate[0], "x": matrix[:, :size]}
            for variable in gates.variables:
                at = list(variables).index(variable) if variable in variables else None
                zeros = matrix.new_zeros(hidden, hidden)
                parts[name][variable] = zeros if at is None else matrix[:, ends[at] : ends[at + 1]]
        return parts
    return None


def _along(rows: Tensor, way: Sequence[Operator], values: Mapping[Any, Any]) -> Tensor:
    """Rows of features through the operators on them, the last one first."""
    for item in reversed(way):
        if item.target is aten.slice.Tensor:
            _, _, start, end, step = item.args
            rows = aten.slice.Tensor(rows, 1, start, end, step)
        else:
            rows = item.target(rows, *_valued(item.args[1:], values))
    return rows


Parts = Mapping[str, Mapping[str, Tensor]]
"""Of each gate: its "bias" ``(H,)``, and its matrices ``(H, I)`` of "x" and ``(H, H)`` of each variable."""


def _lstm_weights(parts: Parts, _gates: Gates) -> dict[str, Tensor] | None:
    """Gates may see c by peepholes, each unit its own c: i and f that before the step, o that after it."""
    seen = {"i": "c", "f": "c", "o": "new c"}
    for name, part in parts.items():
        for state in ("c", "new c"):
            matrix = part[state]
            allowed = torch.diag(torch.diagonal(matrix)) if seen.get(name) == state else torch.zeros_like(matrix)
            if not torch.equal(matrix, allowed):
                return None
    weights = _joined([parts[name] for name in "ifgo"])
    peepholes = torch.cat([torch.diagonal(parts[name][seen[name]]) for name in "iof"])
    if peepholes.any():
        weights["peepholes"] = peepholes[None]
    return weights


def _gru_weights(parts: Parts, gates: Gates) -> dict[str, Tensor] | None:
    """A GRU's; None where n depends on h and x in another way."""
    z = parts["z"] if "z" in parts else {name: -part for name, part in parts["1-z"].items()}  # 1 - sigmoid(a)
    if "r h" in gates.inner:
        if parts["r"]["r h"].any() or z["r h"].any() or parts["n"]["h"].any():
            return None
        n = {**parts["n"], "h": parts["n"]["r h"]}
        return _joined([parts["r"], z, n])
    of_x, of_h = parts["n of x"], parts["n of h"]
    if of_x["h"].any() or of_h["x"].any():
        return None
    weights = _joined([parts["r"], z, {**of_x, "h": of_h["h"]}])
    zero = torch.zeros_like(of_h["bias"])
    weights["bias_hh_l0"] = torch.cat([zero, zero, of_h["bias"]])
    return weights


def _joined(gates: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    bias = torch.cat([gate["bias"] for gate in gates])
    return {
        "weight_ih_l0": torch.cat([gate["x"] for gate in gates]).contiguous(),
        "weight_hh_l0": torch.cat([gate["h"] for gate in gates]).contiguous(),
        "bias_ih_l0": bias,
        "bias_hh_l0": torch.zeros_like(bias),
    }


WEIGHTS: Mapping[str, Callable[[Parts, Gates], dict[str, Tensor] | None]] = {
    "LSTM": _lstm_weights,
    "GRU": _gru_weights,
    "RNN": lambda parts, _: _joined([parts["n"]]),
}
"""By the operator: the weights by torch's names, and "peepholes"; None where they are not those of its cell."""
