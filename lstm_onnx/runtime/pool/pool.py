"""Pools: many streams, stepped as one batch.

A step of one stream is bound by reading the weights, and a step of 64 reads them once.  Where the states
lie is `slots.SlotStates`, and how a batch is run on every core `parts.Parts`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, RunError, reason, shown
from ..arguments import positive_integer
from ..initial_states import fitting_states
from ..shutdown import LostLock, watch
from ..tensor_info import Restore, ValueInfo, checked, checked_lengths, known_names, to_numpy
from .batch_axes import Rows
from .bound_batches import Parts
from .state_memory import Arrays, Held, Slot, SlotStates

if TYPE_CHECKING:
    from ..model import Model


_LOST = (
    "this process was forked while the pool was in use, and its states may be half written; start the process with "
    'multiprocessing\'s method "spawn", or make the pool in the child'
)


class Pool:
    """Streams of one model, opened and closed at any time, any of them stepped together.

    Every method may be called from any thread; one waits for another, so a slot that is closed while a
    step is running is closed after it.

    Attributes:
        model: the model.
        slots: how many streams can be open at once.
        inputs: what `step` takes: the model's inputs that are not states.
        given: what `step` gives: the names of the outputs that are not states, or of all where every one is.
        axes: which axis of each state is the batch.
        fresh: what each state starts from, with a batch axis of 1.
        least: how many slots step together at least.
        largest: how many at most; None where nothing bounds it.
    """

    def __init__(self, model: Model, slots: int = 64, *, check: bool = True) -> None:
        slots = positive_integer("slots", slots)
        self.fresh = model.stream(check=check).state  # also refuses, and says why, what cannot be streamed
        if model.metadata.batch_mixes:
            raise InputError(
                f"{model.path}: streams cannot be stepped together: {model.metadata.batch_mixes}; use model.stream()"
            )
        self.model = model
        self.slots = slots
        limits = model.metadata.axis_limits
        self.axes = {name: _batch_axis(model, name) for name in model.states}
        for name, axis in self.axes.items():
            if self.fresh[name].shape[axis] != 1:  # an axis such as 4*batch
                raise InputError(
                    f"{model.path}: the state {model.inputs[name]} has {self.fresh[name].shape[axis]} rows for each "
                    "stream, and a pool keeps one; use model.stream()"
                )
        least = [limits.get(str(model.inputs[name].shape[axis]), (1, None)) for name, axis in self.axes.items()]
        self.least = max(low for low, _ in least)
        largest = [high for _, high in least if high is not None]
        self.largest = min(largest) if largest else None
        self.inputs: dict[str, ValueInfo] = {
            name: info for name, info in model.inputs.items() if name not in model.states
        }
        ends = model.states.values()
        self.given = [name for name in model.outputs if name not in ends] or list(model.outputs)
        self._counted = bool(model.counts)
        self._lengths = model.spec is not None and "lengths" in self.inputs
        try:
            self._states = SlotStates(self.fresh, self.axes, slots)
        except (MemoryError, ValueError) as error:
            raise InputError(f"there is no memory for the states of {slots} slots: {error}") from error
        self._parts = Parts(model, self.inputs, self.given, self._states, _layout(self), self.least)
        self._free = list(range(slots))[::-1]
        self._rows: dict[Any, int] = {}
        self._session = model.session
        self._lock: threading.Lock | LostLock = threading.Lock()
        watch(forking=self)

    # --- slots ----------------------------------------------------------------------------------

    def open(self) -> Slot:
        """A slot for a new stream, whose states start as those of `Model.stream` do.

        Raises:
            InputError: all slots are open.
        """
        with self._lock:
            if not self._free:
                raise InputError(
                    f"all {self.slots} slots of the pool are open; close one, or make the pool with more slots"
                )
            row = self._free.pop()
            self._states.write(row, self.fresh)
            slot = Slot(row)
            self._rows[slot] = row
        return slot

    def close(self, slot: Slot) -> None:
        """End a stream and free its slot.

        Raises:
            InputError: the slot is not open here.
        """
        with self._lock:
            row = self._row(slot)
            self._states.let_go([row])
            del self._rows[slot]
            self._free.append(row)

    def reset(self, slot: Slot) -> None:
        """Start one stream over.

        Raises:
            InputError: the slot is not open here.
        """
        with self._lock:
            self._states.write(self._row(slot), self.fresh)

    def state(self, slot: Slot) -> Arrays:
        """A copy of one stream's states by their inputs' names, as those of a `Stream` of batch 1 are.

        Returns:
            Such as ``{"h0": (L, 1, S), "c0": (L, 1, H)}``.

        Raises:
            InputError: the slot is not open here.
        """
        with self._lock:
            return self._states.read(self._row(slot))

    def set_state(self, slot: Slot, values: Mapping[str, Any]) -> None:
        """Set one stream's states to what `state`, or a `Stream` of batch 1, gave.

        Raises:
            InputError: the slot is not open here, or a state is missing or does not fit.
        """
        infos = {name: self.model.inputs[name] for name in self.model.states}
        shapes = {name: array.shape for name, array in self.fresh.items()}
        fitting = fitting_states(infos, values, shapes, "a slot's")
        with self._lock:
            self._states.write(self._row(slot), fitting)

    def __len__(self) -> int:
        """How many slots are open."""
        return len(self._rows)

    def __repr__(self) -> str:
        """The model's path, and the slots."""
        return f"<Pool of {self.model.path}: {len(self)} of {self.slots} slots open>"

    def forked(self) -> None:
        """In a forked child it goes on, unless it was in the middle of a step, whose thread is not there."""
        held = isinstance(self._lock, LostLock) or self._lock.locked()
        self._lock = LostLock(_LOST) if held else threading.Lock()
        self._parts.lanes.forked()

    # --- steps ----------------------------------------------------------------------------------

    def step(self, slots: Sequence[Slot], x: Any) -> Any:
        """The next time steps of some streams, as one batch; the others keep their states bit for bit.

        Args:
            slots: open slots of this pool, each once, in any order.
            x: one batch row a slot, in the model's own layout and of any number of time steps: for a bare
                LSTM ``(time, len(slots), input_size)``, or ``(len(slots), time, input_size)`` with
                batch_first.  A dict of arrays by name for a model with several inputs beside its
                states, or with lengths.

        Returns:
            The output, a row a slot, of the kind that `x` is; it is the caller's own.  A dict of outputs
            by name where `x` is one, or where there are several beside the states, or none.

        Raises:
            InputError: a slot is closed, of another pool or there twice, or `x` does not fit; no state
                has changed.
            RunError: ONNX Runtime failed; no state has changed.
        """
        if not isinstance(slots, list):
            try:
                slots = list(slots)
            except Exception as error:  # what is no iterable, or fails in the middle
                raise InputError(f"slots must be a list of open slots: {reason(error)}") from error
        arrays, restore = self.arrays(x, len(slots))
        with self._lock:
            results = self._run(self._rows_of(slots), arrays)
        if restore is not None:
            results = {
                name: restore(value) if isinstance(value, np.ndarray) else value for name, value in results.items()
            }
        return next(iter(results.values())) if len(self.given) == 1 and not isinstance(x, Mapping) else results

    def arrays(self, x: Any, batch: int) -> tuple[Arrays, Restore | None]:
        """What `step` is given, by input name in the model's order, and what turns its results into x's kind.

        Absent lengths are filled in.  Whether the arrays fit is not looked at.

        Raises:
            InputError: `x` is no array, a name is not one of the model's inputs, or the model has several.
        """
        restore: Restore | None = None
        if isinstance(x, Mapping):
            for name in x:
                if name in self.model.states:
                    raise InputError(f"{name} is a state, which the pool carries itself; pool.set_state changes it")
            known_names(self.inputs, x)
            arrays = {}
            for name, info in self.inputs.items():
                if name in x:
                    arrays[name], own = to_numpy(x[name], info, name)
                    if restore is None and not isinstance(x[name], np.ndarray):
                        restore = own
        else:
            name = self.only_input()
            if type(x) is np.ndarray and x.dtype.isnative:
                arrays = {name: x}
            else:
                array, own = to_numpy(x, self.inputs[name], name)
                restore = None if isinstance(x, np.ndarray) else own
                arrays = {name: array}
        if self._lengths and "input" in arrays and arrays["input"].ndim == 3:
            spec = self.model.spec
            time = arrays["input"].shape[1 if spec is not None and spec.batch_first else 0]
            given = arrays.get("lengths")
            arrays["lengths"] = np.full(batch, time, np.int32) if given is None else checked_lengths(given, batch, time)
        elif self._counted:
            self.model.require_counts(arrays)
        return arrays, restore

    def only_input(self) -> str:
        """The name of what `step` takes as an array instead of a dict.

        Raises:
            InputError: there are several inputs beside the states, or none.
        """
        if self.model.spec is not None:
            return "input"
        if len(self.inputs) != 1:
            raise InputError(
                f"{self.model.path}: has the inputs {', '.join(self.inputs) or 'of its states alone'}; "
                "a step takes {name: array}"
            )
        return next(iter(self.inputs))

    def _run(self, rows: list[int], arrays: Arrays) -> dict[str, Any]:
        """One batch; the lock is held."""
        if self.model.session is not self._session:  # the model was closed
            self._session = self.model.session
            self._parts.clear()
        place = self._states.place(rows)
        key = (len(rows), *[array.shape for array in arrays.values()])
        bound = self._parts.find(place, key, arrays)
        if bound is None:
            # The states give their axes' sizes to the check; what they hold does not matter to it.
            checked(self.model.inputs, {**arrays, **self._states.batch(0, (0, len(rows)))})
            bound = self._parts.make(place, key, arrays)
        held = self._states.gathered(rows, place, bound.cuts if bound else ((0, len(rows)),))
        try:
            results = None if bound is None else self._parts.run(bound, held.half, arrays)
        except RunError:
            # Either the model fails on this input, and then it does so again, or its outputs' shapes follow
            # from more than its inputs' shapes, and then it must not be bound.
            results = self._plain(key, held, arrays)
            self._parts.never(place, key)
        if results is None:
            results = self._plain(key, held, arrays)
        self._states.stepped(held)
        return results

    def _plain(self, key: Any, held: Held, arrays: Arrays) -> dict[str, Any]:
        """The same by `Model.run`; what it tells is kept for a binding."""
        before = self._states.whole(held)
        began = perf_counter()
        results = self.model.run({**arrays, **before})
        seconds = perf_counter() - began
        for name, output in self.model.states.items():
            if results[output].shape != before[name].shape or results[output].dtype != before[name].dtype:
                raise RunError(
                    f"{self.model.path}: its output {output} is {results[output].dtype} {results[output].shape}, and "
                    f"the state {name} that it feeds {before[name].dtype} {before[name].shape}"
                )
        self._states.set_next(held, {name: results[output] for name, output in self.model.states.items()})
        self._parts.learn(key, arrays, results, seconds)
        return {name: results[name] for name in self.given}

    # --- rows; the lock is held ------------------------------------------------------------------

    def _row(self, slot: Slot) -> int:
        return self._rows_of([slot])[0]

    def _rows_of(self, slots: list[Slot]) -> list[int]:
        try:
            rows = list(map(self._rows.__getitem__, slots))
        except (KeyError, TypeError):
            for slot in slots:
                if not isinstance(slot, Slot) or slot not in self._rows:
                    raise InputError(f"{shown(slot)} is not an open slot of this pool") from None
            raise
        if len(set(rows)) != len(rows):
            twice = next(slot for slot in slots if slots.count(slot) > 1)
            raise InputError(f"{twice!r} is there twice; a stream goes one step at a time")
        if not rows:
            raise InputError("there is no slot to step; give one or more")
        return rows


def _layout(pool: Pool) -> Rows | None:
    """Along which axes a batch can be cut; None where that is not known."""
    try:
        return Rows.of(pool)
    except InputError:
        return None


def _batch_axis(model: Model, name: str) -> int:
    """Which axis of a state is the batch: the one of that name, or else the one that is open."""
    info: ValueInfo = model.inputs[name]
    open_axes = [axis for axis, dim in enumerate(info.shape) if not isinstance(dim, int)]
    named = [axis for axis in open_axes if info.shape[axis] == "batch"]
    axes = named or open_axes
    if len(axes) != 1:
        raise InputError(
            f"{model.path}: the state {info} has no batch axis that is open, so its streams cannot go as one batch; "
            "export it with a dynamic batch"
        )
    return axes[0]
