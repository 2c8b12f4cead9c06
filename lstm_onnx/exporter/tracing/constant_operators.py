"""Computes operators that have no translation during the export, if their inputs are only weights.

An orthogonal weight is a product of reflections or the exponential of a matrix, for which ONNX has no operators.  The
module computes it at each call; a file needs only its value.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from ..aten import aten

_HELD = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def computed_operators(
    program: torch.export.ExportedProgram, is_translated: Callable[[Any], bool]
) -> torch.export.ExportedProgram:
    """The program, changed in place, with the results of such operators as constants.

    Args:
        program: a decomposed program.
        is_translated: whether an operator has a translation.
    """
    with contextlib.suppress(ImportError):  # an older torch has no tokens, which keep checks in order
        from torch.export._remove_effect_tokens_pass import _remove_effect_tokens

        if any("with_effects" in str(node.target) for node in program.graph.nodes):
            program = _remove_effect_tokens(program)
    values = _Values(program)
    nodes = [node for node in program.graph.nodes if _is_operator(node) and not is_translated(node.target)]
    for node in nodes:
        found = values.of(node) if values.are_known(node) else None
        if node.target is aten._linalg_check_errors.default:  # has no result, and what it checks is computed here, too
            program.graph.erase_node(node)
            continue
        if found is None:
            continue
        if isinstance(found, Tensor):
            _replace(program, node, found)
            continue
        for part in list(node.users):
            if part.target is operator.getitem:
                _replace(program, part, found[part.args[1]])
    if nodes:
        program.graph.eliminate_dead_code()
    return program


class _Values:
    """The values of the nodes that depend on no input of the module."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        held = {**program.state_dict, **program.constants}
        written = {*program.graph_signature.buffers_to_mutate.values()}
        self._values: dict[Node, Any] = {}
        placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        for spec in program.graph_signature.input_specs:
            value = held.get(spec.target) if spec.kind in _HELD and spec.target not in written else None
            if isinstance(value, Tensor):
                self._values[placeholders[spec.arg.name]] = value.detach()
        self._known: dict[Node, bool] = dict.fromkeys(self._values, True)

    def are_known(self, node: Node) -> bool:
        """Whether a node's value follows from weights and constants."""
        if node not in self._known:
            computed = _is_operator(node) or node.target is operator.getitem
            self._known[node] = computed and all(map(self.are_known, node.all_input_nodes))
        return self._known[node]

    def of(self, node: Node) -> Any:
        """The value of a node that is known."""
        if node not in self._values:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.of)
            with torch.no_grad():
                self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return self._values[node]


def _is_operator(node: Node) -> bool:
    """Whether a node calls an operator that gives the same for the same inputs, and writes nothing."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def _replace(program: torch.export.ExportedProgram, node: Node, value: Tensor) -> None:
    """Replace a node by a constant, an input of the program before the module's own."""
    specs = program.graph_signature.input_specs
    place = next(index for index, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT)
    following = [item for item in program.graph.nodes if item.op == "placeholder"][place]
    with program.graph.inserting_before(following):
        made = program.graph.placeholder(f"c_{node.name}")
    made.meta = dict(node.meta)
    specs.insert(place, InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(made.name), made.name, None))
    program.constants[made.name] = value.contiguous()
    node.replace_all_uses_with(made)
    program.graph_signature.replace_all_uses(node.name, made.name)  # the node may be an output
