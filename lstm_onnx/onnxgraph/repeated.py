"""Values that Expand or Tile repeats."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

_REPEATS = frozenset({"Expand", "Tile"})
_PASSED = frozenset({"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
_MOST_STEPS = 8


def repeating_node(
    value: str, producer: Callable[[str], NodeProto | None], steps: int = _MOST_STEPS
) -> NodeProto | None:
    """The Expand or Tile that a value, or a part of it, comes from by nothing but changes of shape.

    Args:
        value: the value.
        producer: gives the node that makes a value; None for an input or a stored tensor.
        steps: how many nodes to follow.
    """
    node = producer(value)
    if node is None or node.op_type in _REPEATS:
        return node
    if node.op_type not in _PASSED or not steps:
        return None
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    return next((found for each in sources if (found := repeating_node(each, producer, steps - 1)) is not None), None)


def is_repeated(value: str, producer: Callable[[str], NodeProto | None]) -> bool:
    """Whether there is such a node."""
    return repeating_node(value, producer) is not None
