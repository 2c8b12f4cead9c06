"""Whether one number of all rows of a batch chooses the outputs of each row, as ``if x.max() > 3`` does.

A trial on random rows may never make the other choice, so here each such condition is forced both ways.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from ...errors import ConfigError, InputError, ModelError, RunError
from ...metadata import Metadata
from ...onnxgraph.nodes import Walk, bodies_of, nodes_of, outer_values
from ..lowering.rename import TracedGraph
from ..result import BuiltModel
from .shape_trial import written_for_trial
from .stream_trial import random_rows

_SHAPE_ONLY = ("Shape", "Size")


def chooses_by_a_number(model: ModelProto, graph: TracedGraph) -> bool:
    """Whether one number, such as whether a mean is above 0, chooses between values."""
    return any(node.op_type == "Where" and graph.dims.get(node.input[0]) == () for node in nodes_of(model.graph.node))


def rows_chosen(built: BuiltModel, metadata: Metadata, graph: TracedGraph, batch: str) -> str:
    """Where one number of all rows chooses between values that differ for random rows; "" where none does.

    Args:
        built: the file.
        metadata: its metadata, with the limits of its axes.
        graph: the graph from which it was made, with the dimensions of values.
        batch: the name of the batch axis.
    """
    for condition, node in _conditions(built.model, graph, batch).items():
        try:
            differ = _differ(built, metadata, condition, batch)
        except (ConfigError, InputError, ModelError, RunError):
            differ = True  # unknown, so assume the worst
        if differ:
            line = graph.lines.get(node.name)
            at = f", at {line}," if line else ""
            return f"a condition{at} depends on all sequences of a batch together, and chooses the outputs of each one"
    return ""


def _conditions(model: ModelProto, graph: TracedGraph, batch: str) -> dict[str, NodeProto]:
    """The conditions that are one number for all rows and depend on the rows, each with a node that chooses by it."""
    everywhere = list(nodes_of(model.graph.node))
    producers = {name: node for node in everywhere for name in node.output}
    # The inputs of a loop's body depend on the inputs of the loop.
    producers |= {value.name: node for node in everywhere for body in bodies_of(node) for value in body.input}
    rows = {
        item.name
        for item in model.graph.input
        if any(size.dim_param == batch for size in item.type.tensor_type.shape.dim)
    }
    found: dict[str, NodeProto] = {}
    for node in everywhere:
        if node.op_type == "Where" and graph.dims.get(node.input[0]) == () and node.input[0] not in found:
            walk = Walk(node.input[:1])
            for name in walk:
                producer = producers.get(name)
                if producer is not None and producer.op_type not in _SHAPE_ONLY:
                    walk.add(item for item in (*producer.input, *outer_values(producer)) if item)
            if not rows.isdisjoint(walk.seen):
                found[node.input[0]] = node
    return found


def _differ(built: BuiltModel, metadata: Metadata, condition: str, batch: str) -> bool:
    model = ModelProto()
    model.CopyFrom(built.model)
    name = next(own for number in itertools.count() if (own := f"choice{number}") not in _names(model))
    for node in nodes_of(model.graph.node):
        for place, value in enumerate(node.input):
            if value == condition:
                node.input[place] = name
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    opened = written_for_trial(replace(built, model=model))
    feeds = random_rows(opened, metadata, batch)
    results: list[Mapping[str, np.ndarray]] = [
        opened.run({**feeds, name: np.array(choice)}) for choice in (False, True)
    ]
    return not all(np.allclose(results[0][key], results[1][key], 1e-3, 1e-5, equal_nan=True) for key in results[0])


def _names(model: ModelProto) -> Sequence[str]:
    return [value for node in nodes_of(model.graph.node) for value in (*node.input, *node.output)]
