"""Binds a pool's batches, divided into parts that run in parallel, one thread each.

A model with `spin` divides nothing here: ONNX Runtime's threads are awake, and start sooner than ours would wake up.

A batch shape is bound after its first run, which gives the shapes of its outputs.  Each part is bound twice, from
either buffer of the states into the other (see `SlotStates`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..batch_axes import BatchAxes
from ..bindings import Binding
from ..cancellation import options_of
from ..flops import rows_of, step_flops
from ..loaded_model import LoadedModel
from ..tensor_info import ValueInfo
from ..tuning import MAX_KNOWN_OUTPUTS, MAX_POOL_BINDING_BYTES, MAX_POOL_BINDINGS, PART_FLOPS, PART_SECONDS, WAKE_FLOPS
from .pinned_threads import PinnedThreads, cores
from .state_memory import Arrays, RowRange, SlotStates

Key = tuple[Any, ...]
"""A batch's number of rows, and the shapes of its inputs."""


@dataclass(frozen=True)
class OutputShapes:
    """The shapes and dtypes of a batch's outputs, and the seconds of its first run."""

    outputs: dict[str, tuple[Any, Any]]
    seconds: float


@dataclass(frozen=True)
class BoundPart:
    """Two bindings of a range of rows, from each buffer of the states into the other.

    Attributes:
        row_range: its rows of the batch.
        inputs: the bound arrays of its inputs.
        bindings: from the first buffer into the second, and back.
        input_index: by name, the index of its rows in an input of the whole batch.
        output_index: the same for the outputs that a step returns.
    """

    row_range: RowRange
    inputs: Arrays
    bindings: tuple[Binding, Binding]
    input_index: dict[str, tuple[Any, ...]]
    output_index: dict[str, tuple[Any, ...]]

    def run(self, options: Any, buffer_index: int, arrays: Arrays, results: Arrays) -> None:
        """Step its rows of `arrays` from this buffer into the other, and write its rows of `results`.

        The thread that computes the part also copies, so that no core waits for another one's copies.
        """
        for name, buffer in self.inputs.items():
            np.copyto(buffer, arrays[name][self.input_index[name]])
        binding = self.bindings[buffer_index]
        binding.run(options)
        for name, index in self.output_index.items():
            results[name][index] = binding.outputs[name]


@dataclass(frozen=True)
class BoundBatch:
    """A batch of one shape at one offset of the buffers: its parts, the dtypes of its inputs, and its outputs."""

    parts: tuple[BoundPart, ...]
    dtypes: dict[str, Any]
    outputs: dict[str, tuple[Any, Any]]

    @property
    def row_ranges(self) -> tuple[RowRange, ...]:
        """The rows of each part."""
        return tuple(part.row_range for part in self.parts)


class BoundBatchCache:
    """The bound batches of one pool.  For one thread at a time.

    Args:
        model: the model.
        inputs: its inputs that are not states.
        output_names: the outputs that `run` returns.
        states: the memory of its states.
        axes: the axes along which a batch can be divided; None if they are not known.
        least: the smallest number of rows of a part.
    """

    def __init__(
        self,
        model: LoadedModel,
        inputs: Mapping[str, ValueInfo],
        output_names: Sequence[str],
        states: SlotStates,
        axes: BatchAxes | None,
        least: int = 1,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.output_names = output_names
        self.states = states
        self.axes = axes
        self.least = least
        self.may_bind = model.provider == "cpu" and model.states_can_be_bound
        divides = self.may_bind and axes and not model.spin
        self.threads = PinnedThreads((model.threads or cores()) if divides else 1)
        self.step_flops = step_flops(states.initial_state.values())
        self.known_outputs: dict[Key, OutputShapes | None] = {}
        self.bound: OrderedDict[tuple[int, Key], BoundBatch] = OrderedDict()

    def clear(self) -> None:
        """Drop all bindings."""
        self.known_outputs.clear()
        self.bound.clear()

    def find(self, offset: int, key: Key, arrays: Arrays) -> BoundBatch | None:
        """The bound batch at `offset`, if there is one for these arrays."""
        bound = self.bound.get((offset, key))
        if bound is None or any(array.dtype != bound.dtypes[name] for name, array in arrays.items()):
            return None
        self.bound.move_to_end((offset, key))
        return bound

    def run(self, bound: BoundBatch, buffer_index: int, arrays: Arrays) -> Arrays:
        """Step the states from this buffer into the other; the outputs are in new memory.

        Raises:
            RunError: ONNX Runtime failed.
        """
        results = {name: np.empty(shape, dtype) for name, (shape, dtype) in bound.outputs.items()}
        options = options_of(self.model)  # read here, since another thread may run a part
        self.threads.run([partial(part.run, options, buffer_index, arrays, results) for part in bound.parts])
        return results

    def record_outputs(self, key: Key, arrays: Arrays, results: Mapping[str, Any], seconds: float) -> None:
        """Record the output shapes and the duration of a first run."""
        if not self.may_bind or key in self.known_outputs:
            return
        if len(self.known_outputs) >= MAX_KNOWN_OUTPUTS:
            self.known_outputs.clear()
        small = all(isinstance(value, np.ndarray) and not value.dtype.hasobject for value in results.values())
        small = small and not any(array.dtype.hasobject for array in arrays.values())
        small = small and sum(results[name].nbytes for name in self.output_names) <= MAX_POOL_BINDING_BYTES
        small = small and sum(array.nbytes for array in arrays.values()) <= MAX_POOL_BINDING_BYTES
        outputs = {name: (value.shape, value.dtype) for name, value in results.items()} if small else {}
        self.known_outputs[key] = OutputShapes(outputs, seconds) if small else None

    def exclude(self, offset: int, key: Key) -> None:
        """Never bind such a batch again."""
        self.known_outputs[key] = None
        self.bound.pop((offset, key), None)

    def bind(self, offset: int, key: Key, arrays: Arrays) -> BoundBatch | None:
        """Bind such inputs of a batch at `offset`; None where the outputs' shapes are unknown or unsuitable."""
        known = self.known_outputs.get(key)
        if known is None:
            return None
        bound = BoundBatch(
            tuple(self._part(offset, rows, arrays, known) for rows in self._row_ranges(key[0], arrays, known)),
            {name: array.dtype for name, array in arrays.items()},
            {name: known.outputs[name] for name in self.output_names},
        )
        self.bound[offset, key] = bound
        if len(self.bound) > MAX_POOL_BINDINGS:
            self.bound.popitem(last=False)
        return bound

    def _part(self, offset: int, row_range: RowRange, arrays: Arrays, known: OutputShapes) -> BoundPart:
        memory = offset + row_range[0], offset + row_range[1]
        buffers = self.states.batch(0, memory), self.states.batch(1, memory)
        axes = self.axes
        input_index = {name: _index(None if axes is None else axes.inputs[name], row_range) for name in arrays}
        output_index = {
            name: _index(None if axes is None else axes.outputs[name], row_range) for name in self.output_names
        }
        inputs = {name: np.empty(array[input_index[name]].shape, array.dtype) for name, array in arrays.items()}
        ends = {output: name for name, output in self.model.states.items()}
        outputs = {}
        for name, (shape, dtype) in known.outputs.items():
            if name not in ends:
                size = list(shape)
                if axes is not None and name in axes.outputs:
                    size[axes.outputs[name]] = row_range[1] - row_range[0]
                outputs[name] = np.empty(size, dtype)
        first, second = (
            Binding(
                self.model.session if self.model.spin else self.model.one_thread(),
                self.model.path,
                inputs | start,
                outputs | {output: end[name] for output, name in ends.items()},
            )
            for start, end in (buffers, buffers[::-1])
        )
        return BoundPart(row_range, inputs, (first, second), input_index, output_index)

    def _row_ranges(self, rows: int, arrays: Arrays, known: OutputShapes) -> tuple[RowRange, ...]:
        """Divide a batch into parts, at most one per thread, each large enough for a thread.

        They are equal, except that the first one is larger if the model's FLOPs are known, since it starts first.
        """
        axes = self.axes
        if axes is None or any(known.outputs[name][0][axis] != rows for name, axis in axes.outputs.items()):
            return ((0, rows),)
        flops = max(rows, rows_of(self.inputs, arrays)) * self.step_flops
        useful = int(flops / PART_FLOPS)
        if self.model.spec is None:
            useful = max(useful, int(known.seconds / PART_SECONDS))
        parts = max(1, min(self.threads.count, rows // self.least, useful))
        more = 0
        if self.model.spec is not None and parts > 1:
            more = min(round(WAKE_FLOPS * rows / flops), rows - parts * self.least)
        ends = [0, *(more + (rows - more) * part // parts for part in range(1, parts + 1))]
        return tuple(pairwise(ends))


def _index(axis: int | None, row_range: RowRange) -> tuple[Any, ...]:
    """The index of these rows along `axis`; of the whole array if it has no such axis."""
    return (...,) if axis is None else (*(slice(None),) * axis, slice(*row_range))
