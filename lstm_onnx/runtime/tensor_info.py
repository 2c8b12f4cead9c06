"""A model's inputs and outputs, and whether arrays fit them.

ONNX Runtime is never handed an array that was not checked here: some of what it would be given
(a batch of 0) ends the whole process where no exception can be caught.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, reason, shown
from .symbolic_dims import size_of

_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}
Dim = int | str | None
"""A fixed size, an axis by its name, or an axis without a name."""
Limits = Mapping[str, tuple[int, int | None]]
"""Of an axis by its name, the least and the largest size, None where nothing bounds it above."""
_LOSSLESS = {"f": "fiub", "i": "iu", "u": "iu", "b": "b"}
"""Which kinds of numbers a list may hold for an input of each kind: a fraction is never cut to an integer, and a
bool is no count."""
_LONGEST_NAME = 200
_MOST_AXES = 64
"""numpy's limit; a list that holds itself goes on for ever."""
_CPU_DEVICES = (1, 3)
"""DLPack's kDLCPU and kDLCUDAHost."""


@dataclass(frozen=True)
class ValueInfo:
    """One input or output: its name, its dtype (None for what is not a tensor of numbers), its axes.

    `limits` are those of the model's axes, see `Metadata.axis_limits`.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...]
    limits: Limits = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, arg: Any, limits: Limits | None = None) -> ValueInfo:
        """From onnxruntime's NodeArg."""
        element = arg.type.removeprefix("tensor(").removesuffix(")")
        kind = _DTYPES.get(element)
        return cls(arg.name, None if kind is None else np.dtype(kind), tuple(arg.shape or ()), limits or {})

    def smallest_shape(self) -> list[int]:
        """Its shape with every open axis as small as may be."""
        return [dim or 1 if not isinstance(dim, str) else self.limits.get(dim, (1,))[0] for dim in self.shape]

    def __str__(self) -> str:
        """As in ``input float32 (time, batch, 4)``."""
        axes = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.dtype} ({axes})"


def checked(infos: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`feeds` in row-major order, once every array is known to fit.

    Raises:
        InputError: a name is missing or unknown, or an array has a wrong rank, size or dtype, an
            empty axis, or an axis name with two sizes; the message names it and says what fits.
    """
    known_names(infos, feeds)
    axes: dict[str, tuple[int, str]] = {}
    fitting = {name: _fitting(info, feeds[name], axes) for name, info in infos.items() if name in feeds}
    missing = [str(info) for name, info in infos.items() if name not in feeds]
    if missing:
        raise InputError(f"missing input: {'; '.join(missing)}")
    sizes = {dim: size for dim, (size, _) in axes.items() if dim.isidentifier()}
    for dim, (size, where) in axes.items():
        expected = size if dim in sizes else size_of(dim, sizes)
        if expected not in (None, size):
            raise InputError(
                f"{where} has shape {feeds[where].shape}, so {dim} is {size}, and by the other inputs it is {expected}"
            )
    return fitting


def known_names(infos: Mapping[str, ValueInfo], feeds: Mapping[str, object]) -> None:
    """Refuse names that are not inputs of the model (InputError)."""
    for name in feeds:
        if name not in infos:
            said = name if isinstance(name, str) and len(name) <= _LONGEST_NAME else shown(name)
            raise InputError(f"{said} is not an input of the model; its inputs are {', '.join(infos)}")


def _fitting(info: ValueInfo, array: np.ndarray, axes: dict[str, tuple[int, str]]) -> np.ndarray:
    if info.dtype is None:
        if isinstance(array, np.ndarray) and array.size == 0:
            raise InputError(f"{info.name} has shape {array.shape}, which is empty; every axis must be 1 or more")
        return array
    if array.dtype != info.dtype:
        raise InputError(
            f"{info.name} has dtype {array.dtype}; the model takes {info.dtype} (use .astype(numpy.{info.dtype}))"
        )
    if array.ndim != len(info.shape):
        raise InputError(f"{info.name} has shape {array.shape}; the model takes {len(info.shape)} axes: {info}")
    for axis, (size, dim) in enumerate(zip(array.shape, info.shape, strict=True)):
        if size == 0:
            raise InputError(
                f"{info.name} has shape {array.shape}: nothing along {dim or f'axis {axis}'}, which must be 1 or more"
            )
        if isinstance(dim, int) and dim > 0:
            if size != dim:
                raise InputError(f"{info.name} has shape {array.shape}; axis {axis} must be {dim}: {info}")
        elif isinstance(dim, str):
            known, where = axes.setdefault(dim, (size, info.name))
            if size != known:
                raise InputError(
                    f"{info.name} has shape {array.shape}, so {dim} is {size}, and {where} says that {dim} is {known}"
                )
            if info.limits:
                require_size(info, array.shape, dim, size)
    fitting = np.asarray(array, order="C")
    return fitting if fitting.flags.aligned else fitting.copy()


def require_size(info: ValueInfo, shape: tuple[int, ...], axis: str, size: int) -> None:
    """Refuse a size at which the model was not found right (InputError)."""
    least, largest = info.limits.get(axis, (1, None))
    if size < least or (largest is not None and size > largest):
        raise InputError(
            f"{info.name} has shape {shape}, so {axis} is {size}; the model is only right where {axis} is "
            f"{allowed_sizes(least, largest)}"
        )


def allowed_sizes(least: int, largest: int | None) -> str:
    """A range of sizes in words."""
    if largest is None:
        return f"{least} or more"
    return str(least) if least == largest else f"from {least} to {largest}"


def axis_sizes(infos: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of the named axes as the given arrays have them."""
    sizes: dict[str, int] = {}
    for name, array in feeds.items():
        info = infos.get(name)
        if info is not None and array.ndim == len(info.shape):
            for size, dim in zip(array.shape, info.shape, strict=True):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
    return sizes


def zeros(info: ValueInfo, sizes: Mapping[str, int]) -> np.ndarray | None:
    """Zeros for an absent state; None where the size of one of its axes does not follow from `sizes`."""
    shape = [size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape]
    if info.dtype is None or None in shape:
        return None
    whole = [int(dim) for dim in shape if dim is not None]
    try:
        return np.zeros(whole, info.dtype)
    except (ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"{info} cannot start as zeros of the sizes {whole}: {error}") from error


def checked_lengths(lengths: np.ndarray, batch: int, time: int) -> np.ndarray:
    """Lengths as int32 ``(batch,)``.

    Raises:
        InputError: of another shape, not integers, or outside 1..time.
    """
    if lengths.dtype.kind not in "iu":  # numpy counts a time difference among its integers
        raise InputError(f"lengths has dtype {lengths.dtype}; it must be integers")
    if lengths.shape != (batch,):
        raise InputError(f"lengths has shape {lengths.shape}; it must be ({batch},), one for each sequence")
    outside = (lengths < 1) | (lengths > time)
    if outside.any():
        index = int(np.argmax(outside))
        raise InputError(f"lengths[{index}] is {lengths[index]}; it must be from 1 to time, {time}")
    return lengths.astype(np.int32)


Restore = Callable[[np.ndarray], Any]


def to_numpy(value: Any, info: ValueInfo | None, name: str) -> tuple[np.ndarray, Restore]:
    """`value` as a plain array in this machine's byte order, and what turns results into its kind.

    Without a copy where that can be: numpy arrays stay as they are; torch tensors and whatever else speaks
    DLPack share their memory; lists and numbers, which have no dtype of their own, take the model's.

    Raises:
        InputError: it is on another device than the CPU, is no array at all, hides values behind a mask,
            or is a list of numbers that the model's dtype cannot hold.
    """
    if type(value) is np.ndarray:
        return (value if value.dtype.isnative else _native(value)), _same
    if isinstance(value, np.ndarray):
        _refuse_masked(value, name)
        return _native(value.view(np.ndarray)), _same
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, name)
    if isinstance(value, (list, tuple)):
        _refuse_masked_in(value, name, 0)
    try:
        whole = np.asanyarray(value)  # an object may make a masked array of itself
        own = np.asarray(whole)
        with np.errstate(all="ignore"):
            array = own if info is None or info.dtype is None else np.asarray(value, dtype=info.dtype)
    except Exception as error:  # numpy asks the object itself, which may raise anything
        raise InputError(f"{name} is not an array of numbers: {reason(error)}") from error
    _refuse_masked(whole, name)
    if own.dtype.kind not in _LOSSLESS.get(array.dtype.kind, own.dtype.kind):
        raise InputError(f"{name} holds values of dtype {own.dtype}; the model takes {array.dtype}")
    if array.dtype.kind in "iu" and not np.array_equal(own, array):
        raise InputError(f"{name} holds numbers that {array.dtype}, which the model takes, cannot hold")
    if array.dtype.kind == "f" and own.dtype != array.dtype and (np.isinf(array) & np.isfinite(own)).any():
        raise InputError(f"{name} holds numbers too large for {array.dtype}, which the model takes")
    return _native(array), _same


def _from_dlpack(value: Any, name: str) -> tuple[np.ndarray, Restore]:
    try:
        kind, index = value.__dlpack_device__()
    except Exception as error:  # every library raises its own
        raise InputError(f"{name} cannot be read as an array: {reason(error)}") from error
    if kind not in _CPU_DEVICES:
        raise InputError(f"{name} is on a device (DLPack type {int(kind)}, index {index}); move it to the CPU first")
    restore = restorer(value)
    try:
        if hasattr(value, "resolve_neg"):
            value = value.resolve_neg()  # torch negates lazily, by a mark that DLPack does not carry
        return np.from_dlpack(value), restore
    except Exception as error:
        raise InputError(
            f"{name} cannot be read as an array: {reason(error)} (a torch tensor may need .detach())"
        ) from error


def _native(array: np.ndarray) -> np.ndarray:
    """In this machine's byte order, the only one that ONNX Runtime takes."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _refuse_masked(array: np.ndarray, name: str) -> None:
    """What a mask hides would be run like any other number."""
    mask = getattr(array, "mask", None)
    if isinstance(mask, (np.ndarray, np.bool_)) and np.any(mask):
        raise InputError(
            f"{name} is a masked array, and a model takes every value, also those that are masked; fill them in "
            "(.filled(value)), or pass lengths"
        )


def _refuse_masked_in(values: list[Any] | tuple[Any, ...], name: str, depth: int) -> None:
    """Masked arrays in lists, of which numpy drops the masks."""
    if depth == _MOST_AXES or not any(issubclass(kind, (list, tuple, np.ndarray)) for kind in set(map(type, values))):
        return
    for value in values:
        if isinstance(value, (list, tuple)):
            _refuse_masked_in(value, name, depth + 1)
        elif isinstance(value, np.ndarray):
            _refuse_masked(value, name)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def restorer(value: Any) -> Restore:
    """What makes a tensor of the library that `value` comes from, which is loaded already: its from_dlpack."""
    library: Any = sys.modules.get(type(value).__module__.partition(".")[0])
    for home in (library, getattr(library, "numpy", None)):
        from_dlpack = getattr(home, "from_dlpack", None)
        if callable(from_dlpack):
            return from_dlpack  # type: ignore[no-any-return]
    return _same
