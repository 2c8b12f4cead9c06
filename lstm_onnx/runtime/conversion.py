"""Converts arrays of any library to numpy, without a copy if possible, and results back to the caller's type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .tensor_info import ValueInfo

    Array = NDArray[Any]
    ArrayLike = Array | Sequence[Any] | float

ToCallerType = Callable[[np.ndarray], Any]
"""Converts a result to the type of the arrays that the caller passed."""
_LOSSLESS = {"f": "fiub", "i": "iu", "u": "iu", "b": "b"}
"""The kinds of numbers that a list may hold for each kind of input: floats are not truncated to integers, and bools are
not counts."""
_MAX_AXES = 64
"""numpy's limit of nesting; a list that contains itself has no end."""
_CPU_DEVICES = (1, 3)
"""DLPack's kDLCPU and kDLCUDAHost."""


def to_numpy(value: Any, info: ValueInfo | None, name: str) -> tuple[np.ndarray, ToCallerType]:
    """`value` as a plain array in native byte order, and the function that converts results to its type.

    Without a copy where possible: numpy arrays stay as they are; torch tensors and other DLPack arrays
    share their memory; lists and numbers, which have no dtype of their own, get the model's.

    Raises:
        InputError: it is not on the CPU, is not an array, has masked values, or is a list of numbers that the model's
            dtype cannot represent.
    """
    if type(value) is np.ndarray:
        return _native(value), unchanged
    if isinstance(value, np.ndarray):
        _refuse_masked(value, name)
        return _native(value.view(np.ndarray)), unchanged
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, info, name)
    if isinstance(value, (list, tuple)):
        _refuse_masked_items(value, name, 0)
    if isinstance(value, Mapping):
        raise InputError(
            f"{name} is a {type(value).__name__}", name=name, hint="pass an array, or call run with arrays by name"
        )
    try:
        as_given = np.asanyarray(value)  # an object may convert itself to a masked array
        inferred = np.asarray(as_given)
        with np.errstate(all="ignore"):
            array = inferred if info is None or info.dtype is None else np.asarray(value, dtype=info.dtype)
    except Exception as error:  # numpy calls the object's own methods, which may raise any error
        raise InputError(f"{name} is not an array of numbers: {reason(error)}", name=name) from error
    _refuse_masked(as_given, name)
    if array.dtype == np.uint64 and set(map(type, np.asarray(value, object).flat)) == {int}:
        inferred = array  # by itself numpy makes floats of 1 beside 2**63
    if inferred.dtype.kind not in _LOSSLESS.get(array.dtype.kind, inferred.dtype.kind):
        raise InputError(
            f"{name} holds values of dtype {inferred.dtype}", hint=f"the model takes {array.dtype}", name=name
        )
    if array.dtype.kind in "iu" and not np.array_equal(inferred, array):
        raise InputError(f"{name} holds numbers that the model's dtype {array.dtype} cannot represent", name=name)
    if array.dtype.kind == "f" and inferred.dtype != array.dtype and (np.isinf(array) & np.isfinite(inferred)).any():
        raise InputError(f"{name} holds numbers too large for the model's dtype {array.dtype}", name=name)
    return _native(array), unchanged


def to_arrays(
    values: Mapping[str, Any], infos: Mapping[str, ValueInfo | None]
) -> tuple[dict[str, np.ndarray], ToCallerType]:
    """Several `to_numpy`, by name; the function is that of the first."""
    arrays: dict[str, np.ndarray] = {}
    to_caller_type = None
    for name, value in values.items():
        arrays[name], convert = to_numpy(value, infos.get(name), name)
        to_caller_type = to_caller_type or convert
    return arrays, to_caller_type or unchanged


def _from_dlpack(value: Any, info: ValueInfo | None, name: str) -> tuple[np.ndarray, ToCallerType]:
    try:
        kind, index = value.__dlpack_device__()
    except Exception as error:  # every library raises its own
        raise InputError(f"{name} cannot be read as an array: {reason(error)}", name=name) from error
    if kind not in _CPU_DEVICES:
        raise InputError(
            f"{name} is on a device (DLPack type {int(kind)}, index {index})",
            hint="move it to the CPU first",
            name=name,
        )
    to_caller_type = converter_to(value)
    try:
        if hasattr(value, "resolve_neg"):
            value = value.resolve_neg()  # torch negates lazily, by a flag that DLPack does not transport
        array = np.from_dlpack(value)
    except Exception as error:
        if getattr(value, "requires_grad", False):
            hint = "use .detach()"
        else:  # such as bfloat16, which numpy does not have, or a sparse layout
            hint = f"it has dtype {getattr(value, 'dtype', 'unknown')}" + (f"; the model takes {info}" if info else "")
        raise InputError(f"{name} cannot be read as an array: {reason(error)}", hint=hint, name=name) from error
    wanted = None if info is None else info.dtype
    if wanted is not None and wanted.kind == "f" and array.dtype != wanted and _is_torch(value):
        raise InputError(
            f"{name} has dtype {array.dtype}", hint=f"the model takes {wanted} (use .to(torch.{wanted}))", name=name
        )
    return array, to_caller_type


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _native(array: np.ndarray) -> np.ndarray:
    """`array` in native byte order, the only one that ONNX Runtime accepts."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _refuse_masked(array: np.ndarray, name: str) -> None:
    """Refuse a masked array: a model would run on masked values as on any others."""
    mask = getattr(array, "mask", None)
    if isinstance(mask, (np.ndarray, np.bool_)) and np.any(mask):
        raise InputError(
            f"{name} is a masked array, but a model uses every value, also masked ones",
            hint="fill them in (.filled(value)), or pass lengths",
            name=name,
        )


def _refuse_masked_items(values: list[Any] | tuple[Any, ...], name: str, depth: int) -> None:
    """Refuse masked arrays in lists, whose masks numpy drops."""
    if depth == _MAX_AXES or not any(issubclass(kind, (list, tuple, np.ndarray)) for kind in set(map(type, values))):
        return
    for value in values:
        if isinstance(value, (list, tuple)):
            _refuse_masked_items(value, name, depth + 1)
        elif isinstance(value, np.ndarray):
            _refuse_masked(value, name)


def unchanged(array: np.ndarray) -> np.ndarray:
    """The result itself, for a caller who passed numpy arrays."""
    return array


def as_passed(results: Mapping[str, Any], to_caller_type: ToCallerType) -> dict[str, Any]:
    """The arrays among `results` converted; an ONNX sequence or map stays as it is."""
    if to_caller_type is unchanged:
        return dict(results)
    return {name: to_caller_type(value) if isinstance(value, np.ndarray) else value for name, value in results.items()}


def converter_to(value: Any) -> ToCallerType:
    """The `from_dlpack` of the library of `value`, which is already imported; strings stay in numpy."""
    library: Any = sys.modules.get(type(value).__module__.partition(".")[0])
    for namespace in (library, getattr(library, "numpy", None)):
        from_dlpack = getattr(namespace, "from_dlpack", None)
        if callable(from_dlpack):
            return lambda array: array if getattr(array, "dtype", None) == "O" else from_dlpack(array)
    return unchanged
