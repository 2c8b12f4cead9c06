"""Writes a model into a repository for Triton Inference Server: with the batch first, and with its config.pbtxt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from ..atomic_io import require_apart, require_path, temporary_folder
from ..errors import InputError, ModelError, RunError, shown
from ..onnxgraph import load_inlined
from ..runtime import Model, ValueInfo, load
from ..runtime.arguments import integer, seconds
from ..runtime.batch_axes import axis_of, batch_name, dynamic_axes, state_batch_axis
from ..runtime.row_check import why_lengths_mix
from ..runtime.streamable import is_streamable, rows_mix
from ..runtime.tensor_info import allowed_sizes
from ..runtime.unchanged import of_one_file
from .batch_first import write_batch_first
from .folder import files_together
from .range_checks import ranges_of
from .triton_config import TritonConfig, TritonState, TritonTensor

_STATES_FOLDER = "initial_state"
"""The folder, beside config.pbtxt, where Triton looks for the files of initial states."""
_MOST_SEQUENCES = 1024
_LONGEST_NAME = 200
_LONGEST_WAIT = 10**9
"""The most seconds that Triton's configuration can have, in microseconds."""


@dataclass(frozen=True)
class TritonResult:
    """The result of `deploy_triton`.

    Attributes:
        folder: the model's folder in the repository.
        name: the model's name.
        files: all files, relative to the folder.
        stateful: whether Triton carries its states.
        states: each state input and the output that is its next value.
        max_batch: the most rows in a batch.
        notes: limits of the model that Triton's configuration cannot express.
    """

    folder: str
    name: str
    files: tuple[str, ...]
    stateful: bool
    states: Mapping[str, str]
    max_batch: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The folder, its files, and the notes."""
        states = f"{len(self.states)} state{'s' * (len(self.states) != 1)}"
        kind = f"with {states} that Triton carries" if self.stateful else "without states"
        lines = [f"{self.folder}: {', '.join(self.files)}", f"{self.name}, {kind}, batches of up to {self.max_batch}"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@of_one_file("deployed")
def deploy_triton(
    file: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    *,
    name: str | None = None,
    max_batch: int = 64,
    idle_seconds: float = 60.0,
    delay_seconds: float = 0.002,
) -> TritonResult:
    """Write a model into a repository, as ``REPOSITORY/NAME/1/model.onnx`` and ``REPOSITORY/NAME/config.pbtxt``.

    A model that can be streamed gets Triton's sequence batcher with implicit state, any other its dynamic batcher.
    The model with the batch first is run and compared with the original before anything is written.

    Args:
        file: the .onnx file.
        repository: the folder of Triton's models; it is created if it does not exist.
        name: the model's name; None for the file's stem.
        max_batch: the largest batch size.
        idle_seconds: a sequence that has had no request for this long is ended.
        delay_seconds: how long a batch waits for more requests.

    Raises:
        ModelError: an input, output or state has no batch axis, or cannot be expressed in Triton's configuration.
        FileError: a file cannot be read or written, or `file` would be replaced.
        InputError: an argument is not valid.
        RunError: the results of the model with the batch first differ; nothing is written.
    """
    require_path(file, "an .onnx file")
    require_path(repository, "a folder")
    name = Path(file).stem if name is None else name
    valid = isinstance(name, str) and len(name) <= _LONGEST_NAME and all(c.isalnum() or c in "._-" for c in name)
    if not valid or name in ("", ".", ".."):
        raise InputError(
            f"{shown(name)} is not a model's name, which has only letters, digits, dots, underscores and hyphens",
            hint="pass another name",
        )
    max_batch = integer("max_batch", max_batch, 1, 2**31 - 1)
    idle_seconds = seconds("idle_seconds", idle_seconds, _LONGEST_WAIT)
    delay_seconds = seconds("delay_seconds", delay_seconds, _LONGEST_WAIT)
    folder = Path(repository) / name
    require_apart([folder / "1" / "model.onnx"], [file])
    with load(file, "cpu", trial=None) as model:
        stateful = _is_stateful(model)
        axes = _batch_axes(model)
        max_batch = min(max_batch, _largest_batch(model, axes))
        initial = _initial_states(model, axes) if stateful else {}
        states = _states(model, axes, initial) if stateful else ()
        mixes = rows_mix(model) or (why_lengths_mix(model) if model.spec is None and model.counts else "")
        if stateful and mixes:
            raise ModelError(f"its rows cannot be batched: {mixes}", path=model.path)
        carried = {state.input.name for state in states} | {state.output for state in states}
        config = TritonConfig(
            name,
            max_batch,
            tuple(_tensor(info, axes) for key, info in model.inputs.items() if key not in carried),
            tuple(_tensor(info, axes) for key, info in model.outputs.items() if key not in carried),
            states,
            idle_seconds,
            delay_seconds,
            max(_MOST_SEQUENCES, max_batch),
            batched=not mixes,
        )
        files = {"config.pbtxt": str(config).encode()}
        files |= {f"{_STATES_FOLDER}/{name}": content for name, content in initial.values()}
        _write(model, file, axes, folder, files)
        return TritonResult(
            str(folder),
            name,
            ("config.pbtxt", "1/model.onnx", *list(files)[1:]),
            stateful,
            dict(model.states) if stateful else {},
            max_batch,
            _notes(model, mixes, stateful=stateful),
        )


def _is_stateful(model: Model) -> bool:
    if not model.states:
        return False
    if model.metadata.streaming_or_default.steps is not None:
        raise ModelError(
            "returns different numbers of steps for equal chunks, depending on the steps before, but Triton would put "
            "sequences that differ in this into one batch",
            path=model.path,
            hint="lstm-onnx serve runs it; causal convolutions without strides have no such phases",
        )
    return is_streamable(model)


def _batch_axes(model: Model) -> dict[str, int]:
    """The batch axis of every input and output (ModelError if one has none)."""
    batches: set[Any] = {batch_name(model)} - {None}
    for name in model.states:
        axis = state_batch_axis(model.inputs[name])
        if axis is not None:
            batches.add(model.inputs[name].shape[axis])
    found: dict[str, int] = {}
    for name, info in {**model.inputs, **model.outputs}.items():
        axis = state_batch_axis(info) if name in model.states else axis_of(info, batches)
        if axis is None and name in model.states.values():
            # Tools often leave a state's output without a shape.
            source = next(key for key, end in model.states.items() if end == name)
            axis = state_batch_axis(model.inputs[source])
        if axis is None:
            raise _without_batch(model, info)
        found[name] = axis
    return found


def _without_batch(model: Model, info: ValueInfo) -> ModelError:
    reason, hint = (
        "has no dynamic batch axis",
        "export it with one; lstm-onnx repair makes a fixed batch dynamic if it can",
    )
    if dynamic_axes(info):
        reason = "has no axis that is known to be the batch"
        hint = 'call that axis "batch" in each input and output, in the file or at the export'
    return ModelError(
        f"{info} {reason}, but Triton needs one for every tensor of a model that it batches",
        path=model.path,
        hint=hint,
        name=info.name,
    )


def _largest_batch(model: Model, axes: Mapping[str, int]) -> int:
    largest = 2**31 - 1
    for name, info in model.inputs.items():
        least, most = model.metadata.axis_limits.get(str(info.shape[axes[name]]), (1, None))
        if least > 1:
            raise ModelError(
                f"is right only for {least} rows or more, but Triton may run one alone", path=model.path, name=name
            )
        largest = min(largest, most or largest)
    return largest


def _tensor(info: ValueInfo, axes: Mapping[str, int]) -> TritonTensor:
    shape = [*info.shape[: axes[info.name]], *info.shape[axes[info.name] + 1 :]]
    dims = tuple(dim if isinstance(dim, int) else -1 for dim in shape)
    return TritonTensor(info.name, str(info.dtype), dims)


def _states(model: Model, axes: Mapping[str, int], initial: Mapping[str, tuple[str, bytes]]) -> tuple[TritonState, ...]:
    states = []
    for name, end in model.states.items():
        tensor = _tensor(model.inputs[name], axes)
        if len(dynamic_axes(model.inputs[name])) > 1:
            raise ModelError(
                f"the state {model.inputs[name]} has a size that is not fixed, but Triton needs it",
                path=model.path,
                name=name,
            )
        if not tensor.dims:
            raise ModelError(
                f"the state {model.inputs[name]} has no axis beside the batch, and Triton's states have one",
                path=model.path,
                hint="make it (batch, 1) in the module, or run the file with lstm-onnx serve",
                name=name,
            )
        states.append(TritonState(tensor, end, initial[name][0] if name in initial else None))
    return tuple(states)


def _initial_states(model: Model, axes: Mapping[str, int]) -> dict[str, tuple[str, bytes]]:
    """The file's name and content for each state that does not start from zeros."""
    return {
        name: (f"state_{index}", np.moveaxis(array, axes[name], 0)[0].tobytes())
        for index, (name, array) in enumerate(model.stream().state.items())
        if np.any(array)
    }


def _write(
    model: Model, file: str | os.PathLike[str], axes: Mapping[str, int], folder: Path, files: Mapping[str, bytes]
) -> None:
    """Write the model, compare it with the original, and then write the other files, the configuration last."""
    with temporary_folder() as trial:
        write_batch_first(_with_shapes(model, file), file, axes, trial / "model.onnx", ranges_of(model))
        _require_equal(model, trial / "model.onnx", axes)
    with files_together(folder, dict(reversed(list(files.items()))), also=["1/model.onnx"]):
        write_batch_first(_with_shapes(model, file), file, axes, folder / "1" / "model.onnx", ranges_of(model))


def _with_shapes(model: Model, file: str | os.PathLike[str]) -> ModelProto:
    """The file's model; outputs without a shape get the one that ONNX Runtime infers."""
    proto = load_inlined(file)
    before = {end: name for name, end in model.states.items()}
    for value in proto.graph.output:
        info = model.outputs[value.name]
        shape = info.shape or (model.inputs[before[value.name]].shape if value.name in before else ())
        if not value.type.tensor_type.shape.dim:
            dtype = helper.np_dtype_to_tensor_dtype(np.dtype(info.dtype))
            value.CopyFrom(helper.make_tensor_value_info(value.name, dtype, shape))
    return proto


def _notes(model: Model, mixes: str, *, stateful: bool) -> tuple[str, ...]:
    notes = []
    if mixes:
        notes.append(f"requests do not share a batch, since they affect each other: {mixes}")
    elif model.spec is None and model.counts and why_lengths_mix(model, longer=False):
        notes.append(
            "an answer has as many steps as the longest sequence of all requests in its batch; cut it to its own length"
        )
    for axis, (least, most) in model.metadata.axis_limits.items():
        if axis != batch_name(model) and (least > 1 or most is not None):
            allowed = allowed_sizes(least, most)
            notes.append(f"the model is right only if {axis} is {allowed}, but Triton does not check that")
    if model.states and not stateful:
        names = ", ".join(model.states)
        own = ", ".join(model.metadata.initial)
        start = f", except for {own}, whose values are in metadata.initial of the loaded file" if own else ""
        notes.append(f"it cannot be streamed, so clients pass the states {names}; zeros for a new sequence{start}")
    return tuple(notes)


def _require_equal(model: Model, batch_first: Path, axes: Mapping[str, int]) -> None:
    """Run both files on two rows, twice, with the states of the first run in the second.

    Raises:
        RunError: the outputs differ.
    """
    from ..data.random_input import default_sizes, random_record

    sizes = {axis: model.metadata.nearest_size(axis, size) for axis, size in default_sizes(model).items()}
    rows = min(2, _largest_batch(model, axes))
    batch = batch_name(model)
    if batch is not None:
        sizes[batch] = rows
    try:
        (record,) = random_record(model, sizes).rows
    except InputError:  # such as for indices without a known range
        record = _smallest(model, rows, axes)
    with load(batch_first, "cpu") as other:
        feeds = model.completed(dict(record))
        for _ in range(2):
            expected = model.run(feeds)
            found = other.run({name: np.moveaxis(array, axes[name], 0) for name, array in feeds.items()})
            for name, array in expected.items():
                if not np.allclose(np.moveaxis(array, axes[name], 0), found[name], 1e-5, 1e-6, equal_nan=True):
                    raise RunError(
                        f"its output {name} differs when the batch is first; nothing was written",
                        path=model.path,
                        name=name,
                    )
            feeds = {**feeds, **{name: expected[end] for name, end in model.states.items()}}


def _smallest(model: Model, rows: int, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, info in model.inputs.items():
        if name in model.states:
            continue
        shape = info.smallest_shape()
        shape[axes[name]] = rows
        arrays[name] = np.zeros(shape, info.dtype)
        if name in model.counts:
            arrays[name] += 1
    return arrays
