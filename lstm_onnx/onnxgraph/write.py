"""Writes a model to a file, with weights over 2 GB in a file beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, StringStringEntryProto, TensorProto, helper

from ..atomic_io import atomic_write, one_writer, require_writable
from ..checksum import KEY, UNKNOWN, with_checksum
from ..errors import FileError, ModelError
from ..metadata import Metadata
from .load import OVERRIDABLE, read_external
from .serialize import Tensor, model_pieces

EXTERNAL_DATA_THRESHOLD = 2**31 - 2**24
"""The most bytes of weights in the model's own file; protobuf cannot hold 2 GiB."""
_DIGEST_DIGITS = 8
_MAX_STEM_BYTES = 255 - len("..data") - _DIGEST_DIGITS
"""The most bytes of the model's file name with which the data file's name starts."""
_ALIGNMENT = 4096
"""External tensors start at page boundaries, so that a runtime can map them into memory."""
_INLINE_BYTES = 1024
"""Smaller tensors stay in the model: shape inference needs axes and sizes, and cannot read another file."""


def write_model(
    model: ModelProto, initializers: Mapping[str, np.ndarray], path: str | os.PathLike[str]
) -> tuple[str | None, int]:
    """Write `model` with `initializers` to `path`.

    Returns:
        The external data file's path, or None if the weights are in the model; and the total size of the files that
        were written, in bytes.

    Raises:
        FileError: a file cannot be written.
    """
    total = sum(array.nbytes for array in initializers.values())
    if total <= EXTERNAL_DATA_THRESHOLD:
        return None, _write_proto(model, [Tensor.of(*item) for item in initializers.items()], path)
    target = Path(os.path.realpath(path))
    # Named by its content: if anything fails, a model that existed before still has its own data.
    data = target.with_name(f"{_data_stem(target)}.{digest(initializers)[:_DIGEST_DIGITS]}.data")
    with one_writer(target.parent):  # another writer would remove the data of a model that is not written yet
        existed = data.exists()
        try:
            tensors, size = _write_data(data, initializers)
            written = _write_proto(model, tensors, path)
        except BaseException:
            if not existed:
                data.unlink(missing_ok=True)
            raise
        _remove_stale(target, data)
    return str(data), size + written


def embedded(model: ModelProto, source: str | os.PathLike[str], entries: Mapping[str, str]) -> bytes:
    """The bytes of `model` in one file; those of `source` if nothing has to change.

    Args:
        model: the model, which is changed.
        source: the model's file.
        entries: metadata to add.

    Raises:
        ModelError: weights beside it cannot be read, or are too large for one file.
    """
    external = read_external(model, source)
    if not external and not entries:
        return Path(source).read_bytes()
    if model.ByteSize() > EXTERNAL_DATA_THRESHOLD:
        raise ModelError("has more than 2 GiB of weights, which one file cannot hold", path=source)
    kept = {item.key: item.value for item in model.metadata_props if item.key != KEY}
    helper.set_model_props(model, {KEY: UNKNOWN, **kept, **entries})
    return with_checksum(model.SerializeToString(deterministic=True))


def set_metadata(model: ModelProto, metadata: Metadata) -> None:
    """Replace lstm-onnx's metadata in a model; other tools' entries stay."""
    others = {item.key: item.value for item in model.metadata_props if not item.key.startswith("lstm_onnx.")}
    helper.set_model_props(model, {**others, **metadata.to_metadata()})


def _write_data(data: Path, initializers: Mapping[str, np.ndarray]) -> tuple[list[Tensor], int]:
    """Write the large tensors to `data`; return all tensors for the model, and the number of bytes written."""
    tensors = []
    offset = 0
    with atomic_write(data) as stream:
        for name, array in initializers.items():
            if array.nbytes < _INLINE_BYTES:
                tensors.append(Tensor.of(name, array))
                continue
            tensors.append(Tensor(_external_tensor(name, array, data.name, offset)))
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            padding = -array.nbytes % _ALIGNMENT
            stream.write(b"\0" * padding)
            offset += array.nbytes + padding
    return tensors, offset


def _data_stem(target: Path) -> str:
    """The model's file name; shortened, and made unique by a digest, if there is no room for a suffix."""
    name = os.fsencode(target.name)
    if len(name) <= _MAX_STEM_BYTES:
        return target.name
    start = name[: _MAX_STEM_BYTES - _DIGEST_DIGITS - 1].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name).hexdigest()[:_DIGEST_DIGITS]}"


def _remove_stale(target: Path, data: Path) -> None:
    """Delete data files of earlier exports to `target`, which no model refers to any more."""
    stale = re.compile(re.escape(_data_stem(target)) + rf"\.[0-9a-f]{{{_DIGEST_DIGITS}}}\.data")
    for file in target.parent.iterdir():
        if stale.fullmatch(file.name) and file.name != data.name:
            with contextlib.suppress(OSError):
                file.unlink()


def _write_proto(model: ModelProto, tensors: Sequence[Tensor], path: str | os.PathLike[str]) -> int:
    marked = ModelProto()
    marked.CopyFrom(model)
    marked.ir_version = max(marked.ir_version, OVERRIDABLE)  # initializers need not be inputs
    # The first of the metadata, so that check recognizes a file that is truncated after it.
    marked.metadata_props.insert(0, StringStringEntryProto(key=KEY, value=UNKNOWN))
    pieces, end = model_pieces(marked, tensors)
    crc, size = 0, len(end)
    with atomic_write(path) as stream:
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            size += stream.write(piece)
        stream.write(with_checksum(end, crc))
    return size


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


def digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of every array's name, dtype, shape and bytes, in the order of their names, as hex digits."""
    total = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        total.update(f"{name}:{array.dtype.name}:{array.shape};".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def require_model_path(path: str | os.PathLike[str]) -> None:
    """Refuse a path that no model can be written to, before anything is computed.

    Raises:
        FileError: it is "-", or see `require_writable`.
    """
    if isinstance(path, str) and path == "-":
        raise FileError('"-": a model is not written to stdout; name a file, such as model.onnx (or ./- for that name)')
    require_writable(path)
