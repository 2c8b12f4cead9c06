"""Loops and Scans over a sequence, replaced by the recurrent operators that they compute."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, numpy_helper

from ..onnxgraph import Scope, is_default
from ..onnxgraph.builder import Nodes
from ..onnxgraph.recurrent import read_layer
from .cells import Cell, cell_of
from .graph import Graph
from .steps import Step, step_of


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
