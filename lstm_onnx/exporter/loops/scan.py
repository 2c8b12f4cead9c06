"""Runs a loop as torch's scan, which becomes one Scan node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..aten import aten
from .cells import is_read
from .program import Affine, Carry, Element, Here, Leaf, Loop, NoState, NotRolled, Operator, Result, all_of, by_step
from .step_numbers import run_in_step
from .steps import Steps


class ScanInputs:
    """What a loop's body takes from outside: one entry of some tensors in each step, and other tensors as a whole.

    Args:
        module: the `RolledModule` that runs.
        loop: the loop.
        count: the number of its steps.
        buffers: positions that only fill one row of a tensor, so that only the row is needed.
    """

    def __init__(self, module: Any, loop: Loop, count: Any, buffers: frozenset[int]) -> None:
        self.module, self.loop, self.count, self.buffers = module, loop, count, buffers
        self.xs: list[Tensor] = []
        self.reads: dict[int, tuple[int, Callable[[Tensor], Tensor]]] = {}
        self.elements: dict[Element, int] = {}
        self.whole: dict[Any, int] = {}
        self.given: list[Any] = []
        self.counter: int | None = None
        for item in loop.body:
            if item.index in buffers:
                self._need(item.args[1])
            elif _is_read(item):
                self._read(item)
            else:
                self._need((item.args, item.kwargs))

    def _add(self, steps: Steps) -> int:
        self.xs.append(steps.along(0))
        return len(self.xs) - 1

    def require_counter(self) -> None:
        """Give the body its step number."""
        if self.counter is None:
            self.counter = len(self.xs)
            self.xs.append(torch.arange(self.count))

    def _need(self, value: Any) -> None:
        if isinstance(value, Affine) and value.step:
            self.require_counter()
            self._need(value.at_first())
        elif isinstance(value, Element) and by_step(value):
            if value not in self.elements:
                source = self.module.steps[value.loop, value.position]
                first = self.module.number(value.step.at_first())
                self.elements[value] = self._add(source.range(first, value.step.step, self.count))
        elif isinstance(value, (Result, Leaf, Affine, Element)):
            outside = self.module.value(value)
            if isinstance(outside, (Tensor, torch.SymInt)) and value not in self.whole:
                self.whole[value] = len(self.given)
                self.given.append(outside)
        elif isinstance(value, tuple):
            for part in value:
                self._need(part)

    def _read(self, item: Operator) -> None:
        """Add an entry, or a window of several, that each step picks from a tensor outside the loop."""
        base, dim, start = item.args[:3]
        tensor, first = self.module.value(base), self.module.number(start.at_first())
        if item.target is aten.select.int:
            place = self._add(Steps(tensor, dim).range(first, start.step, self.count))
            self.reads[item.index] = place, lambda entry: entry
            return
        end = item.args[3]
        windows = [
            Steps(tensor, dim).range(first + i, start.step, self.count).along(0) for i in range(end.const - start.const)
        ]
        self.xs.append(torch.stack(windows, -1))
        self.reads[item.index] = len(self.xs) - 1, lambda entry: entry.movedim(-1, dim)


def _is_read(item: Operator) -> bool:
    """Whether an operator picks an entry, or a window of several, by the step number from a tensor outside."""
    if not is_read(item, aten.slice.Tensor):
        return is_read(item)
    start, end, by = item.args[2:]
    return isinstance(end, Affine) and (end.step, end.sizes) == (start.step, start.sizes) and by == 1


def run_scan(inputs: ScanInputs, carries: Sequence[Carry], wanted: Sequence[int], *, spare: bool) -> None:
    """Run a loop as a scan; its module stores the last states, and the values of all steps at `wanted`.

    Args:
        inputs: what it takes from outside; the rows that fill its buffers are stored.
        carries: what a step takes from those before it.
        wanted: positions whose values of all steps are used.
        spare: run one more step and drop its results: at some length the loop has no step, and a Scan needs one.
    """
    module, loop, buffers = inputs.module, inputs.loop, sorted(inputs.buffers)
    slots = [(carry, place) for carry in carries for place in range(carry.back)]
    start = [_initial(inputs, carry, carry.initial[carry.back - 1 - place]) for carry, place in slots]
    module.scans.append((loop.index, slots))
    if not start:
        start = [torch.zeros(1)]
    if not inputs.xs:
        inputs.require_counter()
    xs, count = list(inputs.xs), inputs.count
    if spare:
        xs = [torch.cat([x, x.new_zeros((1, *x.shape[1:]))]) for x in xs]

    def step(*flat: Any) -> list[Tensor]:
        state, entries = flat[: len(start)], flat[len(start) : len(start) + len(xs)]
        new, here = _Body(inputs, slots, state, entries, flat[len(start) + len(xs) :]).run()
        outs = [here[position] for position in wanted] + [here[~position] for position in buffers]
        return [_own(tensor) for tensor in (*new, *outs, *(new if spare else ()))]

    results = _scanned(step, start, xs, inputs.given)
    state, ys = results[: len(start)], results[len(start) :]
    if spare:
        every = ys[len(ys) - len(start) :]
        state = [torch.cat([s.unsqueeze(0), e]).select(0, count) for s, e in zip(start, every, strict=True)]
        ys = [Steps(y).range(0, 1, count).tensor for y in ys[: len(ys) - len(start)]]
    for (carry, _), tensor in zip(slots, state, strict=False):
        if carry.back == 1:
            module.last[loop.index, carry.position] = tensor
    for position, tensor in zip([*wanted, *buffers], ys, strict=True):
        module.steps[loop.index, position] = Steps(tensor)


def _own(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _scanned(step: Any, start: list[Tensor], xs: list[Tensor], given: list[Any]) -> list[Tensor]:
    # torch refuses two views of one tensor; the copies do not get into the ONNX graph.
    start = [_own(tensor) for tensor in start]
    if torch.compiler.is_exporting():
        xs, given = ([_own(t) if isinstance(t, Tensor) else t for t in part] for part in (xs, given))
        return list(torch.ops.higher_order.scan(step, start, xs, tuple(given)))
    state, rows = start, []
    for index in range(xs[0].shape[0]):
        results = step(*state, *(x[index] for x in xs), *given)
        state = results[: len(start)]
        rows.append(results[len(start) :])
    return [*state, *(torch.stack(column) for column in zip(*rows, strict=True))]


def _initial(inputs: ScanInputs, carry: Carry, value: Any) -> Tensor:
    if not isinstance(value, NoState):
        found: Tensor = inputs.module.value(value)
        return found
    item = inputs.loop.body[carry.position]
    call = inputs.loop.body[item.args[0].position]
    kwargs = dict(call.kwargs)
    size = kwargs["h_size" if item.args[1] == 1 else "c_size"]
    return torch.zeros((kwargs["rows"], _batch_of(inputs, call), size), dtype=item.dtype)


def _batch_of(inputs: ScanInputs, call: Operator) -> Any:
    """The batch of a recurrent module's input in the first step."""
    body = _Body(inputs, [], (), [entry[0] for entry in inputs.xs], inputs.given)
    x = call.args[0]
    needed = [inputs.loop.body[position] for position in sorted(inputs.loop.reached([x]))]
    if any(all_of(Carry, (x, *(item.arguments for item in needed)))):
        raise NotRolled("a recurrent module starts without states, and its input depends on states")
    for item in needed:
        body.here[item.index] = body.result(item)
    return body.value(x).shape[0 if dict(call.kwargs)["batch_first"] else 1]


@dataclass
class _Body:
    """A loop's body in one step.

    Attributes:
        inputs: what the loop takes from outside.
        slots: for each of `state`, the carried value, and how many steps further back it is.
        state: the carried values.
        entries: the step's entries of `inputs.xs`.
        given: `inputs.given` within the scan.
        here: the values that are computed, by position; rows of buffers at ``~position``.
    """

    inputs: ScanInputs
    slots: list[tuple[Carry, int]]
    state: Sequence[Any]
    entries: Sequence[Any]
    given: Sequence[Any]
    here: dict[int, Any] = field(default_factory=dict)

    def run(self) -> tuple[list[Any], dict[int, Any]]:
        """The states after the step, and `here`."""
        for item in self.inputs.loop.body:
            if item.index in self.inputs.buffers:
                self.here[~item.index] = self.value(item.args[1])
            else:
                self.here[item.index] = self.result(item)
        if not self.slots:
            return [self.state[0]], self.here
        new = [
            self.here[carry.position] if place == 0 else self.state[self.slots.index((carry, place - 1))]
            for carry, place in self.slots
        ]
        return new, self.here

    def result(self, item: Operator) -> Any:
        if item.index in self.inputs.reads:
            place, of = self.inputs.reads[item.index]
            return of(self.entries[place])
        return run_in_step(self.inputs.module, item, self.value)

    def value(self, value: Any) -> Any:
        inputs = self.inputs
        if isinstance(value, Here):
            return self.here[value.position]
        if isinstance(value, Carry):
            return self.state[self.slots.index((value, value.back - 1))]
        if isinstance(value, Affine) and value.step:
            assert inputs.counter is not None  # noqa: S101 - an argument needs it
            counter, first = self.entries[inputs.counter], value.at_first()
            offset = self.given[inputs.whole[first]] if first in inputs.whole else inputs.module.number(first)
            product = counter if value.step == 1 else counter * value.step
            return product if isinstance(offset, int) and offset == 0 else product + offset
        if isinstance(value, (Result, Leaf, Affine, Element)) and value in inputs.whole:
            return self.given[inputs.whole[value]]
        if isinstance(value, Element) and value in inputs.elements:
            return self.entries[inputs.elements[value]]
        if isinstance(value, tuple):
            return tuple(map(self.value, value))
        return inputs.module.value(value)
