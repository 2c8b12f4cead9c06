"""ONNX models to files: whole or not at all, and over 2 GB with the weights in a file beside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..files import atomic_write

EXTERNAL_DATA_THRESHOLD = 2**31 - 2**24
"""Bytes of weights past which they go to a file of their own: protobuf cannot write 2 GiB or more."""
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
    data = Path(f"{os.path.realpath(path)}.data")
    tensors = []
    with atomic_write(data) as stream:
        offset = 0
        for name, array in initializers.items():
            if array.nbytes < _INLINE_BYTES:
                tensors.append(numpy_helper.from_array(array, name))
                continue
            tensors.append(_external_tensor(name, array, data.name, offset))
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            padding = -array.nbytes % _ALIGNMENT
            stream.write(b"\0" * padding)
            offset += array.nbytes + padding
        # Within the block: a model that cannot be written takes its data file with it.
        written = _write_proto(model, tensors, path)
    return str(data), offset + written


def _write_proto(model: ModelProto, tensors: list[TensorProto], path: str | os.PathLike[str]) -> int:
    whole = ModelProto()
    whole.CopyFrom(model)
    whole.graph.initializer.extend(tensors)
    content = whole.SerializeToString(deterministic=True)
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
