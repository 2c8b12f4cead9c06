"""Edits a model: finds its recurrent layers, and inserts nodes between a value and its readers.

Nothing is computed on the weights themselves, so a mutant of a large model costs no more than one of a small model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnx.shape_inference import InferenceError

from ...generation.choose import LOOP
from ...metadata import Metadata
from ...onnxgraph import bodies_of, nodes_of, outer_values
from ...onnxgraph.builder import unique_name
from ...onnxgraph.load import entries_of
from ...onnxgraph.nodes import END_OF_AXIS, Walk, constant_of, producers_of, sorted_nodes
from ...onnxgraph.recurrent import QUANTIZED_LSTM, Port, RecurrentLayer, is_scan, read_layer
from ...onnxgraph.shape_inference import with_shapes, without_weights
from ...streaming.operators.elementwise import COMPARISONS
from ..results import Range
from .effect import Shapes, live_values

_STATE_OUTPUTS = {"h": 1, "c": 2}
_SHAPE_ONLY = frozenset(
    {"Expand", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Cast", "Split", "Slice"}
)
"""Operators whose output has only elements of their first input."""
_PICKS = _SHAPE_ONLY | {"Gather", "GatherElements", "GatherND", "Neg", "Tile"}
"""Operators whose output is zero where their first input is, whatever their other inputs."""
_BOUNDED = {"Sigmoid", "Tanh", "Softmax", "Not", "And", "Or", *COMPARISONS}
_FINITE = _PICKS | _BOUNDED | {"Abs", "Add", "Cast", "Clip", "Concat", "Max", "Min", "Mul", "Relu", "Sub", "Where"}
"""Operators whose output is finite where their inputs are."""
_LINEAR = _SHAPE_ONLY | {"Concat", "MatMul", "Add", "Dropout"}


def _fill_value(node: NodeProto) -> np.ndarray:
    """The number of a ConstantOfShape."""
    tensor = next((item.t for item in node.attribute if item.name == "value"), None)
    return np.zeros(1, np.float32) if tensor is None else numpy_helper.to_array(tensor)


class Edit:
    """A model that is edited in place.

    `folder` has its external data; `shapes` are those of `known_shapes`, before any change; `ranges` are the sizes
    and values that the right model was compared at.
    """

    def __init__(
        self,
        model: ModelProto,
        folder: str = "",
        shapes: Shapes | None = None,
        ranges: Sequence[Range] = (),
        *,
        inner: bool = False,
    ) -> None:
        self.model = model
        self.graph: GraphProto = step_of(model.graph) if inner else model.graph
        self.folder = folder
        self.shapes: Shapes = shapes or {}
        self.ranges = {one.name: one for one in ranges}
        self._taken = {name for node in self.graph.node for name in (node.name, *node.output)}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._taken |= self._initializers.keys()
        self._producers = producers_of(self.graph.node)
        self.layers = list(self._sites())

    @property
    def metadata(self) -> Metadata:
        """The file's metadata."""
        return Metadata.from_metadata(entries_of(self.model))

    @functools.cached_property
    def live(self) -> set[str]:
        """The values that an output depends on, before any change."""
        return live_values(ModelProto(graph=self.graph), self.shapes)

    def constant(self, value: str) -> np.ndarray | None:
        """The content of a value that is constant in the file; None for others."""
        if value in self._initializers:
            return numpy_helper.to_array(self._initializers[value], self.folder)
        node = self._producers.get(value)
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        tensor = constant_of(node)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def is_zero(self, value: str) -> bool:
        """Whether a value is known to be zero wherever the model's inputs are finite."""
        array = self.constant(value)
        node = self._producers.get(value)
        if array is not None or node is None:
            return array is not None and not np.any(array)
        if node.op_type == "ConstantOfShape":
            return not np.any(_fill_value(node))
        if node.op_type in ("Concat", "Add", "Sub"):
            return all(map(self.is_zero, node.input))
        if node.op_type == "Where":
            return all(map(self.is_zero, node.input[1:]))
        if node.op_type == "Mul":  # a state that starts from zeros, and a mask
            return any(map(self.is_zero, node.input)) and all(map(self.is_finite, node.input))
        return node.op_type in _PICKS and self.is_zero(node.input[0])

    def is_finite(self, value: str) -> bool:
        """Whether a value is known to be finite wherever the model's inputs are, unless a sum or product overflows."""
        inputs = {item.name for item in self.graph.input}
        found = Walk([value])
        for one in found:
            array, node = self.constant(one), self._producers.get(one)
            if array is None and node is not None and node.op_type == "ConstantOfShape":
                array = _fill_value(node)
            if array is not None:
                if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                    return False
            elif node is not None and node.op_type in _FINITE:
                found.add(filter(None, node.input))
            elif one not in inputs and (node is None or node.op_type != "Shape"):
                return False
        return True

    def size(self, value: str, axis: int) -> int | None:
        """The size of a value along an axis, where it is fixed."""
        shape = self.shapes.get(value, ())
        return shape[axis] if axis < len(shape) else None

    def maker(self, value: str) -> NodeProto | None:
        """The node that produces a value."""
        return self._producers.get(value)

    def readers(self, value: str) -> list[NodeProto]:
        """The nodes that read a value, in this graph and in its subgraphs."""
        return [node for node in nodes_of(self.graph.node) if value in node.input]

    def is_output(self, value: str) -> bool:
        """Whether a value is one of the graph's outputs."""
        return any(item.name == value for item in self.graph.output)

    def origins(self, value: str) -> set[str]:
        """The values that one is derived from by changes of shape, concatenations and linear maps."""
        found = Walk([value])
        for one in found:
            node = self._producers.get(one)
            if node is not None and node.op_type in _LINEAR:
                found.add(node.input)
        return found.seen

    def fold(self, layer: RecurrentLayer) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """For a layer that lstm-onnx folded: the ports that read the inverse that h0 passes, and the projection."""
        return layer.folded_projection(self.graph.node, self._producers)

    def named_final(self, layer: RecurrentLayer, state: str) -> list[str]:
        """The values of a layer's final "h" or "c"; unused ones get a name."""
        node = layer.node
        if not layer.scan:
            index = _STATE_OUTPUTS[state]
            node.output.extend([""] * (index + 1 - len(node.output)))
            node.output[index] = node.output[index] or f"{layer.name}/final_{state}"
        return [port.value for port in layer.final(state)]

    def used(self, value: str) -> bool:
        """Whether a value is read, by a node, a subgraph or the caller."""
        return bool(value) and (self.is_output(value) or bool(self.readers(value)))

    def insert(self, op: str, value: str, *more: str | np.ndarray, ports: Sequence[Port], **attributes: Any) -> str:
        """Insert ``op(value, *more)`` between a value and the `ports` that read it; arrays become initializers."""
        out = self.node(op, value, *more, **attributes)
        for port in ports:
            port.value = out
        return out

    def node(self, op: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Add a node after those that produce its inputs, and return its output's name."""
        names = [item if isinstance(item, str) else self.array(item) for item in inputs]
        out = unique_name("mutant/value", self._taken)
        makers = [self._producers[name].name for name in names if name in self._producers]
        at = max((index for index, node in enumerate(self.graph.node) if node.name in makers), default=-1) + 1
        self.graph.node.insert(at, helper.make_node(op, names, [out], name=out, **attributes))
        self._producers[out] = self.graph.node[at]
        return out

    def wrap_output(self, output: str, op: str, *more: str | np.ndarray, **attributes: Any) -> None:
        """Replace one of the graph's outputs by ``op(output, *more)``, under the same name."""
        self.replace_output(output, lambda right: self.node(op, right, *more, **attributes))

    def replace_output(self, output: str, make: Callable[[str], str]) -> None:
        """Replace one of the graph's outputs by what `make` computes from it, under the same name."""
        right = f"{output}/right"
        redirect(nodes_of(self.graph.node), output, right)
        maker = self._producers[output]
        maker.output[:] = [right if value == output else value for value in maker.output]
        self._producers[right] = maker
        self._producers[make(right)].output[0] = output

    def sort(self) -> None:
        """Sort the nodes topologically; nodes that were found before are no longer those of the graph."""
        ordered = sorted_nodes(list(map(deepcopy, self.graph.node)))
        del self.graph.node[:]
        self.graph.node.extend(ordered)

    def array(self, array: np.ndarray) -> str:
        """Add an initializer, and return its name."""
        name = unique_name("mutant/value", self._taken)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self._initializers[name] = self.graph.initializer[-1]
        return name

    def _sites(self) -> Iterator[RecurrentLayer]:
        for node in self.graph.node:
            layer = read_layer(node, self._producers)
            if layer is not None and node.op_type != QUANTIZED_LSTM and len(node.input) >= 3 and layer.hidden_size > 0:
                yield layer


def step_of(graph: GraphProto) -> GraphProto:
    """The body of a generating file's loop; any other graph itself."""
    for node in graph.node:
        if node.op_type == "Loop" and node.name == LOOP:
            return next(bodies_of(node))
    return graph


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, or another value of it."""
    found = next((item for item in node.attribute if item.name == name), None)
    (node.attribute.add() if found is None else found).CopyFrom(helper.make_attribute(name, value))


def reads(node: NodeProto) -> set[str]:
    """The values that a node and its subgraphs read."""
    return {value for each in nodes_of([node]) for value in each.input}


def redirect(readers: Iterable[NodeProto], value: str, other: str) -> None:
    """Let nodes read `other` in place of a value."""
    for node in readers:
        node.input[:] = [other if name == value else name for name in node.input]


def replace_result(body: GraphProto, place: int, value: str) -> None:
    """Let an output of a loop's body be another value."""
    name = f"mutant/{place}"
    body.node.append(helper.make_node("Identity", [value], [name], name=name))
    body.output[place].name = name


def known_shapes(model: ModelProto) -> Shapes:
    """The shapes that onnx infers, where one step of a sequence has size 1; also those of a generating file's step."""
    shapes = _inferred(model)
    step = step_of(model.graph)
    if step is model.graph:
        return shapes
    # By itself: onnx does not read the constants and other values of the graph around a body.
    alone = deepcopy(model)
    alone.graph.CopyFrom(step)
    alone.graph.initializer.extend(model.graph.initializer)
    read = {value for node in step.node for value in (*node.input, *outer_values(node))}
    around = (*model.graph.input, *with_shapes(without_weights(model)).graph.value_info) if shapes else ()
    alone.graph.input.extend(value for value in around if value.name in read)
    return {**shapes, **_inferred(alone)}


def _inferred(model: ModelProto) -> dict[str, list[int | None]]:
    copy = without_weights(model)
    for body in _bodies_of_scans(copy):  # onnx does not read the constants around a body
        read = {name for node in body.node for name in node.input}
        body.initializer.extend(tensor for tensor in copy.graph.initializer if tensor.name in read)
    try:
        shaped = with_shapes(copy)
        if _note_last_steps(shaped):
            shaped = with_shapes(shaped)
    except InferenceError:
        return {}
    found: dict[str, list[int | None]] = {}
    for graph in (shaped.graph, *_bodies_of_scans(shaped)):
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
            # Two bodies may have values of one name.
            found[value.name] = shape if found.get(value.name, shape) == shape else []
    return found


def _bodies_of_scans(model: ModelProto) -> Iterator[GraphProto]:
    return (body for node in model.graph.node if is_scan(node) for body in bodies_of(node))


def _note_last_steps(model: ModelProto) -> bool:
    """Set dim 1 on ``x[-1:]``, which onnx leaves unknown; whether there is any."""
    small = (tensor for tensor in model.graph.initializer if len(tensor.dims) <= 1 and max(tensor.dims, default=1) == 1)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in small}
    values = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    found = False
    for node in model.graph.node:
        parts = [constants.get(name) for name in node.input[1:]]
        dims = values.get(node.output[0]) if node.op_type == "Slice" else None
        if not dims or len(parts) != 4 or any(part is None for part in parts):
            continue
        start, end, axis, step = (int(part.item()) for part in parts if part is not None)
        if start == -1 and step == 1 and end >= END_OF_AXIS:
            dims[axis].dim_value = 1
            found = True
    return found
