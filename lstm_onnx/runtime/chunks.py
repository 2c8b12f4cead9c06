"""A whole sequence in chunks: the states are carried from one to the next, and the outputs joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from .model import Model
from .symbolic_dims import names_in
from .tensor_info import axis_sizes, checked, known_names

Arrays = dict[str, "np.ndarray[Any, Any]"]
TIME = "time"
BATCH = "batch"


def run_chunks(model: Model, feeds: Mapping[str, np.ndarray], steps: int) -> Arrays:
    """Run `model` on `steps` time steps after another, and the rest of them last.

    Of a module, the inputs that have the time axis are cut along it, the others go with every chunk.
    Its time is the axis named "time", or else the one open axis that its inputs have beside the batch.

    Args:
        model: a bare LSTM, or a module that carries its states.
        feeds: names to arrays, as `Model.run` takes them; a bare LSTM's also without the batch axis.
            States in it are where the first chunk starts.
        steps: 1 or more.

    Returns:
        The outputs with their chunks joined along time, those without a time axis as the last chunk
        gives them; and the final states under their outputs' names.

    Raises:
        InputError: the model cannot be streamed along a time axis, or something does not fit.
        RunError: ONNX Runtime failed while running.
    """
    if model.spec is not None and "lengths" in feeds:
        raise InputError("lengths do not go with chunks: a stream's sequences go on together")
    known_names(model.inputs, feeds)
    return _of_lstm(model, dict(feeds), steps) if model.spec is not None else _of_module(model, dict(feeds), steps)


def _of_lstm(model: Model, feeds: Arrays, steps: int) -> Arrays:
    spec = model.spec
    assert spec is not None  # noqa: S101 - the caller knows
    if "input" not in feeds:
        raise InputError(f"missing input: {model.inputs['input']}")
    x = feeds["input"]
    unbatched = x.ndim == 2
    batch_axis = 0 if spec.batch_first else 1
    if unbatched:
        x = np.expand_dims(x, batch_axis)
    if x.ndim != 3:
        raise InputError(f"input has shape {x.shape}; the model takes {model.inputs['input']}")
    stream = model.stream(x.shape[batch_axis])
    given = {
        name: feeds[name][:, np.newaxis] if feeds[name].ndim == 2 else feeds[name]
        for name in feeds
        if name in model.states
    }
    if given:
        stream.state = {**stream.state, **given}
    time_axis = 1 - batch_axis
    size = x.shape[time_axis]
    outputs = [stream(_cut(x, time_axis, start, steps)) for start in range(0, size, steps)]
    if not outputs:
        raise InputError(f"input has shape {x.shape}: nothing along time, which must be 1 or more")
    result = {"output": end_to_end("output", outputs, time_axis)}
    final = stream.state
    result |= {model.states[name]: final[name] for name in model.states if name in final}
    if unbatched:
        result = {"output": result["output"].squeeze(batch_axis)} | {
            name: state[:, 0] for name, state in result.items() if name != "output"
        }
    return result


def _of_module(model: Model, feeds: Arrays, steps: int) -> Arrays:
    model.stream()  # says why not, before anything else is looked at
    time = _time_axis(model)
    joined = _joined_outputs(model, time)
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    arrays = checked(free, {name: array for name, array in feeds.items() if name not in model.states})
    sizes = axis_sizes(free, arrays)
    stream = model.stream(sizes.get(_batch_axis(model), 1))
    given = {name: array for name, array in feeds.items() if name in model.states}
    if given:
        stream.state = {**stream.state, **given}
    cut = {name: info.shape.index(time) for name, info in free.items() if time in info.shape}
    results: list[Arrays] = []
    for start in range(0, sizes[time], steps):
        chunk = {name: _cut(arrays[name], axis, start, steps) for name, axis in cut.items()}
        results.append(stream.run({**arrays, **chunk}))
    final = stream.state
    result = {
        name: end_to_end(name, [item[name] for item in results], joined[name]) if name in joined else value
        for name, value in results[-1].items()
    }
    return result | {output: final[name] for name, output in model.states.items()}


def end_to_end(name: str, parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """The parts of an output along `axis`, which those of a file that lies about its shapes may not have.

    Raises:
        RunError: they cannot be put together.
    """
    try:
        return np.concatenate(parts, axis=axis)
    except ValueError as error:
        shapes = ", ".join(sorted({str(np.shape(part)) for part in parts}))
        raise RunError(f"{name} has shape {shapes}, and its parts cannot be put together along axis {axis}") from error


def _cut(array: np.ndarray, axis: int, start: int, steps: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(start, start + steps),)]


def _time_axis(model: Model) -> str:
    """The axis that chunks are cut along: what the file says of it, or the one open axis beside the batch."""
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    held = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)} - {TIME}
    axes = set(model.metadata.time_axes) or (
        {dim for info in free.values() for dim in info.shape if isinstance(dim, str)} - held - {BATCH}
    )
    if not axes:
        raise InputError(
            f"{model.path}: cannot be cut into chunks: no axis of its inputs is open but the batch, so each run takes "
            "what it has room for; in Python, model.stream() carries the states from run to run"
        )
    if len(axes) > 1:
        raise InputError(
            f"{model.path}: cannot be cut into chunks: its inputs have the axes {', '.join(sorted(axes))}, and only "
            "sequences that go on together can be; run it whole"
        )
    time = axes.pop()
    lengths = [spec.name for spec in model.metadata.inputs if spec.high == time]
    if lengths:
        raise InputError(
            f"{model.path}: cannot be cut into chunks: {', '.join(lengths)} counts along {time}, and a stream's "
            "sequences go on together; run it whole"
        )
    twice = [str(info) for info in free.values() if info.shape.count(time) > 1]
    if twice:
        raise InputError(f"{model.path}: cannot be cut into chunks: {twice[0]} has the axis {time} twice")
    return time


def _joined_outputs(model: Model, time: str) -> dict[str, int]:
    """The outputs that have a time axis, and which."""
    known = {dim for info in model.inputs.values() for dim in info.shape}
    joined: dict[str, int] = {}
    for name, info in model.outputs.items():
        if name in model.states.values():
            continue
        unclear = [dim for dim in info.shape if not isinstance(dim, int) and (dim is None or dim not in known)]
        if unclear or info.shape.count(time) > 1:
            raise InputError(
                f"{model.path}: cannot be cut into chunks: how the chunks of its output {info} would follow one "
                f"another along {time} is not known; run it whole"
            )
        if time in info.shape:
            joined[name] = info.shape.index(time)
    return joined


def _batch_axis(model: Model) -> str:
    """What the batch is called: the states' open axis."""
    shapes = [model.inputs[name].shape for name in model.states]
    names = sorted({name for shape in shapes for dim in shape if isinstance(dim, str) for name in names_in(dim)})
    return BATCH if BATCH in names or not names else names[0]
