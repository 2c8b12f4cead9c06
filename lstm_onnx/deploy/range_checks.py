"""Adds nodes that fail if an input's integers are out of range, for servers that do not check them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from ..onnxgraph.builder import Nodes, unique_name
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


def add_range_check(
    nodes: Nodes, target: str, name: str, allowed: Range, unchecked: Mapping[str, str], taken: set[str]
) -> None:
    """Add nodes that check an input and return it as `target`.

    The check is a Reshape to a shape of another size, which is an error on every provider, whereas Gather and LSTM may
    accept wrong integers.  ONNX Runtime's message has the node's name, which says what is wrong.

    Args:
        nodes: where they are added.
        target: the name of the same value after the check.
        name: the input's name.
        allowed: its range.
        unchecked: for inputs with their axes in another order, the value with the original order before any check.
        taken: the names of all values.
    """

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        return nodes.one(op, *inputs, name=unique_name(f"{name}/{op}", taken), **attributes)

    def constant(label: str, number: int) -> str:
        return nodes.constant(unique_name(f"{name}/{label}", taken), np.array(number, np.int64))

    source = unchecked[name]
    if isinstance(allowed.high, int):
        high = constant("high", allowed.high)
    else:
        other, axis = allowed.high
        high = add("Gather", add("Shape", unchecked.get(other, other)), constant("axis", axis))
    integers = add("Cast", source, to=TensorProto.INT64)
    outside = add("Or", add("Less", integers, constant("low", allowed.low)), add("Greater", integers, high))
    wrong = add("ReduceMax", add("Cast", outside, to=TensorProto.INT64), keepdims=0)
    shape = add("Add", add("Shape", source), wrong)
    nodes.one("Reshape", source, shape, name=f"{name} must be from {allowed.text}", output=target)
