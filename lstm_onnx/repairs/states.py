"""Turns the initial states of recurrent operators into inputs of the graph, and their final states into outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, helper

from ..onnxgraph import Scope, attributes_of, node_name, shape_of, typed
from ..onnxgraph.builder import Nodes, unique_name
from ..onnxgraph.recurrent import (
    INITIAL_C,
    INITIAL_H,
    batch_axis,
    direction_of,
    initial_states,
    input_of,
    is_onnx_operator,
)
from .graph import Graph, with_known_shapes
from .masks import add_final

_DTYPES = ("float16", "float32", "float64")
"""Of the operators' states."""
_RANK_OF_R = 3
_BATCH_AND_TIME = 2
"""The number of dynamic axes of inputs; with fewer, a number that shape inference gives for the batch is its size."""


@dataclass(frozen=True)
class State:
    """A state that can become an input.

    Attributes:
        node: the operator.
        index: of its initial state among its inputs: `INITIAL_H` or `INITIAL_C`.
        before: its initial value; "" for zeros.
        batch: the size or name of the batch axis; None where it is not known.
        width: the hidden size; 0 where it is not known.
        elem_type: ONNX's number of its type; 0 where it is not known.
        inside: whether it stays internal, since the operator needs the end of the sequence.
    """

    node: NodeProto
    index: int
    before: str
    batch: int | str | None
    width: int
    elem_type: int
    inside: bool = False


@dataclass
class Exposed:
    """The new inputs and outputs: each state input's output, and its initial value if that is not zeros."""

    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def closed_states(graph: Graph) -> tuple[list[State], list[str]]:
    """The states that no input of the graph sets, and why some stay internal."""
    scope = Scope.of(with_known_shapes(graph.complete()).graph)
    found: list[State] = []
    notes: list[str] = []
    for node in graph.nodes:
        if not is_onnx_operator(node):
            continue
        name = node_name(node)
        indices = (INITIAL_H, INITIAL_C) if node.op_type == "LSTM" else (INITIAL_H,)
        before = {index: input_of(node, index) for index in indices}
        if any(value and scope.data_sources(value) for value in before.values()):
            continue
        if batch_axis(node) != 1:
            continue
        inside = direction_of(node) != "forward"
        if inside:
            notes.append(f"{name} needs the end of the sequence ({direction_of(node)}), so its states stay internal")
        size = scope.dim(_sequence(scope, node), 1)
        width, elem_type = _width_and_type(graph, scope, node)
        if not inside and not (width and elem_type):
            inside = True
            notes.append(f"the size and type of R of {name} are not known, so its states stay internal")
        found += [State(node, index, value, size, width, elem_type, inside) for index, value in before.items()]
    return found, notes


def fixed_sizes(graph: Graph) -> tuple[list[int], list[int]]:
    """The sizes of the operators' batches that are numbers: of their sequences, and of their initial states."""
    scope = Scope.of(with_known_shapes(graph.complete()).graph)
    operators = [node for node in graph.nodes if is_onnx_operator(node)]
    sizes = [scope.dim(_sequence(scope, node), batch_axis(node)) for node in operators]
    starts = [scope.dim(value, batch_axis(node)) for node in operators for value in initial_states(node)]
    found, of_states = ([size for size in dict.fromkeys(dims) if isinstance(size, int)] for dims in (sizes, starts))
    return found, of_states


def _sequence(scope: Scope, node: NodeProto) -> str:
    """The sequence that an operator reads, before masked steps are moved (see `masks`), which hides its shape."""
    name = input_of(node, 0)
    moved = scope.producer(name)
    return str(moved.input[0]) if moved is not None and moved.op_type == "GatherElements" else name


def expose(
    graph: Graph, states: list[State], values: Mapping[str, np.ndarray], batch: int | str, *, opened: bool
) -> Exposed:
    """Make states inputs and outputs of the graph.

    Args:
        graph: it is changed.
        states: of its operators.
        values: the initial values that are given, as the source computes them.
        batch: the size or name of the batch axis for a state whose batch is not known.
        opened: whether a batch of a fixed size gets that name.
    """
    exposed = Exposed()
    taken = graph.names()
    axes = {dim for value in graph.inputs for dim in shape_of(value.type) or () if isinstance(dim, str)}
    for state in states:
        node, short = state.node, "h" if state.index == INITIAL_H else "c"
        start = values.get(state.before)
        if state.inside:
            if start is not None and not start.any():  # zeros are the operator's default, in any batch
                node.input[state.index] = ""
            continue
        if start is not None and not np.array_equal(start, np.broadcast_to(start[:, :1], start.shape)):
            why = "has a different initial state in each row, so its states stay internal"
            exposed.notes.append(f"{node_name(node)} {why}")
            continue
        path = _path(node)
        name, after = (unique_name(f"{path}.{short}{end}", taken) for end in "0n")
        stays = isinstance(state.batch, int) and not opened and len(axes) < _BATCH_AND_TIME
        dims = (1, state.batch if stays or state.batch in axes else batch, state.width)
        while len(node.input) <= state.index:
            node.input.append("")
        for other in graph.nodes:  # replace the nodes of a masked operator
            if other.op_type == "Where" and other.name.startswith(f"{node.name}/"):
                other.input[:] = [name if value == state.before else value for value in other.input]
        node.input[state.index] = name
        final = 1 if short == "h" else 2
        while len(node.output) <= final:
            node.output.append("")
        if any(f"{node.name}/mask/total" in other.output for other in graph.nodes):
            node.output[final] = node.output[final] or f"{node.name}/Y_{short}"
            made = Nodes(initializers=graph.arrays)
            add_final(made, f"{node.name}/mask", name, node.output[final], after)
            graph.nodes += made.nodes
        elif node.output[final]:
            graph.nodes.append(helper.make_node("Identity", [node.output[final]], [after], after))
        else:
            node.output[final] = after
        graph.inputs.append(helper.make_tensor_value_info(name, state.elem_type, dims))
        graph.outputs.append(helper.make_tensor_value_info(after, state.elem_type, dims))
        exposed.states[name] = after
        if start is not None and start.any():
            exposed.initial[name] = np.ascontiguousarray(start[:, :1])
    return exposed


def _width_and_type(graph: Graph, scope: Scope, node: NodeProto) -> tuple[int, int]:
    """A state's size and element type, 0 where they are not known: those of R, which may be an input or computed."""
    R = node.input[2]  # noqa: N806
    if R in graph.arrays and graph.arrays[R].ndim == _RANK_OF_R:
        return int(graph.arrays[R].shape[2]), int(helper.np_dtype_to_tensor_dtype(graph.arrays[R].dtype))
    dtype = scope.dtype(R)
    return typed(attributes_of(node), "hidden_size", int), int(
        helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ) if dtype in _DTYPES else 0


def _path(node: NodeProto) -> str:
    """``/encoder/rnn/LSTM`` as ``encoder.rnn``, and a name without a path as it is."""
    parts = [part for part in re.split(r"[/.]+", str(node.name)) if part]
    if len(parts) > 1 and re.fullmatch(rf"{node.op_type}(_\d+)?", parts[-1]):
        last = parts.pop()[len(node.op_type) :]
        parts[-1] += last
    plain = [re.sub(r"\W+", "_", part) for part in parts if part not in ("while_loop", "PartitionedCall")]
    return ".".join(plain) or str(node.op_type).lower()
