"""Opsets 14 to 17: the nodes of torch's translations, which are in opset 18, in their older forms.

onnx's version converter has no downgrade for many operators that torch emits (Shape, Split, Pad,
LayerNormalization), so what changed between opsets 14 and 18 is undone here, node by node.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper

from ...errors import ExportError
from ...onnxgraph import attributes_of, nodes_of
from ..tracing.opaque_node import DOMAIN
from ..tracing.torch_export import TRACED_OPSET
from .rename import TracedGraph

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


class _NoOlderForm(Exception):  # noqa: N818 - downgrade_opset turns it into an error that names the node
    """Why a node has no older form."""


def downgrade_opset(graph: TracedGraph, opset: int) -> None:
    """Rewrite the nodes of a traced graph from opset 18 to an older one; opaque nodes stay as they are.

    Raises:
        ExportError: a node has no older form; the message names it.
    """
    if opset >= TRACED_OPSET:
        return
    old, graph.nodes.nodes = graph.nodes.nodes, []
    for node in old:
        since, rule = _RULES.get(node.op_type, (0, _keep))
        try:
            (rule if opset < since and node.domain == "" else _keep)(graph, node)
        except _NoOlderForm as reason:
            raise ExportError(
                f"{node.name}: {node.op_type} {reason} before opset {since}; use that or a later one"
            ) from None
    for node in nodes_of(graph.nodes.nodes):
        _check(node, opset)
    graph.remove_unread_initializers()


def _check(node: NodeProto, opset: int) -> None:
    if node.domain == DOMAIN:
        return
    later = f"use opset {TRACED_OPSET} or later"
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        raise ExportError(f"{node.name}: {node.op_type} is not in opset {opset}; {later}") from None
    unknown = [item.name for item in node.attribute if item.name not in schema.attributes]
    if unknown or len(node.input) > schema.max_input:
        raise ExportError(f"{node.name}: {node.op_type} has no such form in opset {opset}; {later}")
    reduction = attributes_of(node).get("reduction", b"")
    if reduction in (b"max", b"min"):  # which no schema lists: an engine may take it for none
        raise ExportError(f"{node.name}: {node.op_type} has no {reduction.decode()} in opset {opset}; {later}")


def _keep(graph: TracedGraph, node: NodeProto) -> None:
    graph.nodes.nodes.append(node)


def _without(node: NodeProto, *names: str) -> NodeProto:
    kept = [item for item in node.attribute if item.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
    return node


def _constant(graph: TracedGraph, name: str, what: str) -> np.ndarray:
    if name not in graph.nodes.initializers:
        raise _NoOlderForm(f"with {what} that are computed has no form")
    return graph.nodes.initializers[name]


def _reduction(graph: TracedGraph, node: NodeProto) -> None:
    """In older opsets, the axes are an attribute."""
    axes = node.input[1] if len(node.input) > 1 else ""
    if not axes and attributes_of(node).get("noop_with_empty_axes"):
        raise _NoOlderForm("that does nothing without axes has no form")
    values = _constant(graph, axes, "axes") if axes else None
    _without(node, "noop_with_empty_axes")
    del node.input[1:]
    if values is not None:
        node.attribute.append(helper.make_attribute("axes", values.reshape(-1).tolist(), attr_type=AttributeProto.INTS))
    _keep(graph, node)


def _split(graph: TracedGraph, node: NodeProto) -> None:
    """Parts of equal size need no num_outputs; a smaller last part would need explicit sizes."""
    attributes = attributes_of(node)
    if "num_outputs" in attributes and len(node.input) == 1:
        dims = graph.dims.get(node.input[0])
        size = "" if dims is None else dims[attributes.get("axis", 0)]
        if not isinstance(size, int) or size % len(node.output):
            raise _NoOlderForm("into parts of unequal or dynamic size has no form")
    _keep(graph, _without(node, "num_outputs"))


def _shape(graph: TracedGraph, node: NodeProto) -> None:
    """A Slice replaces start and end."""
    attributes, nodes = attributes_of(node), graph.nodes
    shape = nodes.one("Shape", node.input[0], name=f"{node.name}/whole")
    start, end = attributes.get("start", 0), attributes.get("end", int(np.iinfo(np.int64).max))
    bounds = [nodes.integers(start), nodes.integers(end), nodes.integers(0)]
    nodes.one("Slice", shape, *bounds, name=node.name, output=node.output[0])


def _pad(graph: TracedGraph, node: NodeProto) -> None:
    """Older opsets have no input axes."""
    if len(node.input) > 3 and node.input[3]:
        raise _NoOlderForm("of some axes has no form")
    del node.input[3:]
    _keep(graph, node)


def _scatter(graph: TracedGraph, node: NodeProto) -> None:
    """Older opsets have no attribute reduction."""
    if attributes_of(node).get("reduction", b"none") != b"none":
        raise _NoOlderForm("with a reduction has no form")
    _keep(graph, _without(node, "reduction"))


def _resize(graph: TracedGraph, node: NodeProto) -> None:
    """Older opsets have no antialiasing, and take the sizes of all axes."""
    attributes = attributes_of(node)
    if "axes" in attributes or attributes.get("antialias"):
        raise _NoOlderForm("of some axes, or with antialiasing, has no form")
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise _NoOlderForm("that keeps the aspect ratio has no form")
    _keep(graph, _without(node, "antialias", "keep_aspect_ratio_policy"))


def _cast_like(graph: TracedGraph, node: NodeProto) -> None:
    """A Cast, to the type that the tracer recorded."""
    if node.input[1] not in graph.types:
        raise _NoOlderForm("to a type that is not known has no form")
    graph.nodes.one("Cast", node.input[0], name=node.name, output=node.output[0], to=graph.types[node.input[1]])


def _layer_normalization(graph: TracedGraph, node: NodeProto) -> None:
    """The nodes of the function body in onnx's definition of LayerNormalization."""
    attributes = attributes_of(node)
    x, scale, bias = [*node.input, ""][:3]
    if x not in graph.dims or any(node.output[1:]):
        raise _NoOlderForm("of unknown rank, or with its mean as an output, has no form")
    rank = len(graph.dims[x])
    axes = list(range(attributes.get("axis", -1) % rank, rank))
    nodes, at = graph.nodes, node.name
    dtype = helper.tensor_dtype_to_np_dtype(graph.types[x])
    epsilon = np.array(attributes.get("epsilon", 1e-5), dtype)
    mean = nodes.one("ReduceMean", x, name=f"{at}/mean", axes=axes, keepdims=1)
    centred = nodes.one("Sub", x, mean, name=f"{at}/centred")
    square = nodes.one("Mul", centred, centred, name=f"{at}/square")
    variance = nodes.one("ReduceMean", square, name=f"{at}/variance", axes=axes, keepdims=1)
    safe = nodes.one("Add", variance, nodes.constant(f"{at}/epsilon", epsilon), name=f"{at}/safe")
    deviation = nodes.one("Sqrt", safe, name=f"{at}/deviation")
    normal = nodes.one("Div", centred, deviation, name=f"{at}/normal")
    last = {"output": node.output[0]}
    scaled = nodes.one("Mul", normal, scale, name=f"{at}/scaled", **({} if bias else last))
    if bias:
        nodes.one("Add", scaled, bias, name=at, **last)


_RULES: dict[str, tuple[int, Callable[[TracedGraph, NodeProto], None]]] = {
    **{f"Reduce{kind}": (18, _reduction) for kind in _REDUCTIONS},
    "Split": (18, _split),
    "Pad": (18, _pad),
    "Resize": (18, _resize),
    "LayerNormalization": (17, _layer_normalization),
    "ScatterElements": (16, _scatter),
    "ScatterND": (16, _scatter),
    "Shape": (15, _shape),
    "CastLike": (15, _cast_like),
}
"""By operator: the opset that introduced its current form, and the function that writes the older one."""
