"""Why a file differs: each of the known mistakes is made on PyTorch's side, in float64, and where the file's
numbers come out, that is the cause.

So a cause is found by evidence and not by a guess; what cannot be made on PyTorch's side is told by
which sizes run, by the file's operators and by the size of the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ..spec import LSTMSpec
from ..weights import StateDict
from .criterion import compare
from .expected import Expected
from .reference import Outputs, run_torch
from .report import Cause
from .sweep import Case

_GATES = "ifgo"
"""PyTorch's order."""
_RELEVANT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Hypothesis:
    """A mistake: what it is, how to mend it, and the LSTM that makes it, as a function of a case.

    `weights` changes the parameters, by nn.LSTM's names; `run` is how the changed LSTM is called.
    """

    name: str
    fix: str
    weights: Callable[[StateDict], StateDict] = dict
    run: Callable[[nn.LSTM, Case], Outputs] = run_torch


def explains(predicted: Outputs, actual: Mapping[str, np.ndarray], expected: Expected) -> bool:
    """Whether a file's outputs are within the criterion of `predicted`, with PyTorch's own error in the right case."""
    call = expected.calls[0]
    for name, values in predicted.items():
        if name not in actual or values.shape != call.reference[name].shape:
            return False
        own = values + (call.own[name] - call.reference[name])
        result = compare(name, actual[name], own, values, dtype=expected.dtype, scale=max(1.0, expected.scale))
        if not result.passed:
            return False
    return True


def hypotheses(spec: LSTMSpec, layer: int | None) -> Iterator[Hypothesis]:
    """The catalogue for a bare LSTM: mistakes in all layers, and then in the one that was found to be wrong."""
    yield from _weight_hypotheses(spec.num_directions, None)
    if spec.num_layers > 1 and layer is not None:
        yield from _weight_hypotheses(spec.num_directions, layer)
    yield from _state_hypotheses(spec)
    yield Hypothesis(
        "direction",
        "the graph runs over time from the last step to the first; set the operator's direction",
        run=_backwards,
    )
    yield Hypothesis("lengths ignored", "feed the lengths to the operator's sequence_lens", run=_without_lengths)
    yield Hypothesis(
        "lengths in the reverse direction",
        "each sequence's reverse pass must start at its own end: feed sequence_lens, or use ReverseSequence",
        run=_reversed_from_the_padding,
    )


def _weight_hypotheses(directions: int, layer: int | None) -> Iterator[Hypothesis]:
    """Mistakes in the weights, of all layers or of one."""
    where = "" if layer is None else f" of layer {layer}"

    def chosen(name: str) -> bool:
        return name.startswith(_RELEVANT) and (layer is None or f"_l{layer}" in name)

    def changed(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[StateDict], StateDict]:
        return lambda state: {name: change(name, array) if chosen(name) else array for name, array in state.items()}

    for order in itertools.permutations(range(len(_GATES))):
        if order == (0, 1, 2, 3):
            continue
        said = ",".join(_GATES[gate] for gate in order)
        yield Hypothesis(
            f"gate order{where}",
            f"the file reads the rows of torch's i,f,g,o as {said}; ONNX wants i,o,f,c",
            changed(lambda _, array, order=order: _reordered(array, order)),  # type: ignore[misc]
        )
    for name, zero in (("bias_ih", ("bias_ih",)), ("bias_hh", ("bias_hh",)), ("both biases", ("bias_ih", "bias_hh"))):
        yield Hypothesis(
            f"missing bias{where}: {name}",
            "B is the two biases end to end, reordered as W is",
            changed(lambda own, array, zero=zero: np.zeros_like(array) if own.startswith(zero) else array),  # type: ignore[misc]
        )
    yield Hypothesis(
        f"bias twice{where}",
        "B is the two biases end to end; their sum belongs into one half alone",
        changed(lambda own, array: array * 2 if own.startswith("bias") else array),
    )
    yield Hypothesis(
        f"R transposed{where}",
        "R is weight_hh as torch keeps it, with its gates reordered",
        changed(lambda own, array: _transposed(array) if own.startswith("weight_hh") else array),
    )
    for kind in ("float16", "bfloat16"):
        yield Hypothesis(
            f"weights in {kind}{where}",
            f"the weights went through {kind}; export from float32 weights",
            changed(lambda _, array, kind=kind: _rounded(array, kind)),  # type: ignore[misc]
        )
    if directions == 2:
        yield Hypothesis(
            f"directions exchanged{where}",
            "the forward weights come first in W, R and B, and then the reverse ones",
            lambda state: _exchanged_directions(state, chosen),
        )


def _reordered(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    blocks = np.split(array, len(_GATES), axis=0)
    return np.concatenate([blocks[gate] for gate in order], axis=0)


def _transposed(array: np.ndarray) -> np.ndarray:
    blocks = np.split(array, len(_GATES), axis=0)
    if blocks[0].shape[0] != blocks[0].shape[1]:
        return array
    return np.concatenate([block.T for block in blocks], axis=0)


def _rounded(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "float16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(array.dtype)
    # bfloat16 is the upper half of a float32, rounded to the nearest even.
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(array.dtype)


def _exchanged_directions(state: StateDict, chosen: Callable[[str], bool]) -> StateDict:
    def other(name: str) -> str:
        return name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse"

    return {name: state[other(name)] if chosen(name) else array for name, array in state.items()}


def _state_hypotheses(spec: LSTMSpec) -> Iterator[Hypothesis]:
    def with_states(
        change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> Callable[[nn.LSTM, Case], Outputs]:
        def run(module: nn.LSTM, case: Case) -> Outputs:
            return run_torch(module, case if case.states is None else replace(case, states=change(*case.states)))

        return run

    def finals(change: Callable[[Outputs], Outputs]) -> Callable[[nn.LSTM, Case], Outputs]:
        return lambda module, case: change(run_torch(module, case))

    feed = "feed the operator's initial_h and initial_c from h0 and c0"
    yield Hypothesis("states ignored: h0", feed, run=with_states(lambda h, c: (h * 0, c)))
    yield Hypothesis("states ignored: c0", feed, run=with_states(lambda h, c: (h, c * 0)))
    yield Hypothesis("states ignored: h0 and c0", feed, run=with_states(lambda h, c: (h * 0, c * 0)))
    if not spec.proj_size:
        yield Hypothesis("state order: h0 and c0 exchanged", "h comes before c", run=with_states(lambda h, c: (c, h)))
        yield Hypothesis(
            "state order: hn and cn exchanged",
            "Y_h is the operator's second output, Y_c its third",
            run=finals(lambda out: {**out, "hn": out["cn"], "cn": out["hn"]}),
        )
    rows = spec.num_layers * spec.num_directions
    orders = {"the layers in reverse": np.arange(rows).reshape(spec.num_layers, -1)[::-1].reshape(-1)}
    if spec.bidirectional:
        orders["the directions exchanged"] = np.arange(rows).reshape(-1, 2)[:, ::-1].reshape(-1)
        orders["by direction and then by layer"] = np.arange(rows).reshape(-1, 2).T.reshape(-1)
    right = "states are by layer and then by direction, as in nn.LSTM"
    for said, order in orders.items():
        if np.array_equal(order, np.arange(rows)):
            continue
        yield Hypothesis(
            f"state order: h0 and c0 with {said}",
            right,
            run=with_states(lambda h, c, o=order: (h[o], c[o])),  # type: ignore[misc]
        )
        yield Hypothesis(
            f"state order: hn and cn with {said}",
            right,
            run=finals(lambda out, o=order: {**out, "hn": out["hn"][o], "cn": out["cn"][o]}),  # type: ignore[misc]
        )
        for name in ("hn", "cn"):
            yield Hypothesis(
                f"state order: {name} with {said}",
                right,
                run=finals(lambda out, o=order, name=name: {**out, name: out[name][o]}),  # type: ignore[misc]
            )


def _backwards(module: nn.LSTM, case: Case) -> Outputs:
    axis = 1 if module.batch_first else 0
    outputs = run_torch(module, replace(case, input=np.flip(case.input, axis).copy()))
    return {**outputs, "output": np.flip(outputs["output"], axis)}


def _without_lengths(module: nn.LSTM, case: Case) -> Outputs:
    return run_torch(module, replace(case, lengths=None))


def _reversed_from_the_padding(module: nn.LSTM, case: Case) -> Outputs:
    """The forward direction by lengths, the reverse one from the padded end."""
    right, whole = run_torch(module, case), _without_lengths(module, case)
    if not module.bidirectional or case.lengths is None:
        return whole
    half = right["output"].shape[-1] // 2
    output = right["output"].copy()
    output[..., half:] = whole["output"][..., half:]
    mixed = {"output": output}
    for name in ("hn", "cn"):
        mixed[name] = right[name].copy()
        mixed[name][1::2] = whole[name][1::2]
    return mixed


def baked_sizes(passed: Sequence[Mapping[str, int]], failed: Sequence[Mapping[str, int]]) -> Iterator[Cause]:
    """Axes of which one size alone works, by the sizes of the cases that ran and of those that did not."""
    for axis in {name: None for sizes in failed for name in sizes}:
        works = {sizes[axis] for sizes in passed if axis in sizes}
        fails = {sizes[axis] for sizes in failed if axis in sizes}
        if len(works) == 1 and not works & fails:
            size = works.pop()
            yield Cause(
                f"baked shape: {axis}",
                f"it runs where {axis} is {size}, and not where it is {', '.join(map(str, sorted(fails)))}",
                f"lstm-onnx check says where a size of {axis} is written into the file; export it with that axis open",
            )
