"""Turns a program into a module to trace, in which a loop is torch's scan or one call of a recurrent module."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..aten import argument, aten
from ..traced_values.torch_functions import one_hot
from .batched import run_at_once
from .canonical import RECURRENT
from .cells import RecurrentCall, run_recurrent
from .program import (
    Affine,
    Carry,
    Element,
    Leaf,
    Listed,
    Loop,
    NoState,
    NotRolled,
    Operator,
    Program,
    Result,
    Run,
    positions_in,
    refused,
)
from .scan import ScanInputs, run_scan
from .steps import Steps, interleaved, is_known_equal


class RolledModule(nn.Module):
    """A program as a module, with the arguments and results of the module from which it was made.

    Args:
        program: with its loops already split (see `split`).
        inner: the module, whose parameters and buffers the program uses.
        calls: by loop, the call of a recurrent module that it amounts to.
        least: the least size of each dynamic axis.
    """

    def __init__(
        self, program: Program, inner: nn.Module, calls: Mapping[int, RecurrentCall], least: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.inner = inner
        self.program, self.calls, self.least = program, dict(calls), least
        self.constants = nn.Module()
        own = {f"inner.{name}" for name in (*dict(inner.named_parameters()), *dict(inner.named_buffers()))}
        self.leaf_names: dict[str, str] = {}
        for name, tensor in program.leaves.items():
            if name in own:
                self.leaf_names[name] = name
            else:
                self.leaf_names[name] = f"constants.c{len(self.leaf_names)}"
                self.constants.register_buffer(self.leaf_names[name].partition(".")[2], tensor, persistent=False)
        self.elements = set(program.all_of(Element))
        self.listed = {pair for run in program.all_of(Run) for pair in run.block}
        self.loops = {loop.index: loop for loop in program.loops}

    def forward(self, tensors: list[Tensor], states: list[Tensor]) -> Any:
        """As `StatefulModule.forward`.

        Raises:
            ExportError: a graph cannot express the program.
        """
        try:
            return self.run(tensors, states)
        except NotRolled as refusal:
            raise refused(refusal) from None

    def run(self, tensors: list[Tensor], states: list[Tensor]) -> Any:
        """As `forward`.

        Raises:
            NotRolled: a graph cannot express the program.
        """
        inputs = [*tensors, *states]
        self.given: dict[Any, Any] = {Leaf(f"input {index}"): tensor for index, tensor in enumerate(inputs)}
        self.given |= {Leaf(name): operator.attrgetter(place)(self) for name, place in self.leaf_names.items()}
        self.sizes = [inputs[number].size(axis) for number, axis in self.program.places]
        self.steps: dict[tuple[int, int], Steps] = {}
        self.last: dict[tuple[int, int], Tensor] = {}
        self.numbers: dict[str, int] = {}
        self.scans: list[tuple[int, list[tuple[Carry, int]]]] = []
        """The loops that became Scans, in order, each with what it carries: values, and from how many steps back."""
        for item in self.program.items:
            if isinstance(item, Loop):
                self.run_loop(item)
            else:
                self.given[Result(item.index)] = self.call(item, self.value)
        flat = self.value(self.program.outputs)
        return pytree.tree_unflatten(list(flat), self.program.structure)

    def number(self, value: Any) -> Any:
        """An integer that does not depend on the step."""
        return value.at(self.sizes) if isinstance(value, Affine) else value

    def value(self, value: Any) -> Any:
        """The value of an argument outside of loops."""
        if isinstance(value, (Result, Leaf)):
            return self.given[value]
        if isinstance(value, Affine):
            return value.at(self.sizes)
        if isinstance(value, Element):
            return self.element(value)
        if isinstance(value, tuple):
            return tuple(self.value(part) for part in value)
        if isinstance(value, (Listed, NoState)):
            raise NotRolled("a list of all steps is used where only a tensor can be")
        return value

    def element(self, value: Element) -> Tensor:
        """The value in one step of an earlier loop."""
        if self.is_last(value) and (value.loop, value.position) in self.last:
            return self.last[value.loop, value.position]
        return self.steps[value.loop, value.position].entry(-1 if self.is_last(value) else self.number(value.step))

    def is_last(self, value: Element) -> bool:
        """Whether it is of the last step."""
        count = self.loops[value.loop].count
        return bool(value.step == (count.plus(-1) if isinstance(count, Affine) else count - 1))

    def call(self, item: Operator, value: Any) -> Any:
        """The result of an operator, whose arguments `value` gives."""
        if item.target is RECURRENT:
            x, h0, c0, lengths = (None if isinstance(arg, NoState) else value(arg) for arg in item.args)
            return self.recurrent_call(x, (h0, c0), lengths, dict(item.kwargs))
        if any(isinstance(arg, Listed) for arg in item.args):
            if item.target not in (aten.cat.default, aten.stack.default):
                raise NotRolled("an operator takes a list of all steps", item.line)
            return self.joined(item, value)
        args = value(item.args)
        if item.target is aten.one_hot.default and isinstance(args[-1], torch.SymInt):
            return one_hot(*args)
        return item.target(*args, **dict(value(item.kwargs)))

    def recurrent_call(self, x: Any, states: Sequence[Any], lengths: Any, kwargs: Mapping[str, Any]) -> Any:
        """A call of the opaque operator, numbered as the next one of its module."""
        path = kwargs["module"]
        number = self.numbers.get(path, 0)
        self.numbers[path] = number + 1
        sizes = [kwargs[name] for name in ("rows", "output_size", "h_size", "c_size")]
        return RECURRENT(x, *states, lengths, path, number, kwargs["batch_first"], *sizes)

    def joined(self, item: Operator, value: Any) -> Tensor:
        """cat or stack of a list of all steps."""
        stack = item.target is aten.stack.default
        dim = argument(item.args, 1)
        parts: list[Tensor] = []
        for piece in item.args[0].pieces:
            if isinstance(piece, Run):
                start, count = self.number(piece.start), self.number(piece.count)
                columns = [self.steps[pair].range(start, piece.by, count) for pair in piece.block]
                rank = columns[0].tensor.dim() - 1
                if stack:
                    parts.append(interleaved(columns).along(dim % (rank + 1)))
                else:
                    parts.append(_flattened(columns, dim % rank))
            else:
                tensor = value(piece)
                parts.append(tensor.unsqueeze(dim % (tensor.dim() + 1)) if stack else tensor)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def run_loop(self, loop: Loop) -> None:
        """Compute everything that is used after a loop."""
        count = self.number(loop.count)
        outer = {element for element in self.elements if element.loop == loop.index}
        listed = {position for index, position in self.listed if index == loop.index}
        buffers = buffers_of(loop, outer, listed, self.is_last)
        carries = [carry for carry in loop.carries if carry.position not in buffers]
        ends = {carry.position for carry in carries if carry.back == 1}
        wanted = listed | {
            element.position
            for element in outer
            if element.position not in buffers and not (self.is_last(element) and element.position in ends)
        }
        spare = self.may_be_empty(loop)
        if loop.index in self.calls and not spare:
            inner = {element.position for element in outer if not self.is_last(element)} | listed
            if run_recurrent(self, loop, self.calls[loop.index], count, inner):
                return
        if set(buffers) == {item.index for item in loop.body} and self.copied(loop, buffers, count):
            return
        inputs = ScanInputs(self, loop, count, frozenset(buffers))
        if carries or spare or not run_at_once(inputs, wanted):
            run_scan(inputs, carries, sorted(wanted), spare=spare)
        for position in buffers:
            rows = self.steps[loop.index, position]
            self.last[loop.index, position] = filled(self, loop.body[position], rows, count)

    def may_be_empty(self, loop: Loop) -> bool:
        """Whether the loop may have no step at some length, which ONNX Runtime's Scan does not allow."""
        return bool(loop.count.at(self.least) < 1) if isinstance(loop.count, Affine) else loop.count < 1

    def copied(self, loop: Loop, buffers: set[int], count: Any) -> bool:
        """Replace a loop that only copies values of an earlier loop; returns whether it is such a loop."""
        sources = {position: loop.body[position].args[1] for position in buffers}
        steps = (source.step if isinstance(source, Element) else None for source in sources.values())
        if not all(isinstance(step, Affine) and step.step == 1 for step in steps):
            return False
        for position, source in sources.items():
            rows = self.steps[source.loop, source.position].range(self.number(source.step.at_first()), 1, count)
            self.last[loop.index, position] = filled(self, loop.body[position], rows, count)
        return True


def _flattened(columns: Sequence[Steps], axis: int) -> Tensor:
    """The steps' values concatenated along one of their axes: all columns of the first step, then of the second, ..."""
    parts = [column.along(axis) for column in columns]
    moved = parts[0] if len(parts) == 1 else torch.cat(parts, axis + 1)
    size = moved.shape[axis + 1]
    if isinstance(size, int) and size == 1:
        return moved.squeeze(axis + 1)
    return moved.flatten(axis, axis + 1)


def buffers_of(
    loop: Loop, outer: Collection[Element], wanted: Collection[int], is_last: Callable[[Element], bool]
) -> set[int]:
    """The positions that in each step fill one row of a tensor that no step reads.

    Args:
        loop: the loop.
        outer: those of its values that are used after it.
        wanted: positions of which all steps are used.
        is_last: whether one of `outer` is a value of the last step.
    """
    return {
        item.index
        for item in loop.body
        if _fills_a_row(item) and not _is_read(loop, item) and item.index not in wanted
        if all(is_last(element) for element in outer if element.position == item.index)
    }


def _fills_a_row(item: Operator) -> bool:
    if item.target is not aten.select_scatter.default or not isinstance(item.args[0], Carry):
        return False
    carry, _, _, index = item.args
    return carry.position == item.index and carry.back == 1 and isinstance(index, Affine) and abs(index.step) == 1


def _is_read(loop: Loop, item: Operator) -> bool:
    others = (item.args[1], *(other.arguments for other in loop.body if other is not item))
    return item.index in positions_in(others)


def filled(module: Any, item: Operator, rows: Steps, count: Any) -> Tensor:
    """The tensor after all steps, with the rows filled in and the rest as before the loop.

    Args:
        module: the `RolledModule` that runs.
        item: the operator that fills.
        rows: of all steps.
        count: the number of steps.
    """
    carry, _, dim, index = item.args
    start = module.number(index.at_first())
    before = module.value(carry.initial[0])
    if index.step < 0:
        start = start - (count - 1)
        rows = rows.range(count - 1, -1, count)
    tensor = rows.along(dim).to(before.dtype)
    if is_known_equal(start, 0) and is_known_equal(before.shape[dim], count):
        return tensor
    end = start + count
    head = aten.slice.Tensor(before, dim, 0, start)
    return torch.cat([head, tensor, aten.slice.Tensor(before, dim, end, before.shape[dim])], dim)
