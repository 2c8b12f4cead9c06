"""A model's inputs and outputs, and whether arrays fit them.

ONNX Runtime is never handed an array that was not checked here: some of what it would be given
(a batch of 0) ends the whole process where no exception can be caught.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .axes import size_of

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
_LOSSLESS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
"""Which kinds of numbers a list may hold for an input of each kind: a fraction is never cut to an integer."""
_CPU_DEVICES = (1, 3)
"""DLPack's kDLCPU and kDLCUDAHost."""


@dataclass(frozen=True)
class ValueInfo:
    """One input or output: its name, its dtype (None for what is not a tensor of numbers), its axes."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...]

    @classmethod
    def of(cls, arg: Any) -> ValueInfo:
        """From onnxruntime's NodeArg."""
        element = arg.type.removeprefix("tensor(").removesuffix(")")
        kind = _DTYPES.get(element)
        return cls(arg.name, None if kind is None else np.dtype(kind), tuple(arg.shape or ()))

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
            raise InputError(f"{name} is not an input of the model; its inputs are {', '.join(infos)}")


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
    return np.asarray(array, order="C")


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
    except (ValueError, OverflowError) as error:
        raise InputError(f"{info} cannot start as zeros of the sizes {whole}: {error}") from error


def checked_lengths(lengths: np.ndarray, batch: int, time: int) -> np.ndarray:
    """Lengths as int32 ``(batch,)``.

    Raises:
        InputError: of another shape, not integers, or outside 1..time.
    """
    if not np.issubdtype(lengths.dtype, np.integer):
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
    """`value` as an array without a copy where that can be, and what turns results into its kind.

    numpy arrays stay as they are; torch tensors and whatever else speaks DLPack share their memory;
    lists and numbers, which have no dtype of their own, take the model's.

    Raises:
        InputError: it is on another device than the CPU, or is no array at all.
    """
    if isinstance(value, np.ndarray):
        return value, _same
    if hasattr(value, "__dlpack__"):
        try:
            kind, index = value.__dlpack_device__()
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{name} cannot be read as an array: {error}") from error
        if kind not in _CPU_DEVICES:
            raise InputError(
                f"{name} is on a device (DLPack type {int(kind)}, index {index}); move it to the CPU first"
            )
        restore = restorer(value)
        if hasattr(value, "resolve_neg"):
            value = value.resolve_neg()  # torch negates lazily, by a mark that DLPack does not carry
        try:
            return np.from_dlpack(value), restore
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(
                f"{name} cannot be read as an array: {error} (a torch tensor may need .detach())"
            ) from error
    try:
        own = np.asarray(value)
        array = own if info is None or info.dtype is None else np.asarray(value, dtype=info.dtype)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error
    if own.dtype.kind not in _LOSSLESS.get(array.dtype.kind, own.dtype.kind):
        raise InputError(f"{name} holds values of dtype {own.dtype}; the model takes {array.dtype}")
    return array, _same


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
