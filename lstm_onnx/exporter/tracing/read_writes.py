"""Reads of what was just written: ``slice_scatter``, and the ``slice`` that has the same entries.

A write into a part of a tensor, such as ``y[:, 3:].clamp_(-1, 1)``, is traced as a write into the whole tensor, of
which the part is read again.  A stream would have to keep the steps before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..aten import aten

_WHOLE = (0, None, None, 1)


def read_directly(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, changed in place, in which a part that was written as a whole is not read from the whole tensor."""
    for node in list(program.graph.nodes):
        if node.target is not aten.slice.Tensor or node.kwargs:
            continue
        whole = node.args[0]
        if whole.target is not aten.slice_scatter.default or whole.kwargs or _part(node, 1) != _part(whole, 2):
            continue
        source = whole.args[1]
        if isinstance(source, Node) and source.op == "call_function" and _dtype(source) == _dtype(node):
            node.replace_all_uses_with(source)
            program.graph_signature.replace_all_uses(node.name, source.name)  # the node may be an output
            for unused in (node, whole):
                if not unused.users:
                    program.graph.erase_node(unused)
    return program


def _dtype(node: Node) -> torch.dtype:
    found: torch.dtype = node.meta["val"].dtype
    return found


def _part(node: Node, first: int) -> tuple[Any, ...]:
    """The axis, the start, the end and the step, with the defaults of those that are left out."""
    given = node.args[first:]
    return (*given, *_WHOLE[len(given) :])
