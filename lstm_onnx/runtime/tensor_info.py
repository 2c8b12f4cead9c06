"""Describes a model's inputs and outputs, and validates arrays for them.

ONNX Runtime gets only arrays that were validated here: some others (such as a batch of 0) crash the process without an
exception.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..symbolic_dims import names_in, size_of

_SAME_NAME = ["float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
_DTYPES = {"float": "float32", "double": "float64", "string": "object", **{name: name for name in _SAME_NAME}}
"""numpy's names of ONNX's element types."""
Dim = int | str | None
"""A fixed size, the name of a dynamic axis, or a dynamic axis without a name."""
Limits = Mapping[str, tuple[int, int | None]]
"""The smallest and the largest size of an axis, by its name; None for no upper limit."""
_LONGEST_NAME = 200
_NOT_REAL = "cOSUMm"
"""Kinds of dtypes that cannot be cast to floats without loss: complex numbers, objects, text, dates."""


@dataclass(frozen=True)
class ValueInfo:
    """One input or output of a model.

    Attributes:
        name: its name.
        dtype: its dtype; None for other types than tensors of numbers, bools or strings.
        shape: its axes.
        limits: the size limits of the model's axes, see `Metadata.axis_limits`.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...]
    limits: Limits = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, arg: Any, limits: Limits | None = None) -> ValueInfo:
        """From onnxruntime's NodeArg."""
        kind = _DTYPES.get(arg.type.removeprefix("tensor(").removesuffix(")"))
        return cls(arg.name, None if kind is None else np.dtype(kind), tuple(arg.shape or ()), limits or {})

    @property
    def is_whole(self) -> bool:
        """Whether it holds integers."""
        return self.dtype is not None and self.dtype.kind in "iu"

    def smallest_shape(self, sizes: Mapping[str, int] | None = None) -> list[int]:
        """Its shape at these sizes of named axes, and with every other dynamic axis at its smallest size."""
        given = sizes or {}
        names = {name for dim in self.shape if isinstance(dim, str) for name in names_in(dim)}
        known = {name: self.limits.get(name, (1,))[0] for name in names} | dict(given)
        return [max(size_of(dim, known) or 1, 1) if isinstance(dim, str) else dim or 1 for dim in self.shape]

    def __str__(self) -> str:
        """As in ``input float32 (time, batch, 4)``."""
        axes = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.dtype} ({axes})"


def validated_feeds(
    infos: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray], optional: Container[object] = ()
) -> dict[str, np.ndarray]:
    """The validated `feeds`, in row-major order.

    Args:
        infos: the inputs of the model.
        feeds: the inputs.
        optional: inputs that can be filled in once the others are there; they are missing if no other is.

    Raises:
        InputError: a name is missing or unknown, or an array has a wrong rank, size or dtype, an
            empty axis, or an axis name with two sizes; the message names it and says what fits.
    """
    require_known_names(infos, feeds)
    axes: dict[str, tuple[int, str]] = {}
    validated = {name: _validated(info, feeds[name], axes) for name, info in infos.items() if name in feeds}
    absent = [name for name in infos if name not in feeds]
    required = [name for name in absent if name not in optional]
    missing = required or absent
    if missing:
        hint = "pass a value: its size does not follow from another input" if feeds and not required else None
        text = "; ".join(str(infos[name]) for name in missing)
        raise InputError(f"missing input: {text}", hint=hint, name=missing[0])
    sizes = {dim: size for dim, (size, _) in axes.items() if dim.isidentifier()}
    for dim, (size, name) in axes.items():
        expected = size if dim in sizes else size_of(dim, sizes)
        if expected not in (None, size):
            raise InputError(
                f"{name} has shape {feeds[name].shape}, so {dim} is {size}, but the other inputs make it {expected}",
                name=name,
            )
    return validated


def require_known_names(infos: Mapping[str, ValueInfo], feeds: Mapping[str, object]) -> None:
    """Refuse names that are not inputs of the model (InputError)."""
    for name in feeds:
        if name not in infos:
            text = name if isinstance(name, str) and 1 <= len(name) <= _LONGEST_NAME else shown(name)
            raise InputError(
                f"{text} is not an input of the model", hint=f"its inputs are {', '.join(infos)}", name=str(text)
            )


def _validated(info: ValueInfo, array: np.ndarray, axes: dict[str, tuple[int, str]]) -> np.ndarray:
    name = info.name
    if info.dtype is None:
        if isinstance(array, np.ndarray) and array.size == 0:
            raise InputError(
                f"{name} has shape {array.shape}, which is empty", hint="every axis must be 1 or more", name=name
            )
        return array
    if array.dtype != info.dtype:
        numbers = array.dtype.kind not in _NOT_REAL and array.dtype.names is None
        use = f" (use .astype(numpy.{info.dtype}))" if numbers else ""
        raise InputError(f"{name} has dtype {array.dtype}", hint=f"the model takes {info.dtype}{use}", name=name)
    if array.ndim != len(info.shape):
        raise InputError(
            f"{name} has shape {array.shape}", hint=f"the model takes {len(info.shape)} axes: {info}", name=name
        )
    for axis, (size, dim) in enumerate(zip(array.shape, info.shape, strict=True)):
        if size == 0:
            raise InputError(
                f"{name} has shape {array.shape}: the axis {axis if dim is None else dim} is empty",
                hint="it must be at least 1",
                name=name,
            )
        if isinstance(dim, int) and dim > 0:
            if size != dim:
                raise InputError(
                    f"{name} has shape {array.shape}", hint=f"axis {axis} must be {dim}: {info}", name=name
                )
        elif isinstance(dim, str):
            known, other = axes.setdefault(dim, (size, name))
            if size != known:
                raise InputError(
                    f"{name} has shape {array.shape}, so {dim} is {size}, but {other} has {dim} = {known}", name=name
                )
            if info.limits:
                require_size(info, array.shape, dim, size)
    ordered = np.asarray(array, order="C")
    return ordered if ordered.flags.aligned else ordered.copy()


def require_size(info: ValueInfo, shape: tuple[int, ...], axis: str, size: int) -> None:
    """Refuse a size at which the model is not known to be right (InputError)."""
    least, largest = info.limits.get(axis, (1, None))
    if size < least or (largest is not None and size > largest):
        raise InputError(
            f"{info.name} has shape {shape}, so {axis} is {size}",
            hint=f"the model is right only if {axis} is {allowed_sizes(least, largest)}",
            name=info.name,
        )


def allowed_sizes(least: int, largest: int | None) -> str:
    """A range of sizes as text."""
    if largest is None:
        return f"{least} or more"
    return str(least) if least == largest else f"from {least} to {largest}"


def axis_sizes(infos: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of the named axes in the given arrays."""
    sizes: dict[str, int] = {}
    for name, array in feeds.items():
        info = infos.get(name)
        if info is not None and array.ndim == len(info.shape):
            for size, dim in zip(array.shape, info.shape, strict=True):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
    return sizes


def known_shape(info: ValueInfo, sizes: Mapping[str, int]) -> list[int] | None:
    """A value's shape at these sizes of named axes; None where one does not follow from them."""
    shape = [size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape]
    return None if None in shape else [int(size) for size in shape if size is not None]


def zeros(info: ValueInfo, sizes: Mapping[str, int]) -> np.ndarray | None:
    """Zeros for a missing state; None where the size of one of its axes does not follow from `sizes`."""
    shape = known_shape(info, sizes)
    if info.dtype is None or shape is None:
        return None
    try:
        return np.zeros(shape, info.dtype)
    except (ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"{info} cannot be created with the sizes {shape}: {error}", name=info.name) from error


def validated_lengths(lengths: np.ndarray | None, batch: int, time: int) -> np.ndarray:
    """Lengths as int32 ``(batch,)``; None means full length.

    Raises:
        InputError: they have another shape, are not integers, or are outside 1..time.
    """
    if lengths is None:
        return np.full(batch, time, np.int32)
    if lengths.dtype.kind not in "iu":  # numpy counts timedelta64 among its integers
        raise InputError(f"lengths has dtype {lengths.dtype}", hint="it must be integers", name="lengths")
    if lengths.shape != (batch,):
        raise InputError(
            f"lengths has shape {lengths.shape}", hint=f"it must be ({batch},), one per sequence", name="lengths"
        )
    outside = (lengths < 1) | (lengths > time)
    if outside.any():
        index = int(np.argmax(outside))
        raise InputError(
            f"lengths[{index}] is {lengths[index]}",
            hint=f"it must be from 1 to time, {time}",
            name="lengths",
            index=index,
        )
    return lengths.astype(np.int32)
