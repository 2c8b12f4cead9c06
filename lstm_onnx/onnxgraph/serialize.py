"""Serializes a model piece by piece, so that no copy of its weights is made on the way to a file.

protobuf's own serialization makes two copies: one in the message, one in its bytes.  The pieces are the same bytes, in
protobuf's encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

Piece = bytes | memoryview
_GRAPH, _INITIALIZER, _RAW_DATA = (
    message.DESCRIPTOR.fields_by_name[field].number
    for message, field in ((ModelProto, "graph"), (GraphProto, "initializer"), (TensorProto, "raw_data"))
)
_BYTES = 2
"""The wire type of fields with a length: strings, bytes and messages."""


@dataclass(frozen=True)
class Tensor:
    """A stored tensor of a model.

    Attributes:
        proto: the whole tensor, or all but its numbers.
        array: its numbers; None if they are in `proto` or in another file.
    """

    proto: TensorProto
    array: np.ndarray | None = None

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Tensor:
        """The tensor for an initializer."""
        if array.dtype.kind not in "biufc":  # strings, or numbers that are packed two to a byte
            return cls(numpy_helper.from_array(array, name))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return cls(TensorProto(name=name, dims=array.shape, data_type=kind), array)

    def pieces(self) -> list[Piece]:
        """The bytes of its message: `raw_data` comes last, after every other field that is set here."""
        start = _bytes_of(self.proto)
        if self.array is None:
            return [start]
        numbers = np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data
        return [start, _start(_RAW_DATA, numbers.nbytes), numbers]

    @property
    def size(self) -> int:
        """The size of its message in bytes."""
        size: int = self.proto.ByteSize()
        if self.array is not None:
            size += len(_start(_RAW_DATA, self.array.nbytes)) + self.array.nbytes
        return size


def model_pieces(model: ModelProto, tensors: Iterable[Tensor]) -> tuple[Iterator[Piece], bytes]:
    """The bytes of a model with additional initializers: those up to its metadata, and those from there to the end."""
    return _pieces(model, [*map(Tensor, model.graph.initializer), *tensors]), _part(model, lambda field: field > _GRAPH)


def _pieces(model: ModelProto, tensors: list[Tensor]) -> Iterator[Piece]:
    graph = model.graph
    first = _part(graph, lambda field: field < _INITIALIZER)
    last = _part(graph, lambda field: field > _INITIALIZER)
    starts = [_start(_INITIALIZER, tensor.size) for tensor in tensors]
    inner = sum(len(start) + tensor.size for start, tensor in zip(starts, tensors, strict=True))
    yield _part(model, lambda field: field < _GRAPH)
    yield _start(_GRAPH, len(first) + inner + len(last))
    yield first
    for start, tensor in zip(starts, tensors, strict=True):
        yield start
        yield from tensor.pieces()
    yield last


def _part(message: Any, kept: Callable[[int], bool]) -> bytes:
    """The bytes of the fields for whose numbers `kept` is true."""
    part = type(message)()
    for field, value in message.ListFields():
        if kept(field.number):
            own = getattr(part, field.name)
            if hasattr(own, "extend"):
                own.extend(value)
            elif hasattr(own, "CopyFrom"):
                own.CopyFrom(value)
            else:
                setattr(part, field.name, value)
    return _bytes_of(part)


def _bytes_of(message: Any) -> bytes:
    found: bytes = message.SerializeToString(deterministic=True)
    return found


def _start(field: int, size: int) -> bytes:
    """The header of a field with a length: its number and wire type, and the length, both as varints."""
    return _varint(field << 3 | _BYTES) + _varint(size)


def _varint(number: int) -> bytes:
    """A varint: seven bits to a byte, the lowest first; all bytes but the last have the highest bit set."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
