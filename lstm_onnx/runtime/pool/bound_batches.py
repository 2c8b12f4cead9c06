"""The batches of a pool that are bound: cut into parts that run side by side, one thread each.

A shape of batch is bound once it has been run, which tells the shapes of its outputs.  Each part is bound
twice, from either half of the states' memory into the other (`slots.SlotStates`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bindings import Binding
from ..flops import row_work, rows_of
from ..tensor_info import ValueInfo
from .batch_axes import Rows
from .pinned_threads import Lanes, cores
from .state_memory import Arrays, Cut, SlotStates

if TYPE_CHECKING:
    from ..model import Model

Key = tuple[Any, ...]
"""What tells batches of one shape: how many rows, and the shapes of what they are given."""

MAX_BOUND = 64
"""How many batches keep their bindings: of most programs all shapes, in both places."""
MAX_BOUND_BYTES = 2**20
"""Larger inputs and outputs are not kept: beside the time that they take, a binding saves nothing."""
MAX_LEARNED = 512
LANE_WORK = 1.6e7
"""FLOPs from which on a part of a batch is worth a thread of its own, which takes about 50 us to reach."""
LANE_SECONDS = 4e-4
"""Seconds of a first run from which on a part of a module's is, whose work beside its states' is not known."""


@dataclass(frozen=True)
class Learned:
    """What a first run of a batch has told: its outputs' shapes and dtypes, and how many seconds it took."""

    outputs: dict[str, tuple[Any, Any]]
    seconds: float


@dataclass(frozen=True)
class Part:
    """Two bindings of some rows, from each half of their states' memory into the other."""

    cut: Cut
    inputs: Arrays
    bindings: tuple[Binding, Binding]


@dataclass(frozen=True)
class Bound:
    """A batch of one shape, at one place of the states' memory: its parts, and the dtypes that they take."""

    parts: tuple[Part, ...]
    dtypes: dict[str, Any]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Which rows each part has."""
        return tuple(part.cut for part in self.parts)


class Parts:
    """Such batches of one pool.  Not for two threads at once.

    Args:
        model: the model.
        inputs: its inputs that are not states.
        given: the outputs that `run` gives.
        states: where its states lie.
        layout: along which axes a batch can be cut; None where that is not known.
        least: how many rows a part has at least.
    """

    def __init__(
        self,
        model: Model,
        inputs: Mapping[str, ValueInfo],
        given: Sequence[str],
        states: SlotStates,
        layout: Rows | None,
        least: int = 1,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.given = given
        self.states = states
        self.layout = layout
        self.least = least
        # An output that feeds two states would have to be written to two places.
        self.may_bind = model.provider == "cpu" and len(set(model.states.values())) == len(model.states)
        self.lanes = Lanes((model.threads or cores()) if self.may_bind and layout else 1)
        self.row_work = row_work(states.fresh.values())
        self.learned: dict[Key, Learned | None] = {}
        self.bound: OrderedDict[tuple[int, Key], Bound] = OrderedDict()

    def clear(self) -> None:
        """Let go of all."""
        self.learned.clear()
        self.bound.clear()

    def find(self, place: int, key: Key, arrays: Arrays) -> Bound | None:
        """The one for a batch that lies at `place`."""
        bound = self.bound.get((place, key))
        if bound is None or any(array.dtype != bound.dtypes[name] for name, array in arrays.items()):
            return None
        self.bound.move_to_end((place, key))
        return bound

    def run(self, bound: Bound, half: int, arrays: Arrays) -> Arrays:
        """Step the states from `half` of their memory into the other; the outputs are the caller's own.

        Raises:
            RunError: ONNX Runtime failed.
        """
        for part in bound.parts:
            for name, buffer in part.inputs.items():
                np.copyto(buffer, arrays[name] if len(bound.parts) == 1 else self._own(name, arrays[name], part.cut))
        bindings = [part.bindings[half] for part in bound.parts]
        self.lanes.run([binding.run for binding in bindings])
        if len(bindings) == 1 or self.layout is None:
            return {name: bindings[0].outputs[name].copy() for name in self.given}
        return {
            name: np.concatenate([binding.outputs[name] for binding in bindings], self.layout.outputs[name])
            for name in self.given
        }

    def learn(self, key: Key, arrays: Arrays, results: Mapping[str, Any], seconds: float) -> None:
        """Note what a first run of such a batch has told."""
        if not self.may_bind or key in self.learned:
            return
        if len(self.learned) >= MAX_LEARNED:
            self.learned.clear()
        small = all(isinstance(value, np.ndarray) and not value.dtype.hasobject for value in results.values())
        small = small and not any(array.dtype.hasobject for array in arrays.values())
        small = small and sum(results[name].nbytes for name in self.given) <= MAX_BOUND_BYTES
        small = small and sum(array.nbytes for array in arrays.values()) <= MAX_BOUND_BYTES
        outputs = {name: (value.shape, value.dtype) for name, value in results.items()} if small else {}
        self.learned[key] = Learned(outputs, seconds) if small else None

    def never(self, place: int, key: Key) -> None:
        """Bind no such batch any more."""
        self.learned[key] = None
        self.bound.pop((place, key), None)

    def make(self, place: int, key: Key, arrays: Arrays) -> Bound | None:
        """Bindings for such inputs of a batch that lies at `place`.

        None where the outputs' shapes are not known yet, or cannot be bound.
        """
        learned = self.learned.get(key)
        if learned is None:
            return None
        bound = Bound(
            tuple(self._part(place, cut, arrays, learned) for cut in self._cuts(key[0], arrays, learned)),
            {name: array.dtype for name, array in arrays.items()},
        )
        self.bound[place, key] = bound
        if len(self.bound) > MAX_BOUND:
            self.bound.popitem(last=False)
        return bound

    def _part(self, place: int, cut: Cut, arrays: Arrays, learned: Learned) -> Part:
        memory = place + cut[0], place + cut[1]
        halves = self.states.batch(0, memory), self.states.batch(1, memory)
        inputs = {name: np.empty(self._own(name, array, cut).shape, array.dtype) for name, array in arrays.items()}
        ends = {output: name for name, output in self.model.states.items()}
        outputs = {}
        for name, (shape, dtype) in learned.outputs.items():
            if name not in ends:
                size = list(shape)
                if self.layout is not None and name in self.layout.outputs:
                    size[self.layout.outputs[name]] = cut[1] - cut[0]
                outputs[name] = np.empty(size, dtype)
        first, second = (
            Binding(
                self.model.one_thread(),
                self.model.path,
                inputs | start,
                outputs | {output: end[name] for output, name in ends.items()},
            )
            for start, end in (halves, halves[::-1])
        )
        return Part(cut, inputs, (first, second))

    def _own(self, name: str, array: np.ndarray, cut: Cut) -> np.ndarray:
        """A part's rows of an input."""
        axis = None if self.layout is None else self.layout.inputs[name]
        return array if axis is None else array[(*(slice(None),) * axis, slice(*cut))]

    def _cuts(self, rows: int, arrays: Arrays, learned: Learned) -> tuple[Cut, ...]:
        """How a batch is cut: into as many equal parts as there are lanes, where each is worth one."""
        layout = self.layout
        if layout is None or any(learned.outputs[name][0][axis] != rows for name, axis in layout.outputs.items()):
            return ((0, rows),)
        worth = int(max(rows, rows_of(self.inputs, arrays)) * self.row_work / LANE_WORK)
        if self.model.spec is None:
            worth = max(worth, int(learned.seconds / LANE_SECONDS))
        parts = max(1, min(self.lanes.count, rows // self.least, worth))
        ends = [rows * part // parts for part in range(parts + 1)]
        return tuple(pairwise(ends))
