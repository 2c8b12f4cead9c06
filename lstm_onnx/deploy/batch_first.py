"""Makes the batch the first axis of every input and output of a model, with a Transpose where it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from ..errors import ModelError
from ..metadata import METADATA_PREFIX, PRODUCER
from ..onnxgraph import graphs_of
from ..onnxgraph.builder import Nodes, unique_name
from ..onnxgraph.load import read_weights
from ..onnxgraph.nodes import inputs_of, rename_values
from ..onnxgraph.write import write_model
from .range_checks import Range, add_range_check


def write_batch_first(
    model: ModelProto,
    source: str | os.PathLike[str],
    axes: Mapping[str, int],
    path: str | os.PathLike[str],
    ranges: Mapping[str, Range] | None = None,
) -> int:
    """Write a model with the batch as the first axis of every input and output.

    lstm-onnx's metadata is left out, since it describes the original axes.  So the producer is changed too: a file by
    `PRODUCER` without metadata counts as damaged.

    Args:
        model: the model, with its functions inlined; it is changed.
        source: its file, for external weights and for messages.
        axes: the batch axis of every input and output.
        path: where it is written.
        ranges: the ranges of integer inputs, which the written model checks.

    Returns:
        The number of bytes written.

    Raises:
        ModelError: external weights cannot be read, or a value is both an input and an output.
        FileError: the file cannot be written.
    """
    graph = model.graph
    ranges = ranges or {}
    inputs = [value for value in inputs_of(graph) if axes[value.name] or value.name in ranges]
    outputs = [value for value in graph.output if axes[value.name]]
    both = {value.name for value in inputs} & {value.name for value in outputs}
    if both:
        raise ModelError(f"{min(both)} is both an input and an output", path=source)
    taken = set(_names(graph))
    names = {value.name: unique_name(f"{value.name}_in_file_order", taken) for value in (*inputs, *outputs)}
    rename_values(graph.node, names)
    before = _opened(inputs, axes, names, ranges, taken)
    after = [_transpose(value, axes[value.name], names, to_front=True) for value in outputs]
    nodes = [*before.nodes, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*inputs, *outputs):
        dims = list(value.type.tensor_type.shape.dim)
        dims.insert(0, dims.pop(axes[value.name]))
        shape = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, None)
        shape.tensor_type.shape.dim.extend(dims)
        value.type.CopyFrom(shape)
    del graph.value_info[:]
    props = {item.key: item.value for item in model.metadata_props if not item.key.startswith(METADATA_PREFIX)}
    helper.set_model_props(model, props)
    if model.producer_name == PRODUCER:
        model.producer_name = f"{PRODUCER} deploy"
    initializers = {**read_weights(model, source), **before.initializers}
    del graph.initializer[:]
    _, size = write_model(model, initializers, path)
    return size


def _names(graph: GraphProto) -> Iterator[str]:
    for each in graphs_of(graph):
        yield from (value.name for value in (*each.input, *each.output, *each.initializer))
        for node in each.node:
            yield from (*node.input, *node.output)


def _opened(
    inputs: Sequence[ValueInfoProto],
    axes: Mapping[str, int],
    names: Mapping[str, str],
    ranges: Mapping[str, Range],
    taken: set[str],
) -> Nodes:
    """Nodes that transpose the inputs to the original order of axes, and check those with a range."""
    nodes = Nodes()
    unchecked = dict(names)
    for value in inputs:
        if value.name in ranges:
            unchecked[value.name] = unique_name(f"{value.name}/unchecked", taken) if axes[value.name] else value.name
        if axes[value.name]:
            nodes.nodes.append(_transpose(value, axes[value.name], unchecked, to_front=False))
    for value in inputs:
        if value.name in ranges:
            add_range_check(nodes, names[value.name], value.name, ranges[value.name], unchecked, taken)
    return nodes


def _transpose(value: ValueInfoProto, axis: int, names: Mapping[str, str], *, to_front: bool) -> NodeProto:
    order, source, target = list(range(len(value.type.tensor_type.shape.dim))), value.name, names[value.name]
    if to_front:
        order.insert(0, order.pop(axis))
        source, target = target, source
    else:
        order.insert(axis, order.pop(0))
    return helper.make_node("Transpose", [source], [target], f"{value.name}/Transpose", perm=order)
