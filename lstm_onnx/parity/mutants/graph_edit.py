"""A model to be changed: its recurrent layers, and edits that put nodes between a value and those who read it.

Nothing is computed on the weights themselves, so a mutant of a large model costs no more than one of a small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper
from onnx.shape_inference import InferenceError

from ...check.inference import bare, inferred
from ...onnxgraph import nodes_of
from ..report import Range

_TO_THE_END = 2**31 - 1
"""An end of a Slice that is past every end."""
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_STATE_INPUTS, _STATE_OUTPUTS = {"h": 5, "c": 6}, {"h": 1, "c": 2}


@dataclass(eq=False)
class Port:
    """One end of a node: an input or an output, by its index."""

    node: NodeProto
    index: int
    output: bool = False

    @property
    def value(self) -> str:
        """The value's name; "" where there is none."""
        values = self.node.output if self.output else self.node.input
        return values[self.index] if self.index < len(values) else ""

    @value.setter
    def value(self, name: str) -> None:
        values = self.node.output if self.output else self.node.input
        values[self.index] = name


@dataclass(frozen=True)
class Site:
    """One recurrent layer: an operator, or a Scan that lstm-onnx wrote for a projected LSTM.

    `gates` and `directions` are numbers, `hidden` is hidden_size; `W`, `R`, `B` and `W_hr` are the ports
    that read the weights: of an operator one each, of a Scan R and W_hr for each direction, in its body.
    """

    node: NodeProto
    op_type: str
    gates: int
    directions: int
    hidden: int
    W: tuple[Port, ...]
    R: tuple[Port, ...]
    B: tuple[Port, ...]
    W_hr: tuple[Port, ...]
    lengths: Port | None

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name or f"{self.node.op_type} of {self.node.output[0]}"

    @property
    def x(self) -> str:
        """What it reads step by step, time first."""
        return str(self.node.input[2 * self.directions if self.scan else 0])

    @property
    def y(self) -> list[str]:
        """What it gives step by step, "" where nobody wants it."""
        first = 2 * self.directions if self.scan else 0
        count = self.directions if self.scan else 1
        return [str(value) for value in self.node.output[first : first + count]]

    @property
    def scan(self) -> bool:
        """Whether it is a Scan."""
        return self.node.op_type == "Scan"

    def initial(self, state: str) -> list[Port]:
        """Where it reads its initial "h" or "c"."""
        if self.scan:
            start = 0 if state == "h" else self.directions
            return [Port(self.node, start + index) for index in range(self.directions)]
        port = Port(self.node, _STATE_INPUTS[state])
        return [port] if port.value and (state == "h" or self.op_type == "LSTM") else []

    def final(self, state: str) -> list[Port]:
        """Where it gives its final "h" or "c"."""
        if self.scan:
            start = 0 if state == "h" else self.directions
            return [Port(self.node, start + index, output=True) for index in range(self.directions)]
        port = Port(self.node, _STATE_OUTPUTS[state], output=True)
        return [port] if port.value and (state == "h" or self.op_type == "LSTM") else []


Shapes = Mapping[str, Sequence[int | None]]
"""Of values, as far as they are known."""
_SHAPE_ONLY = frozenset(
    {"Expand", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Cast", "Split", "Slice"}
)
"""Operators that make zeros of zeros, whatever else they read."""
_LINEAR = _SHAPE_ONLY | {"Concat", "MatMul", "Add", "Dropout"}


class Edit:
    """A model that is being changed, in place.

    `folder` is where its external data lies; `shapes` are those of `known_shapes`, before any change; `ranges`
    what the right model was compared at.
    """

    def __init__(
        self,
        model: ModelProto,
        folder: str = "",
        shapes: Shapes | None = None,
        ranges: Sequence[Range] = (),
    ) -> None:
        self.model = model
        self.graph: GraphProto = model.graph
        self.folder = folder
        self.shapes: Shapes = shapes or {}
        self.ranges = {one.name: one for one in ranges}
        self._taken = {name for node in self.graph.node for name in (node.name, *node.output)}
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._taken |= self._initializers.keys()
        self._producers = {value: node for node in self.graph.node for value in node.output if value}
        self.sites = list(self._sites())

    def constant(self, value: str) -> np.ndarray | None:
        """What a value is, where that is written in the file."""
        if value in self._initializers:
            return numpy_helper.to_array(self._initializers[value], self.folder)
        node = self._producers.get(value)
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        return numpy_helper.to_array(tensor) if node.op_type == "Constant" and tensor is not None else None

    def is_zero(self, value: str) -> bool:
        """Whether a value is known to be zeros."""
        array = self.constant(value)
        node = self._producers.get(value)
        if array is not None or node is None:
            return array is not None and not np.any(array)
        if node.op_type == "ConstantOfShape":
            tensor = next((item.t for item in node.attribute if item.name == "value"), None)
            return tensor is None or not np.any(numpy_helper.to_array(tensor))
        return node.op_type in _SHAPE_ONLY and self.is_zero(node.input[0])

    def size(self, value: str, axis: int) -> int | None:
        """The size of a value along an axis, where it is the same at every run."""
        shape = self.shapes.get(value, ())
        return shape[axis] if axis < len(shape) else None

    def maker(self, value: str) -> NodeProto | None:
        """The node that gives a value."""
        return self._producers.get(value)

    def readers(self, value: str) -> list[NodeProto]:
        """The nodes that read a value, in this graph and in those within."""
        return [node for node in nodes_of(self.graph.node) if value in node.input]

    def is_output(self, value: str) -> bool:
        """Whether a value is one of the graph's outputs."""
        return any(item.name == value for item in self.graph.output)

    def origins(self, value: str) -> set[str]:
        """The values that one is made from by no more than a change of shape, a concatenation or a linear map."""
        found, todo = set(), [value]
        while todo:
            one = todo.pop()
            node = self._producers.get(one)
            found.add(one)
            if node is not None and node.op_type in _LINEAR:
                todo += [name for name in node.input if name not in found]
        return found

    def fold(self, site: Site) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """Of a fold that lstm-onnx wrote, the ports that read what h0 goes through, and the projection behind."""
        outputs = set(site.node.output) - {""}
        before = [self._producers.get(port.value) for port in site.initial("h")]
        behind = [node for node in self.graph.node if node.op_type == "MatMul" and node.input[0] in outputs]
        return (
            tuple(Port(node, 1) for node in before if node is not None and node.name.endswith("/unproject_h0")),
            tuple(Port(node, 1) for node in behind if node.name.endswith(("/project", "/project_hn"))),
        )

    def named_final(self, site: Site, state: str) -> list[str]:
        """The values in which a layer gives its final "h" or "c", named where nobody wanted them."""
        node = site.node
        if not site.scan:
            index = _STATE_OUTPUTS[state]
            node.output.extend([""] * (index + 1 - len(node.output)))
            node.output[index] = node.output[index] or f"{site.name}/final_{state}"
        return [port.value for port in site.final(state)]

    def used(self, value: str) -> bool:
        """Whether anything reads a value, be it a subgraph or the caller."""
        return bool(value) and (self.is_output(value) or bool(self.readers(value)))

    def insert(self, op: str, value: str, *more: str | np.ndarray, ports: Sequence[Port], **attributes: Any) -> str:
        """Put ``op(value, *more)`` between a value and `ports`, who read it; arrays become initializers."""
        out = self.node(op, value, *more, **attributes)
        for port in ports:
            port.value = out
        return out

    def node(self, op: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """A new node behind the last of its inputs' makers; its output's name."""
        names = [item if isinstance(item, str) else self.array(item) for item in inputs]
        out = self._name()
        makers = [self._producers[name].name for name in names if name in self._producers]
        at = max((index for index, node in enumerate(self.graph.node) if node.name in makers), default=-1) + 1
        self.graph.node.insert(at, helper.make_node(op, names, [out], name=out, **attributes))
        self._producers[out] = self.graph.node[at]
        return out

    def behind(self, output: str, op: str, *more: str | np.ndarray, **attributes: Any) -> None:
        """Put ``op(output, *more)`` behind one of the graph's outputs, and give it the output's name."""
        self.replace_output(output, lambda right: self.node(op, right, *more, **attributes))

    def replace_output(self, output: str, make: Callable[[str], str]) -> None:
        """Give the name of one of the graph's outputs to what `make` makes of it."""
        right = f"{output}/right"
        for node in nodes_of(self.graph.node):
            node.input[:] = [right if value == output else value for value in node.input]
        maker = self._producers[output]
        maker.output[:] = [right if value == output else value for value in maker.output]
        self._producers[right] = maker
        made = make(right)
        self._producers[made].output[0] = output

    def sort(self) -> None:
        """Put each node behind those that it reads; what was found in the graph before is then of no use."""
        waiting = list(enumerate(map(_copied, self.graph.node)))
        ahead = {value for _, node in waiting for value in node.output if value}
        del self.graph.node[:]
        while waiting:
            ready = {index for index, node in waiting if not ahead & _reads(node)}
            if not ready:  # a circle, which ONNX Runtime refuses
                ready = {index for index, _ in waiting}
            self.graph.node.extend(node for index, node in waiting if index in ready)
            ahead -= {value for index, node in waiting if index in ready for value in node.output}
            waiting = [(index, node) for index, node in waiting if index not in ready]

    def array(self, array: np.ndarray) -> str:
        """A new initializer; its name."""
        name = self._name()
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._initializers[name] = self.graph.initializer[-1]
        return name

    def _name(self) -> str:
        name = next(name for name in map("mutant/{}".format, itertools.count(1)) if name not in self._taken)
        self._taken.add(name)
        return name

    def _sites(self) -> Iterator[Site]:
        for node in self.graph.node:
            if node.op_type in GATES and node.domain in ("", "ai.onnx") and len(node.input) >= 3:
                site = _operator(node)
            else:
                site = _scan(node, self._producers) if node.op_type == "Scan" else None
            if site is not None:
                yield site


def _operator(node: NodeProto) -> Site | None:
    hidden = next((item.i for item in node.attribute if item.name == "hidden_size"), 0)
    if hidden < 1:
        return None
    direction = next((item.s for item in node.attribute if item.name == "direction"), b"forward")
    bias = Port(node, 3)
    lengths = Port(node, 4)
    return Site(
        node,
        node.op_type,
        GATES[node.op_type],
        2 if direction == b"bidirectional" else 1,
        hidden,
        (Port(node, 1),),
        (Port(node, 2),),
        (bias,) if bias.value else (),
        (),
        lengths if lengths.value else None,
    )


def _scan(node: NodeProto, producers: dict[str, NodeProto]) -> Site | None:
    """A Scan as `exporter.emitter` writes it, told by the names of its body's nodes; None for any other."""
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    if body is None:
        return None

    def inner(short: str) -> tuple[Port, ...]:
        return tuple(Port(each, 1) for each in body.node if each.name.endswith(f"/{short}"))

    recurrent, projection = inner("recurrent_gates"), inner("new_h")
    count = len(recurrent)
    if not count or len(projection) != count or len(body.output) < 2 * count:
        return None
    cell = body.output[count].type.tensor_type.shape.dim
    hidden = cell[-1].dim_value if cell else 0
    value = node.input[2 * count]
    gates = producers.get(value)
    biased: tuple[Port, ...] = ()
    if gates is not None and gates.op_type == "Split":
        gates = producers.get(gates.input[0])
    if gates is not None and gates.op_type == "Add":
        biased, gates = (Port(gates, 1),), producers.get(gates.input[0])
    if gates is None or gates.op_type != "MatMul" or hidden < 1:
        return None
    masked = len(node.input) > 3 * count
    lengths = Port(node, 3 * count) if masked else None
    wide = (Port(gates, 1),)
    return Site(node, "LSTM", GATES["LSTM"], count, hidden, wide, recurrent, biased, projection, lengths)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _reads(node: NodeProto) -> set[str]:
    """What a node reads, and what the graphs in it read."""
    return {value for each in nodes_of([node]) for value in each.input}


def known_shapes(model: ModelProto) -> Shapes:
    """The sizes that follow from a model."""
    try:
        shaped = inferred(bare(model))
        if _note_last_steps(shaped):
            shaped = inferred(shaped)
    except InferenceError:
        return {}
    values = (*shaped.graph.input, *shaped.graph.value_info, *shaped.graph.output)
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in values
    }


def _note_last_steps(model: ModelProto) -> bool:
    """Say of ``x[-1:]`` that it is one step, which onnx does not, since `x` might have none; whether there is any."""
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
        if start == -1 and step == 1 and end >= _TO_THE_END:
            dims[axis].dim_value = 1
            found = True
    return found
