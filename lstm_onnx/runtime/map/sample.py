"""Validates one sequence of `Model.map`, and removes its batch axis."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...symbolic_dims import size_of
from ..batch_axes import TIME, batch_name
from ..conversion import ToCallerType, to_arrays, unchanged
from ..counts import (
    require_counts,
    require_one_place,
    require_table_rows,
    require_whole_chunks,
    require_whole_sequence,
)
from ..initial_states import initial_state
from ..loaded_model import LoadedModel
from ..tensor_info import ValueInfo, allowed_sizes, axis_sizes, require_known_names, validated_feeds

Arrays = dict[str, "np.ndarray[Any, Any]"]


class Sample(NamedTuple):
    """One sequence, known to fit the model.  (A frozen dataclass takes four times as long to create.)

    Attributes:
        arrays: by input name, without the batch axis, and without missing states that are zeros.
        sizes: of the named axes.
        length: the sum of the dynamic ones, which is the number of time steps if there is only one.
        size: approximately, the bytes of the arrays and of the results.
        to_caller_type: converts a result to the type that was passed.
        is_pair: whether the results are returned as ``output, (hn, cn)`` instead of by name.
    """

    arrays: Arrays
    sizes: Mapping[str, int]
    length: int
    size: int
    to_caller_type: ToCallerType
    is_pair: bool


class _InputAlone(NamedTuple):
    """A bare LSTM's input as the only array of a sequence; the states are then zeros."""

    name: str
    dtype: np.dtype[Any] | None
    features: int
    least: int
    most: float
    step_size: int
    """Bytes of one time step and its results."""


@dataclass(frozen=True)
class SequenceLayout:
    """How a single sequence is arranged in a model's arrays.

    Attributes:
        model: the model.
        batch: the name of the batch axis; None if its inputs have none, so that each sequence is a run.
        single: the inputs without the batch axis.
        outputs: the same for the outputs.
        counts: each input that holds lengths, and the axis along which it counts.
        padded: the axes along which sequences of different sizes may run together.
        together: whether several sequences can run together at all.
        rows: the largest number of sequences that run together; None for no limit.
    """

    model: LoadedModel
    batch: str | None
    single: Mapping[str, ValueInfo]
    outputs: Mapping[str, ValueInfo]
    counts: Mapping[str, str]
    padded: frozenset[str]
    together: bool
    rows: int | None

    @classmethod
    def of(cls, model: LoadedModel) -> SequenceLayout:
        """From the model's inputs, outputs and metadata."""
        batch = batch_name(model)
        by_row = [spec.name for spec in model.metadata.inputs if spec.shape == (batch,)]
        counts = {name: count.axis for name, count in model.counts.items() if model.spec is not None or name in by_row}
        infos = [*model.inputs.values(), *model.outputs.values()]
        together = (
            batch is not None
            and all(info.shape.count(batch) <= 1 and info.dtype not in (None, np.dtype(object)) for info in infos)
            and all(batch in info.shape for info in model.outputs.values())
        )
        least, rows = model.metadata.axis_limits.get(batch or "", (1, None))
        if least > 1:
            raise InputError(
                f"is right only if {batch} is {allowed_sizes(least, rows)}, but a sequence may have to run alone",
                path=model.path,
                hint="use run",
            )
        return cls(
            model,
            batch,
            {name: _without(info, batch) for name, info in model.inputs.items()},
            {name: _without(info, batch) for name, info in model.outputs.items()},
            counts,
            frozenset(counts.values()) if together and rows != 1 else frozenset(),
            together and rows != 1,
            rows,
        )

    def unpadded(self) -> SequenceLayout:
        """The same where only sequences of equal sizes run together."""
        return replace(self, padded=frozenset())

    def sample(self, value: Any) -> Sample:
        """A copy of one sequence as the caller passed it: a generator may fill the same array again.

        Raises:
            InputError: it does not fit the model.
        """
        if type(value) is np.ndarray and self._is_input_alone(value):
            name, steps = self._input_alone.name, len(value)
            size = self._fixed_result_size + steps * self._input_alone.step_size
            return Sample({name: value.copy()}, {TIME: steps}, steps, size, unchanged, True)
        is_pair = self.model.spec is not None and not isinstance(value, Mapping)
        if is_pair:
            named = _by_name(value)
        elif isinstance(value, Mapping):
            named = dict(value)
        else:
            optional = {*self.model.states, *self.counts, self.model.metadata.streaming_or_default.last}
            names = ", ".join(name for name in self.single if name not in optional)
            raise InputError(f"is of type {type(value).__name__}", hint=f"it must map names to arrays ({names})")
        require_known_names(self.model.inputs, named)
        arrays, to_caller_type = to_arrays(named, self.single)
        streaming = self.model.metadata.streaming
        if streaming is not None and streaming.last is not None:
            arrays.setdefault(streaming.last, np.ones(1, np.int64))  # each run is a whole sequence
        sizes = axis_sizes(self.single, arrays)
        require_counts(self.model.counts, arrays, sizes)
        require_table_rows(self.model.metadata.table_rows, arrays)
        for name, array in arrays.items():
            if name in self.counts and array.dtype.kind in "iu":
                arrays[name] = array.astype(self.single[name].dtype)
        later = self._fill_in_states(arrays, sizes)
        infos = {name: info for name, info in self.single.items() if name not in later}
        validated = {name: array.copy() for name, array in validated_feeds(infos, arrays).items()}
        if streaming is not None:
            time = {name: sizes[str(self.model.inputs[name].shape[axis])] for name, axis in streaming.time.items()}
            require_one_place(streaming, validated)
            require_whole_chunks(streaming, time)
            require_whole_sequence(streaming, validated, time, named.keys() & self.model.states.keys())
        length, size = sum(sizes.values()) or 1, self._size(validated, sizes)
        return Sample(validated, sizes, length, size, to_caller_type, is_pair)

    def _is_input_alone(self, array: np.ndarray) -> bool:
        """Whether an array needs none of the general conversions, which cost more than the steps of a small bare
        LSTM."""
        _, dtype, features, least, most, _ = self._input_alone
        if array.dtype != dtype or array.ndim != 2:
            return False
        steps, width = array.shape
        flags = array.flags
        return width == features and least <= steps <= most and flags.c_contiguous and flags.aligned

    @cached_property
    def _input_alone(self) -> _InputAlone:
        """The input of a bare LSTM; its dtype is None, which fits no array, for other models and for initial states."""
        none = _InputAlone("", None, 0, 1, 0, 0)
        info = self.single.get("input")
        states = [self.model.metadata.initial.get(name) for name in self.model.states]
        if self.model.spec is None or info is None or len(info.shape) != 2 or any(s is not None for s in states):
            return none
        others = set(self.single) - {info.name} - set(self.counts) - set(self.model.states)
        if others or info.shape[0] != TIME or not isinstance(info.shape[1], int) or info.dtype is None:
            return none
        least, most = info.limits.get(TIME, (1, None))
        step_size = info.shape[1] * info.dtype.itemsize + sum(size for size, _ in self._result_sizes)
        return _InputAlone(
            info.name, info.dtype, info.shape[1], max(1, least), float("inf") if most is None else most, step_size
        )

    def _fill_in_states(self, arrays: Arrays, sizes: Mapping[str, int]) -> set[str]:
        """Add the file's initial states to `arrays`; the inputs that are filled in later, per batch."""
        later = set()
        whole = sizes if self.batch is None else {**sizes, self.batch: 1}
        for name, info in self.single.items():
            if name in arrays or any(
                dim is None or (isinstance(dim, str) and size_of(dim, whole) is None) for dim in info.shape
            ):
                continue
            if name in self.counts:
                later.add(name)
            elif name in self.model.states:
                initial = self.model.metadata.initial.get(name)
                if initial is None and all(isinstance(dim, int) or dim in sizes for dim in info.shape):
                    later.add(name)
                    continue
                batched = self.model.inputs[name]
                state = initial_state(batched, whole, initial)
                if state is not None:
                    has_batch = self.batch in batched.shape
                    arrays[name] = state.squeeze(batched.shape.index(self.batch)) if has_batch else state
        return later

    @cached_property
    def cut_axes(self) -> dict[str, list[str | None]]:
        """For each output of one sequence, the padded axes to whose sizes its axes are cut; None for no cut.

        An axis that no input has, as pad_packed_sequence creates it, is assumed to be the padded one; that is
        tested before padding is used (see `results_agree`).
        """
        only = next(iter(self.padded)) if len(self.padded) == 1 else None
        known = {axis for info in self.single.values() for axis in info.shape if axis is not None} - self.padded
        return {
            name: [
                None if isinstance(axis, int) or axis in known else axis if axis in self.padded else only
                for axis in info.shape
            ]
            for name, info in self.outputs.items()
        }

    def keys(self, samples: Sequence[Sample]) -> list[Hashable]:
        """A key for each sample: samples with equal keys may run together."""
        names: set[str] = set().union(*[sample.arrays for sample in samples])
        axes: set[str] = set().union(*[sample.sizes for sample in samples])
        if axes <= self.padded and names.isdisjoint(self._own_keys):
            return [None] * len(samples)
        return [self._key(sample) for sample in samples]

    def _key(self, sample: Sample) -> Hashable:
        sizes = frozenset([item for item in sample.sizes.items() if item[0] not in self.padded])
        # Lengths below the array's own size: the results depend on that size too, which padding would change.
        shorter = tuple(
            (name, int(sample.arrays[name]), sample.sizes[axis])
            for name, axis in self.counts.items()
            if name in sample.arrays and sample.arrays[name] != sample.sizes[axis]
        )
        shared = tuple([sample.arrays[name].tobytes() for name in self._shared if name in sample.arrays])
        steps = sample.arrays.get(self._steps)
        return (
            sizes,
            shorter,
            shared,
            0 if steps is None else self.model.metadata.streaming_or_default.place(int(steps)),
        )

    @cached_property
    def _own_keys(self) -> frozenset[str]:
        """The inputs whose values are in a sample's key."""
        return frozenset([*self.counts, *self._shared, self._steps])

    @property
    def _steps(self) -> str:
        """The state that tells which sequences can be stepped together (see `Streaming.place`); "" for none."""
        return self.model.metadata.streaming_or_default.steps or ""

    @cached_property
    def _shared(self) -> list[str]:
        """The inputs without a batch axis, which must be the same for sequences that run together."""
        return [name for name, info in self.model.inputs.items() if self.batch not in info.shape and self.together]

    def _size(self, arrays: Arrays, sizes: Mapping[str, int]) -> int:
        """Approximately, the bytes of a sample and its results."""
        size = self._fixed_result_size + sum([array.nbytes for array in arrays.values()])
        for fixed, axes in self._result_sizes:
            for axis in axes:
                fixed *= sizes[axis] if axis in sizes else max(sizes.values(), default=1)
            size += fixed
        return size

    @cached_property
    def _fixed_result_size(self) -> int:
        """Of the outputs without named axes."""
        return sum(fixed for fixed, axes in self._all_result_sizes if not axes)

    @cached_property
    def _result_sizes(self) -> list[tuple[int, list[str]]]:
        """Of the outputs with named axes; see `_all_result_sizes`."""
        return [(fixed, axes) for fixed, axes in self._all_result_sizes if axes]

    @cached_property
    def _all_result_sizes(self) -> list[tuple[int, list[str]]]:
        """Of each output of one sequence, its bytes at axes of size 1, and the named axes."""
        return [
            (
                prod(dim for dim in info.shape if isinstance(dim, int))
                * (info.dtype.itemsize if info.dtype is not None else 8),
                [dim or "" for dim in info.shape if not isinstance(dim, int)],
            )
            for info in self.outputs.values()
        ]


def _without(info: ValueInfo, batch: str | None) -> ValueInfo:
    return replace(info, shape=tuple(dim for dim in info.shape if batch is None or dim != batch))


def _by_name(value: Any) -> dict[str, Any]:
    """A bare LSTM's sequence, alone or with its states, by input name."""
    if not isinstance(value, tuple):
        return {"input": value}
    if len(value) != 2 or not isinstance(value[1], (tuple, list)) or len(value[1]) != 2:
        raise InputError("a tuple must be (input, (h0, c0))")
    return {"input": value[0], "h0": value[1][0], "c0": value[1][1]}
