"""May an exported file be streamed?  Its time axis is followed, and chunks are compared with the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ...errors import ConfigError, InputError, ProviderError, RunError
from ...input_spec import InputSpec, axes, draw
from ...metadata import Metadata
from ...runtime import Model, load
from ...runtime.batch_axes import BATCH
from ...runtime.chunk_check import WholeSequence, difference, row_difference
from ...runtime.symbolic_dims import names_in, size_of
from ...streaming import TimeAxis, follow_time
from ..lowering.rename import TracedGraph

_SMALL = 64
"""Numbers up to which a stored tensor is looked into: shapes, axes, counts."""
_STEPS, _BATCH, _OTHER = 8, 2, 5
"""Sizes at which chunks are compared with the whole; other open axes get sizes from _OTHER on."""
_SEEDS = 2


def time_axis(
    model: ModelProto, initializers: Mapping[str, np.ndarray], graph: TracedGraph, metadata: Metadata
) -> TimeAxis:
    """Which open axes of a file are time, and where their steps meet outside of its states.

    Args:
        model: the file without its initializers.
        initializers: those.
        graph: what it was made of, which knows its values' dimensions.
        metadata: the file's.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    for name, array in initializers.items():
        if array.size <= _SMALL:
            whole.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            whole.graph.initializer.append(TensorProto(name=name, dims=array.shape, data_type=kind))
    ends = {*graph.inputs, *graph.outputs}
    for name in graph.dims:
        if name not in ends and "" not in graph.dims[name]:
            whole.graph.value_info.append(graph.value_info(name))
    lengths = [spec.name for spec in metadata.inputs if isinstance(spec.high, str)]
    return follow_time(whole, metadata.states, lengths)


def reason(found: TimeAxis, lines: Mapping[str, str]) -> str:
    """Why a file cannot be streamed, with the node and the line of the module; "" where its steps do not meet."""
    if found.meeting is None:
        return ""
    line = lines.get(found.meeting.node)
    return f"{found.meeting}{f', at {line}' if line else ''}; its states do not carry that from chunk to chunk"


def told(metadata: Metadata, time: TimeAxis | None, shown: Tried, lines: Mapping[str, str]) -> Metadata:
    """The metadata with what is known of streams and batches."""
    if time is None:
        return replace(metadata, batch_mixes=shown.rows)
    problem: str | None = reason(time, lines)
    if not problem:
        # Where state inputs go through other operators, only a comparison tells; it may be left to the runtime.
        problem = shown.chunks if shown.chunks is not None or time.by_hand is not None else ""
    axes_ = tuple(sorted(named(metadata, time)))
    return replace(metadata, not_streamable=problem, time_axes=axes_, batch_mixes=shown.rows)


def named(metadata: Metadata, found: TimeAxis) -> set[str]:
    """The axes of a file's inputs that are time."""
    return {dim for spec in metadata.inputs for dim in spec.shape if isinstance(dim, str)} & found.names


@dataclass(frozen=True)
class Tried:
    """What running a file showed; each "" where nothing differs, and None where it could not be tried.

    Attributes:
        chunks: where chunks differ from the whole.
        rows: where a sequence alone differs from the same one in a batch.
    """

    chunks: str | None = None
    rows: str | None = None


def tried(path: Path, metadata: Metadata, found: TimeAxis | None) -> Tried:
    """Run a file on random sequences: whole and in chunks, in a batch and alone.

    Args:
        path: the file.
        metadata: the file's.
        found: its time axis, where it has states.
    """
    try:
        model = load(path, provider="cpu", threads=1)
    except ProviderError:
        return Tried()
    chunks = _chunks_differ(model, metadata, found) if found is not None else None
    return Tried(chunks, _rows_differ(model, metadata))


def _chunks_differ(model: Model, metadata: Metadata, found: TimeAxis) -> str | None:
    time = named(metadata, found)
    cut = {
        spec.name: spec.shape.index(dim)
        for spec in metadata.inputs
        for dim in time
        if dim in spec.shape and spec.name not in metadata.states
    }
    if not cut:
        return ""
    least = max((metadata.axis_limits.get(dim, (1, None))[0] for dim in time), default=1)
    chunkings = _chunkings(least)
    compared = False
    for seed in range(_SEEDS):
        try:
            sequence = _sequence(model, metadata, cut, time, sum(chunkings[0]), seed)
            problem = difference(model.run, sequence, metadata.states, chunkings)
        except (ConfigError, InputError, RunError):
            continue
        compared = True
        if problem:
            return problem
    return "" if compared else None


def _rows_differ(model: Model, metadata: Metadata) -> str | None:
    """The first row of a batch, beside the same row alone."""
    inputs = {spec.name: spec.shape for spec in metadata.inputs}
    shapes = {**{name: model.inputs[name].shape for name in model.inputs}, **inputs}
    axes = {name: shape.index(BATCH) for name, shape in shapes.items() if shape.count(BATCH) == 1}
    ends = {name: info.shape.index(BATCH) for name, info in model.outputs.items() if info.shape.count(BATCH) == 1}
    if not axes or not ends:
        return None
    try:
        sequence = _sequence(model, metadata, {}, set(), _STEPS, 0)
        return row_difference(model.run, {**sequence.feeds, **sequence.states}, axes, ends)
    except (ConfigError, InputError, RunError):
        return None


def _chunkings(least: int) -> list[tuple[int, ...]]:
    """One step at a time and uneven chunks; none has less than `least` steps."""
    total = _STEPS * least
    return [(least,) * _STEPS, (3 * least, least, total - 4 * least), (total - 2 * least, 2 * least)]


def _sequence(
    model: Model, metadata: Metadata, cut: Mapping[str, int], time: set[str], steps: int, seed: int
) -> WholeSequence:
    rng = np.random.default_rng(seed)
    specs = [_telling(spec) for spec in metadata.inputs if spec.name not in metadata.states]
    shapes = [model.inputs[name].shape for name in metadata.states]
    held = {name for shape in shapes for dim in shape if isinstance(dim, str) for name in names_in(dim)}
    sizes: dict[str, int] = {}
    for index, name in enumerate(dict.fromkeys([*axes(list(metadata.inputs)), *held])):
        wanted = steps if name in time else _BATCH if name in held or name == BATCH else _OTHER + index
        least, largest = metadata.axis_limits.get(name, (1, None))
        sizes[name] = max(least, min(wanted, largest or wanted))
    feeds = draw(specs, sizes, rng)
    whole = {spec.name: sizes[spec.high] for spec in specs if isinstance(spec.high, str)}
    for name, size in whole.items():
        feeds[name] = np.full_like(feeds[name], size)  # a stream's sequences go on together
    states = {name: _state(model, name, sizes, rng) for name in metadata.states}
    return WholeSequence(feeds, cut, states, tuple(whole))


def _telling(spec: InputSpec) -> InputSpec:
    """Integers of which the example had a single one are drawn from 0 and 1: of equal steps nothing shows."""
    return replace(spec, low=0, high=1) if spec.low == spec.high and spec.low in (0, 1) and axes([spec]) else spec


def _state(model: Model, name: str, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    info = model.inputs[name]
    shape = [size_of(dim, sizes) or 1 if isinstance(dim, str) else dim or 1 for dim in info.shape]
    return np.asarray(np.tanh(rng.standard_normal(shape)), info.dtype or np.float32)
