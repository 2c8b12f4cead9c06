"""Reads the constant weights of a model, including those that nodes compute by cutting, joining and casting."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import ModelError
from ..onnxgraph import (
    ONNX_ERRORS,
    attributes_of,
    bodies_of,
    error_line,
    external_problem,
    graphs_of,
    is_default,
    nodes_of,
)
from ..onnxgraph.load import location_of
from ..onnxgraph.nodes import RANDOM, Walk, constant_of

_FOLDED = frozenset(
    {"Cast", "Concat", "DequantizeLinear", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators with which other exporters reorder gates and read smaller dtypes; none makes its inputs much larger."""
_DEEPEST = 20
"""The most nodes that a weight may pass; an untrusted file may have a chain or a cycle of any length."""


class Weights:
    """The constants of all graphs of a model, by name."""

    def __init__(self, model: ModelProto, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.folder = str(Path(path).resolve().parent)
        self.tensors: dict[str, TensorProto] = {}
        others = Counter(value.name for value in model.graph.input)  # a caller may pass another weight
        for graph in graphs_of(model.graph):
            if graph is not model.graph:
                others.update(value.name for value in graph.input)
            for tensor in graph.initializer:
                self._add(tensor.name, tensor, others)
            for node in graph.node:
                tensor = constant_of(node)
                if tensor is not None:
                    self._add(node.output[0], tensor, others)
                else:
                    others.update(node.output)
        # The bodies of two nodes may use one name for different values.
        made = Counter(value for graph in graphs_of(model.graph) for node in graph.node for value in node.output)
        for graph in graphs_of(model.graph):
            made.update(value.name for value in (*graph.input, *graph.initializer))
        self.producers = {
            value: node
            for graph in graphs_of(model.graph)
            for node in graph.node
            for value in node.output
            if made[value] == 1
        }
        self._found: dict[str, np.ndarray | None] = {}
        self.constant = {name: tensor for name, tensor in self.tensors.items() if name not in others}

    @property
    def external_bytes(self) -> int:
        """The size of the weights in files beside the model."""
        keys = (item for tensor in self.tensors.values() for item in tensor.external_data)
        return sum(int(item.value) for item in keys if item.key == "length" and item.value.isdigit())

    def _add(self, name: str, tensor: TensorProto, others: Counter[str]) -> None:
        if name in self.tensors:
            others[name] += 1
        self.tensors[name] = tensor

    def __call__(self, name: str) -> np.ndarray | None:
        """The content of a constant; None for another value.

        Raises:
            ModelError: it is in a file that is missing or outside the model's folder.
        """
        return self._content(name, _DEEPEST)

    def _array(self, tensor: TensorProto) -> np.ndarray:
        if tensor.data_location == TensorProto.EXTERNAL:
            location = location_of(tensor)
            problem = external_problem(self.path, location)
            if problem:
                raise ModelError(f"{self.path}: its weights in {location} cannot be read: the file {problem}")
        try:
            return np.asarray(numpy_helper.to_array(tensor, self.folder))
        except ONNX_ERRORS as error:
            raise ModelError(f"{self.path}: the weight {tensor.name} cannot be read: {error_line(error)}") from error

    def remaining(self, graph: GraphProto) -> dict[str, np.ndarray]:
        """The graph's initializers that are still used, or are inputs; nodes that only computed weights are removed."""
        while True:
            used = {name for node in nodes_of(graph.node) for name in node.input}
            used |= {value.name for one in graphs_of(graph) for value in (*one.input, *one.output)}
            unread = [
                (one, node)
                for one in graphs_of(graph)
                for node in one.node
                if (node.op_type == "Constant" or self._folds(node)) and used.isdisjoint(node.output)
            ]
            if not unread:
                break
            for one, node in unread:
                one.node.remove(node)
        for one in graphs_of(graph):
            if one is not graph:
                for tensor in [tensor for tensor in one.initializer if tensor.name not in used]:
                    one.initializer.remove(tensor)
        return {tensor.name: self._array(tensor) for tensor in graph.initializer if tensor.name in used}

    def _content(self, name: str, depth: int) -> np.ndarray | None:
        if name not in self._found:
            tensor = self.constant.get(name)
            self._found[name] = self._folded(name, depth) if tensor is None else self._array(tensor)
        return self._found[name]

    def _folds(self, node: NodeProto) -> bool:
        return node.op_type in _FOLDED and is_default(node.domain)

    def _folded(self, name: str, depth: int) -> np.ndarray | None:
        """The result of a node that only cuts, joins or casts constants; None for another value."""
        node = self.producers.get(name)
        if node is None or not self._folds(node) or depth == 0:
            return None
        inputs = {value: self._content(value, depth - 1) for value in node.input if value}
        feeds = {value: array for value, array in inputs.items() if array is not None}
        if len(feeds) < len(inputs):
            return None
        from onnx.reference import ReferenceEvaluator

        try:
            results: Any
            if node.op_type == "Split":
                results = _split(node, *(feeds[value] for value in node.input if value))
            else:
                results = ReferenceEvaluator(node).run(None, feeds)
        except (ValueError, IndexError, TypeError, RuntimeError):
            return None  # ONNX Runtime will say what is wrong with it
        return np.asarray(results[list(node.output).index(name)])

    def computing(self, name: str) -> str:
        """The name of the node that computes a value only from constants; "" for other values, and for a constant."""
        if self(name) is not None:
            return ""
        walk = Walk([name])
        for value in walk:
            node = self.producers.get(value)
            if value in self.constant:
                continue
            if node is None or node.op_type in RANDOM or any(bodies_of(node)):
                return ""
            walk.add(item for item in node.input if item)
        return str(self.producers[name].name)


def _split(node: NodeProto, array: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
    """The result of a Split; onnx's evaluator supports it only with the attributes of the latest opset."""
    axis, count = int(attributes_of(node).get("axis", 0)), len(node.output)
    if sizes is None:
        each = -(-array.shape[axis] // count)
        return np.split(array, [each * place for place in range(1, count)], axis)
    return np.split(array, np.cumsum(sizes)[:-1], axis)
