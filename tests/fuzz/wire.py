"""Protobuf messages as trees of fields, so that a mutation can reach any number, name or size in a model."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LARGEST_LEAF = 4096
"""Bytes from which on a field is taken for a tensor's data, and not looked into."""
_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    16,
    22,
    99,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_STRINGS = (
    b"",
    b"LSTM",
    b"GRU",
    b"RNN",
    b"Scan",
    b"Loop",
    b"If",
    b"Reshape",
    b"Expand",
    b"ConstantOfShape",
    b"Range",
    b"Tile",
    b"MatMul",
    b"Identity",
    b"Softplus",
    b"reverse",
    b"bidirectional",
    b"batch",
    b"time",
    b"4*batch",
    b"batch//0",
    b"input",
    b"output",
    b"h0",
    b"hn",
    b"lengths",
    b"l0/W",
    b"lstm_onnx.spec",
    b"lstm_onnx.states",
    b"com.microsoft",
    b"location",
    b"../../../etc/passwd",
    b"/dev/zero",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"a\x00b",
    b"\n\x1b[31m",
    b"x" * 5000,
    "é∞".encode(),
)


@dataclass
class Field:
    """`value` is a number, bytes, or the fields of a message within."""

    number: int
    wire: int
    value: int | bytes | list[Field]


def parsed(data: bytes) -> list[Field] | None:
    """The fields of a message; None where the bytes are none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not 1 <= number <= 10_000:
            return None
        if wire == VARINT:
            value, at = _varint(data, at)
            if at < 0:
                return None
            fields.append(Field(number, wire, value))
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire)
        if wire == BYTES:
            size, at = _varint(data, at)
        if size is None or at < 0 or at + size > len(data):
            return None
        chunk = data[at : at + size]
        at += size
        within = parsed(chunk) if wire == BYTES and 1 < size <= _LARGEST_LEAF * 64 and not _is_text(chunk) else None
        fields.append(Field(number, wire, within or chunk))
    return fields


def _is_text(chunk: bytes) -> bool:
    return all(32 <= byte < 127 for byte in chunk)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number and where it ends, or -1 where it does not."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, -1


def packed(fields: list[Field]) -> bytes:
    """The bytes of a message, with sizes that hold whatever was changed within."""
    out = bytearray()
    for item in fields:
        out += _packed_varint(item.number << 3 | item.wire)
        if isinstance(item.value, int):
            out += _packed_varint(item.value)
            continue
        chunk = item.value if isinstance(item.value, bytes) else packed(item.value)
        if item.wire == BYTES:
            out += _packed_varint(len(chunk))
        out += chunk
    return bytes(out)


def _packed_varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass
class _Places:
    """Every field of a tree, with the list that it is in."""

    found: list[tuple[list[Field], int]] = field(default_factory=list)

    def gather(self, fields: list[Field]) -> None:
        for at, item in enumerate(fields):
            self.found.append((fields, at))
            if isinstance(item.value, list):
                self.gather(item.value)


def mutated_message(data: bytes, rng: random.Random) -> bytes:
    """A copy of a message with one to three of its fields changed, removed, doubled or exchanged."""
    fields = parsed(data)
    if not fields:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _Places()
        places.gather(fields)
        if places.found:
            _change(*rng.choice(places.found), places, rng)
    return packed(fields)


def _change(siblings: list[Field], at: int, places: _Places, rng: random.Random) -> None:
    item = siblings[at]
    what = rng.random()
    if what < 0.12:
        del siblings[at]
    elif what < 0.2:
        siblings.insert(rng.randrange(len(siblings) + 1), copy.deepcopy(item))
    elif what < 0.28:
        other = rng.randrange(len(siblings))
        siblings[at], siblings[other] = siblings[other], siblings[at]
    elif what < 0.36:
        # The same field of another part of the model: another node's inputs, another tensor's dims.
        alike = [
            (place, i) for place, i in places.found if place[i].number == item.number and place[i].wire == item.wire
        ]
        place, i = rng.choice(alike)
        item.value = copy.deepcopy(place[i].value)
    elif isinstance(item.value, int):
        item.value = rng.choice((*_NUMBERS, item.value + 1, item.value - 1, item.value * 2, rng.randrange(64)))
    elif isinstance(item.value, list):
        # Into the message: its fields are the more likely to matter.
        if item.value:
            _change(item.value, rng.randrange(len(item.value)), places, rng)
    else:
        item.value = _changed_bytes(item.value, item.wire, rng)


def _changed_bytes(value: bytes, wire: int, rng: random.Random) -> bytes:
    if wire != BYTES:
        return rng.choice(
            (bytes(len(value)), b"\xff" * len(value), rng.randbytes(len(value)), b"\x00\x00\xc0\x7f" * 2)
        )[: len(value)]
    what = rng.randrange(5)
    if what == 0:
        return rng.choice(_STRINGS)
    if what == 1:
        return value[: rng.randrange(len(value) + 1)]
    if what == 2:
        return value + rng.randbytes(rng.choice((1, 3, 4, 100)))
    if what == 3 and value:
        at = rng.randrange(len(value))
        return value[:at] + rng.randbytes(1) + value[at + 1 :]
    return rng.randbytes(len(value)) if len(value) < _LARGEST_LEAF else value
