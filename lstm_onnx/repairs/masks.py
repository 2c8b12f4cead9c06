"""Makes a recurrent operator skip masked steps, which keep their states, as loops of Keras' Masking do.

The operator has lengths but no mask.  So each sequence's unmasked steps are moved to its start, and its length is their
number; each step of the output is read from the place to which the last unmasked step before it was moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..onnxgraph.builder import Nodes

LEAST_OPSET = 13
"""The first opset in which these operators accept the inputs that they get here."""


@dataclass(frozen=True)
class Unmasked:
    """The unmasked steps of a batch of sequences.

    Attributes:
        made: the graph to which nodes are added.
        name: what their names start with.
        sequence: ``(time, batch, features)``, each sequence's unmasked steps first.
        lengths: int32 ``(batch,)``, the number of those, or 1 where there are none.
        valid: bool ``(time, batch)``, whether a step is one of them.
        count: int32 ``(time, batch)``, the number of those up to each step.
    """

    made: Nodes
    name: str
    sequence: str
    lengths: str
    valid: str
    count: str

    def final(self, initial: str, after: str, output: str) -> None:
        """Add a final state ``(1, batch, features)``, the initial one for a sequence without unmasked steps."""
        add_final(self.made, self.name, initial, after, output)

    def outputs(self, y: str, initial: str, output: str) -> None:
        """Add the states at each step, ``(time, batch, features)``.

        Args:
            y: of the operator, ``(time, batch, features)``.
            initial: ``(1, batch, features)``; "" where masked steps give zeros instead of the state.
            output: the name of the result.
        """
        made, name = self.made, self.name
        zero, one = _int32(made, 0), _int32(made, 1)
        place = made.one("Sub", self.count, one, name=f"{name}/last")
        place = made.one("Max", place, zero, name=f"{name}/place")
        taken = _along_time(made, y, place, f"{name}/y")
        if not initial:
            valid = made.one("Unsqueeze", self.valid, made.integers(2), name=f"{name}/valid/features")
            nothing = made.constant("float32/0", np.zeros((), np.float32))
            made.one("Where", valid, taken, nothing, name=f"{name}/output", output=output)
            return
        before = made.one("Equal", self.count, zero, name=f"{name}/not_begun")
        before = made.one("Unsqueeze", before, made.integers(2), name=f"{name}/not_begun/features")
        made.one("Where", before, initial, taken, name=f"{name}/output", output=output)


def unmasked(made: Nodes, sequence: str, mask: str, name: str) -> Unmasked:
    """Add the nodes that move unmasked steps to the start.

    Args:
        made: the graph.
        sequence: ``(time, batch, features)``.
        mask: bool ``(time, batch)`` or ``(time, batch, 1)``, False where a step is masked.
        name: what the names of nodes start with.
    """
    valid = made.one("Reshape", mask, made.integers(0, 0), name=f"{name}/valid")
    number = made.one("Cast", valid, name=f"{name}/valid/int32", to=TensorProto.INT32)
    count = made.one("CumSum", number, _int32(made, 0), name=f"{name}/count")
    shape = made.one("Shape", number, name=f"{name}/Shape")
    steps = made.one("Gather", shape, made.integers(0), name=f"{name}/steps")
    # Among equal entries, TopK takes the earlier ones first.
    _, order = made.add("TopK", number, steps, name=f"{name}/TopK", outputs=[f"{name}/sorted", f"{name}/order"], axis=0)
    moved = _along_time(made, sequence, order, f"{name}/x")
    last = made.constant("int/-1", np.array(-1, np.int64))
    total = made.one("Gather", count, last, name=f"{name}/total")
    lengths = made.one("Max", total, _int32(made, 1), name=f"{name}/lengths")
    return Unmasked(made, name, moved, lengths, valid, count)


def add_final(made: Nodes, name: str, initial: str, after: str, output: str) -> None:
    """See `Unmasked.final`; `name` is that of the `Unmasked`."""
    none = made.one("Equal", f"{name}/total", _int32(made, 0), name=f"{output}/none")
    none = made.one("Unsqueeze", none, made.integers(0, 2), name=f"{output}/none/features")
    made.one("Where", none, initial, after, name=f"{name}/{output}", output=output)


def _along_time(made: Nodes, value: str, places: str, name: str) -> str:
    """The entries along the time axis at ``places (time, batch)``."""
    places = made.one("Unsqueeze", places, made.integers(2), name=f"{name}/places")
    shape = made.one("Shape", value, name=f"{name}/Shape")
    places = made.one("Expand", places, shape, name=f"{name}/Expand")
    return made.one("GatherElements", value, places, name=f"{name}/taken", axis=0)


def _int32(made: Nodes, value: int) -> str:
    return made.constant(f"int32/{value}", np.array(value, np.int32))
