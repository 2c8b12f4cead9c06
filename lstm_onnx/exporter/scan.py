"""`lstm_onnx.scan`: a loop over the steps of a sequence, which an export makes one node of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError, shown
from .dependencies import import_torch


def scan(cell: Callable[[Any, Any], tuple[Any, Any]], inputs: Any, states: Any, *, dim: int = 0) -> tuple[Any, Any]:
    """Call a cell step by step, each time with the states of the step before.

    In PyTorch it is an ordinary loop, through which gradients flow; in an exported file it is one Scan, or one LSTM,
    GRU or RNN if the cell is one.  A Python loop of your own is exported as well; this makes the loop explicit.

    Args:
        cell: called as ``cell(x, states)`` with one step of the inputs; returns ``(y, states)``, in which the states
            have the shapes and dtypes of those before.
        inputs: a tensor, or tensors in a tuple, list or dict, each with the steps along `dim`.
        states: a tensor, or tensors in a tuple, list or dict.
        dim: the axis of the steps in the inputs and in the result: 0 as in nn.LSTM, 1 with the batch first.

    Returns:
        What the cell returns as ``y`` in all steps, stacked along `dim`, and the states after the last step.

    Raises:
        InputError: the inputs hold no tensor, have no step, or have different numbers of steps; or the cell's results
            hold anything but tensors, or differ in structure.
        MissingDependencyError: PyTorch is not installed.
    """
    torch = import_torch("lstm_onnx.scan loops over its tensors")  # here: `help(lstm_onnx)` works without it
    from torch import Tensor
    from torch.utils import _pytree as pytree

    if not callable(cell):
        raise InputError(f"scan takes a function of a step and the states, and got {shown(cell)}")
    tensors, structure = pytree.tree_flatten(inputs)
    if (
        not tensors
        or not isinstance(dim, int)
        or isinstance(dim, bool)
        or not all(isinstance(item, Tensor) and -item.dim() <= dim < item.dim() for item in tensors)
    ):
        raise InputError(f"scan takes tensors with steps along the axis {shown(dim)}, and got {shown(inputs)}")
    count = int(tensors[0].shape[dim])
    if count < 1 or any(item.shape[dim] != count for item in tensors):
        sizes = ", ".join(str(int(item.shape[dim])) for item in tensors)
        raise InputError(f"scan takes inputs of the same number of steps, one at least, and got {sizes}")
    rows: list[list[Tensor]] = []
    form: Any = None
    for step in range(count):
        x = pytree.tree_unflatten([item.select(dim, step) for item in tensors], structure)
        result = cell(x, states)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise InputError(f"scan takes a cell that returns (y, states); in step {step} it returned {shown(result)}")
        y, states = result
        row, own = pytree.tree_flatten(y)
        if not all(isinstance(item, Tensor) for item in row) or form not in (None, own):
            raise InputError(
                f"scan takes a cell that returns tensors, alike in each step; in step {step} y is {shown(y)}"
            )
        rows.append(row)
        form = own
    return pytree.tree_unflatten([torch.stack(column, dim) for column in zip(*rows, strict=True)], form), states
