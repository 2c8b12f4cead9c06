"""The binary formats that hold arrays as they are: npy, npz, safetensors.

The npy header is read here and not by ``numpy.load``: it allocates what a header declares before it
looks whether the file has as much, warns on headers of old, and has a switch for pickles.  Here
there is no code that could run one.
"""

from __future__ import annotations

import math
import os
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from lstm_onnx.errors import FileError

from .formats import Record, is_numeric, native, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_NPZ = 64 * 2**30
"""An npz or parquet file that declares more bytes than this, unpacked, is refused before anything is unpacked."""
LARGEST_RATIO = 1000
"""So is one that declares more than `RATIO_COUNTS_FROM` bytes and unpacks to this many times its size."""
RATIO_COUNTS_FROM = 256 * 2**20

_LARGEST_NPY_HEADER = 10_000  # numpy's own bound, for the same reason: the header is parsed as Python
_PLAIN_TYPE = re.compile(r"[<>|=]?[?biuf]\d*")
_SAFETENSORS_TYPES = {"BOOL": "?"} | {
    f"{kind}{8 * width}": f"<{kind.lower()}{width}"
    for kind, width in [
        ("I", 1),
        ("I", 2),
        ("I", 4),
        ("I", 8),
        ("U", 1),
        ("U", 2),
        ("U", 4),
        ("U", 8),
        ("F", 2),
        ("F", 4),
        ("F", 8),
    ]
}
_CUT = "it is cut short or damaged; make it anew"


def read_npy(stream: BinaryIO, place: str) -> np.ndarray:
    """The array of a npy file.

    Args:
        stream: seekable, at its start.
        place: what to call it in errors.

    Raises:
        FileError: it is not npy, is cut short, or holds something other than numbers.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return _npy(stream, size, place)


def read_npz(stream: BinaryIO, place: str) -> Record:
    """The arrays of a npz file, stored or compressed.

    Raises:
        FileError: it is not a zip of npy files, is damaged, declares so much that it must be a
            bomb, or holds something other than numbers.
    """
    import lzma
    import struct
    import zipfile
    import zlib

    # RuntimeError is zipfile's for an encrypted member, and with it NotImplementedError for a
    # compression that this Python lacks; ValueError and struct.error come from damaged directories.
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
            # Against the file's own size: members that share their bytes would each declare them.
            check_bomb(place, sum(member.file_size for member in members), stream.seek(0, os.SEEK_END))
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename:
                    raise FileError(f"{place}: holds {name!r}, which is not an array; keep .npy members only")
                if name in record:
                    raise FileError(f"{place}: holds the array {name!r} twice; keep one of them")
                with archive.open(member) as packed:
                    record[name] = _npy(cast("BinaryIO", packed), member.file_size, f"{place}: array {name!r}")
    except damaged as error:
        raise FileError(f"{place}: is not a whole npz file: {one_line(error)}; {_CUT}") from error
    if not record:
        raise FileError(f"{place}: holds no arrays; save at least one by name with numpy.savez")
    return record


def read_safetensors(stream: BinaryIO, place: str) -> Record:
    """The arrays of a safetensors file, bfloat16 widened to float32.

    Raises:
        FileError: it is not safetensors, is cut short, or holds types that numpy has no numbers for.
    """
    import safetensors

    deserialize = cast("Any", safetensors.deserialize)  # its stub has no annotations
    try:
        tensors = deserialize(stream.read())
    except safetensors.SafetensorError as error:
        raise FileError(f"{place}: is not a whole safetensors file: {one_line(error)}; {_CUT}") from error
    record: Record = {}
    for name, tensor in sorted(tensors, key=itemgetter(0)):  # they come in another order each time
        code, shape, data = str(tensor["dtype"]), tensor["shape"], tensor["data"]
        if code == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        elif code in _SAFETENSORS_TYPES:
            array = native(np.frombuffer(data, _SAFETENSORS_TYPES[code]))
        else:
            raise FileError(f"{place}: array {name!r} has the dtype {code}, which numpy lacks; save it as float32")
        record[name] = shaped(array, shape, f"{place}: array {name!r}")
    if not record:
        raise FileError(f"{place}: holds no arrays; save at least one by name")
    return record


def check_bomb(place: str, unpacked: int, packed: int, mend: str = "save the arrays as .safetensors or .npy") -> None:
    """Refuse a file that declares so much more than its own size that it must be made to do harm (FileError)."""
    ratio = unpacked / max(packed, 1)
    if unpacked > LARGEST_NPZ:
        why = f"declares {unpacked / 2**30:.1f} GiB of arrays, more than the {LARGEST_NPZ // 2**30} GiB allowed"
    elif unpacked > RATIO_COUNTS_FROM and ratio > LARGEST_RATIO:
        why = f"unpacks to {ratio:.0f} times its size, more than the {LARGEST_RATIO} times allowed"
    else:
        return
    raise FileError(f"{place}: {why}; if you trust it, {mend}")


def _npy(stream: BinaryIO, size: int, place: str) -> np.ndarray:
    """The array of the npy file that `stream` is at the start of, and that is `size` bytes long."""
    start = _exactly(stream, 10, place)
    if start[:6] != b"\x93NUMPY":
        raise FileError(f"{place}: is not npy, it lacks the signature; save it with numpy.save")
    if start[6] not in (1, 2, 3):
        raise FileError(f"{place}: is npy of version {start[6]}.{start[7]}, not 1 to 3; save it with numpy.save")
    # Version 1 has two bytes for the header's length, later ones four.
    length_bytes = start[8:10] if start[6] == 1 else start[8:10] + _exactly(stream, 2, place)
    header_size = int.from_bytes(length_bytes, "little")
    if header_size > _LARGEST_NPY_HEADER:
        raise FileError(f"{place}: has a npy header of {header_size} bytes, which no array of numbers needs; {_CUT}")
    dtype, order, shape = _npy_header(_exactly(stream, header_size, place), place)
    needs = math.prod(shape) * dtype.itemsize
    has = size - (8 + len(length_bytes) + header_size)
    if needs > has:
        raise FileError(f"{place}: declares {needs} bytes of numbers and has {has}; {_CUT}")
    if needs < has:
        raise FileError(f"{place}: has {has - needs} bytes after its array; save one array, or several as .npz")
    raw = np.empty(needs, np.uint8)
    view, got = raw.data, 0
    while got < needs:
        step = cast("Any", stream).readinto(view[got:])
        if not step:
            raise FileError(f"{place}: declares {needs} bytes of numbers and has {got}; {_CUT}")
        got += step
    return native(shaped(raw.view(dtype), shape, place, order="F" if order else "C"))


def shaped(array: np.ndarray, shape: Sequence[int], place: str, order: Literal["C", "F"] = "C") -> np.ndarray:
    """`array` in the shape that a file declares, which may be one that no array has, as of 10**26 times nothing."""
    try:
        return array.reshape(tuple(shape), order=order)
    except (ValueError, OverflowError, TypeError) as error:
        raise FileError(f"{place}: declares the shape {tuple(shape)!r:.60}, which no array has; {_CUT}") from error


def _exactly(stream: BinaryIO, count: int, place: str) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise FileError(f"{place}: ends within its npy header; {_CUT}")
    return data


def _npy_header(text: bytes, place: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """dtype, whether in Fortran's order, shape."""
    import ast

    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        descr, order, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise FileError(f"{place}: has a npy header that makes no sense; {_CUT}") from error
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise FileError(f"{place}: has a npy header with the shape {shape!r:.60}; {_CUT}")
    if isinstance(descr, str) and descr.lstrip("<>|=").startswith("O"):
        raise FileError(f"{place}: holds Python objects (a pickle), never loaded; save it as an array of numbers")
    if not isinstance(descr, str) or not _PLAIN_TYPE.fullmatch(descr):
        raise FileError(f"{place}: holds {descr!r:.60}, which are not numbers; save it as an array of numbers")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise FileError(f"{place}: has a npy header with the dtype {descr!r}; {_CUT}") from error
    if not is_numeric(dtype):
        raise FileError(f"{place}: holds {dtype}, which no model takes; save it as float64")
    return dtype, bool(order), shape
