"""Finds the batch axis of each input, output and state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..symbolic_dims import names_in, size_of
from .loaded_model import LoadedModel
from .tensor_info import ValueInfo

BATCH = "batch"
TIME = "time"


def dynamic_axes(info: ValueInfo) -> list[int]:
    """The axes without a fixed size."""
    return [axis for axis, dim in enumerate(info.shape) if not isinstance(dim, int)]


def state_dim_names(model: LoadedModel) -> set[str]:
    """The axis names on which the sizes of the model's states depend."""
    dims = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)}
    return {name for dim in dims for name in names_in(dim)}


def batch_name(model: LoadedModel) -> str | None:
    """The name of the batch axis: "batch", or else the one axis name that the states have.

    If there are several such names, the one that another input also has; None if that does not decide it either.
    """
    inputs = {dim for name, info in model.inputs.items() if name not in model.states for dim in info.shape}
    names = state_dim_names(model)
    if BATCH in inputs | names:
        return BATCH
    shared = names & inputs
    candidates = names if len(names) == 1 else shared
    return str(next(iter(candidates))) if len(candidates) == 1 else None


def has_unnamed_batch(model: LoadedModel) -> bool:
    """Whether an axis of a state has no name: the batch, since all others are fixed."""
    return any(None in model.inputs[name].shape for name in model.states)


def axis_roles(model: LoadedModel) -> dict[str, str]:
    """The roles "batch" and "time" of axes in a file with states, by the file's names, such as ``rows``."""
    found = dict.fromkeys(model.metadata.time_axes, TIME)
    batch = batch_name(model)
    return found if batch is None or batch in found else {**found, batch: BATCH}


def require_batch(
    model: LoadedModel,
    feeds: Mapping[str, Any],
    batch: int,
    *,
    carrier: str = "this stream carries",
    hint: str | None = None,
) -> None:
    """Refuse a number of sequences other than the `batch` of a stream, with a better message than for two inputs.

    Args:
        model: the model.
        feeds: its inputs by name.
        batch: the number of sequences.
        carrier: the subject of the message that has that many sequences.
        hint: what to do; by default to open another stream.

    Raises:
        InputError: an input has a different number.
    """
    named = batch_name(model)
    if named is None and not has_unnamed_batch(model):
        return
    for name, value in feeds.items():
        info, shape = model.inputs.get(name), getattr(value, "shape", ())
        axes = [] if info is None else [axis for axis, dim in enumerate(info.shape) if dim == named]
        if info is None or not axes or len(shape) != len(info.shape):
            continue
        if named is None and len(axes) > 1:  # time has no name either
            continue
        size = int(shape[axes[0]])
        if size not in (0, batch):
            raise InputError(
                f"{name} has shape {tuple(shape)}, which is {size} sequences, but {carrier} {batch}",
                hint=hint or f"open it with stream(batch={size})",
                name=name,
            )


def state_batch_axis(info: ValueInfo) -> int | None:
    """The batch axis of a state: the one named "batch", or else its only dynamic one; None where neither exists."""
    dynamic = dynamic_axes(info)
    axes = [axis for axis in dynamic if info.shape[axis] == BATCH] or dynamic
    return axes[0] if len(axes) == 1 else None


def require_state_batch_axis(model: LoadedModel, name: str) -> int:
    """The batch axis of a state of a pool.

    Raises:
        InputError: it has none.
    """
    axis = state_batch_axis(model.inputs[name])
    if axis is None:
        raise InputError(
            f"the state {model.inputs[name]} has no dynamic batch axis, so its streams cannot be stepped as one batch",
            path=model.path,
            hint="export it with a dynamic batch"
            if model.inputs[name].shape
            else "use model.stream() for each of them",
            name=name,
        )
    return axis


def with_named_batch(info: ValueInfo) -> ValueInfo:
    """A state whose batch is called "batch", even if another tool gave it another name or none.

    Unchanged if an axis already depends on "batch" (``4*batch``), or if several axes could be the batch.
    """
    dynamic = dynamic_axes(info)
    if any(size_of(str(info.shape[axis]), {BATCH: 1}) is not None for axis in dynamic):
        return info
    if len(dynamic) != 1 or len(names_in(str(info.shape[dynamic[0]]))) > 1:
        return info
    shape = (*info.shape[: dynamic[0]], BATCH, *info.shape[dynamic[0] + 1 :])
    return ValueInfo(info.name, info.dtype, shape)


def axis_of(info: ValueInfo, batches: Collection[Any]) -> int | None:
    """The axis whose name is in `batches`; where None (a batch without a name) is in it, the only dynamic axis."""
    named = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str) and dim in batches]
    if len(named) == 1:
        return named[0]
    dynamic = dynamic_axes(info)
    return dynamic[0] if None in batches and len(dynamic) == 1 else None


def batch_axes(infos: Mapping[str, ValueInfo], batches: Collection[Any]) -> dict[str, int]:
    """The batch axis of each input or output that has one; see `axis_of`."""
    axes = {name: axis_of(info, batches) for name, info in infos.items()}
    return {name: axis for name, axis in axes.items() if axis is not None}


def batch_dims(model: LoadedModel, state_axes: Mapping[str, int]) -> set[int | str | None]:
    """The names of the batch axis in the states, whose batch axes are `state_axes`."""
    return {model.inputs[name].shape[axis] for name, axis in state_axes.items()}


@dataclass(frozen=True)
class BatchAxes:
    """The batch axis of each input and output of a step of several streams.

    Attributes:
        inputs: the axis along which requests are concatenated; None where all must have the same values.
        outputs: the axis along which results are split.
        shared: the inputs without such an axis.
    """

    inputs: Mapping[str, int | None]
    outputs: Mapping[str, int]
    shared: tuple[str, ...]

    @classmethod
    def of(cls, model: LoadedModel, state_axes: Mapping[str, int], output_names: Iterable[str]) -> BatchAxes:
        """From the names of the axes.

        Args:
            model: the model.
            state_axes: the batch axis of each state.
            output_names: the outputs that are split.

        Raises:
            InputError: the batch axis of an input or output is unknown.
        """
        batches = batch_dims(model, state_axes)
        infos = {name: info for name, info in model.inputs.items() if name not in model.states}
        inputs = {name: axis_of(info, batches) for name, info in infos.items()}
        known = {dim for name, axis in inputs.items() if axis is not None for dim in infos[name].shape} - batches
        shared = tuple(name for name, axis in inputs.items() if axis is None)
        unknown = {
            name: f"input {infos[name]}"
            for name in shared
            if not all(isinstance(dim, int) or (dim and dim in known) for dim in infos[name].shape)
        }
        results = {name: model.outputs[name] for name in output_names}
        outputs = batch_axes(results, batches)
        unknown |= {name: f"output {info}" for name, info in results.items() if name not in outputs}
        for name, text in unknown.items():
            raise InputError(f"it is not known which axis of its {text} is the batch", path=model.path, name=name)
        return cls(inputs, outputs, shared)
