"""Along which axes the rows of a batch are joined and parted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..tensor_info import ValueInfo

if TYPE_CHECKING:
    from .pool import Pool


@dataclass(frozen=True)
class Rows:
    """The batch axis of each input and output of a pool's step.

    Attributes:
        inputs: along which axis requests are joined; None where all must have the same values.
        outputs: along which axis results are parted.
        shared: the inputs without such an axis.
    """

    inputs: Mapping[str, int | None]
    outputs: Mapping[str, int]
    shared: tuple[str, ...]

    @classmethod
    def of(cls, pool: Pool) -> Rows:
        """From the names of the axes.

        Raises:
            InputError: it cannot be told which rows are whose.
        """
        model = pool.model
        batches = {model.inputs[name].shape[axis] for name, axis in pool.axes.items()}
        inputs = {name: _axis(info, batches) for name, info in pool.inputs.items()}
        known = {dim for name, axis in inputs.items() if axis is not None for dim in pool.inputs[name].shape} - batches
        for name, axis in inputs.items():
            info = pool.inputs[name]
            if axis is None and not all(isinstance(dim, int) or (dim and dim in known) for dim in info.shape):
                raise InputError(f"{model.path}: which axis of its input {info} is the batch is not known")
        outputs: dict[str, int] = {}
        for name in pool.given:
            axis = _axis(model.outputs[name], batches)
            if axis is None:
                raise InputError(
                    f"{model.path}: which axis of its output {model.outputs[name]} is the batch is not known"
                )
            outputs[name] = axis
        return cls(inputs, outputs, tuple(name for name, axis in inputs.items() if axis is None))


def _axis(info: ValueInfo, batches: set[Any]) -> int | None:
    """The axis that has the batch's name, or, where that has none, the one open axis."""
    named = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str) and dim in batches]
    if len(named) == 1:
        return named[0]
    open_axes = [axis for axis, dim in enumerate(info.shape) if not isinstance(dim, int)]
    return open_axes[0] if None in batches and len(open_axes) == 1 else None
