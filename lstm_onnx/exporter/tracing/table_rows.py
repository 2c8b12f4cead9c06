"""The inputs whose integers are rows of a table, such as the tokens of an embedding.

PyTorch raises an error for a row that a table does not have.  ONNX's Gather takes -1 for the last row instead, so the
file says which integers an input may have, and the runtimes refuse others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

aten = torch.ops.aten
_SAME_NUMBERS = {
    aten._to_copy.default,
    aten._unsafe_view.default,
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.expand.default,
    aten.flatten.using_ints,
    aten.lift_fresh_copy.default,
    aten.permute.default,
    aten.reshape.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.t.default,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
}
"""Operators whose result has all numbers of their first argument, and no others."""


def table_rows(program: torch.export.ExportedProgram, names: Sequence[str]) -> dict[str, int]:
    """The inputs that are looked up in a table as they are, each with the number of rows of the smallest one.

    Args:
        program: the traced module.
        names: the inputs, in the order in which the program takes them.
    """
    inputs = dict(zip(program.graph_signature.user_inputs, names, strict=True))
    found: dict[str, int] = {}
    for node in program.graph.nodes:
        rows, count = _look_up(node)
        if count is None:
            continue
        source = _source(rows)
        name = inputs.get(source.name) if source is not None else None
        if name is not None:
            found[name] = min(count, found.get(name, count))
    return found


def _look_up(node: Node) -> tuple[Any, int | None]:
    """The rows that a node looks up, and how many there are; None where it is not a look-up, or that is not fixed."""
    if node.op != "call_function":
        return None, None
    args = node.args
    if node.target is aten.embedding.default or node.target in (
        aten.embedding_bag.default,
        aten.embedding_bag.padding_idx,
        aten._embedding_bag.default,
        aten._embedding_bag_forward_only.default,
    ):
        return args[1], _size(args[0], 0)
    if node.target is aten.index_select.default:
        axis = args[1]
        return args[2], _size(args[0], axis) if isinstance(axis, int) else None
    if node.target is aten.one_hot.default and len(args) > 1 and isinstance(args[1], int) and args[1] > 0:
        return args[0], args[1]
    return None, None


def _size(table: Any, axis: int) -> int | None:
    value = table.meta.get("val") if isinstance(table, Node) else None
    size = value.shape[axis] if isinstance(value, torch.Tensor) else None
    return size if type(size) is int else None


def _source(value: Any) -> Node | None:
    """The integer input that a value has all numbers of; None where it is computed otherwise."""
    while isinstance(value, Node):
        found = value.meta.get("val")
        if not isinstance(found, torch.Tensor) or found.is_floating_point() or found.dtype is torch.bool:
            return None
        if value.op == "placeholder":
            return value
        if value.target not in _SAME_NUMBERS:
            return None
        value = value.args[0]
    return None
