"""What a model's outputs depend on, and whether two models compute the same by their graphs alone.

An output's expression has the operators, attributes and inputs that it is computed from.  Of a concatenation from
which a constant index takes some rows, it has those parts alone: the state of a layer that nobody reads is in none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from ...onnxgraph.nodes import outer_values
from ...onnxgraph.recurrent import read_layer

Shapes = Mapping[str, Sequence[int | None]]
"""The shapes of values, as far as they are known."""
_SMALL = 2**16
"""Numbers of the largest constant that is read as an index."""
_ENDLESS = 2**31 - 1


def same_by_graph(one: ModelProto, other: ModelProto, shapes: Shapes) -> bool:
    """Whether every output of two models has the same expression, and their interfaces and metadata are the same.

    Args:
        one: a model whose nodes are sorted topologically, as those of every valid file.
        other: a changed copy, whose new initializers have new names.
        shapes: the shapes of values of `one`, as far as they are known.
    """
    return _interface(one) == _interface(other) and _expressions(one, shapes) == _expressions(other, shapes)


def live_values(model: ModelProto, shapes: Shapes) -> set[str]:
    """The values that an output depends on; of a Scan with two directions, those of each direction separately."""
    graph = _Graph(model.graph, shapes)
    live: set[str] = set()
    todo = [str(item.name) for item in model.graph.output]
    while todo:
        value = todo.pop()
        if value not in live:
            live.add(value)
            todo += graph.parts(value)
    return live


def _interface(model: ModelProto) -> tuple[Hashable, ...]:
    values = (*model.graph.input, *model.graph.output)
    return (
        tuple(value.SerializeToString() for value in values),
        tuple(sorted((entry.key, entry.value) for entry in model.metadata_props)),
    )


def _expressions(model: ModelProto, shapes: Shapes) -> list[Hashable]:
    """For each output its expression, as nested tuples of which equal ones are equal."""
    graph = _Graph(model.graph, shapes)
    known: dict[str, int] = {}
    numbers: dict[Hashable, int] = {}
    described: list[Hashable] = []
    for output in model.graph.output:
        todo = [str(output.name)]
        while todo:
            value = todo[-1]
            missing = [part for part in graph.parts(value) if part not in known]
            if missing:
                todo += missing
                continue
            todo.pop()
            if value not in known:
                expression = graph.expression(value, known)
                if expression not in numbers:
                    numbers[expression] = len(described)
                    described.append(expression)
                known[value] = numbers[expression]
    # Numbered in the order of a walk from the outputs, so that equal graphs give equal lists.
    return [*described, tuple(known[str(output.name)] for output in model.graph.output)]


class _Graph:
    """A graph's nodes by their outputs, and what each value is made of."""

    def __init__(self, graph: GraphProto, shapes: Shapes) -> None:
        self._makers: dict[str, NodeProto] = {str(out): node for node in graph.node for out in node.output if out}
        self._initializers = {str(tensor.name): tensor for tensor in graph.initializer}
        self._shapes = shapes

    def parts(self, value: str) -> list[str]:
        """The values that one is computed from."""
        node = self._makers.get(value)
        if node is None:
            return []
        chosen = self._chosen(node)
        if chosen is not None:
            return [part for part, _ in chosen]
        inputs = [str(name) for name in node.input if name] + outer_values(node)
        layer = read_layer(node, self._makers) if node.op_type == "Scan" else None
        if layer is None or layer.directions < 2:
            return inputs
        # States, scanned inputs and masks each have one for every direction, as the outputs have.
        direction = list(node.output).index(value) % layer.directions
        scanned = [name for index, name in enumerate(node.input) if index % layer.directions == direction]
        return [*scanned, *outer_values(node)]

    def expression(self, value: str, known: Mapping[str, int]) -> Hashable:
        """What a value is, with the numbers of its parts."""
        node = self._makers.get(value)
        if node is None:
            return "", value
        chosen = self._chosen(node)
        if chosen is not None:
            return "chosen", self._form(node), tuple((known[part], row) for part, row in chosen)
        attributes = tuple(sorted(item.SerializeToString() for item in node.attribute))
        inputs = tuple(known.get(name, -1) for name in (*map(str, node.input), *outer_values(node)))
        return str(node.domain), str(node.op_type), list(node.output).index(value), attributes, inputs

    def _chosen(self, node: NodeProto) -> list[tuple[str, int]] | None:
        """For rows that are taken from a concatenation along axis 0: the part and its row, for each."""
        source = self._makers.get(str(node.input[0])) if node.input else None
        while source is not None and source.op_type == "Identity":
            source = self._makers.get(str(source.input[0]))
        if source is None or source.op_type != "Concat" or _axis(source) != 0:
            return None
        sizes = [self._size(str(name)) for name in source.input]
        rows = self._rows(node, sum(size or 0 for size in sizes))
        if rows is None or any(size is None for size in sizes):
            return None
        owners = [(str(name), row) for name, size in zip(source.input, sizes, strict=True) for row in range(size or 0)]
        return [owners[row] for row in rows]

    def _rows(self, node: NodeProto, count: int) -> list[int] | None:
        if node.op_type == "Gather" and _axis(node) == 0:
            index = self._constant(str(node.input[1]))
            inside = index is not None and bool(((index >= -count) & (index < count)).all())
            return [int(row) % count for row in index.reshape(-1)] if index is not None and inside else None
        if node.op_type == "Slice" and len(node.input) >= 4:
            found = [self._constant(str(name)) for name in node.input[1:] if name]
            if len(found) != len(node.input) - 1 or any(part is None or part.size != 1 for part in found):
                return None
            start, end, axis, *step = (int(part.item()) for part in found if part is not None)
            if axis == 0 and step in ([], [1]):
                return list(range(count))[start : None if end >= _ENDLESS else end]
        return None

    def _form(self, node: NodeProto) -> Hashable:
        """What tells apart choices of the same rows: the shape of a Gather's index."""
        index = self._constant(str(node.input[1])) if node.op_type == "Gather" else None
        return None if index is None else index.shape

    def _size(self, value: str) -> int | None:
        shape = self._shapes.get(value, ())
        return shape[0] if len(shape) else None

    def _constant(self, value: str) -> np.ndarray | None:
        if value in self._initializers:
            tensor = self._initializers[value]
        else:
            node = self._makers.get(value)
            found = [item.t for item in node.attribute if item.name == "value"] if node is not None else []
            if node is None or node.op_type != "Constant" or not found:
                return None
            tensor = found[0]
        small = int(np.prod(tensor.dims, initial=1)) <= _SMALL and not tensor.external_data
        return numpy_helper.to_array(tensor) if small and tensor.data_type else None


def _axis(node: NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 0)
