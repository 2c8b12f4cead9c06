"""`Pool`: steps many streams as one batch.

One stream's step takes as long as reading the weights; a step of 64 streams also reads them only once.  `SlotStates`
stores the states, and `BoundBatchCache` runs a batch on every core.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from operator import is_
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import InputError, RunError, reason, shown
from ...terminal_text import one_line
from ..arguments import positive_integer
from ..batch_axes import BatchAxes, require_batch, require_state_batch_axis
from ..conversion import ToCallerType, as_passed, to_numpy, unchanged
from ..counts import require_one_place
from ..loaded_model import LoadedModel
from ..non_finite_inputs import warn_of_non_finite
from ..run import run_model
from ..shutdown import LostLock, watch
from ..stream import Stream
from ..stream_states import require_like_state, validated_states
from ..streamable import require_separate_rows, stream_inputs, stream_outputs
from ..tensor_info import require_known_names, validated_feeds, validated_lengths
from .bound_batches import BoundBatchCache
from .state_memory import ActiveBatch, Arrays, Slot, SlotStates

_LOST = (
    "this process was forked while the pool was in use, and its states may be incomplete; start the process with "
    'multiprocessing\'s method "spawn", or make the pool in the child'
)


class Pool:
    """Streams of one model that are opened and closed at any time and stepped together.  Created by `Model.pool`.

    Methods may be called from any thread and wait for one another: a slot that is closed during a step is closed
    after it.

    Attributes:
        model: the model.
        slots: how many streams can be open at once.
        inputs: the model's inputs that are not states, which `step` takes.
        output_names: the outputs that `step` returns: those that are not states, or all where every one is.
        axes: the batch axis of each state.
        initial_state: the initial value of each state, with a batch axis of 1.
        least: the smallest number of slots that can be stepped together.
        largest: the largest one; None for no limit.
        last: the input that marks the end of a sequence, which is 0 in every step; None for most models.
        has_phases: whether only slots of equal `phase` can be stepped together.
    """

    def __init__(self, model: LoadedModel, slots: int = 64, *, check: bool = True) -> None:
        slots = positive_integer("slots", slots)
        self.initial_state = Stream(model, check=check).state  # raises for a model that cannot be streamed
        self.model = model
        self.slots = slots
        limits = model.metadata.axis_limits
        self.axes = {name: require_state_batch_axis(model, name) for name in model.states}
        for name, axis in self.axes.items():
            if self.initial_state[name].shape[axis] != 1:  # an axis such as 4*batch
                raise InputError(
                    f"the state {model.inputs[name]} has {self.initial_state[name].shape[axis]} rows per "
                    "stream, but a pool stores one",
                    hint="model.stream(batch=n) steps n sequences together",
                    path=model.path,
                )
        least = [limits.get(str(model.inputs[name].shape[axis]), (1, None)) for name, axis in self.axes.items()]
        self.least = max(low for low, _ in least)
        largest = [high for _, high in least if high is not None]
        self.largest = min(largest) if largest else None
        self._streaming = model.metadata.streaming_or_default
        self.last = self._streaming.last
        self.inputs = stream_inputs(model)
        self.output_names = stream_outputs(model)
        self._checks_numbers = model.checks_numbers
        self._lengths = model.spec is not None and "lengths" in self.inputs
        require_separate_rows(model, check=check)
        try:
            self._states = SlotStates(self.initial_state, self.axes, slots)
        except (MemoryError, ValueError) as error:
            raise InputError(f"there is no memory for the states of {slots} slots: {error}") from error
        free = {name: info for name, info in model.inputs.items() if name not in model.states}
        self._parts = BoundBatchCache(model, free, self.output_names, self._states, _known_batch_axes(self), self.least)
        self.has_phases = self._streaming.steps is not None
        self._steps = [0] * slots
        self._free = list(range(slots))[::-1]
        self._rows: dict[Any, int] = {}
        self._latest: tuple[list[Slot], list[int]] = [], []  # the slots of the last step and their rows
        self._session = model.session
        self._lock: threading.Lock | LostLock = threading.Lock()
        watch(forking=self)

    # --- slots ----------------------------------------------------------------------------------

    def open(self) -> Slot:
        """A slot for a new stream, whose states start as those of `Model.stream`.

        Raises:
            InputError: all slots are open.
        """
        # Without the lock, which a step of other slots may hold for long: a free row is in no batch.
        try:
            row = self._free.pop()
        except IndexError:
            raise InputError(
                f"all {self.slots} slots of the pool are open", hint="close one, or create the pool with more slots"
            ) from None
        self._states.write(row, self.initial_state)
        self._steps[row] = 0
        slot = Slot(row)
        self._rows[slot] = row
        return slot

    def close(self, slot: Slot) -> None:
        """End a stream and free its slot.

        Raises:
            InputError: it is not an open slot of this pool.
        """
        with self._lock:
            row = self._row(slot)
            self._states.release([row])
            self._latest = [], []
            del self._rows[slot]
            self._free.append(row)

    def reset(self, slot: Slot) -> None:
        """Set one stream's states to their initial values.

        Raises:
            InputError: it is not an open slot of this pool.
        """
        with self._lock:
            row = self._row(slot)
            self._states.write(row, self.initial_state)
            self._steps[row] = 0

    def state(self, slot: Slot) -> Arrays:
        """A copy of one stream's states by input name, as in a `Stream` of batch 1.

        Returns:
            For a bare LSTM arrays of shapes ``{"h0": (L, 1, S), "c0": (L, 1, H)}``.

        Raises:
            InputError: it is not an open slot of this pool.
        """
        with self._lock:
            return self._states.read(self._row(slot))

    def set_state(self, slot: Slot, values: Mapping[str, Any]) -> None:
        """Set one stream's states to a result of `state`, or of a `Stream` of batch 1.

        Raises:
            InputError: it is not an open slot of this pool, or a state is missing or does not fit.
        """
        infos = {name: self.model.inputs[name] for name in self.model.states}
        shapes = {name: array.shape for name, array in self.initial_state.items()}
        validated = validated_states(infos, values, shapes, "a slot's")
        require_one_place(self._streaming, validated)
        warn_of_non_finite(self.model, validated)
        with self._lock:
            row = self._row(slot)
            self._states.write(row, validated)
            if self._streaming.steps is not None:
                self._steps[row] = int(validated[self._streaming.steps].reshape(-1)[0])

    def phase(self, slot: Slot) -> int:
        """Slots of equal phases can be stepped together; 0 if all can.

        A model with strides or look-ahead gives a different number of steps in each phase.

        Raises:
            InputError: it is not an open slot of this pool.
        """
        with self._lock:
            return self._phase(self._row(slot))

    def _phase(self, row: int) -> int:
        if not self.has_phases:
            return 0
        return self._streaming.place(self._steps[row])

    def __len__(self) -> int:
        """How many slots are open."""
        return len(self._rows)

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied."""
        raise TypeError("a pool cannot be pickled or copied; pickle its model, and set the states of another pool")

    def __repr__(self) -> str:
        """The model's path and the slots, on one line."""
        return one_line(f"<Pool of {self.model.path}: {len(self)} of {self.slots} slots open>")

    def forked(self) -> None:
        """In a forked child it keeps working, unless a step was running: its thread is not in the child."""
        locked = isinstance(self._lock, LostLock) or self._lock.locked()
        self._lock = LostLock(_LOST) if locked else threading.Lock()
        self._parts.threads.forked()

    # --- steps ----------------------------------------------------------------------------------

    def step(self, slots: Sequence[Slot], x: Any) -> Any:
        """The next time steps of some streams, as one batch; the states of the others do not change.

        Args:
            slots: open slots of this pool, each once, in any order.
            x: one batch row per slot, in the model's layout and of any number of time steps: for a bare LSTM
                ``(time, len(slots), input_size)``, or ``(len(slots), time, input_size)`` with batch_first.  A dict
                of arrays by name for a model with several inputs apart from its states, or with lengths.

        Returns:
            The output, one row per slot, of the type of `x`, in new memory.  A dict of outputs by name where `x` is
            a dict, or where there are several outputs apart from the states, or none.

        Raises:
            InputError: a slot is closed, of another pool or listed twice, or `x` does not fit; no state has changed.
            RunError: ONNX Runtime failed; no state has changed.
        """
        if not isinstance(slots, list):
            try:
                slots = list(slots)
            except Exception as error:  # not an iterable, or one that fails
                raise InputError(f"slots must be a list of open slots: {reason(error)}") from error
        arrays, to_caller_type = self.arrays(x, len(slots))
        with self._lock:
            results = self._run(self._rows_of(slots), arrays)
        results = as_passed(results, to_caller_type)
        return next(iter(results.values())) if len(self.output_names) == 1 and not isinstance(x, Mapping) else results

    def arrays(self, x: Any, batch: int) -> tuple[Arrays, ToCallerType]:
        """The inputs of a step by name, in the model's order, and the function that converts results to x's type.

        Missing lengths are filled in.  Shapes and dtypes are not validated here.

        Raises:
            InputError: `x` is not an array, a name is not one of the model's inputs, or the model has several.
        """
        to_caller_type: ToCallerType = unchanged
        if isinstance(x, Mapping):
            for name in x:
                if name in self.model.states:
                    raise InputError(
                        f"{name} is a state, which the pool carries itself", hint="pool.set_state changes it", name=name
                    )
            require_known_names(self.inputs, x)
            arrays = {}
            for name, info in self.inputs.items():
                if name in x:
                    arrays[name], convert = to_numpy(x[name], info, name)
                    to_caller_type = convert if to_caller_type is unchanged else to_caller_type
        else:
            name = self.only_input()
            array, to_caller_type = to_numpy(x, self.inputs[name], name)
            arrays = {name: array}
        if self._lengths and "input" in arrays and arrays["input"].ndim == 3:
            spec = self.model.spec
            time = arrays["input"].shape[1 if spec is not None and spec.batch_first else 0]
            arrays["lengths"] = validated_lengths(arrays.get("lengths"), batch, time)
        elif self._checks_numbers:
            self.model.require_counts(arrays)
        warn_of_non_finite(self.model, arrays)
        if self.last is not None:
            arrays[self.last] = np.zeros(1, np.int64)
        return arrays, to_caller_type

    def only_input(self) -> str:
        """The name of the input that `step` takes as an array instead of a dict.

        Raises:
            InputError: there are several inputs apart from the states, or none.
        """
        if self.model.spec is not None:
            return "input"
        if len(self.inputs) != 1:
            inputs = f"the inputs {', '.join(self.inputs)}" if self.inputs else "no input apart from its states"
            raise InputError(f"has {inputs}", path=self.model.path, hint="a step takes {name: array}")
        return next(iter(self.inputs))

    def _run(self, rows: list[int], arrays: Arrays) -> dict[str, Any]:
        """One batch; the caller holds the lock."""
        if self.model.session is not self._session:  # the model was closed
            self._session = self.model.session
            self._parts.clear()
        offset = self._states.offset(rows)
        key = (len(rows), *[array.shape for array in arrays.values()], self._common_phase(rows))
        bound = self._parts.find(offset, key, arrays)
        if bound is None:
            hint = "x has one row for each slot of the step"
            require_batch(self.model, arrays, len(rows), carrier="the number of slots is", hint=hint)
            # States are only needed for the sizes of their axes, so any rows will do.
            validated_feeds(self.model.inputs, {**arrays, **self._states.batch(0, (0, len(rows)))})
            bound = self._parts.bind(offset, key, arrays)
        active = self._states.activate(rows, offset, bound.row_ranges if bound else ((0, len(rows)),))
        try:
            results = None if bound is None else self._parts.run(bound, active.buffer_index, arrays)
        except RunError:
            # Either the model fails on this input, and will fail again, or its output shapes depend on more than
            # its input shapes, and it must not be bound.
            results = self._run_unbound(key, active, arrays)
            self._parts.exclude(offset, key)
        if results is None:
            results = self._run_unbound(key, active, arrays)
        self._states.advance(active)
        if self.has_phases:
            name, axis = next(iter(self._streaming.time.items()))
            for row in rows:
                self._steps[row] += arrays[name].shape[axis]
        return results

    def _common_phase(self, rows: list[int]) -> int:
        """The common phase of all rows, on which output shapes depend.

        Raises:
            InputError: their phases differ.
        """
        if not self.has_phases:
            return 0
        phases = {self._phase(row) for row in rows}
        if len(phases) > 1:
            steps = ", ".join(str(count) for count in sorted({self._steps[row] for row in rows})[:5])
            raise InputError(
                f"the slots have had {steps} steps, and cannot be stepped together",
                hint="step slots of equal pool.phase(slot) together; a Batcher does so by itself",
                path=self.model.path,
            )
        return self._streaming.phase(self._steps[rows[0]])

    def _run_unbound(self, key: Any, active: ActiveBatch, arrays: Arrays) -> dict[str, Any]:
        """One batch by `run_model`, whose output shapes are recorded for a binding."""
        before = self._states.whole(active)
        began = perf_counter()
        results = run_model(self.model, {**arrays, **before})
        seconds = perf_counter() - began
        for name, output in self.model.states.items():
            require_like_state(self.model, name, results[output], before[name])
        self._states.set_next(active, {name: results[output] for name, output in self.model.states.items()})
        self._parts.record_outputs(key, arrays, results, seconds)
        return {name: results[name] for name in self.output_names}

    # --- rows; the caller holds the lock ------------------------------------------------------------------

    def _row(self, slot: Slot) -> int:
        return self._rows_of([slot])[0]

    def _rows_of(self, slots: list[Slot]) -> list[int]:
        known, rows = self._latest
        if known and len(known) == len(slots) and all(map(is_, known, slots)):  # as at the last step, and all open
            return rows
        try:
            rows = list(map(self._rows.__getitem__, slots))
        except (KeyError, TypeError):
            for slot in slots:
                if not isinstance(slot, Slot) or slot not in self._rows:
                    raise InputError(f"{shown(slot)} is not an open slot of this pool") from None
            raise
        if len(set(rows)) != len(rows):
            twice = next(slot for slot in slots if slots.count(slot) > 1)
            raise InputError(f"{twice!r} is listed twice", hint="a stream is stepped once at a time")
        if not rows:
            raise InputError("there is no slot to step", hint="pass one or more")
        self._latest = list(slots), rows
        return rows


def _known_batch_axes(pool: Pool) -> BatchAxes | None:
    """The axes along which a batch can be divided; None where they are not known."""
    try:
        return BatchAxes.of(pool.model, pool.axes, pool.output_names)
    except InputError:
        return None
