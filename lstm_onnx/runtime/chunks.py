"""Runs a whole sequence in chunks: states are carried from one to the next, and outputs are concatenated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError
from ..symbolic_dims import names_in
from .batch_axes import BATCH, TIME, batch_name
from .streamable import stream_inputs
from .tensor_info import axis_sizes, require_known_names, validated_feeds

if TYPE_CHECKING:
    from .model import Model

Arrays = dict[str, "np.ndarray[Any, Any]"]


def run_chunks(model: Model, feeds: Mapping[str, np.ndarray], steps: int) -> Arrays:
    """Run `model` on chunks of `steps` time steps, and on the remaining ones last.

    For a module, the inputs that have the time axis are split along it, and the others are passed with every chunk.
    Its time axis is the one named "time", or else the only dynamic axis of its inputs besides the batch.

    Args:
        model: a bare LSTM, or a module that carries its states.
        feeds: names to arrays, as `Model.run` takes them; a bare LSTM's also without the batch axis.
            States in it are those before the first chunk.
        steps: 1 or more.

    Returns:
        The outputs with their chunks concatenated along time, those without a time axis from the last chunk;
        and the final states under their outputs' names.

    Raises:
        InputError: the model cannot be streamed along a time axis, or something does not fit.
        RunError: ONNX Runtime failed while running.
    """
    if model.spec is not None and "lengths" in feeds:
        raise InputError("lengths cannot be combined with chunks: all sequences of a stream continue", name="lengths")
    require_known_names(model.inputs, feeds)
    spec, arrays = model.spec, dict(feeds)
    if spec is None:
        return _in_chunks(model, arrays, steps)
    batch_axis = 0 if spec.batch_first else 1
    alone = "input" in arrays and arrays["input"].ndim == 2
    if alone:
        arrays["input"] = np.expand_dims(arrays["input"], batch_axis)
    arrays |= {name: array[:, np.newaxis] for name, array in arrays.items() if array.ndim == 2}  # states
    results = _in_chunks(model, arrays, steps)
    if not alone:
        return results
    return {name: array.squeeze(batch_axis if name == "output" else 1) for name, array in results.items()}


def _in_chunks(model: Model, feeds: Arrays, steps: int) -> Arrays:
    model.stream()  # if it cannot be streamed, that error comes first
    time = time_axis(model)
    free = stream_inputs(model)
    if model.spec is not None:
        free.pop("lengths", None)  # every chunk is complete
    arrays = validated_feeds(free, {name: array for name, array in feeds.items() if name not in model.states})
    sizes = axis_sizes(free, arrays)
    stream = model.stream(sizes.get(batch_name(model) or BATCH, 1))
    time_axes = output_time_axes(model, time)
    states = {name: array for name, array in feeds.items() if name in model.states}
    if states:
        stream.state = {**stream.state, **states}
    cut = {name: info.shape.index(time) for name, info in free.items() if time in info.shape}
    results: list[Arrays] = []
    for start in range(0, sizes[time], steps):
        chunk = {name: _cut(arrays[name], axis, start, steps) for name, axis in cut.items()}
        results.append(stream.run({**arrays, **chunk}))
    if model.metadata.streaming is not None:
        results.append(stream.flush())
    final = stream.state
    caches = model.metadata.streaming_or_default.caches
    return joined(results, time_axes) | {
        output: final[name] for name, output in model.states.items() if name not in caches
    }


def joined(chunks: Sequence[Mapping[str, Any]], time_axes: Mapping[str, int]) -> dict[str, Any]:
    """The outputs of chunks: those with a time axis concatenated, and the last values of all others (RunError)."""
    return {
        name: concatenated(name, [chunk[name] for chunk in chunks], time_axes[name]) if name in time_axes else last
        for name, last in chunks[-1].items()
    }


def concatenated(name: str, parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """The chunks of an output, concatenated along `axis`.

    Raises:
        RunError: their shapes do not allow it, as in a file that declares wrong shapes.
    """
    try:
        return np.concatenate(parts, axis=axis)
    except ValueError as error:
        shapes = ", ".join(sorted({str(np.shape(part)) for part in parts}))
        raise RunError(
            f"{name} has shape {shapes}, so these chunks cannot be concatenated along axis {axis}", name=name
        ) from error


def _cut(array: np.ndarray, axis: int, start: int, steps: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(start, start + steps),)]


def time_axis(model: Model) -> str:
    """The axis along which chunks are split: that of the metadata, or the only dynamic axis besides the batch."""
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    state_dims = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)} - {TIME}
    names = {name for info in free.values() for dim in info.shape if isinstance(dim, str) for name in names_in(dim)}
    axes = set(model.metadata.time_axes) or names - state_dims - {BATCH}
    if not axes:
        raise _refused(
            model,
            "no axis of its inputs is dynamic but the batch, so every run has the same size",
            "in Python, model.stream() carries the states from run to run",
        )
    if len(axes) > 1:
        listed = ", ".join(sorted(axes))
        raise _refused(model, f"its inputs have the axes {listed}, but a stream has only one time axis")
    time = axes.pop()
    if lengths := [spec.name for spec in model.metadata.inputs if spec.high == time]:
        listed = ", ".join(lengths)
        raise _refused(model, f"{listed} counts along {time}, but all sequences of a stream continue")
    for info in free.values():
        for dim in info.shape:
            if isinstance(dim, str) and dim != time and time in names_in(dim):
                derived = f"the axis {dim} of {info.name} follows from {time}"
                raise _refused(model, f"{derived}, but only inputs with an entry for each step can be split")
    for info in free.values():
        if info.shape.count(time) > 1:
            raise _refused(model, f"{info} has the axis {time} twice", None)
    return time


def _refused(model: Model, why: str, hint: str | None = "run the whole sequence") -> InputError:
    return InputError(f"cannot be run in chunks: {why}", hint=hint, path=model.path)


def output_time_axes(model: Model, time: str) -> dict[str, int]:
    """The time axis of each output that has one (InputError where that is not known)."""
    if model.spec is not None:
        return {"output": 1 if model.spec.batch_first else 0}  # whatever the file declares
    if model.metadata.streaming is not None:
        return {name: axis for name, axis in model.metadata.streaming.outputs.items() if axis is not None}
    known = {dim for info in model.inputs.values() for dim in info.shape}
    axes: dict[str, int] = {}
    for name, info in model.outputs.items():
        if name in model.states.values():
            continue
        unclear = [dim for dim in info.shape if not isinstance(dim, int) and (dim is None or dim not in known)]
        if unclear or info.shape.count(time) > 1:
            raise _refused(model, f"it is not known how to concatenate its output {info} along {time}")
        if time in info.shape:
            axes[name] = info.shape.index(time)
    return axes
