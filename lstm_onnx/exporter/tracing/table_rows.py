"""Finds the inputs whose integers are rows of a table, such as the tokens of an embedding.

PyTorch raises an error for a row that a table does not have.  ONNX's Gather reads -1 as the last row instead, so the
file says which integers an input may have, and its runtimes refuse others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from ...onnxgraph.nodes import Walk
from ..aten import aten, aten_operators

_ALL_NUMBERS = aten_operators(
    "_to_copy _unsafe_view alias cat clone concat concatenate constant_pad_nd contiguous detach expand "
    "flatten.using_ints flip hstack lift_fresh_copy pad permute repeat reshape roll squeeze squeeze.dim "
    "squeeze.dims stack t tile to.device to.dtype to.dtype_layout to.other transpose.int unsqueeze view"
)
"""Operators whose result contains all values of their first argument, which is a tensor or a list of tensors."""
_PADS = (aten.pad.default, aten.constant_pad_nd.default)
"""Those of them that drop values if a pad is negative."""
_OF_ROWS = aten_operators(
    "embedding embedding_bag embedding_bag.padding_idx _embedding_bag _embedding_bag_forward_only"
)
"""Look-ups of the rows of a table: ``(table, rows)``."""
_ALONG_AXIS = aten_operators(
    "gather index_add index_add_ index_select scatter.src scatter.value scatter_.src scatter_.value scatter_add "
    "scatter_add_"
)
"""Look-ups along an axis: ``(table, axis, entries)``.  PyTorch refuses negative entries, ONNX's operators do not."""


def table_rows(program: torch.export.ExportedProgram, names: Sequence[str]) -> dict[str, int]:
    """The inputs whose values are looked up in tables unchanged, each with the number of rows of the smallest table.

    Args:
        program: the traced module.
        names: the inputs, in the order in which the program takes them.
    """
    inputs = dict(zip(program.graph_signature.user_inputs, names, strict=True))
    found: dict[str, int] = {}
    for node in program.graph.nodes:
        rows, count = _look_up(node)
        for name in (inputs[source] for source in _sources(rows) if source in inputs):
            if count is not None:
                found[name] = min(count, found.get(name, count))
    return found


def _look_up(node: Node) -> tuple[Any, int | None]:
    """The rows that a node looks up, and the table's number of rows; None if it is no look-up or that varies."""
    args = node.args
    if node.target in _OF_ROWS:
        return args[1], _size(args[0], 0)
    if node.target in _ALONG_AXIS:
        return args[2], _size(args[0], args[1]) if isinstance(args[1], int) else None
    if node.target is aten.one_hot.default and len(args) > 1 and isinstance(args[1], int) and args[1] > 0:
        return args[0], args[1]
    return None, None


def _size(table: Any, axis: int) -> int | None:
    value = table.meta.get("val") if isinstance(table, Node) else None
    size = (value.shape[axis] if value.dim() else 1) if isinstance(value, torch.Tensor) else None
    return size if type(size) is int else None


def _sources(value: Any) -> Iterator[str]:
    """The integer inputs whose values are all contained in a value."""
    walk: Walk[Node] = Walk([value] if isinstance(value, Node) else [])
    for node in walk:
        found = node.meta.get("val")
        if not isinstance(found, torch.Tensor) or found.is_floating_point() or found.dtype is torch.bool:
            continue
        if node.op == "placeholder":
            yield node.name
        elif node.target in _ALL_NUMBERS and not (node.target in _PADS and _cuts(node.args[1])):
            first = node.args[0]
            items = first if isinstance(first, (list, tuple)) else [first]
            walk.add(item for item in items if isinstance(item, Node))


def _cuts(pads: Any) -> bool:
    return not all(isinstance(pad, int) and pad >= 0 for pad in pads)
