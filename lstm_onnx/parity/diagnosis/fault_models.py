"""Models of known faults: each is applied to PyTorch in float64, and is the cause if that gives the file's numbers.

So a cause is based on evidence, not on a guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...exporter.weights import StateDict
from ...spec import LSTMSpec
from ..expected import Arrays

Run = Callable[[Any, Arrays], Arrays]
"""A module, run on a file's inputs; it gives the file's outputs."""
Around = Callable[[Run], Run]
_GATES = "ifgo"
"""PyTorch's order."""
_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class FaultModel:
    """A mistake: its name, its fix, and how to apply it to a module.

    `weights` changes the parameters, by nn.LSTM's names; `around` changes how the module is called, or one `layer` of
    it: it wraps a run, which may itself have faults, so that several can be combined.
    """

    name: str
    fix: str
    weights: Callable[[StateDict], StateDict] = dict
    around: Around | None = None
    layer: int | None = None


def fault_models(spec: LSTMSpec, layer: int | None, direction: int | None) -> Iterator[FaultModel]:
    """The catalogue for a bare LSTM: mistakes in all layers, then in the layer and direction that differ first."""
    yield from weight_faults(spec, None, None)
    yield from _state_faults(spec, None)
    yield from _order_faults(spec)
    yield from _time_faults(spec)
    if spec.num_layers > 1 and layer is not None:
        yield from weight_faults(spec, layer, None)
        yield from _state_faults(spec, layer)
        for one in _time_faults(spec):
            yield replace(one, name=f"{one.name} in layer {layer}", layer=layer)
    if spec.num_directions > 1 and layer is not None and direction is not None:
        yield from weight_faults(spec, layer, direction)


def weight_faults(spec: LSTMSpec, layer: int | None, direction: int | None) -> Iterator[FaultModel]:
    """Mistakes in the weights of all layers or of one, in both directions or in one."""
    where = "" if layer is None else f" of layer {layer}"
    where += "" if direction is None else (", forward", ", reverse")[direction]

    def chosen(name: str) -> bool:
        base = name.removesuffix("_reverse")
        return (
            name.startswith(_WEIGHTS)
            and (layer is None or base.endswith(f"_l{layer}"))
            and (direction is None or direction == (base != name))
        )

    def changed(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[StateDict], StateDict]:
        return lambda state: {name: change(name, array) if chosen(name) else array for name, array in state.items()}

    def only(kinds: tuple[str, ...], change: Callable[[np.ndarray], np.ndarray]) -> Callable[[StateDict], StateDict]:
        return changed(lambda name, array: change(array) if name.startswith(kinds) else array)

    if spec.bias:
        for label, zeros in (("bias_ih", "bias_ih"), ("bias_hh", "bias_hh"), ("both", "bias")):
            fix = "B is the two biases end to end, reordered as W is"
            yield FaultModel(f"missing bias{where}: {label}", fix, only((zeros,), np.zeros_like))
        fix = "B is the two biases end to end; their sum belongs in one of the halves"
        yield FaultModel(f"bias twice{where}", fix, only(("bias",), lambda array: array * 2))
    if spec.state_size == spec.hidden_size:
        fix = "R is weight_hh as torch keeps it, with its gates reordered"
        yield FaultModel(f"R transposed{where}", fix, only(("weight_hh",), _transposed))
    if spec.num_directions == 2 and direction is None:
        fix = "the forward weights come first in W, R and B, and then the reverse ones"
        yield FaultModel(f"direction{where}: the two exchanged", fix, lambda state: _exchanged(state, chosen))
    for order in itertools.permutations(range(len(_GATES))):
        if order != (0, 1, 2, 3):
            label = ",".join(_GATES[gate] for gate in order)
            fix = f"the rows of W, R and B are read as {label} of torch's i,f,g,o; ONNX wants i,o,f,c"
            yield FaultModel(f"gate order{where}: {label}", fix, changed(_reorder(order)))
    for kind, through in (("float16", _as_float16), ("bfloat16", lambda array: rounded(array, 7))):
        fix = f"the weights went through {kind}; export from the ones that the module has"
        yield FaultModel(f"rounded weights{where}: {kind}", fix, only(_WEIGHTS, through))


def _reorder(order: tuple[int, ...]) -> Callable[[str, np.ndarray], np.ndarray]:
    def change(_: str, array: np.ndarray) -> np.ndarray:
        blocks = np.split(array, len(_GATES), axis=0)
        return np.concatenate([blocks[gate] for gate in order], axis=0)

    return change


def _transposed(array: np.ndarray) -> np.ndarray:
    return np.concatenate([block.T for block in np.split(array, len(_GATES), axis=0)], axis=0)


@np.errstate(over="ignore")
def _as_float16(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(array.dtype)


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    """float64 rounded, half to even, to a fraction of `bits` bits, with float32's exponents."""
    words = array.astype(np.float32).view(np.uint32)
    dropped = np.uint32(23 - bits)
    odd = (words >> dropped) & np.uint32(1)
    words = words + (np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1) + odd
    words &= ~np.uint32((1 << int(dropped)) - 1)
    return words.view(np.float32).astype(array.dtype)


def _exchanged(state: StateDict, chosen: Callable[[str], bool]) -> StateDict:
    def other(name: str) -> str:
        return name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse"

    return {name: state[other(name)] if chosen(name) else array for name, array in state.items()}


def _state_faults(spec: LSTMSpec, layer: int | None) -> Iterator[FaultModel]:
    where = "" if layer is None else f" of layer {layer}"
    affected = np.repeat([layer in (None, one) for one in range(spec.num_layers)], spec.num_directions)[:, None, None]
    fix = "feed the operator's initial_h and initial_c from h0 and c0"
    for names in (("h0",), ("c0",), ("h0", "c0")):
        label = " and ".join(names)
        yield FaultModel(f"states ignored{where}: {label}", fix, around=changed_inputs(zeroed(names, affected)))
    if not spec.proj_size:
        fix = "the operator's inputs are initial_h and then initial_c"
        start = changed_inputs(swapped("h0", "c0", affected))
        yield FaultModel(f"state order{where}: h0 and c0 exchanged", fix, around=start)
        fix = "Y_h is the operator's second output, Y_c its third"
        end = _final(swapped("hn", "cn", affected))
        yield FaultModel(f"state order{where}: hn and cn exchanged", fix, around=end)


def _order_faults(spec: LSTMSpec) -> Iterator[FaultModel]:
    fix = "states are by layer and then by direction, as in nn.LSTM"
    for label, order in _orders(spec):
        for change, h, c in ((changed_inputs, "h0", "c0"), (_final, "hn", "cn")):
            for names in ((h, c), (h,), (c,)):
                around = change(_permuted(order, names))
                yield FaultModel(f"state order: {' and '.join(names)}, {label}", fix, around=around)


def _orders(spec: LSTMSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Wrong orders of the L*D states."""
    right = np.arange(spec.num_layers * spec.num_directions)
    table = right.reshape(spec.num_layers, -1)
    orders = {"the layers in reverse": table[::-1].reshape(-1)}
    if spec.bidirectional:
        orders["the directions exchanged"] = table[:, ::-1].reshape(-1)
        orders["by direction and then by layer"] = table.T.reshape(-1)
    for first, second in itertools.combinations(range(len(right)), 2):
        if len(right) <= _MOST_STATES:
            swapped = right.copy()
            swapped[[first, second]] = swapped[[second, first]]
            orders[f"{first} and {second} exchanged"] = swapped
    seen = [right]
    for name, order in orders.items():
        if not any(np.array_equal(order, one) for one in seen):
            seen.append(order)
            yield name, order


_MOST_STATES = 8
"""The largest L*D for which every pair of states is tried."""


Change = Callable[[Arrays], Arrays]
"""The changed inputs or outputs of a module, by name."""


def zeroed(names: Sequence[str], rows: np.ndarray | bool = True) -> Change:
    """Zeros in place of the given ones of `names`, or in some of their rows."""
    return lambda arrays: {
        name: np.where(rows, 0, arrays[name]).astype(arrays[name].dtype) for name in names if name in arrays
    }


def swapped(first: str, second: str, rows: np.ndarray | bool = True) -> Change:
    """Two arrays of one shape exchanged, or some of their rows."""

    def change(arrays: Arrays) -> Arrays:
        one, other = arrays.get(first), arrays.get(second)
        if one is None or other is None or one.shape != other.shape:
            return {}
        return {first: np.where(rows, other, one), second: np.where(rows, one, other)}

    return change


def _permuted(order: np.ndarray, names: tuple[str, ...]) -> Change:
    return lambda arrays: {name: arrays[name][order] for name in names if name in arrays}


def changed_inputs(change: Change) -> Around:
    """Change some of the inputs."""
    return lambda run: lambda module, feeds: run(module, {**feeds, **change(feeds)})


def _final(change: Change) -> Around:
    """Change some of the outputs."""

    def around(run: Run) -> Run:
        def changed(module: Any, feeds: Arrays) -> Arrays:
            outputs = run(module, feeds)
            return {**outputs, **change(outputs)}

        return changed

    return around


def _time_faults(spec: LSTMSpec) -> Iterator[FaultModel]:
    axis = 1 if spec.batch_first else 0
    fix = "the graph runs from the last step to the first; set the operator's direction"
    backwards, output = changed_inputs(_flipped("input", axis)), _final(_flipped("output", axis))
    yield FaultModel("direction: time runs backwards", fix, around=lambda run: output(backwards(run)))
    fix = "the output runs from the last step to the first; leave it as the operator gives it"
    yield FaultModel("direction: the output is reversed in time", fix, around=output)
    fix = "feed the lengths to the operator's sequence_lens"
    yield FaultModel("lengths ignored", fix, around=_without_lengths)
    if spec.bidirectional:
        fix = "a reverse pass must start at its sequence's own end: feed sequence_lens, or use ReverseSequence"
        yield FaultModel("lengths ignored in the reverse direction", fix, around=_reversed_from_the_padding)

    fix = "lengths are int32 counts of steps, as pack_padded_sequence takes them"
    for label, by in (("small", -1), ("large", 1)):
        yield FaultModel(f"lengths one too {label}", fix, around=changed_inputs(_other_lengths(axis, by)))


def _flipped(name: str, axis: int) -> Change:
    return lambda arrays: {name: np.flip(arrays[name], axis).copy()}


def _other_lengths(time_axis: int, by: int) -> Change:
    def change(feeds: Arrays) -> Arrays:
        shape = feeds["input"].shape
        lengths = feeds.get("lengths", np.full(shape[1 - time_axis], shape[time_axis]))
        return {"lengths": np.clip(lengths + by, 1, shape[time_axis]).astype(np.int32)}

    return change


def _without_lengths(run: Run) -> Run:
    return lambda module, feeds: run(module, {name: array for name, array in feeds.items() if name != "lengths"})


def _reversed_from_the_padding(run: Run) -> Run:
    """For a single layer: the forward direction with lengths, and the reverse one from the padded end."""

    def changed(module: nn.LSTM, feeds: Arrays) -> Arrays:
        right, whole = run(module, feeds), _without_lengths(run)(module, feeds)
        half = right["output"].shape[-1] // 2
        output = right["output"].copy()
        output[..., half:] = whole["output"][..., half:]
        mixed = {"output": output}
        for name in ("hn", "cn"):
            mixed[name] = right[name].copy()
            mixed[name][1::2] = whole[name][1::2]
        return mixed

    return changed


def parameters_of(module: nn.Module) -> dict[str, np.ndarray]:
    """A copy of a module's own parameters, by name."""
    return {name: value.detach().cpu().numpy().copy() for name, value in module.named_parameters(recurse=False)}


@contextmanager
def changed_parameters(module: nn.Module, right: StateDict, wrong: StateDict) -> Iterator[None]:
    """A context in which a module has the parameters `wrong` in place of its own, `right`."""
    parameters = {
        name: value for name, value in module.named_parameters(recurse=False) if wrong[name] is not right[name]
    }

    def write(state: StateDict) -> None:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))

    write(wrong)
    try:
        yield
    finally:
        write(right)


def run_with(faults: tuple[FaultModel, ...], run: Run) -> Run:
    """A run of a module with these faults, whose weights must have been changed already."""
    if any(fault.layer is not None for fault in faults):
        run = _by_layer(faults, run)
    for fault in faults:
        if fault.around is not None and fault.layer is None:
            run = fault.around(run)
    return run


def _by_layer(faults: tuple[FaultModel, ...], run: Run) -> Run:
    """Run the layers one by one, each as a separate LSTM with the mistakes in it."""

    def changed(module: nn.LSTM, feeds: Arrays) -> Arrays:
        count = 2 if module.bidirectional else 1
        x, finals = feeds["input"], []
        for layer in range(module.num_layers):
            rows = slice(layer * count, (layer + 1) * count)
            states = {name: feeds[name][rows] for name in ("h0", "c0") if name in feeds}
            own = tuple(replace(fault, layer=None) for fault in faults if fault.layer == layer)
            outputs = run_with(own, run)(_layer_of(module, layer), {**feeds, "input": x, **states})
            x = outputs["output"]
            finals.append(outputs)
        joined = {name: np.concatenate([out[name] for out in finals]) for name in ("hn", "cn")}
        return {"output": x, **joined}

    return changed


def _layer_of(module: nn.LSTM, layer: int) -> nn.LSTM:
    """One layer of an LSTM as a separate LSTM that shares its parameters."""
    names = ("hidden_size", "bias", "batch_first", "bidirectional", "proj_size")
    weights = {
        name.replace(f"_l{layer}", "_l0"): value
        for name, value in module.named_parameters()
        if name.removesuffix("_reverse").endswith(f"_l{layer}")
    }
    inputs = weights["weight_ih_l0"].shape[1]
    with torch.device("meta"):
        single = nn.LSTM(inputs, **{name: getattr(module, name) for name in names}, dtype=weights["weight_ih_l0"].dtype)
    single.load_state_dict(weights, assign=True)
    return single
