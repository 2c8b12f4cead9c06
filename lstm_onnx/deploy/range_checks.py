"""Adds nodes that fail if an input's integers are out of range, for servers that do not check them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ..runtime import Model


@dataclass(frozen=True)
class Range:
    """The integers that an input may have, from `low` to `high` inclusive.

    Attributes:
        low: the least integer.
        high: the largest integer; or an input and its axis, whose size is the largest integer.
        text: the range in messages, such as ``0 to 49``.
    """

    low: int
    high: int | tuple[str, int]
    text: str


def ranges_of(model: Model) -> dict[str, Range]:
    """The ranges of the inputs that, by the file's metadata, are indices of an embedding or lengths."""
    found = {name: Range(0, rows - 1, f"0 to {rows - 1}") for name, rows in model.metadata.table_rows.items()}
    for name, count in model.counts.items():
        sized = [
            (key, list(info.shape).index(count.axis)) for key, info in model.inputs.items() if count.axis in info.shape
        ]
        if sized:
            found[name] = Range(count.low, sized[0], f"{count.low} to {count.axis}")
    return {name: allowed for name, allowed in found.items() if name in model.inputs}


def range_check(
    source: str, target: str, name: str, allowed: Range, inner: Mapping[str, str], free: Callable[[str], str]
) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """Make nodes that check `source` and return it as `target`; return them and their constants.

    The check is a Reshape to a shape of another size, which is an error on every provider, whereas Gather and LSTM may
    accept wrong integers.  ONNX Runtime's message has the node's name, which says what is wrong.

    Args:
        source: the value to check.
        target: the name of the same value after the check.
        name: the input's name, for messages.
        allowed: its range.
        inner: for each other input, the name of its value with the original order of axes.
        free: returns an unused name that starts with the given one.
    """
    constants = {free(f"{name}/low"): np.array(allowed.low, np.int64)}
    (low,) = constants
    nodes: list[NodeProto] = []

    def add(kind: str, *inputs: str, output: str = "", label: str = "", **attributes: Any) -> str:
        output = output or free(f"{name}/{kind}")
        nodes.append(helper.make_node(kind, inputs, [output], label or output, **attributes))
        return output

    if isinstance(allowed.high, int):
        high = free(f"{name}/high")
        constants[high] = np.array(allowed.high, np.int64)
    else:
        other, axis = allowed.high
        index = free(f"{name}/axis")
        constants[index] = np.array(axis, np.int64)
        high = add("Gather", add("Shape", inner.get(other, other)), index)
    integers = add("Cast", source, to=TensorProto.INT64)
    outside = add("Or", add("Less", integers, low), add("Greater", integers, high))
    wrong = add("ReduceMax", add("Cast", outside, to=TensorProto.INT64), keepdims=0)
    shape = add("Add", add("Shape", source), wrong)
    add("Reshape", source, shape, output=target, label=f"{name} must be from {allowed.text}")
    return nodes, constants
