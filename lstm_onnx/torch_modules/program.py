"""Runs a converted graph step by step: each step calls a submodule, an operator or a body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..errors import InputError
from ..onnxgraph import Shape
from .elementwise import ELEMENTWISE, Attributes, Operator
from .products import PRODUCTS, linear
from .shapes import SHAPES, reverse_steps
from .values import Value, integers, is_number, tensor

LINEAR = "lstm_onnx.linear"
"""The operator for a MatMul whose matrix is the transpose of a parameter."""
OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **SHAPES, **PRODUCTS, LINEAR: linear}
"""The functions that compute operators, by ONNX's operator names."""

Values = dict[str, Value]


class Scope(nn.Module):
    """A part of a converted module: it holds submodules and parameters, and calls the operators of its code."""

    def forward(self, function: Operator, inputs: list[Value], attributes: Attributes) -> Any:
        """Call an operator."""
        return function(inputs, attributes)


@dataclass(frozen=True)
class OperatorStep:
    """A call of an operator: its name, its inputs ("" for none) and outputs, and its `Scope`."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes
    scope: str = ""

    def run(self, root: nn.Module, values: Values) -> None:
        """Compute the outputs."""
        given = [values[name] if name else None for name in self.inputs]
        function = OPERATORS[self.op_type]
        if self.scope:
            result = root.get_submodule(self.scope)(function, given, self.attributes)
        else:
            result = function(given, self.attributes)
        _keep(values, self.outputs, result)


@dataclass(frozen=True)
class ModuleStep:
    """A call of a submodule with one input and one output."""

    path: str
    input: str
    output: str

    def run(self, root: nn.Module, values: Values) -> None:
        """Compute the output."""
        values[self.output] = root.get_submodule(self.path)(tensor(values[self.input]))


@dataclass(frozen=True)
class RecurrentStep:
    """A call of an nn.LSTM, nn.GRU or nn.RNN.

    Attributes:
        path: the submodule.
        x: its input; `h0`, `c0` and `lengths` are "" where there are none.
        outputs: of the output, hn and cn; "" for one that is not read.
        operator: whether the shapes are those of ONNX's operator: ``(time, batch, features)`` in and
            ``(time, directions, batch, features)`` out.
        reverse: whether only the reverse direction runs.
        layout: the operator's attribute: 1 for the batch first.
    """

    path: str
    x: str
    h0: str
    c0: str
    lengths: str
    outputs: tuple[str, str, str]
    operator: bool = False
    reverse: bool = False
    layout: int = 0

    def run(self, root: nn.Module, values: Values) -> None:
        """Compute the outputs."""
        rnn: Any = root.get_submodule(self.path)
        x = tensor(values[self.x])
        h0, c0 = (values[name] if name else None for name in (self.h0, self.c0))
        lengths = tensor(values[self.lengths]) if self.lengths else None
        if self.layout:
            x = x.transpose(0, 1)
            h0, c0 = (None if state is None else tensor(state).transpose(0, 1) for state in (h0, c0))
        if self.reverse:
            x = reverse_steps(x, lengths)
        y, hn, cn = call_recurrent(rnn, x, h0, c0, lengths)
        if self.reverse:
            y = reverse_steps(y, lengths)
        if self.operator:
            directions = 2 if rnn.bidirectional else 1
            y = y.reshape(y.shape[0], y.shape[1], directions, y.shape[2] // directions).transpose(1, 2)
        if self.layout:
            y = y.permute(2, 0, 1, 3)
            hn, cn = hn.transpose(0, 1), None if cn is None else cn.transpose(0, 1)
        for name, value in zip(self.outputs, (y, hn, cn), strict=True):
            if name:
                values[name] = value


@dataclass(frozen=True)
class CellStep:
    """A call of an nn.LSTMCell, nn.GRUCell or nn.RNNCell; "" for what is left out or not read."""

    path: str
    x: str
    h0: str
    c0: str
    outputs: tuple[str, str]

    def run(self, root: nn.Module, values: Values) -> None:
        """Compute the new states."""
        cell: Any = root.get_submodule(self.path)
        h0, c0 = (values[name] if name else None for name in (self.h0, self.c0))
        states = (None if h0 is None else (h0, c0)) if isinstance(cell, nn.LSTMCell) else h0
        result = cell(values[self.x], states)
        final = result if isinstance(cell, nn.LSTMCell) else (result,)
        values.update((name, value) for name, value in zip(self.outputs, final, strict=False) if name)


def call_recurrent(
    rnn: Any, x: Tensor, h0: Value, c0: Value, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Call an nn.LSTM, nn.GRU or nn.RNN, with lengths on a packed sequence; a state that is missing is zeros."""
    first = rnn.batch_first
    states: Any = h0
    if isinstance(rnn, nn.LSTM):
        states = None
        if h0 is not None or c0 is not None:
            rows = rnn.num_layers * (2 if rnn.bidirectional else 1)
            batch = x.shape[0 if first else 1]
            h0 = x.new_zeros(rows, batch, rnn.proj_size or rnn.hidden_size) if h0 is None else h0
            states = h0, x.new_zeros(rows, batch, rnn.hidden_size) if c0 is None else c0
    if lengths is None:
        y, final = rnn(x, states)
    else:
        batch = x.shape[0 if first else 1]
        if lengths.shape[0] < batch:  # torch drops the other rows
            raise InputError(f"lengths have the shape {tuple(lengths.shape)}, but there are {batch} sequences")
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=first, enforce_sorted=False)
        y, final = rnn(packed, states)
        y, _ = pad_packed_sequence(y, batch_first=first, total_length=x.shape[1 if first else 0])
    hn, cn = final if isinstance(rnn, nn.LSTM) else (final, None)
    return y, hn, cn


@dataclass(frozen=True)
class Program:
    """A graph: its inputs, its steps, and the values that are its outputs.

    Attributes:
        inputs: the names of its inputs.
        steps: in order.
        outputs: the names of its outputs.
        attributes: the values that are parameters and buffers, by the dotted name of each.
        numbers: the values that are Python's numbers and lists.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def run(self, root: nn.Module, given: Sequence[Value], outer: Values) -> list[Value]:
        """Compute the outputs.

        Args:
            root: the module with the submodules and parameters.
            given: the inputs.
            outer: the values of the graph around it.
        """
        values: Values = {**outer, **self.numbers, **dict(zip(self.inputs, given, strict=True))}
        for name, path in self.attributes.items():
            owner, _, attribute = path.rpartition(".")
            values[name] = getattr(root.get_submodule(owner), attribute)
        for step in self.steps:
            step.run(root, values)
        return [values[name] for name in self.outputs]


@dataclass(frozen=True)
class ScanStep:
    """A Scan: its body runs once for each entry along an axis of its last inputs.

    Attributes:
        body: one step.
        inputs: the states, and then what is scanned.
        outputs: the final states, and then what is stacked.
        states: the number of states.
        axes, backwards: of each scanned input; `output_axes`, `output_backwards` of each stacked output.
    """

    body: Program
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: int
    axes: tuple[int, ...]
    backwards: tuple[bool, ...]
    output_axes: tuple[int, ...]
    output_backwards: tuple[bool, ...]

    def run(self, root: nn.Module, values: Values) -> None:
        """Run the body step by step."""
        given = [values[name] for name in self.inputs]
        carried, scanned = given[: self.states], [tensor(item) for item in given[self.states :]]
        count = scanned[0].shape[self.axes[0]]
        if any(item.shape[axis] != count for item, axis in zip(scanned, self.axes, strict=True)):
            raise InputError(
                f"{', '.join(self.inputs[self.states :])} must have the same number of steps, since one Scan reads them"
            )
        if not count:
            raise InputError(f"{self.inputs[self.states]} has no steps, but the Scan that reads it needs at least one")
        stacked: list[list[Value]] = [[] for _ in self.output_axes]
        for number in range(count):
            rows: list[Value] = [
                item.select(axis, count - 1 - number if backwards else number)
                for item, axis, backwards in zip(scanned, self.axes, self.backwards, strict=True)
            ]
            results = self.body.run(root, [*carried, *rows], values)
            carried = results[: self.states]
            for column, item in zip(stacked, results[self.states :], strict=True):
                column.append(item)
        joined: list[Value] = []
        for column, axis, backwards in zip(stacked, self.output_axes, self.output_backwards, strict=True):
            joined.append(torch.stack([tensor(item) for item in (column[::-1] if backwards else column)], axis))
        _keep(values, self.outputs, (*carried, *joined))


@dataclass(frozen=True)
class LoopStep:
    """A Loop: its body runs up to a number of times, while a condition holds; either may be "".

    Attributes:
        types: the declared dtype and shape of each value that is stacked, for the result of a loop without steps.
    """

    body: Program
    count: str
    condition: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[tuple[str, Shape | None], ...] = ()

    def run(self, root: nn.Module, values: Values) -> None:
        """Run the body."""
        most = integers(values[self.count])[0] if self.count else None
        goes_on: Value = values[self.condition] if self.condition else True
        carried = [values[name] for name in self.inputs]
        stacked: list[list[Tensor]] = [[] for _ in self.outputs[len(carried) :]]
        number = 0
        while (most is None or number < most) and _truth(goes_on):
            goes_on, *results = self.body.run(root, [number, goes_on, *carried], values)
            carried = results[: len(carried)]
            for column, item in zip(stacked, results[len(carried) :], strict=True):
                column.append(tensor(item))
            number += 1
        joined = [torch.stack(column) for column in stacked] if number else [_no_rows(*kind) for kind in self.types]
        _keep(values, self.outputs, (*carried, *joined))


@dataclass(frozen=True)
class IfStep:
    """An If: one of two bodies runs."""

    condition: str
    then: Program
    otherwise: Program
    outputs: tuple[str, ...]

    def run(self, root: nn.Module, values: Values) -> None:
        """Run the body that the condition chooses."""
        body = self.then if _truth(values[self.condition]) else self.otherwise
        _keep(values, self.outputs, tuple(body.run(root, [], values)))


def _truth(value: Value) -> bool:
    return bool(value if is_number(value) else tensor(value).reshape(()))


def _no_rows(dtype: str, shape: Shape | None) -> Tensor:
    """The stacked result of a Loop without steps."""
    if shape is None or not all(isinstance(size, int) for size in shape) or not hasattr(torch, dtype):
        raise InputError("a Loop has no steps to run, and the file does not say what shape its result then has")
    return torch.empty(0, *(int(size or 0) for size in shape), dtype=getattr(torch, dtype))


def _keep(values: Values, names: tuple[str, ...], result: Any) -> None:
    results = result if isinstance(result, tuple) else (result,)
    values.update((name, value) for name, value in zip(names, results, strict=False) if name)


Step = OperatorStep | ModuleStep | RecurrentStep | CellStep | ScanStep | LoopStep | IfStep


def values_read(step: Step) -> list[str]:
    """The values that a step reads, in order, except those that its bodies read from the outer graph."""
    found: list[str] = []
    for name in ("x", "h0", "c0", "lengths", "count", "condition", "input", "inputs"):
        value = getattr(step, name, ())
        found += [value] if isinstance(value, str) else value
    return [name for name in found if name]
