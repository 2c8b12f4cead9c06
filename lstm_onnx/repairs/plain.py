"""Removes what hides the loops in a graph: copies, values that are computed twice, and computed sizes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..onnxgraph import Shape, attributes_of, bodies_of, is_default, outer_values, shape_of, typed
from ..onnxgraph.nodes import RANDOM, constant_of, needed_nodes, producers_of, sorted_nodes
from ..runtime import Model
from .graph import Graph, with_known_shapes
from .proof import LARGEST_SIZE, values_at_sizes

_MOST_ENTRIES = 8
"""The dtypes of sizes, shapes and bounds of slices."""
_SEQUENCE_RANK = 3
_COMPARING = ("Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Slice")
_UNLIMITED = 2**31 - 1
"""A limit of this size or more means that there is none."""


def constants_of(nodes: list[NodeProto]) -> dict[str, np.ndarray]:
    """The tensors of Constant nodes."""
    found = {
        str(node.output[0]): constant_of(node)
        for node in nodes
        if node.op_type == "Constant" and is_default(node.domain)
    }
    return {name: numpy_helper.to_array(tensor) for name, tensor in found.items() if tensor is not None}


def simplify(graph: Graph) -> None:
    """Read values from where they are first computed: no copies, no casts to their own type, and nothing twice."""
    found = constants_of(graph.nodes)
    graph.arrays |= found
    graph.nodes = [node for node in graph.nodes if not found.keys() & set(node.output)]
    types = _types(graph)
    # What bodies read keeps its name, and so do the graph's outputs.
    fixed = {name for node in graph.nodes for name in outer_values(node)} | {value.name for value in graph.outputs}
    names = first_equal(graph.arrays)
    known: dict[tuple[object, ...], NodeProto] = {}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        own = set(node.output) & fixed
        if _is_copy(node, types) and not own:
            names[node.output[0]] = node.input[0]
            continue
        same = known.setdefault(form(node, {}), node)
        unique = same is node or own or node.op_type in RANDOM or any(bodies_of(node))
        if not unique and [bool(name) for name in same.output] == [bool(name) for name in node.output]:
            names.update(zip(node.output, same.output, strict=True))
            continue
        nodes.append(node)
    graph.nodes = nodes
    graph.remove_unread()


def first_equal(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """For each array, the first one that is equal to it."""
    first: dict[tuple[object, ...], str] = {}
    return {
        name: first.setdefault((array.dtype.str, array.shape, array.tobytes()), name) for name, array in arrays.items()
    }


def form(node: NodeProto, mapped: Mapping[str, str]) -> tuple[object, ...]:
    """A key that is equal for equal nodes: operator, attributes and inputs, some of which are mapped."""
    attributes = tuple(sorted(item.SerializeToString(deterministic=True) for item in node.attribute))
    return node.domain, node.op_type, attributes, tuple(mapped.get(name, name) for name in node.input)


def _is_copy(node: NodeProto, types: Mapping[str, int]) -> bool:
    if not is_default(node.domain) or len(node.output) != 1:
        return False
    if node.op_type == "Cast":
        return types.get(node.input[0]) == typed(attributes_of(node), "to", int)
    return node.op_type == "Identity"


def _types(graph: Graph) -> dict[str, int]:
    """The element types of the graph's values, where they are known."""
    kinds: dict[str, int] = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in graph.arrays.items()}
    shaped = with_known_shapes(graph.complete(), data_prop=False).graph
    return kinds | {value.name: value.type.tensor_type.elem_type for value in (*shaped.value_info, *shaped.input)}


def shapes_of(model: ModelProto) -> dict[str, Shape | None]:
    """The shapes of a model's values, where they are known."""
    shaped = with_known_shapes(model).graph
    return {value.name: shape_of(value.type) for value in (*shaped.value_info, *shaped.input, *shaped.output)}


@dataclass(frozen=True)
class Sizes:
    """The values that a graph computes only from shapes.

    Attributes:
        constants: integers and booleans that are the same at all sizes: bounds of slices, widths, conditions.
        same: values that are equal to an earlier one at all sizes, such as two states of zeros.
        zeros: values that are zeros at all sizes.
    """

    constants: Mapping[str, np.ndarray]
    same: Mapping[str, str]
    zeros: frozenset[str] = frozenset()


def computed_sizes(graph: Graph, source: Model, *, seed: int) -> Sizes:
    """The values that the graph computes only from shapes, found by runs at several sizes.

    Args:
        graph: it is not changed.
        source: its file.
        seed: of the inputs that it is run with.
    """
    numbers = _of_numbers(graph) | limited(graph.nodes, graph.arrays)
    wanted: list[str] = []
    products: set[str] = set()  # products of zero states are equal, but each belongs to its own layer
    for node in graph.nodes:
        if node.op_type in ("MatMul", "Gemm") or (products & set(node.input) and node.op_type not in ("Shape", "Size")):
            products |= set(node.output)
        elif len(node.output) == 1 and not any(bodies_of(node)) and node.output[0] not in numbers:
            wanted.append(str(node.output[0]))
    nodes, read = needed_nodes(graph.nodes, wanted)
    stored = {name: array for name, array in graph.arrays.items() if name in read}
    alone = replace(graph, nodes=nodes, arrays=stored, outputs=[]).complete()
    found = list(values_at_sizes(alone, source, wanted, seed=seed))
    if not found:
        return Sizes({}, {})
    # A Loop of TorchScript's appends to a sequence, which is a list.
    wanted = [name for name in wanted if all(isinstance(item[name], np.ndarray) for item in found)]
    constants = {
        name: array
        for name in wanted
        if (array := found[0][name]).size <= _MOST_ENTRIES
        and array.dtype.kind in "ib"
        and all(np.array_equal(array, other[name]) for other in found[1:])
    }
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    for name in wanted:
        arrays = [item[name] for item in found]
        key = tuple((array.dtype.str, array.shape, array.tobytes()) for array in arrays)
        if (other := first.setdefault(key, name)) != name:
            same[name] = other
    zeros = [name for name in wanted if not any(item[name].any() for item in found)]
    return Sizes(constants, same, frozenset(zeros))


def _of_numbers(graph: Graph) -> set[str]:
    """The values that are computed from the elements of inputs, and not only from their shapes."""
    found = {str(value.name) for value in graph.inputs}
    for node in sorted_nodes(graph.nodes):
        if node.op_type not in ("Shape", "Size") and found & {*node.input, *outer_values(node)}:
            found |= set(node.output)
    return found


_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Abs": np.abs,
    "Pow": np.power,
    "Max": np.maximum,
    "Min": np.minimum,
    "Exp": np.exp,
    "Sqrt": np.sqrt,
    "Ceil": np.ceil,
    "Floor": np.floor,
    "Div": lambda one, other: one / np.where(other == 0, 1, other),
    "Concat": lambda *parts: np.concatenate([part.reshape(-1) for part in parts]),
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand"), lambda one, *_: one),
}
"""Operators whose results for stored numbers may be limits; their shape does not matter."""


def folded(nodes: list[NodeProto], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The few stored numbers, and those that nodes compute from these alone, in any shape."""
    known = {name: array for name, array in arrays.items() if array.size <= _MOST_ENTRIES}
    for node in sorted_nodes(nodes):
        fold = _FOLDED.get(node.op_type)
        given = [known[name] for name in node.input if name in known]
        if fold is not None and given and len(given) == len(node.input):
            with np.errstate(all="ignore"), contextlib.suppress(ValueError, TypeError):
                known[node.output[0]] = np.asarray(fold(*given))
    return known


def limited(nodes: list[NodeProto], arrays: Mapping[str, np.ndarray]) -> set[str]:
    """The values that depend on a limit larger than all sizes at which files are compared."""
    arrays = folded(nodes, arrays)
    found: set[str] = set()
    for node in sorted_nodes(nodes):
        limits = node.op_type in _COMPARING and any(is_far(arrays.get(name)) for name in node.input)
        if limits or found & {*node.input, *outer_values(node)}:
            found |= set(node.output)
    return found


def is_far(array: np.ndarray | None) -> bool:
    """Whether stored numbers are limits larger than all sizes at which files are compared."""
    if array is None or array.size > _MOST_ENTRIES or array.dtype.kind not in "iuf":
        return False
    sizes = np.abs(array.astype(np.float64))
    return bool(((sizes >= LARGEST_SIZE) & (sizes < _UNLIMITED)).any())


def read_as(graph: Graph, names: Mapping[str, str]) -> None:
    """Let nodes read other values; outputs of the graph and values that bodies read are not changed."""
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)


def without_choices(graph: Graph, constants: Mapping[str, np.ndarray]) -> None:
    """Bypass each Where whose condition is always the same."""
    outputs = {value.name for value in graph.outputs}
    names: dict[str, str] = {}
    for node in graph.nodes:
        condition = constants.get(node.input[0]) if node.op_type == "Where" else None
        if condition is not None and condition.size == 1 and node.output[0] not in outputs:
            chosen = str(node.input[1 if condition.all() else 2])
            names[node.output[0]] = names.get(chosen, chosen)
    read_as(graph, names)
    graph.remove_unread()


def with_products_per_step(graph: Graph, shapes: Mapping[str, Shape | None]) -> Graph:
    """A copy in which each step multiplies its part of a sequence, where the file multiplies the whole sequence."""
    producers = producers_of(graph.nodes)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        product, bias = _product(graph, producers, node, shapes)
        if product is None:
            nodes.append(node)
            continue
        output = str(node.output[0])
        part = helper.make_node("Gather", [product.input[0], node.input[1]], [f"{output}/x"], f"{output}/x", axis=0)
        end = output if bias is None else f"{output}/product"
        nodes += [part, helper.make_node("MatMul", [f"{output}/x", product.input[1]], [end], end)]
        if bias is not None:
            nodes.append(helper.make_node("Add", [end, bias], [output], f"{output}/biased"))
    changed = replace(graph, nodes=copy.deepcopy(nodes), arrays=dict(graph.arrays))
    changed.remove_unread()
    return changed


def _product(
    graph: Graph, producers: Mapping[str, NodeProto], node: NodeProto, shapes: Mapping[str, Shape | None]
) -> tuple[NodeProto | None, str | None]:
    """The product of a sequence from which a Gather takes a step, and the bias that is added to it."""
    index = graph.arrays.get(node.input[1]) if node.op_type == "Gather" else None
    if index is None or index.ndim or typed(attributes_of(node), "axis", int):
        return None, None
    product, bias = producers.get(node.input[0]), None
    if product is not None and product.op_type == "Add":
        biases = [name for name in product.input if name in graph.arrays and graph.arrays[name].ndim == 1]
        others = [name for name in product.input if name not in graph.arrays]
        if len(biases) != 1 or len(others) != 1:
            return None, None
        bias, product = biases[0], producers.get(others[0])
    if product is None or product.op_type != "MatMul" or product.input[1] not in graph.arrays:
        return None, None
    known = shapes.get(product.input[0])
    if known is None or len(known) != _SEQUENCE_RANK or graph.arrays[product.input[1]].ndim != 2:
        return None, None
    return product, bias
