"""Pools: many streams, stepped as one batch.

A step of one stream is bound by reading the weights, and a step of 64 reads them once.  Where a batch is
worth it, it is cut into parts that run side by side, one thread each.  Each part is bound twice, from
either half of the states' memory into the other (`slots.SlotStates`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError
from .binding import Binding
from .lanes import Lanes, cores
from .rows import Rows
from .slots import Arrays, Cut, Held, Slot, SlotStates
from .states import fitting_states
from .values import Restore, ValueInfo, checked, checked_lengths, known_names, to_numpy
from .work import row_work, rows_of

if TYPE_CHECKING:
    from .session import Model

_MAX_BOUND = 32
"""How many shapes keep their bindings; of batches, most programs have few sizes."""
_MAX_BOUND_BYTES = 2**20
"""Larger inputs and outputs are not kept: beside the time that they take, a binding saves nothing."""
_MAX_LEARNED = 512
_LANE_WORK = 1.6e7
"""FLOPs from which on a part of a batch is worth a thread of its own, which takes about 50 us to reach."""
_LANE_SECONDS = 4e-4
"""Seconds of a first run from which on a part of a module's is, whose work beside its states' is not known."""


@dataclass(frozen=True)
class _Learned:
    """What a first run of a batch has told: its outputs' shapes and dtypes, and how many seconds it took."""

    outputs: dict[str, tuple[Any, Any]]
    seconds: float


@dataclass(frozen=True)
class _Part:
    """Two bindings of some rows, from each half of their states' memory into the other."""

    cut: Cut
    inputs: Arrays
    bindings: tuple[Binding, Binding]


@dataclass(frozen=True)
class _Bound:
    """A batch of one shape: its parts, and the dtypes that they take."""

    parts: tuple[_Part, ...]
    dtypes: dict[str, Any]


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
    """

    def __init__(self, model: Model, slots: int = 64) -> None:
        if type(slots) is not int or slots < 1:
            raise InputError(f"slots = {slots!r} is not possible; it must be a positive integer")
        self.fresh = model.stream().state  # also refuses, and says why, what cannot be streamed
        self.model = model
        self.slots = slots
        self.axes = {name: _batch_axis(model, name) for name in model.states}
        for name, axis in self.axes.items():
            if self.fresh[name].shape[axis] != 1:  # an axis such as 4*batch
                raise InputError(
                    f"{model.path}: the state {model.inputs[name]} has {self.fresh[name].shape[axis]} rows for each "
                    "stream, and a pool keeps one; use model.stream()"
                )
        self.inputs: dict[str, ValueInfo] = {
            name: info for name, info in model.inputs.items() if name not in model.states
        }
        ends = set(model.states.values())
        self.given = [name for name in model.outputs if name not in ends] or list(model.outputs)
        self._lengths = model.spec is not None and "lengths" in self.inputs
        self._may_bind = model.provider == "cpu" and len(ends) == len(model.states)
        self._states = SlotStates(self.fresh, self.axes, slots)
        self._layout = _layout(self)
        self._lanes = Lanes((model.threads or cores()) if self._may_bind and self._layout else 1)
        self._row_work = row_work(self.fresh.values())
        self._free = list(range(slots))[::-1]
        self._rows: dict[Any, int] = {}
        self._session = model.session
        self._learned: dict[Any, _Learned | None] = {}
        self._bound: OrderedDict[Any, _Bound] = OrderedDict()
        self._lock = threading.Lock()

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
        slots = slots if isinstance(slots, list) else list(slots)
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
            if isinstance(x, np.ndarray):
                arrays = {name: x}
            else:
                array, restore = to_numpy(x, self.inputs[name], name)
                arrays = {name: array}
        if self._lengths and "input" in arrays and arrays["input"].ndim == 3:
            spec = self.model.spec
            time = arrays["input"].shape[1 if spec is not None and spec.batch_first else 0]
            given = arrays.get("lengths")
            arrays["lengths"] = np.full(batch, time, np.int32) if given is None else checked_lengths(given, batch, time)
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
            self._bound.clear()
            self._learned.clear()
        place = self._states.place(rows)
        key = (len(rows), *[array.shape for array in arrays.values()])
        bound = self._bound.get((place, key))
        if bound is not None and all(array.dtype == bound.dtypes[name] for name, array in arrays.items()):
            self._bound.move_to_end((place, key))
        else:
            # The states give their axes' sizes to the check; what they hold does not matter to it.
            checked(self.model.inputs, {**arrays, **self._states.batch(0, (0, len(rows)))})
            bound = self._made(place, key, arrays)
        cuts = tuple(part.cut for part in bound.parts) if bound else ((0, len(rows)),)
        held = self._states.gathered(rows, place, cuts)
        try:
            results = None if bound is None else self._run_bound(bound, held.half, arrays)
        except RunError:
            # Either the model fails on this input, and then it does so again, or its outputs' shapes follow
            # from more than its inputs' shapes, and then it must not be bound.
            results = self._plain(key, held, arrays)
            self._learned[key] = None
            self._bound.pop((place, key), None)
        if results is None:
            results = self._plain(key, held, arrays)
        self._states.stepped(held)
        return results

    def _run_bound(self, bound: _Bound, half: int, arrays: Arrays) -> dict[str, Any]:
        for part in bound.parts:
            for name, buffer in part.inputs.items():
                np.copyto(buffer, arrays[name] if len(bound.parts) == 1 else self._own(name, arrays[name], part.cut))
        bindings = [part.bindings[half] for part in bound.parts]
        self._lanes.run([binding.run for binding in bindings])
        if len(bindings) == 1 or self._layout is None:
            return {name: bindings[0].outputs[name].copy() for name in self.given}
        return {
            name: np.concatenate([binding.outputs[name] for binding in bindings], self._layout.outputs[name])
            for name in self.given
        }

    def _own(self, name: str, array: np.ndarray, cut: Cut) -> np.ndarray:
        """A part's rows of an input."""
        axis = None if self._layout is None else self._layout.inputs[name]
        return array if axis is None else array[(*(slice(None),) * axis, slice(*cut))]

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
        if self._may_bind and key not in self._learned:
            if len(self._learned) >= _MAX_LEARNED:
                self._learned.clear()
            small = all(isinstance(value, np.ndarray) and not value.dtype.hasobject for value in results.values())
            small = small and not any(array.dtype.hasobject for array in arrays.values())
            small = small and sum(results[name].nbytes for name in self.given) <= _MAX_BOUND_BYTES
            small = small and sum(array.nbytes for array in arrays.values()) <= _MAX_BOUND_BYTES
            outputs = {name: (value.shape, value.dtype) for name, value in results.items()} if small else {}
            self._learned[key] = _Learned(outputs, seconds) if small else None
        return {name: results[name] for name in self.given}

    def _made(self, place: int, key: Any, arrays: Arrays) -> _Bound | None:
        """Bindings for such inputs of a batch that lies at `place`.

        None where the outputs' shapes are not known yet, or cannot be bound.
        """
        learned = self._learned.get(key)
        if learned is None:
            return None
        session = self.model.one_thread()
        bound = _Bound(
            tuple(self._part(session, place, cut, arrays, learned) for cut in self._cuts(key[0], arrays, learned)),
            {name: array.dtype for name, array in arrays.items()},
        )
        self._bound[place, key] = bound
        if len(self._bound) > _MAX_BOUND:
            self._bound.popitem(last=False)
        return bound

    def _part(self, session: Any, place: int, cut: Cut, arrays: Arrays, learned: _Learned) -> _Part:
        memory = place + cut[0], place + cut[1]
        halves = self._states.batch(0, memory), self._states.batch(1, memory)
        inputs = {name: np.empty(self._own(name, array, cut).shape, array.dtype) for name, array in arrays.items()}
        ends = {output: name for name, output in self.model.states.items()}
        outputs = {}
        for name, (shape, dtype) in learned.outputs.items():
            if name not in ends:
                size = list(shape)
                if self._layout is not None and name in self._layout.outputs:
                    size[self._layout.outputs[name]] = cut[1] - cut[0]
                outputs[name] = np.empty(size, dtype)
        first, second = (
            Binding(
                session,
                self.model.path,
                inputs | start,
                outputs | {output: end[name] for output, name in ends.items()},
            )
            for start, end in (halves, halves[::-1])
        )
        return _Part(cut, inputs, (first, second))

    def _cuts(self, rows: int, arrays: Arrays, learned: _Learned) -> tuple[Cut, ...]:
        """How a batch is cut: into as many equal parts as there are lanes, where each is worth one."""
        layout = self._layout
        if layout is None or any(learned.outputs[name][0][axis] != rows for name, axis in layout.outputs.items()):
            return ((0, rows),)
        work = max(rows, rows_of(self.inputs, arrays)) * self._row_work
        worth = int(work / _LANE_WORK)
        if self.model.spec is None:
            worth = max(worth, int(learned.seconds / _LANE_SECONDS))
        parts = max(1, min(self._lanes.count, rows, worth))
        ends = [rows * part // parts for part in range(parts + 1)]
        return tuple(pairwise(ends))

    # --- rows; the lock is held ------------------------------------------------------------------

    def _row(self, slot: Slot) -> int:
        return self._rows_of([slot])[0]

    def _rows_of(self, slots: list[Slot]) -> list[int]:
        try:
            rows = list(map(self._rows.__getitem__, slots))
        except (KeyError, TypeError):
            for slot in slots:
                if not isinstance(slot, Slot) or slot not in self._rows:
                    raise InputError(f"{slot!r} is not an open slot of this pool") from None
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
