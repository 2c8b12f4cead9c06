"""Reads ``dynamic_shapes`` as torch.export does: which axes of each argument are dynamic, their names and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...symbolic_dims import Limit, is_expression
from .structure import Path

Axes = dict[int, str]
"""The dynamic axes of a tensor and their names."""
Limits = dict[str, Limit]
"""By the axis' name."""
_UNBOUNDED = 2**31
"""A maximum this large means none: torch uses a large number as infinity."""


GUESS: Any = object()
"""The dynamic shape of a tensor for which the user passed none."""


def by_argument(dynamic_shapes: Any, labels: Sequence[str]) -> dict[str, Any]:
    """The dynamic shape of each argument; GUESS where the user passed none."""
    if dynamic_shapes is None:
        return dict.fromkeys(labels, GUESS)
    if isinstance(dynamic_shapes, Mapping):
        unknown = [str(key) for key in dynamic_shapes if key not in labels]
        if unknown:
            raise ConfigError(f"dynamic_shapes names {', '.join(unknown)}, but the arguments are {', '.join(labels)}")
        return {label: dynamic_shapes.get(label) for label in labels}
    if isinstance(dynamic_shapes, (tuple, list)) and len(dynamic_shapes) == len(labels):
        return dict(zip(labels, dynamic_shapes, strict=True))
    raise ConfigError(
        f"dynamic_shapes must be a dict by argument, or have one entry for each of {', '.join(labels)}, in this order"
    )


def shape_at(shape: Any, path: Path, name: str) -> Any:
    """The part of an argument's dynamic shape for the tensor at `path` in the argument."""
    for position, key in path:
        if shape is GUESS or shape is None:
            return shape
        if position is None:
            return None
        try:
            if isinstance(shape, (tuple, list)):
                shape = shape[position]
            elif isinstance(shape, Mapping):
                shape = shape[key]
            else:
                shape = getattr(shape, str(key))
        except (KeyError, IndexError, AttributeError):
            raise ConfigError(f"dynamic_shapes has no entry for {name}; it must be nested as the inputs are") from None
    return shape


def axes_of(name: str, tensor: Tensor, shape: Any) -> tuple[Axes, Limits]:
    """The dynamic axes of a tensor according to its entry in dynamic_shapes, and the sizes allowed for them.

    A torch.export.Dim limits them, and so does Dim.DYNAMIC or Dim.AUTO with min and max.
    """
    if shape is GUESS:
        rank = tensor.dim()
        count = rank if not tensor.is_floating_point() else max(1, rank - 1) if rank else 0
        return {axis: default_axis_name(name, axis) for axis in range(count)}, {}
    if shape is None:
        return {}, {}
    if isinstance(shape, (tuple, list)):
        if len(shape) != tensor.dim():
            raise ConfigError(f"dynamic_shapes has {len(shape)} entries for {name}, which has {tensor.dim()} axes")
        shape = dict(enumerate(shape))
    if not isinstance(shape, Mapping):
        raise ConfigError(
            f"dynamic_shapes of {name} is {shape!r}; it must be a dict of axes to names, such as {{0: 'batch'}}"
        )
    axes: Axes = {}
    limits: Limits = {}
    for axis, value in shape.items():
        if type(axis) is not int or not -tensor.dim() <= axis < tensor.dim():
            raise ConfigError(f"dynamic_shapes of {name} has axis {axis!r}, and the tensor has {tensor.dim()} axes")
        place = axis % tensor.dim()
        label = _axis_name(name, place, value)
        if label is not None and axes.setdefault(place, label) != label:
            raise ConfigError(f"dynamic_shapes of {name} names axis {place} twice, {axes[place]} and {label}")
        if label is not None and label.isidentifier() and not isinstance(value, str):
            least, largest = getattr(value, "min", None), getattr(value, "max", None)
            # torch's infinity is not an int; in older versions it is a large one.
            bounded = isinstance(largest, int) and largest < _UNBOUNDED
            limits[label] = max(1, int(least or 0)), int(largest) if bounded else None  # type: ignore[arg-type]
    return axes, limits


def default_axis_name(name: str, axis: int) -> str:
    """The name of a dynamic axis that the user has not named."""
    return f"{name}_{axis}".replace(".", "_")


def _axis_name(name: str, axis: int, value: Any) -> str | None:
    if value is None or type(value) is int or value is torch.export.Dim.STATIC:
        return None
    if isinstance(value, type(torch.export.Dim.DYNAMIC)):
        return default_axis_name(name, axis)  # Dim.DYNAMIC or Dim.AUTO, which have no names
    label = value if isinstance(value, str) else getattr(value, "__name__", None)
    if not isinstance(label, str) or not (label.isidentifier() or is_expression(label)):
        raise ConfigError(
            f"dynamic_shapes of {name}, axis {axis}: {value!r} is not a name for an axis; use one such as 'batch', "
            "or a torch.export.Dim with a name"
        )
    return label
