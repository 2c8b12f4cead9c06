"""Decides from graphs alone what a model's outputs depend on, and whether two models compute the same.

An output's expression has the operators, attributes and inputs that it is computed from.  Where a constant index takes
some rows of a concatenation, it has only those parts: the unread state of a layer is in none.  The same holds for a
Scan's initial state of which the body only uses some rows, as where a loop carries the states of a stack.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from ...onnxgraph.nodes import END_OF_AXIS, Walk, bodies_of, constant_of, outer_values, producers_of
from ...onnxgraph.recurrent import RecurrentLayer, initial_states, is_scan, read_layer

Shapes = Mapping[str, Sequence[int | None]]
"""The shapes of values, as far as they are known."""
_Rows = frozenset[int] | None
"""Rows along axis 0; None for all."""
_Owned = tuple[Hashable, list[tuple[str, int]]]
"""A computation's form, and for each row of its result, the part of a concatenation it is from and its row there."""
_PICKS = frozenset({"Gather", "GatherND", "Slice", "Split"})
"""Operators that take rows of their first input."""
_SMALL = 2**16
"""The most numbers of a constant that is read as an index."""


def same_by_graph(one: ModelProto, other: ModelProto, shapes: Shapes) -> bool:
    """Whether every output of two models has the same expression, and their interfaces and metadata are the same.

    Args:
        one: a model whose nodes are sorted topologically, as those of every valid file.
        other: a changed copy, whose new initializers have new names.
        shapes: the shapes of values of `one`, as far as they are known.
    """
    return _interface(one) == _interface(other) and _expressions(one, shapes) == _expressions(other, shapes)


def changed_outputs(one: ModelProto, other: ModelProto, shapes: Shapes) -> set[str]:
    """The outputs of `one` that a changed copy may compute otherwise; see `same_by_graph`."""
    names = [str(output.name) for output in one.graph.output]
    if _interface(one) != _interface(other):
        return set(names)
    return {name for name in names if _expressions(one, shapes, [name]) != _expressions(other, shapes, [name])}


def live_values(model: ModelProto, shapes: Shapes) -> set[str]:
    """The values that an output depends on; the two directions of a Scan are followed separately."""
    graph = _Graph(model.graph, shapes)
    live = Walk(str(item.name) for item in model.graph.output)
    for value in live:
        live.add(graph.parts(value))
    return live.seen


def _interface(model: ModelProto) -> tuple[Hashable, ...]:
    values = (*model.graph.input, *model.graph.output)
    return (
        tuple(value.SerializeToString() for value in values),
        tuple(sorted((entry.key, entry.value) for entry in model.metadata_props)),
    )


def _expressions(model: ModelProto, shapes: Shapes, outputs: Sequence[str] = ()) -> list[Hashable]:
    """For each of the outputs, or all, its expression, as nested tuples of which equal ones are equal.

    A mutant's rewiring may close a cycle, which no file can run: it has no expression, and equals nothing.
    """
    graph = _Graph(model.graph, shapes)
    opened: set[str] = set()
    known: dict[str, int] = {}
    numbers: dict[Hashable, int] = {}
    described: list[Hashable] = []
    ends = list(outputs) or [str(output.name) for output in model.graph.output]
    for end in ends:
        todo = [end]
        while todo:
            value = todo[-1]
            missing = [part for part in graph.parts(value) if part not in known]
            if missing and value in opened:
                return [object()]  # its parts need it
            if missing:
                opened.add(value)
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
    return [*described, tuple(map(known.__getitem__, ends))]


class _Graph:
    """A graph's nodes by their outputs, and what each value is made of."""

    def __init__(self, graph: GraphProto, shapes: Shapes, outer: _Graph | None = None) -> None:
        self._graph, self._outer = graph, outer
        self._states: dict[str, dict[int, _Owned]] = {}
        # What is read of the bodies of nodes, by their ids, which `_makers` keeps.
        self._outer_values: dict[int, list[str]] = {}
        self._layers: dict[int, RecurrentLayer | None] = {}
        self._makers = producers_of(graph.node)
        self._initializers = {str(tensor.name): tensor for tensor in graph.initializer}
        self._shapes = shapes

    def _outer_values_of(self, node: NodeProto) -> list[str]:
        if id(node) not in self._outer_values:
            self._outer_values[id(node)] = outer_values(node)
        return self._outer_values[id(node)]

    def _layer_of(self, node: NodeProto) -> RecurrentLayer | None:
        if id(node) not in self._layers:
            self._layers[id(node)] = read_layer(node, self._makers)
        return self._layers[id(node)]

    def parts(self, value: str) -> list[str]:
        """The values that one is computed from."""
        node = self._makers.get(value)
        if node is None:
            return []
        chosen = self._chosen(node, value)
        if chosen is not None:
            return [part for part, _ in chosen[1]]
        inputs = [str(name) for name in node.input if name] + self._outer_values_of(node)
        layer = self._layer_of(node) if node.op_type == "Scan" else None
        if layer is None:
            states = self._partly_read(node, value)
            whole = [str(name) for place, name in enumerate(node.input) if name and place not in states]
            rows = [part for _, owned in states.values() for part, _ in owned]
            return [*whole, *rows, *self._outer_values_of(node)] if states else inputs
        if layer.directions < 2:
            return inputs
        # States, scanned inputs and masks come once for each direction, in turn, and so do the outputs.
        direction = list(node.output).index(value) % layer.directions
        scanned = [name for index, name in enumerate(node.input) if index % layer.directions == direction]
        return [*scanned, *self._outer_values_of(node)]

    def expression(self, value: str, known: Mapping[str, int]) -> Hashable:
        """What a value is, with the numbers of its parts."""
        node = self._makers.get(value)
        if node is None:
            return "", value
        chosen = self._chosen(node, value)
        if chosen is not None:
            form, rows = chosen
            return "chosen", form, tuple((known[part], row) for part, row in rows)
        inputs: list[Hashable] = [known.get(name, -1) for name in (*map(str, node.input), *self._outer_values_of(node))]
        for place, (form, rows) in self._partly_read(node, value).items():
            inputs[place] = form, tuple((known[part], row) for part, row in rows)
        return (*_operator(node), list(node.output).index(value), tuple(inputs))

    def _chosen(self, node: NodeProto, output: str) -> _Owned | None:
        """For an output that has rows along an axis, taken from a concatenation along it: their origin.

        The form says everything about the computation but the rows.
        """
        if node.op_type not in _PICKS:
            return None
        axis, rows = self._rows(node, output)
        if axis is None or rows is None:
            return None
        owned = self._owned(str(node.input[0]), axis, rows)
        return None if owned is None else ((_operator(node), self._index_shape(node), owned[0]), owned[1])

    def _owned(self, value: str, axis: int, rows: list[int]) -> _Owned | None:
        """The parts of a concatenation that some rows of a value, along an axis, come from."""
        form: list[Hashable] = []
        while (source := self._makers.get(value)) is not None and source.op_type != "Concat":
            before = self._before(source, axis, rows)
            if before is None:
                return None
            value = str(source.input[0])
            step, axis, rows = before
            form += step
        if source is None or _axis(source) % max(len(self._shapes.get(value, ())), 1) != axis:
            return None
        owned = self._concatenated(source, axis, rows)
        return None if owned is None else (tuple(form), owned)

    def _concatenated(self, node: NodeProto, axis: int, rows: Collection[int]) -> list[tuple[str, int]] | None:
        """The inputs of a Concat along an axis that some rows are from, and their rows there; None if not known."""
        sizes = [(str(name), self._size(str(name), axis)) for name in node.input]
        owners = [(name, row) for name, size in sizes for row in range(size or 0)]
        known = all(size is not None for _, size in sizes) and all(row < len(owners) for row in rows)
        return [owners[row] for row in rows] if known else None

    def _partly_read(self, node: NodeProto, output: str) -> dict[int, _Owned]:
        """The initial states of a loop's Scan of which only some rows affect an output, and these rows."""
        if output in self._states:
            return self._states[output]
        body = next(bodies_of(node), None) if is_scan(node) and self._layer_of(node) is None else None
        if body is None or len(body.input) != len(node.input) or len(body.output) < len(node.output):
            return {}
        found = self._states[output] = {}
        read = _Graph(body, self._shapes, self)._rows_read(list(node.output).index(output), len(initial_states(node)))
        for place, rows in enumerate(read):
            value, inner = str(node.input[place]), str(body.input[place].name)
            if rows is None or self._size(value, 0) != self._size(inner, 0):
                continue
            owned = self._owned(value, 0, sorted(rows)) if rows else ((), [])
            if owned is not None:
                found[place] = owned
        return found

    def _rows_read(self, index: int, count: int) -> list[_Rows]:
        """For each of the `count` states that a Scan's body carries, the rows that its output `index` depends on."""
        states, results = ([str(item.name) for item in items] for items in (self._graph.input, self._graph.output))
        places = {name: place for place, name in enumerate(states[:count])}
        read: dict[str, _Rows] = {}
        # Without steps, a state's last value is its first one.
        todo: list[tuple[str, _Rows]] = [
            (name, None) for name in (results[index], *states[index : min(index + 1, count)])
        ]
        while todo:
            value, rows = todo.pop()
            before = read.get(value, frozenset())
            if value in read and (before is None or (rows is not None and rows <= before)):
                continue
            read[value] = None if rows is None or before is None else before | rows
            todo += [(results[places[value]], rows)] if value in places else self._parts_of_rows(value, rows)
        return [read.get(name, frozenset()) for name in states[:count]]

    def _parts_of_rows(self, value: str, rows: _Rows) -> list[tuple[str, _Rows]]:
        """The values, and the rows of each, that some rows of a value are computed from."""
        node = self._makers.get(value)
        if node is None:
            return []
        inputs = [str(name) for name in node.input if name]
        if node.op_type in ("Identity", "Cast"):
            return [(inputs[0], rows)]
        if node.op_type == "Concat" and rows is not None and _axis(node) == 0:
            owned = self._concatenated(node, 0, rows)
            if owned is not None:
                return [(name, frozenset({row})) for name, row in owned]
        if node.op_type in _PICKS:
            axis, picked = self._rows(node, value)
            if axis == 0 and picked is not None:
                if rows is not None and node.op_type in ("Slice", "Split"):
                    picked = [picked[row] for row in rows]
                return [(inputs[0], frozenset(picked)), *((name, None) for name in inputs[1:])]
        return [(name, None) for name in (*inputs, *self._outer_values_of(node))]

    def _before(self, node: NodeProto, axis: int, rows: list[int]) -> tuple[list[Hashable], int, list[int]] | None:
        """For a node that changes a shape: where some rows along an axis are in its input, and its part of the form."""
        value = str(node.input[0]) if node.input else ""
        if node.op_type == "Identity":
            return [], axis, rows
        if node.op_type == "Transpose":
            perm = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
            return None if perm is None else ([("Transpose", tuple(perm))], perm[axis], rows)
        if node.op_type == "Squeeze" and len(node.input) == 2:
            removed = self._constant(str(node.input[1]))
            if removed is None:
                return None
            rank = max(len(self._shapes.get(value, ())), 1)
            for each in sorted(int(one) % rank for one in removed.reshape(-1)):
                axis += each <= axis
            return [("Squeeze", tuple(removed.reshape(-1).tolist()))], axis, rows
        if node.op_type == "Reshape" and axis == 0:
            width = self._split(value, str(node.output[0]))
            if not width:
                return None
            inner = [width * row + each for row in rows for each in range(width)]
            return [("Reshape", tuple(self._shapes.get(str(node.output[0]), ())))], axis, inner
        return None

    def _rows(self, node: NodeProto, output: str) -> tuple[int | None, list[int] | None]:
        """The axis and the rows (from 0) that a node takes; None if it does anything else, or they are unknown."""
        source = str(node.input[0])
        rank = len(self._shapes.get(source, ()))
        if node.op_type == "GatherND":
            index = self._constant(str(node.input[1]))
            single = index is not None and index.ndim > 0 and index.shape[-1] == 1
            single = single and not any(item.i for item in node.attribute if item.name == "batch_dims")
            return 0, None if not single else self._inside(index, self._size(source, 0))
        if node.op_type == "Gather":
            axis = _axis(node) % max(rank, 1)
            return axis, self._inside(self._constant(str(node.input[1])), self._size(source, axis))
        if node.op_type == "Split":
            axis = _axis(node) % max(rank, 1)
            given = self._constant(str(node.input[1])) if len(node.input) > 1 else None
            outputs = [self._size(str(name), axis) for name in node.output]
            sizes = outputs if given is None else [int(size) for size in given]
            place = list(node.output).index(output)
            start = sum(size or 0 for size in sizes[:place])
            known = all(size is not None for size in (*sizes, self._size(source, axis)))
            return axis, list(range(start, start + (sizes[place] or 0))) if known else None
        found = [self._constant(str(name)) for name in node.input[1:] if name]
        if len(found) != len(node.input) - 1 or len(found) < 3 or any(one is None or one.size != 1 for one in found):
            return None, None
        start, end, axis, *step = (int(part.item()) for part in found if part is not None)
        size = self._size(source, axis % max(rank, 1))
        if size is None or step not in ([], [1]):
            return None, None
        return axis % max(rank, 1), list(range(size))[start : None if end >= END_OF_AXIS else end]

    @staticmethod
    def _inside(index: np.ndarray | None, count: int | None) -> list[int] | None:
        if index is None or count is None or not bool(((index >= -count) & (index < count)).all()):
            return None
        return [int(row) % count for row in index.reshape(-1)]

    def _split(self, before: str, after: str) -> int:
        """How many of the original's rows each row of a reshaped value holds; 0 where more than axis 0 is split."""
        one, other = tuple(self._shapes.get(before, ())), tuple(self._shapes.get(after, ()))
        if one and one[0] and one == other and one.count(None) <= 1:
            return 1
        if len(one) < 1 or len(other) != len(one) + 1 or not one[0] or not other[0] or not other[1]:
            return 0
        # With one unknown size in each, these are equal, since the number of elements is.
        same = one[1:] == other[2:] and one[1:].count(None) <= 1
        return other[1] if same and other[0] * other[1] == one[0] else 0

    def _index_shape(self, node: NodeProto) -> Hashable:
        """What distinguishes two indices that take the same rows."""
        known = node.op_type != "Slice" and len(node.input) > 1  # a Split into equal parts has no sizes
        index = self._constant(str(node.input[1])) if known else None
        return None if index is None else index.shape

    def _size(self, value: str, axis: int) -> int | None:
        shape = self._shapes.get(value, ())
        return shape[axis] if axis < len(shape) else None

    def _constant(self, value: str) -> np.ndarray | None:
        node = self._makers.get(value)
        tensor = self._initializers.get(value)
        if tensor is None and node is None:
            return None if self._outer is None else self._outer._constant(value)
        if tensor is None and node is not None:
            tensor = constant_of(node)
        if tensor is None:
            return None
        small = int(np.prod(tensor.dims, initial=1)) <= _SMALL and not tensor.external_data
        return numpy_helper.to_array(tensor) if small and tensor.data_type else None


def _operator(node: NodeProto) -> tuple[Hashable, ...]:
    """A node's operator and attributes."""
    return str(node.domain), str(node.op_type), tuple(sorted(item.SerializeToString() for item in node.attribute))


def _axis(node: NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 0)
