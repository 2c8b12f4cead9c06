"""Makes a batch axis of a fixed size dynamic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from ..onnxgraph import Shape, shape_of
from ..onnxgraph.builder import unique_name
from .graph import Graph
from .plain import shapes_of

BATCH = "batch"


def name_open_axes(inputs: Sequence[ValueInfoProto]) -> None:
    """Name the inputs' axes without a size and a name, as in TensorFlow's files: a state's batch needs a name."""
    taken = {dim for value in inputs for dim in shape_of(value.type) or () if isinstance(dim, str)}
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not (dim.HasField("dim_value") or dim.dim_param):
                dim.dim_param = unique_name(re.sub(r"\W", "_", f"axis_{value.name}_{axis}"), taken)


def fixed_batch(graph: Graph, size: int | str | None) -> tuple[int, int] | None:
    """The batch axis of the inputs and its fixed size; None where it is dynamic.

    Args:
        graph: before its states become inputs.
        size: of the batch axis of a recurrent operator.
    """
    if not isinstance(size, int):
        return None
    shapes = [shape_of(value.type) or () for value in graph.inputs]
    for axis in (0, 1):
        sizes = [shape[axis] for shape in shapes if len(shape) > axis + 1]
        if sizes and all(dim == size for dim in sizes):
            return axis, size
    return None


def open_batch(graph: Graph, axis: int, size: int, states: dict[str, str]) -> None:
    """Make an axis of the inputs and states dynamic; which axis of another output it is can only be seen in runs."""
    after = set(states.values())
    for value in (*graph.inputs, *graph.outputs):
        if value.name in states or value.name in after:
            _open(value, 1, size)
        elif any(value is one for one in graph.inputs):
            _open(value, axis, size)
        else:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value == size:
                    dim.ClearField("value")


def _open(value: ValueInfoProto, axis: int, size: int) -> None:
    dims = value.type.tensor_type.shape.dim
    if axis < len(dims) and (dims[axis].dim_value == size or dims[axis].dim_param == BATCH):
        dims[axis].dim_param = BATCH


def _as_transpose(graph: Graph, node: NodeProto, shapes: dict[str, Shape | None], size: int) -> NodeProto | None:
    """The Transpose that a Reshape stands for in a batch of one; None for another node."""
    if size != 1 or node.op_type != "Reshape" or node.input[1] not in graph.arrays:
        return None
    before, after = shapes.get(node.input[0]), graph.arrays[node.input[1]].tolist()
    if len(after) != 3 or (before is not None and len(before) != 3):
        return None
    steps = (-1,) if before is None else (-1, before[0], before[1])
    moves = (after[0] in steps and after[1] == 1) or (after[0] == 1 and after[1] in steps)
    kept = before is not None and (before[0] == 1) == (after[0] == 1)
    if not moves or kept:
        return None
    return helper.make_node("Transpose", [node.input[0]], [node.output[0]], str(node.name), perm=[1, 0, 2])


def reshapes_opened(graph: Graph, size: int) -> Iterator[Graph]:
    """The graph, then with Transposes in place of Reshapes; each also with the batch size computed in Reshapes."""
    shapes = shapes_of(graph.model)  # those of the source, whose batch is fixed
    moved = [_as_transpose(graph, node, shapes, size) or node for node in graph.nodes]
    ways = [graph.nodes]
    if any(new is not old for new, old in zip(moved, graph.nodes, strict=True)):
        ways.append(moved)
    for nodes in ways:
        yield Graph(graph.model, nodes, graph.arrays, graph.inputs, graph.outputs)
    for nodes in ways:
        fixed = _fixed_shapes(nodes, graph.arrays, size)
        if fixed:
            yield Graph(graph.model, nodes, graph.arrays | fixed, graph.inputs, graph.outputs)


def _fixed_shapes(nodes: list[NodeProto], arrays: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """The constant shapes of Reshapes that contain the size, with -1 in its place."""
    opened = {}
    for node in nodes:
        name = node.input[1] if node.op_type == "Reshape" else ""
        shape = arrays[name].tolist() if name in arrays else []
        if size in shape:
            index = shape.index(size)
            shape[index] = -1 if -1 not in shape else 0
            opened[name] = np.array(shape, np.int64)
    return opened
