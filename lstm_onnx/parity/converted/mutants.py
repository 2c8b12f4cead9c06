"""Wrong copies of an int8 file, which its verification must reject.

A changed integer or a scale that is off by one rounding shows in the exact comparison alone; all else shows in
the layers' numbers as well, where these depend on it for the inputs of the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto, NodeProto

from ...errors import LSTMOnnxError
from ...onnxgraph import nodes_of
from ...quantization.arithmetic import ZERO_POINT
from ...quantization.probe import Probe
from ...quantization.proof import ROUNDINGS, layer_errors
from ...quantization.rewrite import Rewritten
from ...runtime import Model
from ..expected import Expected
from ..report import MutantResult
from .exact import GRAPH, STORED, Stored, compare_numbers, different_nodes
from .layers import LAYERS, complete

_Change = Callable[[Stored], None]
_INTEGERS, _SCALE, _BIAS = "/int8", "/scale", "/bias"
"""What the names of the integers, the scales and the biases of int8 layers end with."""
_REVERSED = "a direction reversed"


def int8_mutants(
    done: Rewritten, source: Stored, model: Model, expected: Expected, level: str
) -> Iterator[MutantResult]:
    """The result of each mutant: one of each kind ("quick"), or all.

    Args:
        done: the file with the layers of its source.
        source: what the file must be.
        model: the file, open.
        expected: the case on which layers are compared.
        level: "quick" or "all".
    """
    feeds = complete(model, expected.calls[0].feeds)
    original = Stored(done.model, done.initializers)
    before = Probe(done, model.path).values(feeds)
    outputs = [value.name for value in done.model.graph.output]
    for kind, judge, targets in _kinds(original, done):
        for name, change in targets if level == "all" else targets[:1]:
            mutant = Stored(ModelProto.FromString(done.model.SerializeToString()), dict(done.initializers))
            change(mutant)
            label = f"{kind} ({name})"
            wrong = replace(done, model=mutant.model, initializers=mutant.arrays)
            ratio, place = 0.0, judge
            if judge == LAYERS:
                ratio, place = _ratio(wrong, feeds), f"{judge}, {expected.label}"
            if not ratio > ROUNDINGS:  # in these numbers it does not show; a gate may be shut on every input
                ratio, place = _by_the_rest(wrong, source, feeds, before, outputs) or (ratio, place)
            outcome = _outcome(ratio > ROUNDINGS)
            if outcome == "survived" and kind == _REVERSED and _has_one_step(name, done, model, before):
                yield MutantResult(label, "equivalent", ratio, place, "its sequences have one step in any call")
                continue
            yield MutantResult(label, outcome, ratio, place)


def _has_one_step(scan: str, done: Rewritten, model: Model, values: Mapping[str, np.ndarray]) -> bool:
    """Whether the layer of a Scan has one step, and no axis of the file's inputs is open."""
    fixed = all(isinstance(dim, int) for info in model.inputs.values() for dim in info.shape)
    return fixed and any(
        scan.startswith(f"{layer.name}/") and layer.x in values and len(values[layer.x]) == 1 for layer in done.layers
    )


def _by_the_rest(
    wrong: Rewritten,
    source: Stored,
    feeds: dict[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    outputs: Sequence[str],
) -> tuple[float, str] | None:
    """The ratio and the case by which the comparison of numbers, or of nodes, rejects a mutant; None if none does."""
    if not compare_numbers(wrong.initializers, source.arrays).passed:
        return np.inf, STORED
    if different_nodes(wrong.model, source.model) and not _same(wrong, feeds, before, outputs):
        return np.inf, GRAPH
    return None


def _outcome(rejected: bool) -> str:
    return "rejected" if rejected else "survived"


def _same(
    mutant: Rewritten, feeds: dict[str, np.ndarray], before: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> bool:
    """Whether a graph with other nodes gives the same bits, with which its verification would accept it."""
    try:
        values = Probe(mutant, "a mutant").values(feeds)
    except LSTMOnnxError:
        return False
    return all(values[name].tobytes() == before[name].tobytes() for name in outputs)


def _ratio(mutant: Rewritten, feeds: dict[str, np.ndarray]) -> float:
    """The largest of any layer; infinite where it does not run or gives other shapes."""
    try:
        values = Probe(mutant, "a mutant").values(feeds)
    except LSTMOnnxError:
        return np.inf
    ratios = [layer.ratio for layer in layer_errors(mutant, values)]
    return float(max(ratios, default=0.0))


def _kinds(file: Stored, done: Rewritten) -> Iterator[tuple[str, str, list[tuple[str, _Change]]]]:
    """Each kind of mistake, the case that is to reject it, and where it can be made."""
    arrays = file.arrays
    every = [name for name, array in arrays.items() if name.endswith(_INTEGERS) and array.ndim >= 2 and array.any()]
    every_scale = [name for name in arrays if name.endswith(_SCALE) and arrays[name].size > 1]
    # Of a table only the rows that were looked up show in a layer's numbers.
    tables = {node.input[0] for node in file.model.graph.node if node.op_type == "Gather"}
    integers = [name for name in every if name not in tables]
    scales = [name for name in every_scale if name not in tables]
    biases = [name for name in arrays if name.endswith(_BIAS) and arrays[name].any()]
    points = [name for name, array in arrays.items() if array.dtype == np.uint8 and array.size == 1]
    uneven = [name for name in scales if not np.allclose(arrays[name], np.roll(arrays[name], 1), rtol=0.01)]
    yield "one integer of a weight changed by 1", STORED, _numbers(every, _nudged)
    yield "one scale changed by one rounding", STORED, _numbers(every_scale, lambda array: _at_largest(array, _next))
    yield "one scale doubled", LAYERS, _numbers(scales, lambda array: _at_largest(array, lambda value: value * 2))
    yield "scales shifted by one", LAYERS, _numbers(uneven, lambda array: np.roll(array, 1))
    yield "a weight's outputs shifted by one", LAYERS, _numbers(integers, lambda array: _shifted(array, "outputs"))
    yield "a weight's inputs shifted by one", LAYERS, _numbers(integers, lambda array: _shifted(array, "inputs"))
    for kind, change in (("gates exchanged", _gates_exchanged), ("each gate's R transposed", _transposed)):
        yield kind, LAYERS, list(_gates(file, done, change, squares=change is _transposed))
    yield "a weight ignored", LAYERS, _numbers(integers, _ignored)
    yield "a bias dropped", LAYERS, _numbers(biases, np.zeros_like)
    yield "a zero point changed by 1", LAYERS, _numbers(points, lambda array: array - array.dtype.type(1))
    scans = [node for node in file.model.graph.node if node.op_type == "Scan"]
    crossed = [node for node in scans if len(node.input) - _scanned(node) == 2 and node.input[0] != node.input[1]]
    # Of a projected layer the products are int8 layers, and its Scan is as it was.
    whole = tuple(f"{layer.name}/" for layer in done.layers)
    for judge, inside in ((LAYERS, True), (GRAPH, False)):
        reverse = [(one.name, _reversed(one.name)) for one in scans if one.name.startswith(whole) is inside]
        yield _REVERSED, judge, reverse
        exchange = [(one.name, _crossed(one.name)) for one in crossed if one.name.startswith(whole) is inside]
        yield "initial h and c exchanged", judge, exchange


def _numbers(names: list[str], change: Callable[[np.ndarray], np.ndarray]) -> list[tuple[str, _Change]]:
    def of(name: str) -> _Change:
        def apply(file: Stored) -> None:
            file.arrays[name] = np.ascontiguousarray(change(file.arrays[name]))

        return apply

    return [(name, of(name)) for name in names]


def _gates(
    file: Stored, done: Rewritten, change: Callable[[Stored, str, int], None], *, squares: bool
) -> Iterator[tuple[str, _Change]]:
    """Changes of the weights of each recurrent layer; of those alone that are squares, side by side, if `squares`."""

    def of(name: str, hidden: int) -> _Change:
        return lambda file: change(file, name, hidden)

    for layer in done.layers:
        hidden = layer.hidden_size
        for name, array in file.arrays.items():
            own = name.startswith(tuple(f"{weight}/" for weight in layer.weights)) and name.endswith(_INTEGERS)
            if own and array.dtype == np.int8 and array.ndim == 2:
                rows, columns = array.shape
                gates = columns // hidden
                if hidden > 1 and (rows == hidden if squares else gates > 1):
                    yield name, of(name, hidden)


def _gates_exchanged(file: Stored, name: str, hidden: int) -> None:
    for one in (name, name.removesuffix(_INTEGERS) + _SCALE):
        parts = np.split(file.arrays[one], file.arrays[one].shape[-1] // hidden, axis=-1)
        file.arrays[one] = np.ascontiguousarray(np.concatenate([parts[1], parts[0], *parts[2:]], axis=-1))


def _transposed(file: Stored, name: str, hidden: int) -> None:
    parts = np.split(file.arrays[name], file.arrays[name].shape[-1] // hidden, axis=-1)
    file.arrays[name] = np.ascontiguousarray(np.concatenate([part.T for part in parts], axis=-1))


def _shifted(array: np.ndarray, axis: str) -> np.ndarray:
    """Outputs are the last axis of an int8 weight and the first of one in blocks, inputs are the other one."""
    axes = (0, -1) if array.dtype == np.uint8 else (-1, -2)
    return np.roll(array, 1, axis=axes[axis == "inputs"])


def _ignored(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, ZERO_POINT if array.dtype == np.uint8 else 0)


def _nudged(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    place = np.unravel_index(changed.size // 2, changed.shape)
    changed[place] ^= 1
    return changed


def _at_largest(array: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    changed = array.copy()
    place = np.unravel_index(int(np.abs(array).argmax()), array.shape)
    changed[place] = change(changed[place])
    return changed


def _next(value: np.ndarray) -> np.ndarray:
    following: np.ndarray = np.nextafter(value, np.float32(np.inf))
    return following


def _scanned(node: NodeProto) -> int:
    return next((item.i for item in node.attribute if item.name == "num_scan_inputs"), 0)


def _node(file: Stored, name: str) -> NodeProto:
    return next(node for node in nodes_of(file.model.graph.node) if node.name == name)


def _reversed(name: str) -> _Change:
    def apply(file: Stored) -> None:
        for item in _node(file, name).attribute:
            if item.name in ("scan_input_directions", "scan_output_directions"):
                flipped = [1 - direction for direction in item.ints]
                del item.ints[:]
                item.ints.extend(flipped)

    return apply


def _crossed(name: str) -> _Change:
    def apply(file: Stored) -> None:
        node = _node(file, name)
        node.input[0], node.input[1] = node.input[1], node.input[0]

    return apply
