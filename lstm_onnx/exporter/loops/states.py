"""Turns what loops carry into states of the file: inputs with which they start, and outputs with which they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, helper
from torch import Tensor

from ...onnxgraph.nodes import bodies_of
from ..aten import aten_operators
from ..lowering.explicit_states import ExposedStates, LoopedCall, add_output, one_if_equal
from ..lowering.rename import Dims, TracedGraph
from ..translations.cumulative import BODY
from .canonical import RECURRENT
from .cells import is_zeros
from .pieces import CONVERSIONS
from .program import Affine, Carry, Leaf, NoState, Program, Result
from .roll import RolledUp

_SHAPE_ONLY = aten_operators("sym_size.int new_zeros new_ones new_full zeros_like ones_like full_like")
"""Operators that use only the shape and dtype of a tensor."""
_CONSTANT = (Affine, NoState, int, float, str, torch.dtype, torch.device, torch.layout, type(None))


def looped_calls(rolled: RolledUp, inputs: Sequence[Tensor], modules: Sequence[str]) -> dict[str, LoopedCall]:
    """For each recurrent module, by path, how one call replaces its calls in a Python loop.

    Args:
        rolled: the module with its loops rolled up.
        inputs: example inputs.
        modules: the paths of the module's own recurrent modules.
    """
    program = rolled.module.program
    counts = Counter(dict(item.kwargs)["module"] for item in program.operators if item.target is RECURRENT)
    found: dict[str, LoopedCall] = {}
    for call in rolled.module.calls.values():
        initial = [value for value in call.initial if value is not None]
        own = call.module in modules
        found[call.module] = LoopedCall(
            origin=own and counts[call.module] == 1,
            ambiguous=counts[call.module] > 1,
            initial=None if own else tuple(_initial(program, value, inputs) for value in initial),
        )
    return found


def expose_loop_states(
    graph: TracedGraph, rolled: RolledUp, inputs: Sequence[Tensor], exposed: ExposedStates
) -> tuple[str, ...]:
    """Turn what Scans carry into inputs and outputs; returns the names of the inputs.

    A state that the model computes from its inputs stays internal, and so does that of a loop that does not cover the
    whole sequence.

    Args:
        graph: the traced graph, which is changed.
        rolled: the module with its loops rolled up, after its last trace.
        inputs: example inputs.
        exposed: the exposed states, which are extended.
    """
    program = rolled.module.program
    loops = {loop.index: loop for loop in program.loops}
    scans = [node for node in graph.nodes.nodes if _is_loop(node)]
    names: list[str] = []
    carrying = [index for index, slots in rolled.module.scans if slots]
    for node, (index, slots) in zip(scans, rolled.module.scans, strict=True):
        if not slots:
            continue
        prefix = "loop" if len(carrying) == 1 else f"loop_{carrying.index(index) + 1}"
        line = loops[index].line or "its loop"
        if not _is_whole(loops[index].count) or not all(_is_free(program, _start(slot)) for slot in slots):
            exposed.notes.append(f"{prefix} ({line}) starts from states that the model computes, which stay internal")
            continue
        for place, slot in enumerate(slots):
            array = _initial(program, _start(slot), inputs)
            name = prefix if len(slots) == 1 else f"{prefix}.{place}"
            name, after = f"{name}.h0", f"{name}.hn"
            dims, element = _form(graph, node.input[place])
            graph.add_input(name, dims, element)
            node.input[place] = name
            add_output(graph, node, place, after)
            graph.dims[after], graph.types[after] = dims, element
            exposed.states[name] = after
            names.append(name)
            if array is not None and array.any():
                exposed.initial[name] = one_if_equal(array, graph.dims[name])
    return tuple(names)


def _is_loop(node: NodeProto) -> bool:
    """Whether a node is a loop of the module's code, rather than a cumulative operator."""
    return node.op_type == "Scan" and node.domain == "" and all(body.name != BODY for body in bodies_of(node))


def _form(graph: TracedGraph, name: str) -> tuple[Dims, int]:
    """A value's sizes and its element type; states of fixed sizes are constants, which the tracer does not list."""
    if name in graph.dims:
        return graph.dims[name], graph.types[name]
    array = graph.nodes.initializers[name]
    return array.shape, helper.np_dtype_to_tensor_dtype(array.dtype)


def _start(slot: tuple[Carry, int]) -> Any:
    carry, place = slot
    return carry.initial[carry.back - 1 - place]


def _is_whole(count: Any) -> bool:
    """Whether a loop has as many steps as one of the axes."""
    return isinstance(count, Affine) and count.const == 0 and sorted(count.sizes) == [0] * (len(count.sizes) - 1) + [1]


def _is_free(program: Program, value: Any) -> bool:
    """Whether a value depends on nothing but the inputs' shapes."""
    operators, todo = program.results, [value]
    while todo:
        part = todo.pop()
        if isinstance(part, tuple):
            todo += part
        elif isinstance(part, Leaf):
            if part.input is not None:
                return False
        elif isinstance(part, Result):
            item = operators.get(part.index)
            if item is None:
                return False
            if item.target in CONVERSIONS:  # of a second tensor, the dtype and the device
                todo.append(item.args[0])
            elif item.target not in _SHAPE_ONLY:
                todo += [item.args, item.kwargs]
        elif not isinstance(part, _CONSTANT):
            return False
    return True


def _initial(program: Program, value: Any, inputs: Sequence[Tensor]) -> np.ndarray | None:
    """The numbers of a value that depends on no input; None where they are zeros or depend on one."""
    if isinstance(value, NoState) or is_zeros(program, value) or not _is_free(program, value):
        return None
    sizes = [inputs[number].shape[axis] for number, axis in program.places]

    def of(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(of, part))
        if isinstance(part, Result):
            item = program.results[part.index]
            return item.target(*of(item.args), **dict(of(item.kwargs)))
        if isinstance(part, Leaf):
            return program.leaves[part.name] if part.input is None else inputs[part.input]
        return part.at(sizes) if isinstance(part, Affine) else part

    with torch.no_grad():
        tensor: Tensor = of(value)
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
