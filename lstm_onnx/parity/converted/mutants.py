"""Wrong copies of an int8 file, which its verification must reject.

A changed integer or a scale that is off by one rounding shows only in the exact comparison; everything else also shows
in the layers' numbers, if they depend on it for the case's inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from ...errors import LSTMOnnxError
from ...onnxgraph import attributes_of
from ...onnxgraph.nodes import bodies_of, nodes_of, outer_values, producers_of
from ...onnxgraph.recurrent import initial_states
from ...quantization.arithmetic import ZERO_POINT
from ...quantization.probe import Probe
from ...quantization.proof import ROUNDINGS, layer_errors
from ...quantization.recurrent import OR_NAN, Layer
from ...quantization.rewrite import Rewritten
from ...runtime import Model
from ..expected import Expected
from ..mutants.graph_edit import Edit, set_attribute
from ..results import MutantResult
from .exact import GRAPH, STORED, Stored, compare_numbers, different_nodes
from .layers import LAYERS

_Change = Callable[[Stored], None]
_INTEGERS, _SCALE, _BIAS = "/int8", "/scale", "/bias"
"""The ends of the names of the integers, scales and biases of int8 layers."""
_REVERSED = "a direction reversed"
_ARRANGING = frozenset(
    {"Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that may take both states from the same values."""


def int8_mutants(
    rewritten: Rewritten, source: Stored, model: Model, expected: Expected, level: str
) -> Iterator[MutantResult]:
    """The result of each mutant: one of each kind ("quick"), or all.

    Args:
        rewritten: the file with the layers of its source.
        source: what the file must be.
        model: the file, open.
        expected: the case on which layers are compared.
        level: "quick" or "all".
    """
    feeds = model.completed(dict(expected.calls[0].feeds))
    before = Probe(rewritten, model.path).values(feeds)
    for kind, judge, targets in _kinds(Stored(rewritten.model, rewritten.initializers), rewritten):
        for name, change in targets if level == "all" else targets[:1]:
            mutant = Stored(deepcopy(rewritten.model), dict(rewritten.initializers))
            change(mutant)
            wrong = replace(rewritten, model=mutant.model, initializers=mutant.arrays)
            ratio, place, reason = 0.0, judge, ""
            if judge == LAYERS:
                ratio, place = _ratio(wrong, feeds), f"{judge}, {expected.label}"
            # It may not show in the layers' numbers: a gate may be closed for every input.
            if not ratio > ROUNDINGS and not compare_numbers(wrong.initializers, source.arrays).passed:
                ratio, place = np.inf, STORED
            if not ratio > ROUNDINGS and different_nodes(wrong.model, source.model) and not _same(wrong, feeds, before):
                ratio, place = np.inf, GRAPH
            outcome = "rejected" if ratio > ROUNDINGS else "survived"
            if outcome == "survived" and kind == _REVERSED:
                reason = _without_order(name, rewritten, model, before)
                outcome = "equivalent" if reason else outcome
            yield MutantResult(f"{kind} ({name})", outcome, ratio, place, reason)


def _without_order(scan: str, rewritten: Rewritten, model: Model, values: Mapping[str, np.ndarray]) -> str:
    """Why a Scan gives the same in either direction; "" where it may not."""
    layers = [layer for layer in rewritten.layers if scan.startswith(f"{layer.name}/")]
    fixed = all(isinstance(dim, int) for info in model.inputs.values() for dim in info.shape)
    if any(fixed and len(values.get(layer.x, ())) == 1 for layer in layers):
        return "its sequences have one step in any call"
    if any(_is_one_step(rewritten, layer) for layer in layers):
        return "it is called on one step at a time"
    return "" if _carries(_node(rewritten.model, scan)) else "its steps do not depend on each other"


def _is_one_step(rewritten: Rewritten, layer: Layer) -> bool:
    """Whether a layer's sequence is made of one step, by an Unsqueeze."""
    nodes = rewritten.model.graph.node
    if layer.caller:
        nodes = itertools.chain(*(body.node for body in bodies_of(_node(rewritten.model, layer.caller))))
    maker = producers_of(nodes).get(layer.x)
    if maker is None or maker.op_type != "Unsqueeze" or len(maker.input) < 2:
        return False
    axes = rewritten.initializers.get(maker.input[1])
    return axes is not None and 0 in axes


def _carries(scan: NodeProto) -> bool:
    """Whether what a Scan gives for a step depends on the steps before, or its states on what it read."""
    (body,) = bodies_of(scan)
    count = len(body.input) - attributes_of(scan)["num_scan_inputs"]
    of_states, of_steps = ({value.name for value in part} for part in (body.input[:count], body.input[count:]))
    for node in body.node:
        read = {*node.input, *outer_values(node)}
        for names in (of_states, of_steps):
            if read & names:
                names.update(node.output)
    return any(value.name in of_steps for value in body.output[:count]) or any(
        value.name in of_states for value in body.output[count:]
    )


def _values(mutant: Rewritten, feeds: dict[str, np.ndarray]) -> Mapping[str, np.ndarray] | None:
    """The values in a mutant; None where it fails."""
    try:
        return Probe(mutant, "a mutant").values(feeds)
    except LSTMOnnxError:
        return None


def _same(mutant: Rewritten, feeds: dict[str, np.ndarray], before: Mapping[str, np.ndarray]) -> bool:
    """Whether a graph with other nodes gives the same bits, so that its verification would accept it."""
    values = _values(mutant, feeds)
    names = [value.name for value in mutant.model.graph.output]
    return values is not None and all(values[name].tobytes() == before[name].tobytes() for name in names)


def _ratio(mutant: Rewritten, feeds: dict[str, np.ndarray]) -> float:
    """The largest ratio of any layer; infinite where the mutant fails or gives other shapes."""
    values = _values(mutant, feeds)
    if values is None:
        return np.inf
    return float(max((layer.ratio for layer in layer_errors(mutant, values)), default=0.0))


def _kinds(file: Stored, rewritten: Rewritten) -> Iterator[tuple[str, str, list[tuple[str, _Change]]]]:
    """Each kind of mistake, the case that has to reject it, and the places where it can be made."""
    arrays = file.arrays
    every = [name for name, array in arrays.items() if name.endswith(_INTEGERS) and array.ndim >= 2 and array.any()]
    every_scale = [name for name in arrays if name.endswith(_SCALE) and arrays[name].size > 1]
    # Only the rows of a table that were looked up show in a layer's numbers.
    tables = {node.input[0] for node in file.model.graph.node if node.op_type == "Gather"}
    integers = [name for name in every if name not in tables]
    scales = [name for name in every_scale if name not in tables]
    biases = [name for name in arrays if name.endswith(_BIAS) and arrays[name].any()]
    points = [name for name, array in arrays.items() if array.dtype == np.uint8 and array.size == 1]
    uneven = [name for name in scales if not np.allclose(arrays[name], np.roll(arrays[name], 1), rtol=0.01)]
    yield "one integer of a weight changed by 1", STORED, _numbers(arrays, every, _nudged)
    yield "one scale changed by one rounding", STORED, _numbers(arrays, every_scale, partial(_at_largest, change=_next))
    yield "one scale doubled", LAYERS, _numbers(arrays, scales, partial(_at_largest, change=lambda value: value * 2))
    yield "scales shifted by one", LAYERS, _numbers(arrays, uneven, partial(np.roll, shift=1))
    yield "a weight's outputs shifted by one", LAYERS, _numbers(arrays, integers, partial(_shifted, axes=(-1, 0)))
    yield "a weight's inputs shifted by one", LAYERS, _numbers(arrays, integers, partial(_shifted, axes=(-2, -1)))
    for kind, change in (("gates exchanged", _gates_exchanged), ("each gate's R transposed", _transposed)):
        yield kind, LAYERS, list(_gates(file, rewritten, change, squares=change is _transposed))
    yield "a weight ignored", LAYERS, _numbers(arrays, integers, _ignored)
    yield "a bias dropped", LAYERS, _numbers(arrays, biases, np.zeros_like)
    yield "a zero point changed by 1", LAYERS, _numbers(arrays, points, lambda array: array - array.dtype.type(1))
    scans = [node for node in file.model.graph.node if node.op_type == "Scan"]
    crossed = list(_start_apart(file, scans))
    # The products of a projected layer are int8 layers, and its Scan is unchanged.
    whole = tuple(f"{layer.name}/" for layer in rewritten.layers)
    for judge, inside in ((LAYERS, True), (GRAPH, False)):
        for kind, nodes, edit in ((_REVERSED, scans, _reversed), ("initial h and c exchanged", crossed, _crossed)):
            names = [node.name for node in nodes if node.name.startswith(whole) is inside]
            yield kind, judge, [(name, partial(edit, name=name)) for name in names]


def _start_apart(file: Stored, scans: list[NodeProto]) -> Iterator[NodeProto]:
    """The Scans whose h and c start from two values that are not both zeros."""
    model = deepcopy(file.model)
    small = {name: array for name, array in file.arrays.items() if array.size == 1 or not array.any()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in small.items())
    edit = Edit(model)
    for node in scans:
        if len(initial_states(node)) != 2:
            continue
        h, c = node.input[:2]
        adding = edit.maker(c)
        if adding is not None and adding.name.endswith(f"/c0{OR_NAN}"):  # to c is added h * 0, for a NaN in h
            c = adding.input[0]
        if not _is_same(file, edit, h, c) and not (edit.is_zero(h) and edit.is_zero(c)):
            yield node


def _is_same(file: Stored, edit: Edit, one: str, other: str) -> bool:
    """Whether two values are equal numbers, or are taken alike from the same values."""
    if one == other:
        return True
    if one in file.arrays and other in file.arrays:
        return np.array_equal(file.arrays[one], file.arrays[other])
    first, second = edit.maker(one), edit.maker(other)
    return (
        first is not None
        and second is not None
        and first.op_type == second.op_type in _ARRANGING
        and list(first.attribute) == list(second.attribute)
        and list(first.output).index(one) == list(second.output).index(other)
        and len(first.input) == len(second.input)
        and all(itertools.starmap(partial(_is_same, file, edit), zip(first.input, second.input, strict=True)))
    )


def _numbers(
    arrays: Mapping[str, np.ndarray], names: list[str], change: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[str, _Change]]:
    """Each of `names` that the change affects, with it: a weight with a single input stays the same when shifted."""

    def apply(file: Stored, name: str) -> None:
        file.arrays[name] = np.ascontiguousarray(change(file.arrays[name]))

    changed = [name for name in names if not np.array_equal(change(arrays[name]), arrays[name], equal_nan=True)]
    return [(name, partial(apply, name=name)) for name in changed]


def _gates(
    file: Stored, rewritten: Rewritten, change: Callable[..., None], *, squares: bool
) -> Iterator[tuple[str, _Change]]:
    """Changes of the weights of each recurrent layer; with `squares`, only of weights that are squares side by side."""
    for layer in rewritten.layers:
        hidden = layer.hidden_size
        for name, array in file.arrays.items():
            own = name.startswith(tuple(f"{weight}/" for weight in layer.weights)) and name.endswith(_INTEGERS)
            if own and array.dtype == np.int8 and array.ndim == 2:
                rows, columns = array.shape
                gates = columns // hidden
                made = partial(change, name=name, hidden=hidden)
                if hidden > 1 and (rows == hidden if squares else gates > 1) and _changes(file, made):
                    yield name, made


def _changes(file: Stored, change: _Change) -> bool:
    """Whether a change of numbers changes any: gates with the same weights may be exchanged."""
    changed = Stored(file.model, dict(file.arrays))
    change(changed)
    return any(not np.array_equal(array, file.arrays[name]) for name, array in changed.arrays.items())


def _gates_exchanged(file: Stored, name: str, hidden: int) -> None:
    for one in (name, name.removesuffix(_INTEGERS) + _SCALE):
        parts = np.split(file.arrays[one], file.arrays[one].shape[-1] // hidden, axis=-1)
        file.arrays[one] = np.ascontiguousarray(np.concatenate([parts[1], parts[0], *parts[2:]], axis=-1))


def _transposed(file: Stored, name: str, hidden: int) -> None:
    parts = np.split(file.arrays[name], file.arrays[name].shape[-1] // hidden, axis=-1)
    file.arrays[name] = np.ascontiguousarray(np.concatenate([part.T for part in parts], axis=-1))


def _shifted(array: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Rolled along the first axis of `axes`; along the second where the weight is in blocks, which are uint8."""
    return np.roll(array, 1, axis=axes[array.dtype == np.uint8])


def _ignored(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, ZERO_POINT if array.dtype == np.uint8 else 0)


def _nudged(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed[np.unravel_index(changed.size // 2, changed.shape)] ^= 1
    return changed


def _at_largest(array: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    changed = array.copy()
    place = np.unravel_index(int(np.abs(array).argmax()), array.shape)
    changed[place] = change(changed[place])
    return changed


def _next(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.nextafter(value, np.float32(np.inf)))


def _node(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in nodes_of(model.graph.node) if node.name == name)


def _reversed(file: Stored, name: str) -> None:
    node = _node(file.model, name)
    inputs = attributes_of(node)["num_scan_inputs"]
    outputs = len(node.output) - (len(node.input) - inputs)
    for end, count in (("scan_input_directions", inputs), ("scan_output_directions", outputs)):
        directions = attributes_of(node).get(end) or [0] * count
        set_attribute(node, end, [1 - direction for direction in directions])


def _crossed(file: Stored, name: str) -> None:
    node = _node(file.model, name)
    node.input[0], node.input[1] = node.input[1], node.input[0]
