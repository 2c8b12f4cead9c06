"""ONNX's operators that move elements or compute shapes, as torch functions."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..onnxgraph.nodes import END_OF_AXIS
from .elementwise import Attributes, Operator, torch_dtype
from .values import Scalar, Value, axes_of, integer, integers, is_host, is_number, optional_integers, tensor, tensors

_ENDS = (END_OF_AXIS, 2**63 - 1)
"""ONNX Runtime reads these ends as the end of the axis in the direction of the Slice, also backwards."""


def _shape(inputs: list[Value], attributes: Attributes) -> Any:
    return list(tensor(inputs[0]).shape)[attributes.get("start", 0) : attributes.get("end")]


def _reshape(inputs: list[Value], attributes: Attributes) -> Any:
    x, wanted = inputs[0], attributes["shape"] if len(inputs) == 1 else integers(inputs[1])
    if wanted == [-1] and is_host(x):
        return integers(x)
    if wanted == [-1] and isinstance(x, Tensor) and _is_size(x):
        return [x.item()]
    if is_host(x) and not wanted:
        return integer(x)
    x = tensor(x)
    if not attributes.get("allowzero"):
        wanted = [x.shape[axis] if type(size) is int and size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _is_size(value: Value) -> bool:
    """Whether it is a 0-d integer tensor: a graph adds an axis to one to use it as a size."""
    return isinstance(value, Tensor) and value.dim() == 0 and value.dtype == torch.int64


def _squeeze(inputs: list[Value], attributes: Attributes) -> Any:
    x, axes = inputs[0], axes_of(inputs, attributes)
    if is_host(x):
        return x if isinstance(x, list) and len(x) > 1 else integer(x)
    x = tensor(x)
    if axes is None:
        return x.squeeze()
    if any(type(x.shape[axis]) is int and x.shape[axis] != 1 for axis in axes):
        raise InputError(
            f"a Squeeze removes the axes {axes}, which must be 1, but its input has the shape {list(x.shape)}"
        )
    return x.squeeze(axes[0]) if len(axes) == 1 else x.squeeze(tuple(axes))


def _unsqueeze(inputs: list[Value], attributes: Attributes) -> Any:
    x, axes = inputs[0], axes_of(inputs, attributes) or []
    if is_number(x) and len(axes) == 1 and not isinstance(x, (bool, float)):
        return [x]
    x = tensor(x)
    if len(axes) == 1:
        return x.unsqueeze(axes[0])
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    order = attributes.get("perm") or list(range(x.dim()))[::-1]
    moved = [axis for axis, source in enumerate(order) if axis != source]
    return x.transpose(*moved) if len(moved) == 2 else x.permute(order)


def _flatten(inputs: list[Value], attributes: Attributes) -> Any:
    x, axis = tensor(inputs[0]), attributes.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), -1)


def _concat(inputs: list[Value], attributes: Attributes) -> Any:
    if all(isinstance(item, list) or _is_size_list(item) for item in inputs) and any(map(is_host, inputs)):
        return [size for item in inputs for size in integers(item)]
    return torch.cat(tensors(inputs), dim=attributes["axis"])


def _is_size_list(value: Value) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.dtype == torch.int64 and value.shape[0] == 1


def _split(inputs: list[Value], attributes: Attributes) -> Any:
    x, axis = inputs[0], attributes.get("axis", 0)
    sizes = optional_integers(inputs, 1) or attributes.get("split")
    if isinstance(x, list) and sizes is not None:
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        return tuple(x[end - size : end] for size, end in zip(sizes, ends, strict=True))
    x = tensor(x)
    if sizes is None:
        size, parts = x.shape[axis], attributes["outputs"]
        if type(size) is int and size % parts and "num_outputs" not in attributes:
            raise InputError(f"a Split makes {parts} equal parts of an axis, but its size is {size}")
        return torch.chunk(x, parts, dim=axis)
    return torch.split(x, list(sizes), dim=axis)


def _slice(inputs: list[Value], attributes: Attributes) -> Any:
    x = inputs[0]
    if len(inputs) == 1:
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
    else:
        starts, ends = integers(inputs[1]), integers(inputs[2])
    axes = optional_integers(inputs, 3) or attributes.get("axes") or range(len(starts))
    steps = optional_integers(inputs, 4) or [1] * len(starts)
    if isinstance(x, list):
        return x[_python_slice(starts[0], ends[0], steps[0], len(x))]
    x = tensor(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _sliced(x, start, end, axis, step)
    return x


def _python_slice(start: Any, end: Any, step: Any, size: Any) -> slice:
    """A Slice of an axis of this size: a backward one whose start is before the axis starts at 0, unlike Python's."""
    if step < 0:
        last = type(end) is int and (end <= -END_OF_AXIS or end in _ENDS)
        return slice(start if start >= -1 else max(start, -size), None if last else end, step)
    return slice(start, None if type(end) is int and end >= END_OF_AXIS else end, step)


def _sliced(x: Tensor, start: Any, end: Any, axis: int, step: Any) -> Tensor:
    wanted = _python_slice(start, end, step, x.shape[axis])
    if step > 0:
        return x[(slice(None),) * (axis % x.dim()) + (wanted,)]
    if start == -1 and wanted.stop is None and step == -1:
        return x.flip(axis)
    entries = range(*wanted.indices(x.shape[axis]))
    return x.index_select(axis, torch.tensor(list(entries), dtype=torch.int64, device=x.device))


def _gather(inputs: list[Value], attributes: Attributes) -> Any:
    x, index = inputs
    axis = attributes.get("axis", 0)
    if isinstance(x, list) and not (isinstance(index, Tensor) and index.dim() > 1):
        found = [x[item] for item in integers(index)]
        return found[0] if is_number(index) or (isinstance(index, Tensor) and not index.dim()) else found
    x = tensor(x)
    if is_number(index):
        return x.select(axis, index)  # type: ignore[arg-type]
    if isinstance(index, list):
        size = x.shape[axis]
        places = [place + size if type(place) is int and place < 0 else place for place in index]
        return x.index_select(axis, tensor(places, x))
    return x[(slice(None),) * (axis % x.dim()) + (tensor(index),)]


def _gather_elements(inputs: list[Value], attributes: Attributes) -> Any:
    x, index = tensors(inputs)
    axis = attributes.get("axis", 0)
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index))


def _gather_nd(inputs: list[Value], attributes: Attributes) -> Any:
    x, index = tensors(inputs)
    rank, batch_dims = index.dim() - 1, attributes.get("batch_dims", 0)
    batch = [
        torch.arange(x.shape[axis], device=x.device).reshape([-1 if at == axis else 1 for at in range(rank)])
        for axis in range(batch_dims)
    ]
    return x[(*batch, *index.unbind(-1))]


def _scatter_elements(inputs: list[Value], attributes: Attributes) -> Any:
    x, index, updates = tensors(inputs)
    axis = attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    reduction = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.get(attributes.get("reduction", "none"))
    return x.scatter(axis, index, updates) if reduction is None else x.scatter_reduce(axis, index, updates, reduction)


def _scatter_nd(inputs: list[Value], attributes: Attributes) -> Any:
    x, index, updates = tensors(inputs)
    return x.index_put(index.unbind(-1), updates, accumulate=attributes.get("reduction") == "add")


def _expand(inputs: list[Value], _: Attributes) -> Any:
    x, wanted = tensor(inputs[0]), integers(inputs[1])
    if all(type(size) is int and size == 1 for size in wanted) and len(wanted) <= x.dim():
        return x
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    added = len(own) - x.dim()
    sizes = [
        (-1 if axis >= added else 1) if type(size) is int and size == 1 else size for axis, size in enumerate(wanted)
    ]
    return x.expand(sizes)


def _constant_of_shape(inputs: list[Value], attributes: Attributes) -> Any:
    value = attributes.get("value", torch.zeros(1))
    sizes, fill = integers(inputs[0]), value.reshape(-1)[0].item()
    # An export writes new_zeros as this operator, unlike torch.zeros.
    return torch.full(sizes, fill, dtype=value.dtype) if fill else torch.empty(0, dtype=value.dtype).new_zeros(sizes)


def _range(inputs: list[Value], _: Attributes) -> Any:
    dtype = next((item.dtype for item in inputs if isinstance(item, Tensor | Scalar)), None)
    start, end, step = (item.item() if isinstance(item, Tensor) else item for item in inputs)
    return torch.arange(start, end, step, dtype=dtype)  # type: ignore[arg-type]


def _pad(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    pads = integers(inputs[1]) if len(inputs) > 1 else list(attributes["pads"])
    fill = inputs[2] if len(inputs) > 2 and inputs[2] is not None else attributes.get("value", 0.0)
    fill = fill.item() if isinstance(fill, Tensor) else fill
    axes = optional_integers(inputs, 3) or range(x.dim())
    both = {axis % x.dim(): (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    kind = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}.get(attributes.get("mode", "constant"))
    padded = [axis for axis, ends in both.items() if any(type(end) is not int or end for end in ends)]
    first = min(padded, default=x.dim() - 1)
    flat = [size for axis in range(x.dim() - 1, first - 1, -1) for size in both.get(axis, (0, 0))]
    if kind is None:
        return functional.pad(x, flat, value=fill)  # type: ignore[arg-type]
    if x.dim() - len(flat) // 2 in (1, 2):  # torch's other modes need one or two more axes than are padded
        return functional.pad(x, flat, mode=kind)
    for axis in padded:
        x = x.index_select(axis, _padded_entries(x, axis, both[axis], kind))
    return x


def _padded_entries(x: Tensor, axis: int, ends: tuple[Any, Any], kind: str) -> Tensor:
    """The indices along an axis from which the entries of a padded axis come, in order."""
    size = x.shape[axis]
    if kind == "reflect" and type(size) is int and max(ends) >= size:
        raise InputError(f"a Pad adds {max(ends)} reflected entries to an axis, but its size is {size}")
    entries = torch.arange(-ends[0], size + ends[1], device=x.device)
    if kind == "replicate":
        return entries.clamp(0, size - 1)
    if kind == "circular":
        return entries.remainder(size)
    return (size - 1) - ((size - 1) - entries.abs()).abs()


def _copy(inputs: list[Value], _: Attributes) -> Any:
    """Dropout in eval mode: the value unchanged, and a mask of ones."""
    x = tensor(inputs[0])
    return x, torch.ones_like(x, dtype=torch.bool)


def _non_zero(inputs: list[Value], _: Attributes) -> Any:
    x = tensor(inputs[0])
    return torch.nonzero(x if x.dim() else x.reshape(1)).transpose(0, 1)


def _one_hot(inputs: list[Value], attributes: Attributes) -> Any:
    index, depth, values = tensor(inputs[0]), integer(inputs[1]), tensor(inputs[2])
    axis = attributes.get("axis", -1)
    index = torch.where(index < 0, index + depth, index).to(torch.int64).unsqueeze(axis)
    shape = [1] * index.dim()
    shape[axis] = depth
    classes = torch.arange(depth, device=index.device).reshape(shape)
    return torch.where(index == classes, values[1], values[0])


def _trilu(inputs: list[Value], attributes: Attributes) -> Any:
    (diagonal,) = optional_integers(inputs, 1) or [0]
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(tensor(inputs[0]), diagonal)


def _eye_like(inputs: list[Value], attributes: Attributes) -> Any:
    x = tensor(inputs[0])
    dtype = torch_dtype(attributes["dtype"]) if "dtype" in attributes else x.dtype
    ones = torch.ones(max(x.shape), dtype=dtype, device=x.device)
    return torch.diag_embed(ones, attributes.get("k", 0))[: x.shape[0], : x.shape[1]]


def _reverse_sequence(inputs: list[Value], attributes: Attributes) -> Any:
    x, lengths = tensors(inputs)
    time, batch = attributes.get("time_axis", 0), attributes.get("batch_axis", 1)
    return reverse_steps(x.movedim((time, batch), (0, 1)), lengths).movedim((0, 1), (time, batch))


def reverse_steps(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Sequences ``(time, batch, ...)`` reversed; the padding of shorter ones stays in place."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    ends = lengths.to(torch.int64).to(x.device).unsqueeze(0)
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    return torch.gather(x, 0, source.reshape(*source.shape, *[1] * (x.dim() - 2)).expand_as(x))


SHAPES: dict[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _copy,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": lambda inputs, _: inputs[0],
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": lambda inputs, _: tensor(inputs[0]).numel(),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda inputs, _: tensor(inputs[0]).repeat(integers(inputs[1])),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
