"""Reads the binary formats of arrays: npy, npz and safetensors.

npy is parsed here instead of by ``numpy.load``, which allocates what a header declares before it compares that with
the size of the file, raises five kinds of exceptions for damaged headers, accepts trailing bytes and has an option
for pickles; with ``mmap_mode`` it reads neither stdin nor the members of an npz.  Arrays of safetensors are made here
instead of by ``safetensors.numpy``, which raises KeyError for bfloat16.
"""

from __future__ import annotations

import math
import os
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from ..errors import FileError, reason
from .formats import Record, is_numeric, native

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_NPZ = 64 * 2**30
"""Maximum unpacked bytes that an npz or parquet file may declare."""
LARGEST_RATIO = 1000
"""Maximum ratio of unpacked bytes to the size of the file, for more than `RATIO_COUNTS_FROM` bytes."""
RATIO_COUNTS_FROM = 256 * 2**20

_LARGEST_NPY_HEADER = 10_000  # numpy's own limit, since the header is parsed as Python
_PLAIN_TYPE = re.compile(r"[<>|=]?[?biuf]\d*")
_SAFETENSORS_TYPES = {"BOOL": "?"} | {
    f"{kind}{8 * int(width)}": f"<{kind.lower()}{width}" for kind in "IUF" for width in "1248" if kind + width != "F1"
}
_DAMAGED = "the file is truncated or damaged; write it again"


def read_npy(stream: BinaryIO, place: str) -> np.ndarray:
    """Read the array in an npy file.

    Args:
        stream: seekable, at its start.
        place: its name in errors.

    Raises:
        FileError: the file is not npy, is truncated, or has a dtype that is not numeric.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return _npy(stream, size, place)


def read_npz(stream: BinaryIO, place: str) -> Record:
    """Read the arrays in an npz file, stored or compressed.

    Raises:
        FileError: the file is not a zip of npy files, is damaged, expands to more than is allowed, or has a dtype that
            is not numeric.
    """
    import lzma
    import struct
    import zipfile
    import zlib

    # zipfile raises RuntimeError for encryption, its subclass NotImplementedError for an unknown compression, and
    # ValueError and struct.error for damaged directories.
    damaged = (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
        OSError,
    )
    record: Record = {}
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            # The total is compared with the size of the file, since members may share their bytes.
            check_expansion(place, sum(member.file_size for member in members), stream.seek(0, os.SEEK_END))
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    raise FileError(f"{place}: has {name!r}, which is not an array; keep .npy members only")
                if name in record:
                    raise FileError(f"{place}: has the array {name!r} twice; remove one")
                with archive.open(member) as packed:
                    record[name] = _npy(cast("BinaryIO", packed), member.file_size, f"{place}: array {name!r}")
    except damaged as error:
        raise FileError(f"{place}: is not a valid npz file: {reason(error)}; {_DAMAGED}") from error
    if not record:
        raise FileError(f"{place}: has no arrays; save at least one by name with numpy.savez")
    return record


def read_safetensors(stream: BinaryIO, place: str) -> Record:
    """Read the arrays in a safetensors file; bfloat16 becomes float32.

    Raises:
        FileError: the file is not safetensors, is truncated, or has dtypes that NumPy lacks.
    """
    import safetensors

    deserialize = cast("Any", safetensors.deserialize)  # its stub has no annotations
    try:
        tensors = deserialize(stream.read())
    except safetensors.SafetensorError as error:
        raise FileError(f"{place}: is not a valid safetensors file: {reason(error)}; {_DAMAGED}") from error
    record: Record = {}
    for name, tensor in sorted(tensors, key=itemgetter(0)):  # the library's order varies from run to run
        code, shape, data = str(tensor["dtype"]), tensor["shape"], tensor["data"]
        if code == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        elif code in _SAFETENSORS_TYPES:
            array = native(np.frombuffer(data, _SAFETENSORS_TYPES[code]))
        else:
            raise FileError(f"{place}: array {name!r} has the dtype {code}, which numpy lacks; save it as float32")
        record[name] = reshaped(array, shape, f"{place}: array {name!r}")
    if not record:
        raise FileError(f"{place}: has no arrays; save at least one by name")
    return record


def check_expansion(
    place: str, unpacked: int, packed: int, hint: str = "save the arrays as .safetensors or .npy"
) -> None:
    """Raise FileError if a file declares too many bytes, in total or as a multiple of its size."""
    ratio = unpacked / max(packed, 1)
    if unpacked > LARGEST_NPZ:
        problem = f"declares {unpacked / 2**30:.1f} GiB of arrays, more than the {LARGEST_NPZ // 2**30} GiB allowed"
    elif unpacked > RATIO_COUNTS_FROM and ratio > LARGEST_RATIO:
        problem = f"unpacks to {ratio:.0f} times its size, more than the {LARGEST_RATIO} times allowed"
    else:
        return
    raise FileError(f"{place}: {problem}; if you trust it, {hint}")


def _npy(stream: BinaryIO, size: int, place: str) -> np.ndarray:
    """The array in an npy file of `size` bytes, which starts at the position of `stream`."""
    start = _exactly(stream, 10, place)
    if start[:6] != b"\x93NUMPY":
        raise FileError(f"{place}: is not npy: it lacks the signature; save it with numpy.save")
    if start[6] not in (1, 2, 3):
        raise FileError(f"{place}: is npy of version {start[6]}.{start[7]}, not 1 to 3; save it with numpy.save")
    # The length of the header has two bytes in version 1, and four in later ones.
    length_bytes = start[8:10] if start[6] == 1 else start[8:10] + _exactly(stream, 2, place)
    header_size = int.from_bytes(length_bytes, "little")
    if header_size > _LARGEST_NPY_HEADER:
        raise FileError(
            f"{place}: has a npy header of {header_size} bytes, more than any array of numbers needs; {_DAMAGED}"
        )
    dtype, order, shape = _npy_header(_exactly(stream, header_size, place), place)
    declared = math.prod(shape) * dtype.itemsize
    available = size - (8 + len(length_bytes) + header_size)
    if declared > available:
        raise FileError(f"{place}: declares {declared} bytes of numbers, but has {available}; {_DAMAGED}")
    if declared < available:
        extra = available - declared
        raise FileError(f"{place}: has {extra} bytes after its array; save one array, or several as .npz")
    raw = np.empty(declared, np.uint8)
    view, position = raw.data, 0
    while position < declared:
        count = cast("Any", stream).readinto(view[position:])
        if not count:
            raise FileError(f"{place}: declares {declared} bytes of numbers, but has {position}; {_DAMAGED}")
        position += count
    return native(reshaped(raw.view(dtype), shape, place, order="F" if order else "C"))


def reshaped(array: np.ndarray, shape: Sequence[int], place: str, order: Literal["C", "F"] = "C") -> np.ndarray:
    """`array` in the shape that a file declares; FileError if NumPy does not support it, such as ``(0, 10**26)``."""
    try:
        return array.reshape(tuple(shape), order=order)
    except (ValueError, OverflowError, TypeError) as error:
        raise FileError(
            f"{place}: declares the shape {tuple(shape)!r:.60}, which numpy does not support; {_DAMAGED}"
        ) from error


def _exactly(stream: BinaryIO, count: int, place: str) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise FileError(f"{place}: ends within the npy header; {_DAMAGED}")
    return data


def _npy_header(text: bytes, place: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """The dtype, whether the order is Fortran's, and the shape."""
    import ast

    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        descr, order, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise FileError(f"{place}: has an invalid npy header; {_DAMAGED}") from error
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise FileError(f"{place}: has a npy header with the invalid shape {shape!r:.60}; {_DAMAGED}")
    if isinstance(descr, str) and descr.lstrip("<>|=").startswith("O"):
        raise FileError(
            f"{place}: contains Python objects (a pickle), which are never loaded; save it as an array of numbers"
        )
    if not isinstance(descr, str) or not _PLAIN_TYPE.fullmatch(descr):
        raise FileError(f"{place}: has dtype {descr!r:.60}, which is not numeric; save it as an array of numbers")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise FileError(f"{place}: has a npy header with the invalid dtype {descr!r}; {_DAMAGED}") from error
    if not is_numeric(dtype):
        raise FileError(f"{place}: has dtype {dtype}, which no model takes; save it as float64")
    return dtype, bool(order), shape
