"""Converts the protocol's tensors to arrays and back: datatypes, shapes, JSON numbers and raw bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ..errors import shown
from .errors import RequestError

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_MOST_AXES = 32
_AT_ONCE = 4096
"""How many numbers one call of json.dumps writes: it holds the GIL, which would block the server's event loop."""
_READ_AS: dict[str, tuple[type[np.generic], set[type]]] = {
    "b": (np.bool_, {bool}),
    "i": (np.int64, {int}),
    "u": (np.uint64, {int}),  # by itself numpy makes floats of 1 beside 2**63
    "f": (np.float64, {int, float}),
}
"""By the kind of a dtype: the widest one, and the Python types of its numbers in JSON."""
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Names for the numbers that JSON lacks, as in protobuf's JSON."""
_NAME_OF = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def dtype_of(name: str, datatype: object) -> np.dtype[Any]:
    """The dtype of the tensor `name` (RequestError where the datatype is not served)."""
    dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise RequestError(f"{name} has datatype {shown(datatype)}; it must be one of {', '.join(DATATYPES)}")
    return dtype


def validated_shape(name: str, shape: object) -> tuple[int, ...]:
    """Validate a tensor's shape (RequestError)."""
    if not isinstance(shape, (list, tuple)) or len(shape) > _MOST_AXES:
        raise RequestError(f"{name} has shape {shown(shape)}; it must be a list of at most {_MOST_AXES} integers")
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**63:
            raise RequestError(f"{name} has shape {shown(list(shape))}; every size must be a non-negative integer")
    return tuple(shape)


def from_bytes(name: str, datatype: object, shape: object, data: bytes | memoryview) -> np.ndarray:
    """The array of raw little-endian bytes in row-major order.

    The array may be read-only and not aligned.
    """
    dtype, sizes = dtype_of(name, datatype), validated_shape(name, shape)
    expected = math.prod(sizes) * dtype.itemsize
    if len(data) != expected:
        raise RequestError(f"{name} has {len(data)} bytes; {datatype} {list(sizes)} takes {expected}")
    array = np.frombuffer(data, dtype)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise RequestError(f"{name} has datatype BOOL, but bytes other than 0 and 1")
    return array.reshape(sizes)


def from_numbers(name: str, datatype: object, shape: object, data: object) -> np.ndarray:
    """The array of JSON numbers in a flat list, or in lists nested as the shape."""
    dtype, sizes = dtype_of(name, datatype), validated_shape(name, shape)
    if not isinstance(data, list):
        raise RequestError(f"{name} has data {shown(data)}; it must be a list")
    widest, allowed = _READ_AS[dtype.kind]
    try:
        types = _types(data)
        if str in types and dtype.kind == "f":
            data, types = _with_numbers(data), types - {str} | {float}
        array = np.asarray(data, widest if types <= allowed else None)
    except OverflowError as error:
        raise RequestError(f"{name} has a number that {datatype} cannot hold") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"{name} has data that are neither a list of numbers nor lists of one shape") from error
    if not types <= allowed:
        raise RequestError(f"{name} has data that are not numbers of its datatype {datatype}")
    if array.size != math.prod(sizes) or (array.ndim > 1 and array.shape != sizes):
        raise RequestError(f"{name} has data of shape {list(array.shape)}, but its shape is {list(sizes)}")
    return _cast(name, array, dtype).reshape(sizes)


def _types(data: list[Any]) -> set[type]:
    """The types of the items in lists nested as an array."""
    kinds = set(map(type, data))
    return set().union(*map(_types, data)) if list in kinds else kinds


def _with_numbers(data: Any) -> Any:
    """`data` with numbers in place of "NaN", "Infinity" and "-Infinity" (ValueError for other text)."""
    if isinstance(data, list):
        return [_with_numbers(item) for item in data]
    if isinstance(data, str):
        if data not in _NOT_FINITE:
            raise ValueError(data)
        return _NOT_FINITE[data]
    return data


def _cast(name: str, array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    fits = np.isfinite(cast) | ~np.isfinite(array) if dtype.kind == "f" else cast == array
    if not fits.all():
        raise RequestError(
            f"{name} has the number {array.flat[int(np.argmin(fits))]}, which {NAMES[dtype]} cannot represent"
        )
    return cast


def to_bytes(array: np.ndarray) -> bytes:
    """An array as raw little-endian bytes, in row-major order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_numbers(array: np.ndarray) -> list[Any]:
    """An array as a flat list for JSON, with "NaN", "Infinity" and "-Infinity" for the numbers that JSON lacks."""
    numbers: list[Any] = array.ravel().tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [number if math.isfinite(number) else _NAME_OF[str(number)] for number in numbers]
    return numbers


def to_json(array: np.ndarray) -> str:
    """`to_numbers` as JSON text, written in parts so that other threads can run in between."""
    numbers = array.ravel()
    parts = (to_numbers(numbers[at : at + _AT_ONCE]) for at in range(0, numbers.size, _AT_ONCE))
    return f"[{','.join(json.dumps(part, allow_nan=False, separators=(',', ':'))[1:-1] for part in parts)}]"


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name for a dtype."""
    return NAMES[dtype.newbyteorder("<")]
