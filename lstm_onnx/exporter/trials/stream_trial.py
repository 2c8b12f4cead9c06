"""Finds out whether an exported file can be streamed: follows its time axis, and compares chunks with the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import ModelProto

from ...errors import ConfigError, ExportError, InputError, RunError
from ...input_spec import InputSpec, axes, draw
from ...metadata import Metadata
from ...onnxgraph.shape_inference import sizes_alone
from ...runtime import Model
from ...runtime.batch_axes import BATCH
from ...runtime.chunk_check import LONGER, Run, WholeSequence, difference
from ...runtime.row_check import rows_difference, unlike_integers
from ...streaming import TimeAxis, follow_time
from ...symbolic_dims import ANY_SIZE, clamped, names_in
from ..lowering.explicit_states import COMPUTED
from ..lowering.rename import TracedGraph
from ..result import BuiltModel
from .shape_trial import random_states

_STEPS, _BATCH, _OTHER = 8, 2, 5
"""Lengths at which chunks are compared with the whole; other dynamic axes get sizes from _OTHER up."""
_ROWS = (_BATCH, 1)
"""The rows of each comparison; one row alone shows that an output has whole steps in order."""


def find_time_axis(built: BuiltModel, graph: TracedGraph) -> TimeAxis:
    """The dynamic axes of a file that are time, and the node where steps meet outside of its states, if any.

    Args:
        built: the file.
        graph: the graph from which it was made, with the dimensions of values.
    """
    complete = ModelProto()
    complete.CopyFrom(built.model)
    complete.graph.initializer.extend(sizes_alone(built.initializers))
    ends = {*graph.inputs, *graph.outputs}
    for name in graph.dims:
        if name not in ends and "" not in graph.dims[name]:
            complete.graph.value_info.append(graph.value_info(name))
    lengths = [spec.name for spec in built.metadata.inputs if isinstance(spec.high, str)]
    return follow_time(complete, built.metadata.states, lengths)


@dataclass(frozen=True)
class StreamTrialResult:
    """What runs in chunks and row by row showed: "" where nothing differs, None where the file was not run.

    Attributes:
        chunks: where chunks differ from the whole sequence.
        rows: where a sequence alone differs from the same sequence in a batch.
    """

    chunks: str | None = None
    rows: str | None = None


def run_stream_trial(
    model: Model, metadata: Metadata, time: TimeAxis | None, module: Run, batch: str
) -> StreamTrialResult:
    """Run a file on random sequences: whole and in chunks, in a batch and alone.

    Args:
        model: the file, opened on the CPU.
        metadata: the file's, with the limits of its axes.
        time: its time axis, where it has states.
        module: runs the exported module, from inputs and states to outputs, all by the file's names.
        batch: the name of the batch axis.
    """
    chunks = _chunks_differ(model, metadata, time) if time is not None else None
    if time is not None and not chunks:
        chunks = _longer_differ(model, metadata, time, module) or chunks
    return StreamTrialResult(chunks, _rows_differ(model, metadata, batch))


def with_stream_facts(
    metadata: Metadata, time: TimeAxis | None, result: StreamTrialResult, lines: Mapping[str, str]
) -> Metadata:
    """The metadata with two more facts: whether chunks equal the whole, and whether a batch's rows are independent.

    Args:
        metadata: the file's.
        time: its time axis, where it has states.
        result: what running it showed.
        lines: the lines of the user's code that nodes come from, by the nodes' names.
    """
    if time is None:
        return replace(metadata, batch_mixes=result.rows)
    problem: str | None = _meeting(time, lines) or _derived(metadata, time)
    if not problem:
        # Where state inputs go through other operators, only a run shows it; without a trial it is unknown.
        problem = result.chunks if result.chunks is not None or time.by_hand is not None else ""
    names = tuple(sorted(_time_axes(metadata, time)))
    return replace(metadata, not_streamable=problem, time_axes=names, batch_mixes=result.rows)


def without_states(graph: TracedGraph, built: BuiltModel, notes: Sequence[str]) -> BuiltModel:
    """A file to which explicit states added none, with its time axis: caches may carry what streaming needs.

    Args:
        graph: the file's.
        built: the file.
        notes: why each recurrent layer's states stay internal.
    """
    why = next(iter(notes), "it has no recurrent layer, and no Python loop over a dynamic axis")
    if any(COMPUTED in note for note in notes):
        why = "the initial states of its recurrent layers are computed from inputs"
    why = f'states="explicit" added no states: {why}'
    names = tuple(sorted(_time_axes(built.metadata, find_time_axis(built, graph)) - {BATCH}))
    return replace(built, metadata=replace(built.metadata, not_streamable=why, time_axes=names))


def _meeting(time: TimeAxis, lines: Mapping[str, str]) -> str:
    """Why a file cannot be streamed, with the node and the line of the module; "" where its steps do not meet."""
    if time.meeting is None:
        return ""
    line = lines.get(time.meeting.node)
    return f"{time.meeting}{f', at {line}' if line else ''}; its states do not carry that from chunk to chunk"


def _derived(metadata: Metadata, time: TimeAxis) -> str:
    """Names an input with several entries for each step, which chunks of a stream lack; "" where there is none."""
    names = _time_axes(metadata, time)
    for spec in metadata.inputs:
        for dim in spec.shape:
            if isinstance(dim, str) and dim not in names and names_in(dim) & names and spec.name not in metadata.states:
                return f"the axis {dim} of {spec.name} follows from {', '.join(sorted(names_in(dim)))}"
    return ""


def _time_axes(metadata: Metadata, time: TimeAxis) -> set[str]:
    """The names of the inputs' axes that are time."""
    return {dim for spec in metadata.inputs for dim in spec.shape if isinstance(dim, str)} & time.names


def time_places(metadata: Metadata, names: Iterable[str]) -> dict[str, int]:
    """The time axis of each input, found by the axes' names; states have none."""
    return {
        spec.name: spec.shape.index(name)
        for spec in metadata.inputs
        for name in names
        if name in spec.shape and spec.name not in metadata.states
    }


def _chunks_differ(model: Model, metadata: Metadata, time_axis: TimeAxis) -> str | None:
    time = _time_axes(metadata, time_axis)
    cut = time_places(metadata, time)
    if not cut:
        return ""
    limits = [metadata.axis_limits.get(dim, ANY_SIZE) for dim in time]
    least = max((low for low, _ in limits), default=1)
    longer = [tuple(least * size for size in LONGER)]
    largest = min((high for _, high in limits if high is not None), default=sum(longer[0]))
    chunkings = _chunkings(least, largest)
    if not chunkings:
        return None  # the longest sequence is too short for two chunks
    compared = False
    trials = [(rows, chunkings) for rows in _ROWS]
    if time_axis.by_hand is not None and largest >= sum(longer[0]):
        trials.append((_BATCH, longer))
    for seed, (rows, chosen) in enumerate(trials):
        try:
            sequence = _sequence(model, metadata, cut, time, sum(chosen[0]), seed, {BATCH: rows})
            problem = difference(model.run, sequence, metadata.states, chosen)
        except (ConfigError, InputError, RunError):
            continue
        compared = True
        if problem:
            return problem
    return "" if compared else None


def _longer_differ(model: Model, metadata: Metadata, time_axis: TimeAxis, module: Run) -> str:
    """How chunks differ from the module on more steps than the file takes at once; "" where it takes any number."""
    time = _time_axes(metadata, time_axis)
    cut = time_places(metadata, time)
    most = min((high for dim in time if (high := metadata.axis_limits.get(dim, ANY_SIZE)[1]) is not None), default=None)
    if not cut or most is None or any(metadata.axis_limits[dim][0] > 1 for dim in time & metadata.axis_limits.keys()):
        return ""
    others = {dim: limit for dim, limit in metadata.axis_limits.items() if dim not in time}

    def run(feeds: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        longer = any(feeds[name].shape[axis] > most for name, axis in cut.items())
        return module(dict(feeds)) if longer else model.run(feeds)

    for chunking in ((most, 1), (most, most, 1)):
        try:
            sequence = _sequence(model, replace(metadata, axis_limits=others), cut, time, sum(chunking), 0)
            problem = difference(run, sequence, metadata.states, [chunking])
        except ExportError:
            problem = f"the module refuses {sum(chunking)} steps"
        except (ConfigError, InputError, RunError):
            continue
        if problem:
            return f"the file takes at most {most} steps, and a stream may have more: {problem}"
    return ""


def _rows_differ(model: Model, metadata: Metadata, batch: str) -> str | None:
    """How the first rows of a batch, as many as the file needs, differ from the same rows run alone."""
    inputs = {spec.name: spec.shape for spec in metadata.inputs}
    shapes = {**{name: model.inputs[name].shape for name in model.inputs}, **inputs}
    axes = {name: shape.index(batch) for name, shape in shapes.items() if shape.count(batch) == 1}
    ends = {name: info.shape.index(batch) for name, info in model.outputs.items() if info.shape.count(batch) == 1}
    if not axes or not ends:
        return None
    # Not fewer than the least: ONNX Runtime aborts the process where a recurrent operator gets no rows.
    rows, largest = metadata.axis_limits.get(batch, (1, None))
    if largest is not None and largest < 2 * rows:
        return None
    try:
        sequence = _sequence(model, metadata, {}, set(), _STEPS, 0, rows={batch: 2 * rows})
        given = [spec for spec in metadata.inputs if spec.name not in metadata.states]
        return rows_difference(
            model.run,
            {**sequence.feeds, **unlike_integers(sequence.states, axes, rows)},
            axes,
            ends,
            rows,
            ranges={spec.name: (spec.low, spec.high) for spec in given if not isinstance(spec.high, str)},
            lengths={
                name: (max(1, count.low), int(sequence.feeds[name].max())) for name, count in model.counts.items()
            },
            most=largest,
        )
    except (ConfigError, InputError, RunError):
        return None


def random_rows(model: Model, metadata: Metadata, batch: str) -> dict[str, np.ndarray]:
    """Random inputs and states of a batch, whose axis is called `batch`.

    Raises:
        ConfigError: random values cannot be made for an input.
    """
    least = metadata.axis_limits.get(batch, (1, None))[0]
    sequence = _sequence(model, metadata, {}, set(), _STEPS, 0, rows={batch: max(least, _BATCH)})
    return {**sequence.feeds, **sequence.states}


def _chunkings(least: int, largest: int) -> list[tuple[int, ...]]:
    """Chunks of one step, and uneven ones that add up to one length of at most `largest`; none is below `least`."""
    count = min(_STEPS, largest // least)
    total = count * least
    if count < _STEPS:
        return [(least,) * count, (total - least, least)] if count > 1 else []
    return [(least,) * count, (3 * least, least, total - 4 * least), (total - 2 * least, 2 * least)]


def _sequence(
    model: Model,
    metadata: Metadata,
    cut: Mapping[str, int],
    time: set[str],
    steps: int,
    seed: int,
    rows: Mapping[str, int] = MappingProxyType({BATCH: _BATCH}),
) -> WholeSequence:
    batch = max(rows.values())
    rng = np.random.default_rng(seed)
    specs = [two_values(spec) for spec in metadata.inputs if spec.name not in metadata.states]
    shapes = [model.inputs[name].shape for name in metadata.states]
    state_axes = {name for shape in shapes for dim in shape if isinstance(dim, str) for name in names_in(dim)}
    sizes: dict[str, int] = {}
    for index, name in enumerate(dict.fromkeys([*axes(list(metadata.inputs)), *state_axes])):
        wanted = steps if name in time else batch if name in state_axes or name in rows else _OTHER + index
        sizes[name] = clamped(wanted, metadata.axis_limits.get(name, ANY_SIZE))
    feeds = draw(specs, sizes, rng)
    lengths = {spec.name: sizes[spec.high] for spec in specs if isinstance(spec.high, str)}
    for name, size in lengths.items():
        feeds[name] = np.full_like(feeds[name], size)  # full lengths: all sequences of a stream continue
    return WholeSequence(feeds, cut, random_states(model, metadata.states, sizes, rng), tuple(lengths), batch)


def two_values(spec: InputSpec) -> InputSpec:
    """Use random 0 and 1 for integers that were all 0 or all 1 in the example: equal steps would hide a difference."""
    return replace(spec, low=0, high=1) if spec.low == spec.high and spec.low in (0, 1) and axes([spec]) else spec
