"""ONNX models to files: whole or not at all, and over 2 GB with the weights in a file beside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper, numpy_helper

from ..atomic_io import atomic_write
from ..checksum import KEY, UNKNOWN, with_checksum
from .weights import digest

EXTERNAL_DATA_THRESHOLD = 2**31 - 2**24
"""Bytes of weights past which they go to a file of their own: protobuf cannot write 2 GiB or more."""
_DIGITS = 8
_LONGEST_STEM = 255 - len("..data") - _DIGITS
"""Bytes of a name that the data file's own starts with."""
_ALIGNMENT = 4096
"""External tensors start at page boundaries, so that a runtime can map them into memory."""
_INLINE_BYTES = 1024
"""Tensors below this stay in the model: shape inference reads axes and sizes, and cannot from another file."""


def write_model(
    model: ModelProto, initializers: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> tuple[str | None, int]:
    """Write `model` with `initializers` to `path`.

    Returns:
        The external data file's path, or None where the model holds its weights itself; and the
        bytes written in all.

    Raises:
        FileError: a file cannot be written.
    """
    total = sum(array.nbytes for array in initializers.values())
    if total <= EXTERNAL_DATA_THRESHOLD:
        tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
        return None, _write_proto(model, tensors, path)
    target = Path(os.path.realpath(path))
    # Named by its content: whatever fails, the model that was there keeps the data that it was written with.
    data = target.with_name(f"{_data_stem(target)}.{digest(initializers)[:_DIGITS]}.data")
    known = data.exists()
    try:
        tensors, size = _write_data(data, initializers)
        written = _write_proto(model, tensors, path)
    except BaseException:
        if not known:
            data.unlink(missing_ok=True)
        raise
    _remove_stale(target, data)
    return str(data), size + written


def _write_data(data: Path, initializers: Mapping[str, np.ndarray]) -> tuple[list[TensorProto], int]:
    """Write the large tensors to `data`; all of them as the model holds them, and the bytes written."""
    tensors = []
    offset = 0
    with atomic_write(data) as stream:
        for name, array in initializers.items():
            if array.nbytes < _INLINE_BYTES:
                tensors.append(numpy_helper.from_array(array, name))
                continue
            tensors.append(_external_tensor(name, array, data.name, offset))
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            padding = -array.nbytes % _ALIGNMENT
            stream.write(b"\0" * padding)
            offset += array.nbytes + padding
    return tensors, offset


def _data_stem(target: Path) -> str:
    """The model's name, or what of it leaves room for an ending and for the digits that tell such names apart."""
    name = os.fsencode(target.name)
    if len(name) <= _LONGEST_STEM:
        return target.name
    return f"{name[: _LONGEST_STEM - _DIGITS - 1].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:_DIGITS]}"


def _remove_stale(target: Path, data: Path) -> None:
    """Data files that earlier exports to `target` left and no model refers to any more."""
    stale = re.compile(re.escape(_data_stem(target)) + rf"\.[0-9a-f]{{{_DIGITS}}}\.data")
    for file in target.parent.iterdir():
        if stale.fullmatch(file.name) and file.name != data.name:
            with contextlib.suppress(OSError):
                file.unlink()


def _write_proto(model: ModelProto, tensors: list[TensorProto], path: str | os.PathLike[str]) -> int:
    whole = ModelProto()
    whole.CopyFrom(model)
    whole.graph.initializer.extend(tensors)
    # The first of the metadata, so that a file which is cut off behind it has lost what check misses.
    whole.metadata_props.insert(0, StringStringEntryProto(key=KEY, value=UNKNOWN))
    content = with_checksum(whole.SerializeToString(deterministic=True))
    with atomic_write(path) as stream:
        stream.write(content)
    return len(content)


def _external_tensor(name: str, array: np.ndarray, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
