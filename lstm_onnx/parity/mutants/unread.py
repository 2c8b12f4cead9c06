"""Mutants that change only what no output depends on, shown by putting other numbers there.

The graph alone does not tell where rows are picked by numbers, as those of a packed sequence are.  A file in which
large numbers of either sign stand in the place of what a mutant changes, and whose outputs have the same bits in every
case, does not read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from ...errors import LSTMOnnxError
from ...onnxgraph.recurrent import RecurrentLayer
from ...runtime import Model
from ..expected import Expected
from .graph_edit import Edit

Replace = Callable[[Edit, RecurrentLayer, float], bool]
"""Puts a number where a mutant changes something; whether it could."""
NUMBERS = (1e3, -1e3)
"""Far from what gates give, and exact in float16."""
_RUNS = ("whole", "values", "sweep", "data")
"""Kinds of cases of which each call is one run."""


def replace_padding(edit: Edit, layer: RecurrentLayer, number: float) -> bool:
    """A number past each sequence's end in a forward layer's output, and for its final states.

    That is all that the lengths have an effect on; of a reverse layer they are where it begins.
    """
    if layer.lengths is None or layer.direction != "forward":
        return False
    lengths, (y,) = layer.lengths.value, layer.y
    finals = [port.value for state in ("h", "c") for port in layer.final(state)]
    values = [value for value in (y, *finals) if edit.used(value)]
    weights = edit.constant(layer.W[0].value)
    if any(edit.is_output(value) for value in values) or weights is None:
        return False
    for value in values:
        readers = edit.readers(value)
        kept: str | np.ndarray = np.array(False)
        if value == y:
            kept = edit.node("Unsqueeze", lengths, np.array([1])) if layer.scan else _within(edit, y, lengths)
        other = edit.node("Where", kept, value, np.array(number, weights.dtype))
        for reader in readers:
            for index, name in enumerate(reader.input):
                if name == value:
                    reader.input[index] = other
    return True


def replace_padding_of_mask(edit: Edit, layer: RecurrentLayer, number: float) -> bool:
    """The same in all layers of one mask, which a longer mask has an effect on."""
    if layer.lengths is None or not layer.scan:
        return False
    mask = layer.lengths.value
    sharing = [other for other in edit.layers if other.lengths is not None and other.lengths.value == mask]
    nodes = [other.node for other in sharing]
    if edit.is_output(mask) or any(reader not in nodes for reader in edit.readers(mask)):
        return False
    return all(replace_padding(edit, other, number) for other in sharing)


def _within(edit: Edit, y: str, lengths: str) -> str:
    """Which steps of an operator's output are within the lengths, with its axes."""
    steps = edit.node("Gather", edit.node("Shape", y), np.array(0), axis=0)
    last = edit.node("Cast", steps, to=onnx.TensorProto.INT32)
    time = edit.node("Range", np.array(0, np.int32), last, np.array(1, np.int32))
    column = edit.node("Reshape", time, np.array([-1, 1, 1, 1]))
    return edit.node("Less", column, edit.node("Unsqueeze", lengths, np.array([1])))


def same_outputs(model: Model, copies: Sequence[Model], cases: Sequence[Expected]) -> bool:
    """Whether copies of a file give the same bits as it does in every case that is run as a whole; False for none."""
    calls = [call for case in cases if case.kind in _RUNS for call in case.calls]
    try:
        for call in calls:
            right = model.run(call.feeds)
            for copy in copies:
                other = copy.run(call.feeds)
                if not all(np.array_equal(array, other[name], equal_nan=True) for name, array in right.items()):
                    return False
    except LSTMOnnxError:
        return False
    return bool(calls)
