"""Loops and Scans over a sequence, replaced by the recurrent operators that they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto, numpy_helper

from ..onnxgraph import Scope, attributes_of, is_default, typed
from ..onnxgraph.builder import Nodes
from ..onnxgraph.recurrent import read_layer
from .cells import Cell, cell_of, constant_values
from .graph import Graph
from .steps import Step, step_of
from .unrolled import Chain, chains


def loops_to_operators(graph: Graph) -> dict[str, str]:
    """Replace what can be replaced; returns the operator of each loop that was, by the loop's name."""
    arrays = {**graph.arrays, **_constants(graph.nodes)}
    scope = Scope.of(graph.as_model().graph)
    producers = {name: node for node in graph.nodes for name in node.output}
    replaced: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        step = step_of(node, arrays, graph.read()) if read_layer(node, producers) is None else None
        if node.op_type == "Loop" and any(name and scope.data_sources(name) for name in node.input[:2]):
            step = None  # how often it runs depends on numbers, such as lengths
        cell = cell_of(step, graph.opset) if step is not None else None
        if step is None or cell is None:
            nodes.append(node)
            continue
        name = str(node.name) or str(next(iter(node.output)))
        replaced[name] = cell.op_type
        nodes += _operator(graph, name, step, cell)
    graph.nodes = nodes
    if replaced:
        graph.remove_unread()
    return replaced


def _constants(nodes: list[NodeProto]) -> dict[str, np.ndarray]:
    return {
        node.output[0]: numpy_helper.to_array(item.t)
        for node in nodes
        if node.op_type == "Constant" and is_default(node.domain)
        for item in node.attribute
        if item.name == "value"
    }


def _operator(graph: Graph, name: str, step: Step, cell: Cell) -> list[NodeProto]:
    """The nodes of a loop's operator, with the loop's outputs."""
    made = Nodes(initializers=graph.arrays)

    def stored(short: str, array: np.ndarray) -> str:
        return made.constant(f"{name}/{cell.op_type}/{short}", np.ascontiguousarray(array))

    inputs = [step.sequence, stored("W", cell.W), stored("R", cell.R)]
    inputs += [stored("B", cell.B) if cell.B is not None else "", ""]
    order = [cell.h, *([1 - cell.h] if len(step.states) == 2 else [])]
    for index, short in zip(order, "hc", strict=False):
        inputs.append(
            made.one("Unsqueeze", step.initial[index], _axes(graph, made, 0), name=f"{name}/initial_{short}")
            if graph.opset >= 13
            else made.one("Unsqueeze", step.initial[index], name=f"{name}/initial_{short}", axes=[0])
        )
    operator = f"{name}/{cell.op_type}"
    outputs = [f"{operator}/Y", *(f"{operator}/Y_{short}" for _, short in zip(order, "hc", strict=False))]
    made.add(cell.op_type, *inputs, name=operator, outputs=outputs, hidden_size=cell.R.shape[2], **cell.attributes)
    finals = dict(zip(order, outputs[1:], strict=True))
    for output, state in step.stacked.items():
        if state == cell.h:
            _squeeze(graph, made, outputs[0], output, 1)
    for index, output in enumerate(step.final):
        if output:
            _squeeze(graph, made, finals[index], output, 0)
    for output, value in step.passed.items():
        made.one("Identity", value, name=output)
    return made.nodes


def _axes(graph: Graph, made: Nodes, axis: int) -> str:
    name = f"lstm_onnx/axes/{axis}"
    while name in graph.arrays and graph.arrays[name].tolist() != [axis]:
        name += "_"
    return made.constant(name, np.array([axis], np.int64))


def _squeeze(graph: Graph, made: Nodes, value: str, output: str, axis: int) -> None:
    if graph.opset >= 13:
        made.one("Squeeze", value, _axes(graph, made, axis), name=output)
    else:
        made.one("Squeeze", value, name=output, axes=[axis])


def chains_to_operators(graph: Graph) -> dict[str, str]:
    """Replace the unrolled loops that can be replaced; returns the operator of each, by the name of its first step."""
    replaced: dict[str, str] = {}
    arrays = {**graph.arrays, **_constants(graph.nodes)}
    arrays |= constant_values(graph.nodes, arrays, graph.opset)
    for chain in list(chains(graph, arrays)):
        cell = cell_of(chain.step, graph.opset)
        made = _written(graph, chain, cell) if cell is not None and cell.h == 0 else None
        if made is None or cell is None:
            continue
        name, nodes = made
        given = {output for node in nodes for output in node.output}
        graph.nodes = [node for node in graph.nodes if not given & set(node.output)] + nodes
        replaced[name] = cell.op_type
    if replaced:
        graph.sort()
        graph.remove_unread()
    return replaced


def _written(graph: Graph, chain: Chain, cell: Cell) -> tuple[str, list[NodeProto]] | None:
    """The name and the nodes of a chain's operator, with the states that are read outside of the chain."""
    inner = {id(node) for node in graph.nodes if node.op_type in ("MatMul", "Gemm") and node.input[0] in chain.hs}
    wanted = {value.name for value in graph.outputs}
    wanted |= {name for node in graph.nodes if id(node) not in inner for name in node.input}
    producers = {name: node for node in graph.nodes for name in node.output}
    hs = [name for name in chain.hs[1:] if name in wanted]
    if any(len(producers[name].output) > 1 for name in (*hs, *chain.final) if name in producers):
        return None
    name = f"{producers[chain.hs[1]].name or chain.hs[1]}/unrolled"
    made = Nodes(initializers=graph.arrays)
    steps = [
        made.one("Unsqueeze", x, _axes(graph, made, 0), name=f"{name}/x{index}") for index, x in enumerate(chain.xs)
    ]
    whole = _sequence_of(chain.xs, producers)
    sequence = whole or made.one("Concat", *steps, name=f"{name}/sequence", axis=0)
    if whole:
        made.nodes.clear()
    step = replace(chain.step, sequence=sequence, final=tuple(end if end in wanted else "" for end in chain.final))
    nodes = _operator(graph, name, step, cell)
    made.nodes += nodes
    before = [state for state in hs if state != chain.final[0]]
    if before:
        count = len(chain.xs)
        sizes = made.constant(f"{name}/steps", np.ones(count, np.int64))
        parts = [f"{name}/h{index}" for index in range(count)]
        made.add("Split", f"{name}/{cell.op_type}/Y", sizes, name=f"{name}/Split", outputs=parts, axis=0)
        for index, state in enumerate(chain.hs[1:]):
            if state in before:
                axes = made.constant("lstm_onnx/axes/0_1", np.array([0, 1], np.int64))
                made.one("Squeeze", parts[index], axes, name=state)
    return name, made.nodes


def _sequence_of(xs: Sequence[str], producers: Mapping[str, NodeProto]) -> str:
    """The value whose entries along the first axis are these, in order; "" where there is none."""
    pieces = [producers.get(x) for x in xs]
    if any(piece is None or piece.op_type != "Squeeze" for piece in pieces):
        return ""
    names = [str(piece.input[0]) for piece in pieces if piece is not None]
    split = producers.get(names[0])
    if (
        split is None
        or split.op_type != "Split"
        or typed(attributes_of(split), "axis", int)
        or list(split.output) != names
    ):
        return ""
    return str(split.input[0])
