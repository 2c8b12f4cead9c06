"""Refuses writes into weights and buffers that a trace contains and the file would lose.

Whatever the example inputs change is an attribute state.  But a write such as ``weight.mul_(1 + (x.max() > 8))`` may
change nothing for them, so it is looked for in the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ...errors import ExportError
from ...onnxgraph.nodes import Walk
from ..aten import aten_operators
from ..user_code import stack_trace_line

_RENORMALIZED = aten_operators("alias detach embedding_renorm")


def require_unwritten(program: torch.export.ExportedProgram) -> None:
    """Refuse a module that writes values that depend on its inputs into a weight or a buffer that is not a state.

    Args:
        program: a decomposed program.

    Raises:
        ExportError: it does.
    """
    signature: Any = program.graph_signature
    # An older torch does not list parameters here; it raises its own error for them.
    written = {**signature.buffers_to_mutate, **getattr(signature, "parameters_to_mutate", {})}
    nodes = {node.name: node for node in program.graph.nodes}
    for name, target in written.items():
        if name not in nodes or _is_renormalized(nodes[name]):
            continue
        walk: Walk[Node] = Walk([nodes[name]])
        for node in walk:
            if node.name in signature.user_inputs:
                line = stack_trace_line(str(nodes[name].meta.get("stack_trace", "")))
                buffer = "" if target in signature.buffers else "make it a buffer, and "
                raise ExportError(
                    f"{f'at {line}: ' if line else ''}{target.partition('.')[2]} is written in place with numbers that "
                    "depend on the inputs and kept for the next call, but the example inputs leave it unchanged; "
                    f"{buffer}pass example inputs with which it changes, or pass it as an argument of forward and "
                    "return it"
                )
            walk.add(node.all_input_nodes)


def _is_renormalized(node: Node) -> bool:
    """Whether an embedding's rows are only rescaled to max_norm, which each look-up does again."""
    while node.target in _RENORMALIZED:
        first = node.args[0]
        assert isinstance(first, Node)  # noqa: S101
        node = first
    return node.op == "placeholder"
