"""Adds nodes that make a recurrent operator's results NaN where PyTorch's are: they add marks, either 0 or NaN.

On the CPU, ONNX Runtime's LSTM, GRU and RNN clamp what they compute to a range, which turns a NaN into a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Nodes


def step_marks(
    nodes: Nodes, name: str, zero: str, x_mark: str, reverse: Sequence[bool], state_mark: str = "", valid: str = ""
) -> str:
    """Add nodes for the marks of an operator's Y: NaN from the first NaN on, in each direction.

    Args:
        nodes: the graph.
        name: the prefix of the added names.
        zero: a constant, in the dtype of the marks.
        x_mark: the mark of the input, ``(time, batch, 1)``; 0 past the end of a sequence.
        reverse: for each direction, whether it goes from the last step to the first.
        state_mark: the mark of the initial states, ``(D or 1, batch, 1)``; "" if there are none.
        valid: bool ``(time, batch, 1)``, true within a sequence; "" if all steps are.  Marks past the end are 0.

    Returns:
        ``(time, D or 1, batch, 1)``.
    """
    parts = []
    for backwards in reverse:
        part = f"{name}/{'reverse' if backwards else 'forward'}_zero"
        axis = nodes.constant("int/0", np.array(0, np.int64))
        total = nodes.one("CumSum", x_mark, axis, name=f"{part}/CumSum", reverse=int(backwards))
        parts.append(nodes.one("Unsqueeze", total, nodes.integers(1), name=part))
    mark = parts[0] if len(parts) == 1 else nodes.one("Concat", *parts, name=f"{name}/steps_zero", axis=1)
    if state_mark:
        mark = nodes.one("Add", mark, state_mark, name=f"{name}/steps_states_zero")
    if valid:  # results past the end are zeros, even after a NaN
        column = nodes.one("Unsqueeze", valid, nodes.integers(1), name=f"{name}/valid_steps")
        mark = nodes.one("Where", column, mark, zero, name=f"{name}/valid_zero")
    return mark


def final_mark(nodes: Nodes, name: str, x_mark: str, state_mark: str = "") -> str:
    """Add the mark of an operator's final states, ``(D or 1, batch, 1)``; the arguments are those of `step_marks`."""
    mark = nodes.one("ReduceSum", x_mark, nodes.integers(0), name=f"{name}/sequence_zero", keepdims=0)
    mark = nodes.one("Unsqueeze", mark, nodes.integers(0), name=f"{name}/final_zero")
    return nodes.one("Add", mark, state_mark, name=f"{name}/final_states_zero") if state_mark else mark
