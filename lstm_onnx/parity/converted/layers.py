"""Compares a file's int8 layers with their emulation, and rows alone and single steps with the whole batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...quantization.probe import Probe, linear_values
from ...quantization.proof import ROUNDINGS, layer_errors
from ...quantization.recurrent import direction_outputs
from ...quantization.rewrite import Rewritten
from ...runtime import Model
from ...runtime.chunk_check import taken
from ..criterion import TensorResult
from ..expected import Expected
from ..results import CaseResult

LAYERS = "int8 layers"
"""The start of the labels of cases on int8 layers."""
_MOST_CASES = 8


def layer_cases(expected: Sequence[Expected]) -> list[Expected]:
    """The random cases on which layers are compared: ordinary sizes and numbers, whose gates do not saturate."""
    usual = [case for case in expected if case.kind == "whole" and not case.inconclusive]
    return (usual or [case for case in expected if case.kind in ("whole", "steps", "data")])[:_MOST_CASES]


def compare_layers(rewritten: Rewritten, probe: Probe, model: Model, expected: Expected) -> CaseResult:
    """Compare every int8 layer, on its inputs in one case, with its emulation."""
    feeds = model.completed(dict(expected.calls[0].feeds))
    tensors = [
        TensorResult(layer.name, layer.error, layer.rounding, layer.ratio, (), allowed=ROUNDINGS * layer.rounding)
        for layer in layer_errors(rewritten, probe.values(feeds))
        if layer.error is not None
    ]
    return CaseResult(f"{LAYERS}, {expected.label}", tuple(tensors), kind="layers")


@dataclass(frozen=True)
class RowCounts:
    """Counts rows of layers that were run alone or step by step: the same bits, other bits, or another input.

    `different` names the layers whose results had other bits.
    """

    same: int = 0
    different: tuple[str, ...] = ()
    other_input: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        """Both together."""
        names = dict.fromkeys([*self.different, *other.different])
        return RowCounts(self.same + other.same, tuple(names), self.other_input + other.other_input)


def rows_alone(rewritten: Rewritten, probe: Probe, model: Model, expected: Expected) -> RowCounts:
    """Run each row of a batch alone: every layer whose input has the same bits must give the same bits."""
    feeds = model.completed(dict(expected.calls[0].feeds))
    axes = axes_of(model, expected.batch_axes)
    batch = {feeds[name].shape[axis] for name, axis in axes.items() if name in feeds}
    if len(batch) != 1 or max(batch) < 2:
        return RowCounts()
    whole = _sequences(rewritten, [probe.values(feeds)])
    found = RowCounts()
    for row in range(max(batch)):
        found += _compared(whole, _sequences(rewritten, [probe.values(taken(feeds, axes, [row]))]))
    return found


def step_by_step(rewritten: Rewritten, probe: Probe, model: Model, expected: Expected) -> RowCounts:
    """Run a batch step by step with carried states, against one call; only for a file that streams, without lengths."""
    feeds = model.completed(dict(expected.calls[0].feeds))
    axes = axes_of(model, expected.time_axes)
    times = {feeds[name].shape[axis] for name, axis in axes.items() if name in feeds}
    counts = [feeds[spec.name] for spec in model.metadata.inputs if isinstance(spec.high, str) and spec.name in feeds]
    cut = "lengths" in feeds and bool((feeds["lengths"] != max(times, default=0)).any())
    if len(times) != 1 or max(times) < 2 or counts or cut:
        return RowCounts()
    steps = []
    states = {name: feeds[name] for name in model.states}
    for step in range(max(times)):
        own = taken(feeds, axes, [step])
        if "lengths" in feeds and "lengths" not in axes:
            own["lengths"] = np.ones_like(feeds["lengths"])
        values = probe.values({**own, **states})
        states = {name: values[output] for name, output in model.states.items()}
        steps.append(values)
    return _compared(_sequences(rewritten, [probe.values(feeds)]), _sequences(rewritten, steps))


def axes_of(model: Model, known: Mapping[str, int]) -> dict[str, int]:
    """The axis of every input along a dimension that is known for some of them, by the dimension's symbol."""
    symbols = {
        model.inputs[name].shape[axis]
        for name, axis in known.items()
        if name in model.inputs and axis < len(model.inputs[name].shape)
    }
    found = {name: axis for name, axis in known.items() if name in model.inputs}
    for name, info in model.inputs.items():
        matching = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str) and dim in symbols]
        if len(matching) == 1:
            found.setdefault(name, matching[0])
    return found


_Sequences = dict[str, dict[bytes, bytes]]
"""By layer, the outputs of each row by its inputs: the bits of both."""


def _sequences(rewritten: Rewritten, steps: Sequence[Mapping[str, np.ndarray]]) -> _Sequences:
    """Each row of each layer, over one call or several."""
    found: _Sequences = {}
    for layer in (layer for layer in rewritten.layers if not layer.caller):
        for index, backwards in enumerate(layer.reverse):
            if backwards and len(steps) > 1:
                continue  # it starts at the end, which single steps do not have
            rows = found.setdefault(f"{layer.name}/{index}", {})
            first = steps[0]
            x = np.concatenate([values[layer.x] for values in steps])
            names = direction_outputs(layer, index)
            y = np.concatenate([values[names[0]] for values in steps])
            final = [steps[-1][name] for name in names[1:]]
            starts = [first[name][index] for name in (layer.h0, layer.c0) if name]
            lengths = first[layer.lengths] if layer.lengths and len(steps) == 1 else None
            for row in range(x.shape[1]):
                key = [x[:, row], *(state[row] for state in starts)]
                length = len(x) if lengths is None else int(lengths[row])
                value = [y[..., row, :], *(state[..., row, :] for state in final)]
                rows[_bits(key) + length.to_bytes(8, "little")] = _bits(value)
    for linear in rewritten.linear:
        rows = found.setdefault(linear.name, {})
        for values in steps:
            pair = linear_values(linear, values)
            if pair is not None:
                inputs, products = (array.reshape(-1, array.shape[-1]) for array in pair)
                rows.update((_bits([one]), _bits([other])) for one, other in zip(inputs, products, strict=True))
    return found


def _bits(arrays: Sequence[np.ndarray]) -> bytes:
    """The bits of all numbers, with all NaNs alike."""
    return b"".join(np.where(np.isnan(array), np.float32(np.nan), array).tobytes() for array in arrays)


def _compared(whole: _Sequences, parts: _Sequences) -> RowCounts:
    found = RowCounts()
    for name, rows in parts.items():
        for key, value in rows.items():
            if key not in whole[name]:
                found += RowCounts(other_input=1)
            elif whole[name][key] == value:
                found += RowCounts(same=1)
            else:
                found += RowCounts(different=(name,))
    return found


def row_results(
    rewritten: Rewritten, probe: Probe, model: Model, expected: Sequence[Expected]
) -> Iterator[CaseResult | str]:
    """The cases on rows alone and on steps; and a note, as text, where a layer's inputs themselves had other bits."""
    backwards = model.spec is not None and model.spec.bidirectional
    metadata = model.metadata
    streams = bool(model.states) and metadata.streaming is None and not (metadata.not_streamable or backwards)
    largest = sorted(expected, key=lambda case: sum(array.size for array in case.calls[0].feeds.values()))[-2:]
    for label, compare, possible in (("alone", rows_alone, True), ("step by step", step_by_step, streams)):
        found = RowCounts()
        for case in largest if possible else ():
            found += compare(rewritten, probe, model, case)
        if found.different:
            error = f"{', '.join(found.different)}: other bits than in the whole batch"
            yield CaseResult(f"{LAYERS}, {label}", error=error, kind="rows")
        elif found.same:
            tensor = TensorResult(f"{found.same} rows of layers, {label}", 0.0, 0.0, 0.0, (), allowed=0.0)
            yield CaseResult(f"{LAYERS}, {label}", (tensor,), kind="rows")
        if found.other_input:
            yield (
                f"{label}: {found.other_input} rows of layers were not compared, since float32 products before "
                "them gave other roundings"
            )
