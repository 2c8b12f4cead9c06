"""The weights of recurrent operators that other tools compute in the graph, from constants alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from ..onnxgraph.recurrent import input_of, is_onnx_operator
from .graph import FileGraph, attribute_values, torch_array
from .program import OPERATORS
from .values import tensor

_MOST_NODES = 1000


def with_folded_weights(graph: FileGraph) -> FileGraph:
    """The graph with the W, R, B and peepholes of its recurrent operators as stored values, where they are constant."""
    arrays = dict(graph.arrays)
    done: set[int] = set()
    for node in graph.nodes:
        if is_onnx_operator(node):
            for index in (1, 2, 3, 7):
                _fold(graph, input_of(node, index), arrays, done)
    if not done:
        return graph
    others = [node for node in graph.nodes if id(node) not in done]
    needed = {name for node in others for name in node.input} | set(graph.outputs)
    kept = [node for node in graph.nodes if id(node) not in done or needed & set(node.output) - arrays.keys()]
    return replace(graph, nodes=kept, arrays=arrays, anonymous=graph.anonymous | (arrays.keys() - graph.arrays.keys()))


def _fold(graph: FileGraph, name: str, arrays: dict[str, np.ndarray], done: set[int]) -> None:
    nodes = _constant_nodes(graph, name, arrays)
    for node in nodes:
        attributes = {**attribute_values(node), "opset": graph.opset, "outputs": len(node.output)}
        inputs = [torch_array(arrays[value]) if value else None for value in node.input]
        result = OPERATORS[str(node.op_type)](list(inputs), attributes)
        results = result if isinstance(result, tuple) else (result,)
        for output, value in zip(node.output, results, strict=False):
            arrays[output] = tensor(value).numpy()
        done.add(id(node))


def _constant_nodes(graph: FileGraph, name: str, arrays: dict[str, np.ndarray]) -> list[NodeProto]:
    """The nodes that compute a value, in order; none where it is stored, or depends on something else."""
    found: dict[int, NodeProto] = {}
    todo = [name] if name and name not in arrays else []
    while todo:
        node = graph.producers.get(todo.pop())
        if node is None or node.op_type not in OPERATORS or len(found) > _MOST_NODES:
            return []
        found[id(node)] = node
        todo += [value for value in node.input if value and value not in arrays]
    return [node for node in graph.nodes if id(node) in found]
