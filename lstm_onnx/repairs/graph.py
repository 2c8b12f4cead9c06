"""The graph of a file that is being repaired."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from ..onnxgraph import ONNX_ERRORS, load_inlined, nodes_of, outer_values
from ..onnxgraph.load import opset_of, read_weights
from ..onnxgraph.nodes import needed_nodes
from ..onnxgraph.shape_inference import with_shapes, without_weights


@dataclass
class Graph:
    """A graph that can be changed.

    Attributes:
        model: the source, unchanged.
        nodes: the nodes of the graph.
        arrays: its stored values.
        inputs: its inputs, without stored values.
        outputs: its outputs.
    """

    model: ModelProto
    nodes: list[NodeProto]
    arrays: dict[str, np.ndarray]
    inputs: list[ValueInfoProto]
    outputs: list[ValueInfoProto]

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Graph:
        """The graph of a file.

        Raises:
            FileError: it cannot be read.
            ModelError: it is not an ONNX model, or its weights cannot be read.
        """
        model = load_inlined(path)
        arrays = read_weights(model, path)
        own = copy.deepcopy(model.graph)  # `model` must not change
        inputs = [value for value in own.input if value.name not in arrays]
        return cls(model, list(own.node), arrays, inputs, list(own.output))

    @property
    def opset(self) -> int:
        """The opset of ONNX's own operators."""
        return opset_of(self.model)

    @property
    def size(self) -> int:
        """The number of nodes, including those in bodies."""
        return sum(1 for _ in nodes_of(self.nodes))

    def read(self) -> set[str]:
        """The values that nodes read, or that are outputs."""
        inner = {name for node in self.nodes for name in (*node.input, *outer_values(node))}
        return inner | {value.name for value in self.outputs}

    def names(self) -> set[str]:
        """All names of values."""
        made = {name for node in nodes_of(self.nodes) for name in (*node.input, *node.output)}
        return made | self.arrays.keys() | {value.name for value in (*self.inputs, *self.outputs)}

    def remove_unread(self) -> None:
        """Remove the nodes and the stored values that nothing reads."""
        self.nodes, wanted = needed_nodes(self.nodes, (value.name for value in self.outputs))
        for name in [name for name in self.arrays if name not in wanted]:
            del self.arrays[name]

    def complete(self) -> ModelProto:
        """The model with its stored values."""
        model = self.as_model()
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.arrays.items())
        return model

    def as_model(self) -> ModelProto:
        """The model, without its stored values."""
        changed = ModelProto()
        changed.CopyFrom(self.model)
        graph = changed.graph
        for part in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            graph.ClearField(part)
        graph.node.extend(self.nodes)
        graph.input.extend(self.inputs)
        graph.output.extend(self.outputs)
        return changed


def with_known_shapes(model: ModelProto, *, data_prop: bool = True) -> ModelProto:
    """A model with the shapes that follow from its inputs (see `with_shapes`); as it is where onnx refuses it."""
    try:
        return with_shapes(without_weights(model), data_prop=data_prop)
    except ONNX_ERRORS:
        return model
