"""Writes into what a module keeps, in a trace: numbers that later calls would find, and a file does not."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node

from ...errors import ExportError
from ..user_code import stack_trace_line


def require_unwritten(program: torch.export.ExportedProgram) -> None:
    """Refuse a forward that writes what its inputs give into a parameter or buffer that is no state.

    It is one where the example shows that it changes; a running maximum that begins high stays as it was.

    Raises:
        ExportError: it does.
    """
    kept = {
        spec.arg.name: str(spec.target).removeprefix("inner.")
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
    }
    given = set(program.graph_signature.user_inputs)
    memory: dict[Node, str] = {}  # of which parameter or buffer a value is a view
    computed: set[Node] = set()  # from the inputs
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in kept:
                memory[node] = kept[node.name]
            if node.name in given:
                computed.add(node)
        if not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
        for value, is_written in _aliases(node):
            if value in memory:
                memory[node] = memory[value]
                if is_written and node in computed:
                    line = stack_trace_line(str(node.meta.get("stack_trace", "")))
                    raise ExportError(
                        f"{f'at {line}: ' if line else ''}forward writes into self.{memory[value]} what depends on its "
                        "inputs, and that is no state of the file, since it is a parameter or the example inputs leave "
                        "it as it was; assign a new tensor to an attribute instead, as by self.state = ..., or pass "
                        "the state as an argument of forward and return it"
                    )


def _aliases(node: Node) -> Iterator[tuple[Any, bool]]:
    """The arguments whose memory an operator's result may share, and whether it writes there."""
    if node.target is operator.getitem:
        yield node.args[0], False
    schema = getattr(node.target, "_schema", None)
    for index, argument in enumerate(schema.arguments if schema is not None else ()):
        value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and isinstance(value, Node):
            yield value, argument.alias_info.is_write
