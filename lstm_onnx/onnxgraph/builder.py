"""Builds a graph from nodes and their initializers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper


@dataclass
class Nodes:
    """A list of ONNX nodes and their initializers by name; values are given by their names."""

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self, op: str, *inputs: str, name: str, outputs: Sequence[str] | None = None, **attributes: Any
    ) -> tuple[str, ...]:
        """Append a node, and return its outputs; `outputs` defaults to one value with the node's name."""
        names = tuple(outputs or (name,))
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def one(self, op: str, *inputs: str, name: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with a single output, and return that output."""
        return self.add(op, *inputs, name=name, outputs=(output or name,), **attributes)[0]

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an initializer; adding an equal array again is allowed, a different one of that name is a ValueError."""
        old = self.initializers.setdefault(name, array)
        if old is not array and (old.dtype != array.dtype or not np.array_equal(old, array, equal_nan=True)):
            raise ValueError(f"the initializer {name} already exists, with different values")
        return name

    def integers(self, *values: int) -> str:
        """A 1-D int64 initializer (axes, shapes, sizes); equal ones are shared."""
        return self.constant(integers_name(values), np.array(values, np.int64))


def unique_name(name: str, taken: set[str]) -> str:
    """The name itself or, if it is taken, the first of ``name_2``, ``name_3``, … that is free; it is then taken."""
    others = (f"{name}_{number}" for number in itertools.count(2))
    found = next(found for found in itertools.chain([name], others) if found not in taken)
    taken.add(found)
    return found


def integers_name(values: Iterable[int]) -> str:
    """The name of an initializer for a few int64 values: ``ints/1_2``."""
    return "ints/" + "_".join(map(str, values))


def valid_steps(nodes: Nodes, x: str, lengths: str, name: str, *, int64: bool = False) -> str:
    """Compute whether each step is within its sequence, as the value `name`: bool ``(time, batch, 1)``.

    Args:
        nodes: the graph.
        x: ``(time, batch, features)``.
        lengths: int32 or, with `int64`, any integers ``(batch,)``.
        name: the value's name, with which other added names start.
        int64: compare int64 numbers instead of int32, since tract represents sizes of axes as int64.
    """
    shape = nodes.one("Shape", x, name=f"{name}/Shape")
    time = nodes.one("Gather", shape, nodes.constant("int/0", np.array(0, np.int64)), name=f"{name}/time")
    if int64:
        lengths = nodes.one("Cast", lengths, name=f"{name}/lengths_int64", to=TensorProto.INT64)
        zero, one = nodes.constant("int/0", np.array(0, np.int64)), nodes.constant("int/1", np.array(1, np.int64))
    else:
        time = nodes.one("Cast", time, name=f"{name}/time_int32", to=TensorProto.INT32)
        zero = nodes.constant("int32/0", np.array(0, np.int32))
        one = nodes.constant("int32/1", np.array(1, np.int32))
    steps = nodes.one("Range", zero, time, one, name=f"{name}/Range")
    steps = nodes.one("Unsqueeze", steps, nodes.integers(1, 2), name=f"{name}/steps")
    column = nodes.one("Unsqueeze", lengths, nodes.integers(1), name=f"{name}/lengths")
    return nodes.one("Less", steps, column, name=name)
