"""Finds the inputs on which a module is verified: their specs, and arguments that its forward accepts.

The range of an integer input comes from the tables in which the module looks it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import ConfigError, ExportError
from ...exporter.call.arguments import Arguments, bind_arguments
from ...exporter.call.metadata import call_from_json
from ...exporter.call.structure import Call
from ...exporter.functional.example_inputs import find_example_inputs
from ...exporter.trials.stream_trial import two_values
from ...input_spec import InputSpec, sizes_of
from ...runtime import Model
from ...runtime.batch_axes import axis_roles
from ..expected import Arrays
from ..own_states import file_only
from ..sizes import Axes

BATCH, TIME = 2, 3
"""Sizes that distinguish the batch axis and the time axis."""


def find_arguments(
    model: Model, module: nn.Module, inputs: Sequence[InputSpec], example_inputs: Any, seed: int
) -> tuple[tuple[InputSpec, ...], Arguments]:
    """The specs of the inputs, and arguments that the module's forward accepts.

    Raises:
        ConfigError: neither the file nor the caller describes the inputs.
    """
    metadata = model.metadata
    if example_inputs is not None:
        found = bind_arguments(module, example_inputs, None)
        specs = tuple(metadata.inputs) or tuple(_with_axis_names(spec, model) for spec in found.specs())
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        return specs, replace(found, tensors={name: tensor.to(device) for name, tensor in found.tensors.items()})
    specs = _with_lengths(inputs, metadata.inputs) or tuple(metadata.inputs)
    if not specs:
        raise ConfigError(f"{model.path}: its metadata does not describe its inputs; pass example_inputs")
    call: Call | None = None
    replaced: tuple[str, ...] = ()
    if metadata.call is not None and {spec.name for spec in specs} == {spec.name for spec in metadata.inputs}:
        try:
            call, replaced = call_from_json(metadata.call, module)
        except ConfigError as error:
            raise ConfigError(f"{model.path}: {error.message}", hint=error.hint) from error
    try:
        return specs, find_example_inputs(module, specs, seed=seed, limits=metadata.axis_limits, call=call)
    except ExportError as error:
        missing = f"; the class {', '.join(replaced)} was not found in the module's code" if replaced else ""
        names = ", ".join(spec.name for spec in specs)
        raise ExportError(
            f"{error} (with the inputs that the metadata of {model.path} describes, {names}{missing}; "
            "is it this module's file? if so, pass example_inputs)"
        ) from error


def _with_lengths(inputs: Sequence[InputSpec], known: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """`inputs` with the ranges of lengths that only the exporter knows, from 1 to an axis: without, they are 0 or 1.

    No other range of a file is used, since a narrow one could hide what is wrong with it.
    """
    axes = {dim for spec in inputs for dim in spec.shape}
    lengths = {spec.name: spec for spec in known if spec.low == 1 and isinstance(spec.high, str) and spec.high in axes}
    return tuple(
        replace(spec, low=1, high=lengths[spec.name].high)
        if spec.low is None and spec.name in lengths and lengths[spec.name].dtype == spec.dtype
        else spec
        for spec in inputs
    )


def _with_axis_names(spec: InputSpec, model: Model) -> InputSpec:
    """An example's input with the axis names of a file that is not from lstm-onnx."""
    info = model.inputs.get(spec.name)
    if info is None or len(info.shape) != len(spec.shape):
        return spec
    dims = zip(info.shape, spec.shape, strict=True)
    shape = tuple(theirs if isinstance(theirs, str) and theirs.isidentifier() else own for theirs, own in dims)
    return replace(spec, shape=shape)


def require_same_inputs(model: Model, found: Arguments) -> None:
    """Check that the file and the module's forward have the same inputs, and states what can feed them.

    Raises:
        ConfigError: they differ.
    """
    _require_like_pairs(model)
    forward = set(found.tensors)
    file = set(model.inputs) - (set(model.metadata.states) - forward) - file_only(model.metadata)
    if forward != file:
        hint = "is the file this module's?"
        if len(forward) == len(file):
            hint += "  If so, pass a module whose forward names its arguments as the file does"
        raise ConfigError(
            f"{model.path}: takes {', '.join(sorted(file))}, and the module takes {', '.join(sorted(forward))}; {hint}"
        )


def _require_like_pairs(model: Model) -> None:
    """Check that each state has the axes and the dtype of the output that feeds it.

    Raises:
        ConfigError: one has others, so no call can follow another.
    """
    for name, after in model.metadata.states.items():
        one, other = model.inputs.get(name), model.outputs.get(after)
        if one is None or other is None:
            continue
        if one.dtype != other.dtype or (one.shape and other.shape and len(one.shape) != len(other.shape)):
            raise ConfigError(
                f"{model.path}: its metadata feed the state {one} from {other}, which has another dtype or other axes"
            )


def multiples(runs: Callable[[Mapping[str, int]], bool], own: Mapping[str, int], limits: Axes) -> dict[str, int]:
    """The number of which an axis's size must be a multiple, if the module takes only whole blocks of steps.

    Args:
        runs: whether the module runs at these sizes of all axes.
        own: sizes at which it does.
        limits: the sizes that the file takes.
    """
    found = {}
    for name, size in own.items():
        for number in (number for number in range(1, size + 1) if size % number == 0):
            others = [limits.within(name, size + number * count) for count in (1, 2)]
            if size not in others and all(runs({**own, name: other}) for other in others):
                found[name] = number
                break
    return {name: number for name, number in found.items() if number > 1}


def with_wider_integers(
    model: Model, specs: tuple[InputSpec, ...], runs: Callable[[tuple[InputSpec, ...]], bool], *, declared: bool
) -> tuple[InputSpec, ...]:
    """`specs` with integers in wider ranges than the example's, where the module runs on them.

    A range that a source declares stays, and so do a stream's numbers of steps: its chunks are no whole sequences.
    """
    if not (declared or model.metadata.states):
        specs = _with_steps_of_axis(model, specs, runs)
    return _with_zero_and_one(specs, runs)


def _with_zero_and_one(
    specs: tuple[InputSpec, ...], runs: Callable[[tuple[InputSpec, ...]], bool]
) -> tuple[InputSpec, ...]:
    """`specs` with integers that were all 0 or all 1 in the example drawn from both, where the module runs on that.

    In a sequence of equal tokens the direction in which it is read has no effect.
    """
    both = tuple(map(two_values, specs))
    return both if both == specs or runs(both) else specs


def _with_steps_of_axis(
    model: Model, specs: tuple[InputSpec, ...], runs: Callable[[tuple[InputSpec, ...]], bool]
) -> tuple[InputSpec, ...]:
    """`specs` with integers for each row, such as lengths, from 1 to a time axis, where the module runs on that alone.

    The example's range does not follow the number of steps: with fewer steps, a module that reads its last valid step
    would fail, and with more, it would read none of the later ones.
    """
    if runs(specs):
        return specs
    sizes = sizes_of(specs, BATCH, TIME, known=axis_roles(model))
    for axis in (name for name, size in sizes.items() if size == TIME):
        changed = tuple(replace(spec, low=1, high=axis) if _counts(spec) else spec for spec in specs)
        if changed != specs and runs(changed):
            return changed
    return specs


def _counts(spec: InputSpec) -> bool:
    return (
        np.dtype(spec.dtype).kind in "iu"
        and len(spec.shape) == 1
        and isinstance(spec.low, int)
        and isinstance(spec.high, int)
        and spec.high > 1
    )


def axes_of_size(model: Model, specs: Sequence[InputSpec], size: int) -> dict[str, int]:
    """The batch axis (`BATCH`) or the time axis (`TIME`) of every input and output of a file that has one."""
    sizes = sizes_of(specs, BATCH, TIME, known=axis_roles(model))
    found = {}
    for name, info in {**model.inputs, **model.outputs}.items():
        matching = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str) and sizes.get(dim) == size]
        if len(matching) == 1:
            found[name] = matching[0]
    return found


def forward_outputs(model: Model) -> tuple[str, ...]:
    """The outputs that forward returns, including states that it returns itself."""
    own = {spec.name for spec in model.metadata.inputs}
    added = {after for name, after in model.metadata.states.items() if name not in own}
    return tuple(name for name in model.outputs if name not in added)


@dataclass(frozen=True)
class Lookup:
    """One look-up: the row indices, the number of rows, and the table (None for one-hot vectors)."""

    rows: np.ndarray
    count: int
    table: Tensor | None


class _Recorder(TorchFunctionMode):
    """Records every look-up of rows while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Lookup] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        keywords = kwargs or {}
        if name in ("embedding", "embedding_bag"):
            # torch.nn.functional has the indices first, torch has the table first.
            pair = [*args[:2], keywords.get("input"), keywords.get("indices"), keywords.get("weight")]
            tensors = [item for item in pair if isinstance(item, Tensor)]
            tables = [item for item in tensors if item.is_floating_point()]
            indices = [item for item in tensors if not item.is_floating_point()]
            if tables and indices:
                self._note(indices[0], tables[0])
        elif name == "one_hot":
            count = keywords.get("num_classes", args[1] if len(args) > 1 else -1)
            if args and isinstance(count, int) and count > 0:
                self._add(args[0], count, None)
        elif name == "index_select" and len(args) == 3 and args[1] == 0:
            self._note(args[2], args[0])
        elif name == "__getitem__" and len(args) == 2 and isinstance(args[1], Tensor):
            self._note(args[1], args[0])
        return func(*args, **keywords)

    def _note(self, rows: Any, table: Any) -> None:
        if isinstance(table, Tensor) and table.dim() and isinstance(rows, Tensor):
            self._add(rows, table.shape[0], table)

    def _add(self, rows: Tensor, count: int, table: Tensor | None) -> None:
        if rows.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            self.found.append(Lookup(rows.detach().cpu().numpy().copy(), count, table))


Run = Callable[[Arrays], object]
"""A module, called with arrays by name."""


@dataclass(frozen=True)
class Rows:
    """The range of an integer input, both ends included, and the table that it indexes.

    Row ``value + offset`` of `table` is looked up for `value`.
    """

    low: int
    high: int
    offset: int
    table: Tensor | None


def rows_of_inputs(run: Run, specs: Sequence[InputSpec], feeds: Arrays) -> dict[str, Rows]:
    """The range of each integer input that is looked up in a table.

    An input belongs to a look-up when a change of its integers changes the rows by the same amount.  An index that
    is computed from an input other than by an offset is left out, since its range is unknown.

    Args:
        run: the module.
        specs: its inputs.
        feeds: inputs that it runs on.
    """
    integers = [spec for spec in specs if np.dtype(spec.dtype).kind in "iu" and not isinstance(spec.high, str)]
    found: dict[str, Rows] = {}
    for spec in integers:
        tied: Rows | None = None
        before = lookups(run, feeds)
        for change in (1, -1):
            changed = np.asarray(feeds[spec.name] + np.asarray(change).astype(feeds[spec.name].dtype))
            after = lookups(run, {**feeds, spec.name: changed})
            if before is None or after is None or len(after) != len(before):
                continue
            for one, other in zip(before, after, strict=True):
                moved = one.rows.shape == other.rows.shape and np.array_equal(other.rows, one.rows + change)
                if moved and one.count == other.count and _is_table(one, other, feeds):
                    rows = _rows(one, feeds[spec.name])
                    tied = rows if tied is None or rows is None else _narrower(tied, rows)
            break
        if tied is not None and tied.low <= tied.high:
            found[spec.name] = tied
    return found


def _is_table(one: Lookup, other: Lookup, feeds: Arrays) -> bool:
    """Whether two calls look up in the same numbers, and not in an input or a result; a matrix counts in any case."""
    if one.table is None or other.table is None or one.table.dim() == 2:
        return True
    place = one.table.data_ptr()
    return place == other.table.data_ptr() and all(place != array.ctypes.data for array in feeds.values())


def _rows(lookup: Lookup, values: np.ndarray) -> Rows | None:
    if lookup.rows.size != values.size:  # a part of the input, such as one of its columns
        within = set(lookup.rows.reshape(-1).tolist()) <= set(values.reshape(-1).tolist())
        return Rows(0, lookup.count - 1, 0, lookup.table) if within else None
    offsets = np.unique(lookup.rows.reshape(-1).astype(np.int64) - values.reshape(-1).astype(np.int64))
    if len(offsets) != 1:
        offsets = np.unique(np.sort(lookup.rows, axis=None).astype(np.int64) - np.sort(values, axis=None))
    if len(offsets) != 1:
        return None
    offset = int(offsets[0])
    return Rows(max(-offset, 0), lookup.count - 1 - offset, offset, lookup.table)


def _narrower(one: Rows, other: Rows) -> Rows:
    first = one if one.high - one.low <= other.high - other.low else other
    return replace(first, low=max(one.low, other.low), high=min(one.high, other.high))


def lookups(run: Run, feeds: Arrays) -> list[Lookup] | None:
    """The look-ups of a call; None where the module does not run on these inputs."""
    recorder = _Recorder()
    try:
        with recorder:
            run(feeds)
    except ExportError:
        return None
    return recorder.found


def with_all_rows(specs: Sequence[InputSpec], rows: Mapping[str, Rows]) -> tuple[InputSpec, ...]:
    """`specs` with the whole range of each table, as far as the input's dtype allows."""

    def widened(spec: InputSpec, rows: Rows) -> InputSpec:
        return replace(spec, low=rows.low, high=min(rows.high, int(np.iinfo(spec.dtype).max)))

    return tuple(widened(spec, rows[spec.name]) if spec.name in rows else spec for spec in specs)
