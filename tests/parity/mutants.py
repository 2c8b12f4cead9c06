"""Wrong graphs, made from right ones: the mistakes that an exporter can make.

Each mutator changes an exported model in place, and returns False where it does not apply to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from lstm_onnx.spec import GATES, ExportOptions, LSTMSpec
from lstm_onnx.story import Story


class Graph:
    """A model to be changed, with its tensors by name."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        story = Story.from_metadata({item.key: item.value for item in model.metadata_props})
        assert story.spec is not None
        assert story.options is not None
        self.spec: LSTMSpec = story.spec
        self.options: ExportOptions = story.options

    @property
    def scan(self) -> bool:
        return any(node.op_type == "Scan" for node in self.model.graph.node)

    @property
    def layers(self) -> list[NodeProto]:
        return [node for node in self.model.graph.node if node.op_type in ("LSTM", "Scan")]

    def has(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self.model.graph.initializer)

    def get(self, name: str) -> np.ndarray:
        tensor = next(tensor for tensor in self.model.graph.initializer if tensor.name == name)
        return numpy_helper.to_array(tensor).copy()

    def set(self, name: str, array: np.ndarray) -> None:
        tensor = next(tensor for tensor in self.model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def node(self, name: str) -> NodeProto:
        return next(node for node in self.model.graph.node if node.name == name)

    def insert(self, before: int, *nodes: NodeProto) -> None:
        held = list(self.model.graph.node)
        del self.model.graph.node[:]
        self.model.graph.node.extend([*held[:before], *nodes, *held[before:]])

    def replace_input(self, old: str, new: str) -> None:
        for node in self.model.graph.node:
            for index, value in enumerate(node.input):
                if value == old:
                    node.input[index] = new


def _swapped(array: np.ndarray, first: int, second: int, axis: int, parts: int) -> np.ndarray:
    blocks = np.split(array, parts, axis=axis)
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return np.concatenate(blocks, axis=axis)


def _swap_gates(first: int, second: int) -> Callable[[Graph], bool]:
    """Two gates exchanged in the last direction of layer 0, in W, R and B."""

    def mutate(graph: Graph) -> bool:
        directions = graph.spec.num_directions
        if graph.scan:
            ahead = (directions - 1) * GATES
            for name in ("l0/W", "l0/B"):
                if graph.has(name):
                    array = graph.get(name)
                    graph.set(name, _swapped(array, ahead + first, ahead + second, -1, directions * GATES))
            recurrent = "l0/R_reverse" if directions == 2 else "l0/R"
            graph.set(recurrent, _swapped(graph.get(recurrent), first, second, -1, GATES))
            return True
        for name in ("l0/W", "l0/R"):
            array = graph.get(name)
            array[-1] = _swapped(array[-1], first, second, 0, GATES)
            graph.set(name, array)
        if graph.has("l0/B"):
            array = graph.get("l0/B")
            for part in np.split(array[-1], 2):  # views
                part[:] = _swapped(part, first, second, 0, GATES)
            graph.set("l0/B", array)
        return True

    return mutate


def _transpose_recurrent(graph: Graph) -> bool:
    """R transposed, gate by gate; only where each gate's block is square."""
    if graph.scan:
        return False
    array = graph.get("l0/R")
    blocks = np.split(array, GATES, axis=1)
    graph.set("l0/R", np.concatenate([np.swapaxes(block, 1, 2) for block in blocks], axis=1))
    return True


def _drop_bias(half: int) -> Callable[[Graph], bool]:
    """The input's bias (0) or the recurrent one (1) as zeros; a Scan keeps only their sum."""

    def mutate(graph: Graph) -> bool:
        if not graph.has("l0/B") or (graph.scan and half):
            return False
        array = graph.get("l0/B")
        if graph.scan:
            array[:] = 0
        else:
            np.split(array, 2, axis=1)[half][:] = 0
        graph.set("l0/B", array)
        return True

    return mutate


def _exchange_directions(graph: Graph) -> bool:
    """Every weight of the two directions exchanged in layer 0."""
    if not graph.spec.bidirectional:
        return False
    if graph.scan:
        for name in ("l0/W", "l0/B"):
            if graph.has(name):
                graph.set(name, _swapped(graph.get(name), 0, 1, -1, 2))
        for name in ("l0/R", "l0/W_hr"):
            forward, reverse = graph.get(f"{name}_forward"), graph.get(f"{name}_reverse")
            graph.set(f"{name}_forward", reverse)
            graph.set(f"{name}_reverse", forward)
        return True
    for name in ("l0/W", "l0/R", "l0/B", "l0/W_hr", "l0/W_hr_pinv"):
        if graph.has(name):
            graph.set(name, graph.get(name)[::-1])
    return True


def _run_backwards(graph: Graph) -> bool:
    """A forward layer that runs in reverse."""
    if graph.spec.bidirectional:
        return False
    for attribute in graph.layers[0].attribute:
        if attribute.name == "direction":
            attribute.s = b"reverse"
        elif attribute.name in ("scan_input_directions", "scan_output_directions"):
            attribute.ints[:] = [1] * len(attribute.ints)
    return True


def _exchange_layer_states(state: str) -> Callable[[Graph], bool]:
    """The first two layers begin with each other's state."""

    def mutate(graph: Graph) -> bool:
        if graph.spec.num_layers < 2:
            return False
        split = graph.node(f"{state}/Split")
        group = len(split.output) // graph.spec.num_layers
        outputs = list(split.output)
        split.output[:] = outputs[group : 2 * group] + outputs[:group] + outputs[2 * group :]
        return True

    return mutate


def _exchange_final_states(state: str) -> Callable[[Graph], bool]:
    """The final states of the first and the last layer (or direction) change places."""

    def mutate(graph: Graph) -> bool:
        if graph.spec.num_layers * graph.spec.num_directions < 2:
            return False
        concat = next((node for node in graph.model.graph.node if node.name == f"{state}/Concat"), None)
        if concat is None:
            return False
        values = list(concat.input)
        concat.input[:] = [values[-1], *values[1:-1], values[0]]
        return True

    return mutate


def _ignore_state(state: str) -> Callable[[Graph], bool]:
    """Zeros in place of an initial state."""

    def mutate(graph: Graph) -> bool:
        graph.replace_input(state, f"{state}/ignored")
        graph.insert(0, helper.make_node("Sub", [state, state], [f"{state}/ignored"], name=f"{state}/ignored"))
        return True

    return mutate


def _ignore_lengths(graph: Graph) -> bool:
    """Every sequence taken as whole."""
    if not graph.options.lengths:
        return False
    if not graph.scan:
        for node in graph.layers:
            node.input[4] = ""
        return True
    less = graph.node("valid")
    less.output[0] = "valid/true_part"
    after = list(graph.model.graph.node).index(less) + 1
    opposite = helper.make_node("Not", ["valid/true_part"], ["valid/opposite"], name="valid/opposite")
    always = helper.make_node("Or", ["valid/true_part", "valid/opposite"], ["valid"], name="valid/always")
    graph.insert(after, opposite, always)
    return True


def _one_step_too_many(graph: Graph) -> bool:
    """The mask's ``step < length`` as ``step <= length``."""
    if not graph.options.lengths or not graph.scan:
        return False
    less = graph.node("valid")
    less.op_type = "LessOrEqual"
    return True


def _bake_in(axis_name: str) -> Callable[[Graph], bool]:
    """The last reshape knows one size of batch or time, 3 or 7, as a traced export's does."""

    def mutate(graph: Graph) -> bool:
        spec = graph.spec
        last = next(
            node for node in reversed(graph.model.graph.node) if node.op_type in ("Squeeze", "Reshape") and node.input
        )
        time_first = not spec.batch_first or graph.scan
        names = ("time", "batch") if time_first else ("batch", "time")
        size = {"batch": 3, "time": 7}[axis_name]
        features = spec.output_size
        if last.op_type == "Squeeze":
            last.op_type = "Reshape"
        shape = [size if name == axis_name else -1 for name in names]
        graph.model.graph.initializer.append(numpy_helper.from_array(np.array([*shape, features], np.int64), "baked"))
        last.input[1] = "baked"
        return True

    return mutate


def _fix_axis(axis_name: str) -> Callable[[Graph], bool]:
    """The graph declares one size of batch or time."""

    def mutate(graph: Graph) -> bool:
        for value in (*graph.model.graph.input, *graph.model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == axis_name:
                    dim.dim_value = 3
        return True

    return mutate


def _swap_final_states(graph: Graph) -> bool:
    """hn and cn exchanged, where their shapes are one."""
    if graph.spec.proj_size:
        return False
    other = {"hn": "cn", "cn": "hn"}
    for node in graph.model.graph.node:
        node.output[:] = [other.get(value, value) for value in node.output]
    return True


def _swap_initial_states(graph: Graph) -> bool:
    """h0 and c0 exchanged, where their shapes are one."""
    if graph.spec.proj_size:
        return False
    other = {"h0": "c0", "c0": "h0"}
    for node in graph.model.graph.node:
        node.input[:] = [other.get(value, value) for value in node.input]
    return True


def _unreverse(attribute_name: str) -> Callable[[Graph], bool]:
    """A Scan that reads or writes the reverse direction forwards."""

    def mutate(graph: Graph) -> bool:
        if not graph.scan or not graph.spec.bidirectional:
            return False
        attribute = next(a for a in graph.layers[-1].attribute if a.name == attribute_name)
        attribute.ints[:] = [0] * len(attribute.ints)
        return True

    return mutate


def _projections(graph: Graph) -> Iterator[str]:
    for name in ("l0/W_hr", "l0/W_hr_forward", "l0/W_hr_reverse"):
        if graph.has(name):
            yield name


def _drop_projection(graph: Graph) -> bool:
    """The first proj_size features of the cell's output in place of its projection."""
    for name in _projections(graph):
        array = graph.get(name)
        graph.set(name, np.broadcast_to(np.eye(*array.shape[-2:], dtype=array.dtype), array.shape))
    return graph.spec.proj_size > 0


def _transpose_projection(graph: Graph) -> bool:
    """W_hr as torch keeps it, not transposed."""
    for name in _projections(graph):
        graph.set(name, np.swapaxes(graph.get(name), -1, -2))
    return graph.spec.proj_size > 0


def _reshape_projection(graph: Graph) -> bool:
    """W_hr reshaped where it should be transposed: the right shape, the wrong order."""
    for name in _projections(graph):
        array = graph.get(name)
        graph.set(name, np.swapaxes(array, -1, -2).copy().reshape(array.shape))
    return graph.spec.proj_size > 1


def _keep_projected_state(graph: Graph) -> bool:
    """A fold that does not lift h0 into the cell's features: pinv(W_hr) as zeros."""
    if not graph.has("l0/W_hr_pinv"):
        return False
    graph.set("l0/W_hr_pinv", np.zeros_like(graph.get("l0/W_hr_pinv")))
    return True


def _scale(name: str) -> Callable[[Graph], bool]:
    """One weight matrix a thousandth too large."""

    def mutate(graph: Graph) -> bool:
        if not graph.has(name):
            return False
        graph.set(name, graph.get(name) * np.float32(1.001))
        return True

    return mutate


@dataclass(frozen=True)
class Mutant:
    """A way to be wrong.

    numeric: it runs at every shape and gives other numbers, far from right; slight: other numbers,
    not far from right; structural: it cannot run, or not at every shape.
    """

    name: str
    apply: Callable[[Graph], bool]
    kind: str = "numeric"


_GATES = ("i", "o", "f", "c")
MUTANTS: tuple[Mutant, ...] = (
    *(
        Mutant(f"gates {_GATES[first]} and {_GATES[second]} swapped", _swap_gates(first, second))
        for first, second in itertools.combinations(range(GATES), 2)
    ),
    Mutant("R transposed", _transpose_recurrent),
    Mutant("input bias dropped", _drop_bias(0)),
    Mutant("recurrent bias dropped", _drop_bias(1)),
    Mutant("directions exchanged", _exchange_directions),
    Mutant("run backwards", _run_backwards),
    Mutant("h0 of two layers exchanged", _exchange_layer_states("h0")),
    Mutant("c0 of two layers exchanged", _exchange_layer_states("c0")),
    Mutant("hn of two layers exchanged", _exchange_final_states("hn")),
    Mutant("cn of two layers exchanged", _exchange_final_states("cn")),
    Mutant("h0 ignored", _ignore_state("h0")),
    Mutant("c0 ignored", _ignore_state("c0")),
    Mutant("h0 and c0 swapped", _swap_initial_states),
    Mutant("hn and cn swapped", _swap_final_states),
    Mutant("lengths ignored", _ignore_lengths),
    Mutant("one step too many", _one_step_too_many),
    Mutant("reverse output unreversed", _unreverse("scan_output_directions")),
    Mutant("reverse input unreversed", _unreverse("scan_input_directions")),
    Mutant("projection dropped", _drop_projection),
    Mutant("projection reshaped", _reshape_projection),
    Mutant("projection transposed", _transpose_projection, "structural"),
    Mutant("h0 not unprojected", _keep_projected_state),
    Mutant("batch baked in", _bake_in("batch"), "structural"),
    Mutant("time baked in", _bake_in("time"), "structural"),
    Mutant("batch declared fixed", _fix_axis("batch"), "structural"),
    Mutant("time declared fixed", _fix_axis("time"), "structural"),
    Mutant("W a thousandth too large", _scale("l0/W"), "slight"),
    Mutant("R a thousandth too large", _scale("l0/R"), "slight"),
)


def mutated(model: ModelProto, mutant: Mutant) -> ModelProto | None:
    """A copy of `model` made wrong, or None where the mutant does not apply."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy if mutant.apply(Graph(copy)) else None
