"""Makes a copy of an int8 model that also outputs the inputs and outputs of each int8 layer.

Values in the bodies of Scans and Loops become outputs of these nodes, with an axis for the steps.  Values in a branch
of an If become outputs of the If, for which the other branch gives a scalar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..atomic_io import temporary_folder
from ..errors import ModelError
from ..onnxgraph import bodies_of
from ..onnxgraph.write import write_model
from ..runtime.providers import open_session, ort_errors
from .layers import Linear
from .recurrent import Layer, direction_nodes, direction_outputs
from .rewrite import Rewritten

_MOST_STEPS = 16
"""The number of steps of a loop in which a recurrent layer is compared."""
_LOOPS = ("Scan", "Loop")


class Probe:
    """A copy of an int8 model with all values that are compared as outputs.

    Args:
        done: the model.
        where: the start of error messages.
        provider: as in `load`.
        other_branches: whether every If takes the branch that it would not take.

    Raises:
        ModelError: ONNX Runtime cannot open it.
    """

    def __init__(self, done: Rewritten, where: str, provider: str = "cpu", *, other_branches: bool = False) -> None:
        self.where, self.provider = where, provider
        self.done, self.other_branches = done, other_branches
        self._open(loops=True)

    def _open(self, *, loops: bool) -> None:
        probe = ModelProto.FromString(self.done.model.SerializeToString())
        known = {value.name for value in (*probe.graph.input, *probe.graph.output)} | self.done.initializers.keys()
        exposed = [*_exposed(self.done), *_expose_bodies(probe.graph, self.done, loops=loops)]
        if self.other_branches:
            _take_other_branches(probe.graph)
        # ONNX Runtime infers their types.
        probe.graph.output.extend(
            ValueInfoProto(name=name) for name in dict.fromkeys(exposed) if name and name not in known
        )
        self.loops = loops and any(node.op_type == "Loop" for node in probe.graph.node)
        self.names = [value.name for value in probe.graph.output]
        with temporary_folder() as folder:
            write_model(probe, self.done.initializers, folder / "probe.onnx")
            self.session, _ = open_session(folder / "probe.onnx", self.provider, 1)

    def values(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every value that is compared, and the inputs and constants.

        Raises:
            ModelError: ONNX Runtime fails.
        """
        try:
            found = self.session.run(self.names, dict(feeds))
        except ort_errors() as error:
            if self.loops:  # values whose shape differs from step to step cannot be stacked
                self._open(loops=False)
                return self.values(feeds)
            raise ModelError(f"{self.where} fails where the float32 file runs: {error}") from error
        return {**self.done.initializers, **feeds, **dict(zip(self.names, found, strict=True))}


def linear_values(linear: Linear, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """The input of a Linear layer and its product, from the values of a `Probe`; None where it did not run."""
    names = [linear.rows, linear.product]
    if linear.caller:
        names = [_probe_name(linear.name, name) for name in names]
    found = [values[name] for name in names if name in values]
    if len(found) < 2 or any(array.ndim == 0 for array in found) or (linear.caller and not found[0].size):
        return None
    return found[0], found[1]


def layer_values(layer: Layer, values: Mapping[str, np.ndarray]) -> Iterator[Mapping[str, np.ndarray]]:
    """The inputs and outputs of a recurrent layer, by name, for each time that it ran."""
    if not layer.caller:
        yield values
        return
    names = {value: _probe_name(layer.name, value) for value in _layer_values(layer)}
    if not all(name in values for name in names.values()):
        return
    found = {value: values[name] for value, name in names.items()}
    steps = found[layer.x].shape[:-3]
    if found[layer.x].ndim < 3:
        return
    for at in list(np.ndindex(steps))[:_MOST_STEPS]:
        yield {value: array[at] for value, array in found.items()}


def _exposed(done: Rewritten) -> Iterator[str]:
    """The inputs and outputs of int8 layers in the main graph."""
    for layer in (layer for layer in done.layers if not layer.caller):
        yield from _layer_values(layer)
    for linear in done.linear:
        if not linear.caller:
            yield from (linear.rows, linear.product)
    for embedding in done.embeddings:
        yield from (embedding.indices, embedding.rows)


def _expose_bodies(graph: GraphProto, done: Rewritten, *, loops: bool) -> Iterator[str]:
    """The same for layers in bodies, which become outputs of the outer nodes; without `loops`, not in Loops."""
    wanted: list[tuple[Layer | Linear, str, Sequence[str]]] = [
        (layer, direction_nodes(layer)[0], _layer_values(layer)) for layer in done.layers if layer.caller
    ]
    wanted += [(linear, linear.name, [linear.rows, linear.product]) for linear in done.linear if linear.caller]
    for layer, node, values in wanted:
        path = _path_to(graph, node) or []
        if not loops and any(caller.op_type == "Loop" for caller, _ in path):
            continue
        for value in values:
            kind = TensorProto.INT32 if isinstance(layer, Layer) and value == layer.lengths else TensorProto.FLOAT
            name = _probe_name(layer.name, value)
            inner = value
            for level, (caller, body) in reversed(list(enumerate(path))):
                outer = f"{name}/{level}" if level else name
                _give(caller, body, inner, outer, kind)
                inner = outer
            yield name


def _path_to(graph: GraphProto, name: str) -> list[tuple[NodeProto, GraphProto]] | None:
    """The nodes with bodies, from the outermost, and the bodies that lead to the node of this name."""
    if any(node.name == name for node in graph.node):
        return []
    for node in graph.node:
        for body in bodies_of(node):
            found = _path_to(body, name)
            if found is not None:
                return [(node, body), *found]
    return None


def _give(node: NodeProto, body: GraphProto, value: str, name: str, kind: int) -> None:
    """Make a value of a body an output of its node."""
    if node.op_type not in (*_LOOPS, "If"):
        return
    own = f"{name}/body"
    body.node.append(helper.make_node("Identity", [value], [own], name=own))
    for other in bodies_of(node):
        if other is not body and node.op_type == "If":
            scalar = helper.make_tensor(own, kind, (), [0])
            other.node.append(helper.make_node("Constant", [], [own], name=own, value=scalar))
            other.output.append(helper.make_tensor_value_info(own, kind, None))
    if node.op_type == "Loop":  # the condition is not an output of the node, and the last outputs may be left out
        missing = len(body.output) - 1 - len(node.output)
        node.output.extend(f"{name}/unused/{index}" for index in range(missing))
    body.output.append(helper.make_tensor_value_info(own, kind, None))
    node.output.append(name)
    for attribute in node.attribute:
        if attribute.name in ("scan_output_directions", "scan_output_axes"):
            attribute.ints.append(0)


def _take_other_branches(graph: GraphProto) -> None:
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "If":
            other = f"{node.name}/other"
            graph.node.append(helper.make_node("Not", [node.input[0]], [other], name=other))
            node.input[0] = other
        for body in bodies_of(node):
            _take_other_branches(body)
        graph.node.append(node)


def _layer_values(layer: Layer) -> Sequence[str]:
    """The inputs and outputs of a layer, without repetitions."""
    values = [layer.x, layer.lengths, layer.h0, layer.c0]
    for index in range(len(layer.reverse)):
        values += direction_outputs(layer, index)
    return [value for value in dict.fromkeys(values) if value]


def _probe_name(layer: str, value: str) -> str:
    # The branches of an If may have values of the same name.
    return f"{layer}/{value}/probe"
