"""The values in a converted graph: tensors, and Python numbers where a graph computes with sizes.

ONNX has shapes, axes and sizes in int64 tensors.  As Python ints (or symbols in a trace) they keep every axis dynamic
when the module is exported again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor


class Scalar(float):
    """A float that a file stores in a dtype other than float32."""

    dtype: torch.dtype

    def __new__(cls, value: float, dtype: torch.dtype = torch.float64) -> Scalar:
        """Create it; copying and unpickling set the dtype afterwards."""
        number = super().__new__(cls, value)
        number.dtype = dtype
        return number


Number = int | float | bool
"""A Python number for a 0-d tensor; in a trace also a `torch.SymInt`."""
Value = Tensor | Number | list[Any] | None
"""A tensor; a number; a list of ints, for a 1-d int64 tensor; None for an input that is left out."""


def is_number(value: Value) -> TypeGuard[Number]:
    """Whether it is a number rather than a tensor."""
    return isinstance(value, (int, float, torch.SymInt))


def is_host(value: Value) -> bool:
    """Whether it is a number or a list of ints rather than a tensor."""
    return isinstance(value, list) or is_number(value)


def integers(value: Value) -> list[Any]:
    """The entries of a shape, of axes or of sizes."""
    if isinstance(value, list):
        return value
    if is_number(value):
        return [value]
    assert isinstance(value, Tensor)  # noqa: S101 - optional inputs are looked at before
    return list(value.reshape(-1).tolist())


def optional_integers(inputs: Sequence[Value], index: int) -> list[Any] | None:
    """The entries of an input; None where it is left out."""
    return integers(inputs[index]) if index < len(inputs) and inputs[index] is not None else None


def axes_of(inputs: Sequence[Value], attributes: Mapping[str, Any]) -> list[Any] | None:
    """The axes, which are input 1 in newer operator sets and an attribute in older ones; None if there are none."""
    found = optional_integers(inputs, 1)
    return attributes.get("axes") if found is None else found


def integer(value: Value) -> Any:
    """The only entry of a size or an index."""
    return integers(value)[0]


def tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """A value as a tensor; a float has the dtype of `like` or, where there is none, its own, by default float32."""
    if isinstance(value, Tensor):
        return value
    device = None if like is None else like.device
    if isinstance(value, list):
        if all(type(item) is int for item in value):
            return torch.tensor(value, dtype=torch.int64, device=device)
        return torch.stack([tensor(item, like) for item in value])
    assert value is not None  # noqa: S101 - optional inputs are looked at before
    if isinstance(value, float):
        if like is not None and like.is_floating_point():
            return torch.scalar_tensor(value, dtype=like.dtype)
        return torch.scalar_tensor(value, dtype=value.dtype if isinstance(value, Scalar) else torch.float32)
    dtype = torch.bool if isinstance(value, bool) else torch.int64
    return torch.scalar_tensor(value, dtype=dtype, device=device)


def tensors(values: Sequence[Value]) -> list[Tensor]:
    """Values as tensors, the numbers among them with the dtype of the first tensor."""
    like = next((value for value in values if isinstance(value, Tensor)), None)
    return [tensor(value, like) for value in values]
