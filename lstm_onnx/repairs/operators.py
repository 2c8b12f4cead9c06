"""Replaces Loops, Scans and unrolled loops over a sequence by the recurrent operators that they compute."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from ..onnxgraph import Scope, Shape, attributes_of, node_name, typed
from ..onnxgraph.builder import Nodes
from ..onnxgraph.nodes import producers_of, sorted_nodes
from ..onnxgraph.recurrent import read_layer
from .cells import Cell, cell_of, constant_values
from .graph import Graph
from .masks import LEAST_OPSET, unmasked
from .plain import folded, is_far, limited, shapes_of, simplify, with_products_per_step, without_choices
from .steps import Step, step_of
from .unrolled import Chain, chains

_AXES_AS_INPUT = 13
"""The first opset in which the axes of Squeeze and Unsqueeze, and the sizes of Split, are inputs."""


def loops_to_operators(graph: Graph, zeros: Collection[str] = ()) -> dict[str, str]:
    """Replace the loops that can be replaced; returns the operator of each, by the loop's name.

    Args:
        graph: changed in place.
        zeros: its values that are always zeros.
    """
    arrays = graph.arrays
    scope = Scope.of(graph.as_model().graph)
    producers = producers_of(graph.nodes)
    read = graph.read()
    shapes, limits = shapes_of(graph.complete()), limited(graph.nodes, arrays)
    numbers = folded(graph.nodes, arrays)
    replaced: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        step = step_of(node, arrays, read, zeros) if read_layer(node, producers) is None else None
        if step is not None and any(scope.data_sources(name) for name in step.bounds):
            step = None  # the number of steps depends on values, such as lengths
        if step is not None and not isinstance((shapes.get(step.sequence) or (None,))[0], int):
            far = any(name in limits or is_far(numbers.get(name)) for name in step.bounds)
            step = None if far or step.is_limited else step
        if step is not None and step.mask and graph.opset < LEAST_OPSET:
            step = None
        cell = cell_of(step, graph.opset) if step is not None else None
        if step is None or cell is None:
            nodes.append(node)
            continue
        name = node_name(node)
        replaced[name] = cell.op_type
        nodes += _operator(graph, name, step, cell)
    graph.nodes = nodes
    if replaced:
        graph.remove_unread()
    return replaced


def _operator(graph: Graph, name: str, step: Step, cell: Cell) -> list[NodeProto]:
    """The nodes of a loop's operator, with the loop's outputs."""
    made = Nodes(initializers=graph.arrays)
    operator = f"{name}/{cell.op_type}"

    def stored(short: str, array: np.ndarray) -> str:
        return made.constant(f"{operator}/{short}", np.ascontiguousarray(array))

    rows = unmasked(made, step.sequence, step.masks, f"{operator}/mask") if step.mask else None
    inputs = [rows.sequence if rows else step.sequence, stored("W", cell.W), stored("R", cell.R)]
    inputs += [stored("B", cell.B) if cell.B is not None else "", rows.lengths if rows else ""]
    order = [cell.h, *([1 - cell.h] if len(step.states) == 2 else [])]
    first: dict[int, str] = {}
    for index, short in zip(order, "hc", strict=False):
        first[index] = _with_axes(graph, made, "Unsqueeze", step.initial[index], f"{name}/initial_{short}", 0)
    outputs = [f"{operator}/Y", *(f"{operator}/Y_{short}" for _, short in zip(order, "hc", strict=False))]
    inputs += first.values()
    hidden = cell.R.shape[2]
    made.add(cell.op_type, *inputs, name=operator, outputs=outputs, hidden_size=hidden, **cell.attributes)
    finals = dict(zip(order, outputs[1:], strict=True))
    if rows:
        for index, after in finals.items():
            finals[index] = f"{after}/masked"
            rows.final(first[index], after, finals[index])
    for output, state in step.stacked.items():
        if rows and state in (cell.h, len(step.states)):
            _squeeze(graph, made, outputs[0], f"{operator}/Y/steps", 1)
            rows.outputs(f"{operator}/Y/steps", first[cell.h] if state == cell.h else "", output)
        elif state == cell.h:
            _squeeze(graph, made, outputs[0], output, 1)
    for output, index in (*zip(step.final, range(len(step.final)), strict=True), *step.copies.items()):
        if output:
            _squeeze(graph, made, finals[index], output, 0)
    for output, value in step.passed.items():
        made.one("Identity", value, name=output)
    return made.nodes


def _axes(graph: Graph, made: Nodes, *axes: int) -> str:
    name = f"lstm_onnx/axes/{'_'.join(map(str, axes))}"
    while name in graph.arrays and graph.arrays[name].tolist() != list(axes):
        name += "_"
    return made.constant(name, np.array(axes, np.int64))


def _with_axes(graph: Graph, made: Nodes, op_type: str, value: str, output: str, *axes: int) -> str:
    """A Squeeze or an Unsqueeze, whose axes are an input or, in older operator sets, an attribute."""
    if graph.opset >= _AXES_AS_INPUT:
        return made.one(op_type, value, _axes(graph, made, *axes), name=output)
    return made.one(op_type, value, name=output, axes=axes)


def _squeeze(graph: Graph, made: Nodes, value: str, output: str, *axes: int) -> None:
    _with_axes(graph, made, "Squeeze", value, output, *axes)


def _split(graph: Graph, made: Nodes, value: str, parts: Sequence[str], name: str) -> None:
    """Split a value into its entries along the first axis, which is kept."""
    sizes = np.ones(len(parts), np.int64)
    if graph.opset >= _AXES_AS_INPUT:
        made.add("Split", value, made.constant(f"{name}/steps", sizes), name=f"{name}/Split", outputs=parts, axis=0)
    else:
        made.add("Split", value, name=f"{name}/Split", outputs=parts, axis=0, split=sizes.tolist())


def chains_to_operators(graph: Graph, sizes: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Replace the unrolled loops that can be replaced; returns the operator of each, by the name of its first step.

    Args:
        graph: it is changed.
        sizes: integers and booleans that the graph computes, and that are always the same.
    """
    shapes = shapes_of(graph.complete())
    tried = with_products_per_step(graph, shapes)
    without_choices(tried, sizes)
    simplify(tried)
    arrays = {**tried.arrays, **sizes}
    arrays |= constant_values(tried.nodes, arrays, tried.opset)
    replaced: dict[str, str] = {}
    for chain in list(chains(tried, arrays)):
        cell = cell_of(chain.step, tried.opset)
        made = _written(tried, chain, cell, shapes) if cell is not None and cell.h == 0 else None
        if made is None or cell is None:
            continue
        name, nodes = made
        given = {output for node in nodes for output in node.output}
        tried.nodes = [node for node in tried.nodes if not given & set(node.output)] + nodes
        replaced[name] = cell.op_type
    if replaced:
        graph.nodes, graph.arrays = sorted_nodes(tried.nodes), tried.arrays
        graph.remove_unread()
    return replaced


def _written(
    graph: Graph, chain: Chain, cell: Cell, shapes: Mapping[str, Shape | None]
) -> tuple[str, list[NodeProto]] | None:
    """The name and the nodes of a chain's operator, with the states that are read outside of the chain."""
    # This includes values that only the chain itself reads, which are not needed once it is replaced.
    wanted = graph.read()
    producers = producers_of(graph.nodes)
    hs = [name for name in chain.hs[1:] if name in wanted]
    if any(len(producers[name].output) > 1 for name in (*hs, *chain.final) if name in producers):
        return None
    name = f"{producers[chain.hs[1]].name or chain.hs[1]}/unrolled"
    made = Nodes(initializers=graph.arrays)
    sequence = _sequence_of(graph, chain.xs, producers, shapes, made, name)
    if not sequence:
        steps = [_with_axes(graph, made, "Unsqueeze", x, f"{name}/x{index}", 0) for index, x in enumerate(chain.xs)]
        sequence = made.one("Concat", *steps, name=f"{name}/sequence", axis=0)
    step = replace(chain.step, sequence=sequence, final=tuple(end if end in wanted else "" for end in chain.final))
    made.nodes += _operator(graph, name, step, cell)
    for stack in _stacks(graph, chain.hs[1:]):
        _squeeze(graph, made, f"{name}/{cell.op_type}/Y", str(stack.output[0]), 1)
    before = [state for state in hs if state != chain.final[0]]
    if before:
        parts = [f"{name}/h{index}" for index in range(len(chain.xs))]
        _split(graph, made, f"{name}/{cell.op_type}/Y", parts, name)
        for index, state in enumerate(chain.hs[1:]):
            if state in before:
                _squeeze(graph, made, parts[index], state, 0, 1)
    return name, made.nodes


def _stacks(graph: Graph, hs: Sequence[str]) -> Iterator[NodeProto]:
    """The nodes that stack all these states along a new first axis."""
    unsqueezed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type == "Unsqueeze":
            axes = graph.arrays.get(node.input[1]) if len(node.input) > 1 else None
            if (axes.tolist() if axes is not None else attributes_of(node).get("axes")) == [0]:
                unsqueezed[node.output[0]] = node.input[0]
            continue
        joined = node.op_type == "Concat" and not typed(attributes_of(node), "axis", int)
        if joined and [unsqueezed.get(name) for name in node.input] == list(hs):
            yield node


def _sequence_of(
    graph: Graph,
    xs: Sequence[str],
    producers: Mapping[str, NodeProto],
    shapes: Mapping[str, Shape | None],
    made: Nodes,
    name: str,
) -> str:
    """A value whose entries along the first axis are these, in order; "" if they are not entries of one value."""
    entries = [_entry(graph, producers.get(x), producers) for x in xs]
    sources = {entry[0] for entry in entries if entry is not None}
    if len(sources) != 1 or None in entries:
        return ""
    source, indices = sources.pop(), [entry[1] for entry in entries if entry is not None]
    shape = shapes.get(source)
    if shape and shape[0] == len(indices) and indices == list(range(len(indices))):
        return source
    order = made.constant(f"{name}/order", np.array(indices, np.int64))
    return made.one("Gather", source, order, name=f"{name}/sequence", axis=0)


def _entry(graph: Graph, node: NodeProto | None, producers: Mapping[str, NodeProto]) -> tuple[str, int] | None:
    """The value from which a node takes an entry along the first axis, and the index of the entry."""
    if node is None:
        return None
    if node.op_type == "Gather" and not typed(attributes_of(node), "axis", int):
        index = graph.arrays.get(node.input[1])
        return None if index is None or index.ndim or index < 0 else (str(node.input[0]), int(index))
    split = producers.get(node.input[0]) if node.op_type == "Squeeze" else None
    if split is None or split.op_type != "Split" or typed(attributes_of(split), "axis", int):
        return None
    return str(split.input[0]), list(split.output).index(node.input[0])
