"""Finds the recurrent operator that computes a step, by trying the operators' forms on the step's own matrices.

The matrices and biases of a step are those that its products and sums read.  The order of the gates in them, and the
form of the cell, are not read from the graph: each possibility is computed, and must give the step's results on random
numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from ..errors import LSTMOnnxError
from ..onnxgraph import attributes_of, bodies_of, typed
from ..onnxgraph.compute import computed
from ..onnxgraph.recurrent import GATES
from .steps import Step

Array = np.ndarray[Any, Any]
_BATCH = 3
_NEAR = 1e-5
"""The largest difference from the step's results, relative to their largest number, or to 1 if that is larger."""

_ROWS, _LEAST = 64, 1e-4
_SIZES = ((1.0, 1.0), (2.0, 1.0), (4.0, 1.0), (30.0, 1.0), (1000.0, 1.0), (1.0, 1000.0))
"""Random inputs at which piecewise functions differ, and limits are reached: the number of rows, the least size of a
gate's argument, and mean sizes of the gates (for other activations the smallest), with the factor of an LSTM's c."""
_EXACT = ("Equal", "IsInf", "IsNaN")
"""Conditions that no random number meets, such as that of a mask inside the step."""
_HARD_SIGMOIDS = ((0.2, 0.5), (float(np.float32(1 / 6)), 0.5))
"""Slope and offset of HardSigmoid in Keras 2, and in Keras 3 and PyTorch."""


@dataclass(frozen=True)
class Cell:
    """A recurrent operator of one direction.

    Attributes:
        op_type: "LSTM", "GRU" or "RNN".
        W, R, B: in the operator's form, with one direction.
        h: the index of the step's state that is h; the other state of an LSTM is c.
        attributes: of the operator.
    """

    op_type: str
    W: Array
    R: Array
    B: Array | None
    h: int
    attributes: dict[str, Any]


def cell_of(step: Step, opset: int) -> Cell | None:
    """The operator that computes a step; None where none does."""
    step = _folded(step, opset)
    products = _products(step)
    if products is None or any(node.op_type in _EXACT for node in step.nodes):
        return None
    width = products.R.shape[0]
    gates = products.R.shape[1] // width if width else 0
    kinds = {1: {3: "GRU", 1: "RNN"}, 2: {4: "LSTM"}}.get(len(step.states), {})
    if gates not in kinds or products.R.shape[1] != gates * width or products.W.shape[1] != gates * width:
        return None
    x, states = _drawn(step, _BATCH, products.W.shape[0], width, seed=0)
    wanted = _run(step, x, states, opset, np.ones((_BATCH, 1), bool) if step.mask else None)
    if wanted is None or (step.mask and not _keeps_masked(step, x, states, wanted, opset)):
        return None
    for cell in _candidates(kinds[gates], products, width):
        if _gives(cell, x, states, wanted) and _saturates(cell, step, opset):
            return cell if not step.zeroed or _zeroes_masked(step, x, states, wanted[cell.h], opset) else None
    return None


def _drawn(step: Step, rows: int, features: int, width: int, *, seed: int) -> tuple[Array, list[Array]]:
    """A random x and random states of a step."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features)).astype(np.float32)
    return x, [rng.uniform(-0.9, 0.9, (rows, width)).astype(np.float32) for _ in step.states]


def _gives(cell: Cell, x: Array, states: list[Array], wanted: list[Array], size: float = 1.0) -> bool:
    """Whether an operator gives the next states `wanted`, in its order, for gates or c of a size."""
    order = [cell.h, 1 - cell.h][: len(states)]
    found = next_states(cell, x, states[order[0]], states[order[-1]])
    return all(
        np.abs(mine - wanted[at]).max() <= _NEAR * max(size, np.abs(wanted[at]).max())
        for mine, at in zip(found, order, strict=True)
    )


def _saturates(cell: Cell, step: Step, opset: int) -> bool:
    """Whether the step equals the operator at gates and states of every size.

    Near 0, other functions are similar, and no limit is reached, such as that of clipped gates or of a clipped c.
    """
    x, drawn = _drawn(step, _ROWS, cell.W.shape[2], cell.R.shape[2], seed=1)
    gates = np.abs(x @ cell.W[0].T).mean(axis=0)
    usual = "activations" not in cell.attributes or cell.op_type == "RNN"
    typical = np.median(gates[gates > 0]) if usual and gates.any() else gates.min()
    if typical < _LEAST and not usual:
        return False
    for size, factor in _SIZES:
        large = x * np.float32(size / typical) if typical else x
        states = [state * np.float32(1 if at == cell.h else factor) for at, state in enumerate(drawn)]
        wanted = _run(step, large, states, opset, np.ones((_ROWS, 1), bool) if step.mask else None)
        if wanted is None or not _gives(cell, large, states, wanted, max(size, factor)):
            return False
    return True


@dataclass(frozen=True)
class _Products:
    """The matrices of a step, with their columns side by side: those of x and of h, and the biases of each."""

    W: Array
    R: Array
    bias_x: Array | None
    bias_h: Array | None


def _products(step: Step) -> _Products | None:
    """The matrices and biases that a step multiplies with x and with its states, and adds."""
    depends: dict[str, frozenset[str]] = {step.x: frozenset("x"), **{name: frozenset("h") for name in step.states}}
    of_x: list[Array] = []
    of_h: list[Array] = []
    biases: dict[str, list[Array]] = {"x": [], "h": []}
    for node in step.nodes:
        on = frozenset[str]().union(*(depends.get(name, frozenset()) for name in node.input))
        for name in node.output:
            depends[name] = on
        if node.op_type in ("MatMul", "Gemm") and depends.get(node.input[0]):
            matrix = _matrix(step, node)
            if matrix is None:
                return None
            (of_h if "h" in depends[node.input[0]] else of_x).append(matrix)
            if len(node.input) > 2 and node.input[2] in step.constants and step.constants[node.input[2]].size > 1:
                biases["h" if "h" in on else "x"].append(step.constants[node.input[2]])
        elif node.op_type == "Add" and on:
            stored = [step.constants[name] for name in node.input if name in step.constants]
            biases["h" if on == {"h"} else "x"] += [item for item in stored if item.size > 1]
    if not of_x or not of_h or len({item.shape[0] for item in of_h}) > 1 or len({item.shape[0] for item in of_x}) > 1:
        return None
    W, R = np.concatenate(of_x, axis=1), np.concatenate(of_h, axis=1)  # noqa: N806
    joined = {
        side: np.concatenate([item.reshape(-1) for item in found]) if found else None for side, found in biases.items()
    }
    if any(bias is not None and bias.size != R.shape[1] for bias in joined.values()):
        return None
    if any(array.dtype != np.float32 for array in (W, R)):
        return None
    return _Products(W, R, joined["x"], joined["h"])


def _matrix(step: Step, node: NodeProto) -> Array | None:
    stored = step.constants.get(node.input[1])
    if stored is None or stored.ndim != 2:
        return None
    attributes = attributes_of(node)
    if node.op_type == "Gemm" and (attributes.get("alpha", 1.0) != 1.0 or typed(attributes, "transA", int)):
        return None
    return stored.T if node.op_type == "Gemm" and typed(attributes, "transB", int) else stored


def _candidates(op_type: str, products: _Products, width: int) -> Iterator[Cell]:
    """Every order of the gates and every form of the cell, the likely ones first."""
    gates = GATES[op_type]
    orders = list(itertools.permutations(range(gates)))
    forms: list[dict[str, Any]] = [{}]
    if op_type == "GRU":
        forms = [{"linear_before_reset": 1}, {"linear_before_reset": 0}]
    elif op_type == "RNN":
        forms = [{"activations": ["Tanh"]}, {"activations": ["Relu"]}]
    others = [] if op_type == "RNN" else [form | own for own in _activations(op_type) for form in forms]
    states = (0, 1) if op_type == "LSTM" else (0,)
    equal = [(order, order) for order in orders]
    pairs = equal + [(a, b) for a in orders for b in orders if a != b]
    tried = itertools.chain(
        itertools.product(pairs, forms, states, (False, True)), itertools.product(equal, others, states, (False, True))
    )
    for (order_x, order_h), form, h, negated in tried:
        if negated and op_type != "GRU":
            continue
        W, R, B = _ordered(products, width, order_x, order_h)  # noqa: N806
        if negated:  # sigmoid(-z) = 1 - sigmoid(z): the cell keeps h by 1 - z
            signs = np.ones(gates * width, np.float32)
            signs[:width] = -1
            W, R = W * signs[:, None], R * signs[:, None]  # noqa: N806
            B = None if B is None else B * np.concatenate([signs, signs])  # noqa: N806
        yield Cell(op_type, W[None], R[None], None if B is None else B[None], h, form)


def _activations(op_type: str) -> Iterator[dict[str, Any]]:
    """Attributes of an LSTM or a GRU with other activations than the default ones."""
    count = 2 if op_type == "LSTM" else 1
    gates: list[tuple[str, list[float], list[float]]] = [("Sigmoid", [], [])]
    gates += [("HardSigmoid", [alpha], [beta]) for alpha, beta in _HARD_SIGMOIDS]
    for (gate, alphas, betas), new in itertools.product(gates, _NEW):
        if (gate, new) == ("Sigmoid", "Tanh"):
            continue
        named = {"activation_alpha": alphas, "activation_beta": betas}
        yield {"activations": [gate, *[new] * count], **{name: value for name, value in named.items() if value}}


def _ordered(
    products: _Products, width: int, order_x: tuple[int, ...], order_h: tuple[int, ...]
) -> tuple[Array, Array, Array | None]:
    def rows(array: Array, order: tuple[int, ...]) -> Array:
        return np.concatenate([array[gate * width : (gate + 1) * width] for gate in order])

    W, R = rows(products.W.T, order_x), rows(products.R.T, order_h)  # noqa: N806
    if products.bias_x is None and products.bias_h is None:
        return W, R, None
    none = np.zeros(len(W), np.float32)
    bias_x = none if products.bias_x is None else rows(products.bias_x, order_x)
    bias_h = none if products.bias_h is None else rows(products.bias_h, order_h)
    return W, R, np.concatenate([bias_x, bias_h])


def next_states(cell: Cell, x: Array, h: Array, c: Array) -> list[Array]:
    """One step of ONNX's operator in float64: the new h and, for an LSTM, the new c."""
    width = h.shape[1]
    W, R = cell.W[0].astype(np.float64), cell.R[0].astype(np.float64)  # noqa: N806
    both = np.zeros((2, len(W))) if cell.B is None else cell.B[0].astype(np.float64).reshape(2, -1)
    of_x, of_h = x @ W.T + both[0], h @ R.T + both[1]
    if cell.op_type == "RNN":
        total = of_x + of_h
        return [np.tanh(total) if cell.attributes["activations"] == ["Tanh"] else np.maximum(total, 0)]
    gate, new = _functions(cell)
    if cell.op_type == "GRU":
        z, r = (gate(of_x[:, at] + of_h[:, at]) for at in (slice(0, width), slice(width, 2 * width)))
        last = slice(2 * width, 3 * width)
        if cell.attributes["linear_before_reset"]:
            found = new(of_x[:, last] + r * of_h[:, last])
        else:
            found = new(of_x[:, last] + (r * h) @ R[last].T + both[1][last])
        return [(1 - z) * found + z * h]
    i, o, f, g = np.split(of_x + of_h, 4, axis=1)
    c = gate(f) * c + gate(i) * new(g)
    return [gate(o) * new(c), c]


def _sigmoid(x: Array) -> Array:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


_NEW: dict[str, Callable[[Array], Array]] = {
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
}
"""The activations of the candidate."""


def _functions(cell: Cell) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """The activations of the gates and of the candidate."""
    first, second, *_ = cell.attributes.get("activations") or ["Sigmoid", "Tanh"]
    if first == "Sigmoid":
        return _sigmoid, _NEW[second]
    alpha, beta = cell.attributes["activation_alpha"][0], cell.attributes["activation_beta"][0]
    return lambda x: np.clip(alpha * x + beta, 0, 1), _NEW[second]


def _folded(step: Step, opset: int) -> Step:
    """The step with everything that it computes only from stored values as stored values."""
    found = constant_values(step.nodes, step.constants, opset)
    nodes = [node for node in step.nodes if not found.keys() & set(node.output)]
    return replace(step, nodes=nodes, constants={**step.constants, **found})


def constant_values(nodes: list[NodeProto], constants: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """The values that nodes compute only from stored values."""
    constant: list[NodeProto] = []
    known = set(constants)
    for node in nodes:
        if node.input and all(name in known or not name for name in node.input) and not any(bodies_of(node)):
            constant.append(node)
            known |= set(node.output)
    names = [name for node in constant for name in node.output if name]
    return _computed(constant, constants, {}, names, opset) if names else {}


def _keeps_masked(step: Step, x: Array, states: list[Array], unmasked: list[Array], opset: int) -> bool:
    """Whether masked rows keep their states, and the others get the same as without a mask."""
    mask = np.arange(_BATCH)[:, None] % 2 == 0
    found = _run(step, x, states, opset, mask)
    return found is not None and all(
        np.allclose(item, np.where(mask, after, before), rtol=0, atol=_NEAR)
        for item, after, before in zip(found, unmasked, states, strict=True)
    )


def _zeroes_masked(step: Step, x: Array, states: list[Array], unmasked: Array, opset: int) -> bool:
    """Whether a step gives zeros for masked rows, and its state for the others."""
    mask = np.arange(_BATCH)[:, None] % 2 == 0
    found = _run(replace(step, after=(*step.after, step.zeroed)), x, states, opset, mask)
    return found is not None and np.allclose(found[-1], np.where(mask, unmasked, 0), rtol=0, atol=_NEAR)


def _run(step: Step, x: Array, states: list[Array], opset: int, mask: Array | None = None) -> list[Array] | None:
    """The states after the step, in order; None where it cannot be run separately."""
    feeds = dict(zip((step.x, *step.states), (x, *states), strict=True))
    if mask is not None:
        feeds[step.mask] = mask
    feeds |= {name: np.zeros_like(states[0]) for name in step.zeros if name not in feeds}
    found = _computed(step.nodes, step.constants, feeds, list(dict.fromkeys(step.after)), opset)
    results = [found[name] for name in step.after] if found else []
    return results if results and all(item.shape == states[0].shape for item in results) else None


def _computed(
    nodes: list[NodeProto], constants: Mapping[str, Array], feeds: dict[str, Array], names: list[str], opset: int
) -> dict[str, Array]:
    """The values that nodes compute in ONNX Runtime; empty where it does not run them."""
    try:
        return computed(nodes, constants, feeds, names, [helper.make_opsetid("", opset)])
    except LSTMOnnxError:
        return {}
