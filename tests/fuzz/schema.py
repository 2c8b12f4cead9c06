"""Models that are wrong and yet whole ONNX messages: a number, a name or a part of one is another's."""

from __future__ import annotations

import random
from typing import Any

import onnx

_NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 10, 16, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-45, 3.4e38, float("inf"), float("nan"))
_WORDS = ("", "LSTM", "GRU", "RNN", "Scan", "Loop", "Identity", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range")
_MORE = (
    "reverse",
    "bidirectional",
    "Relu",
    "Softplus",
    "batch",
    "time",
    "4*batch",
    "batch//0",
    "time - 7",
    "com.microsoft",
)
_PLACES = ("../../x", "/dev/zero", "m.onnx", "x.npz", "location", "lstm_onnx.states", "é∞", "a\x00b", "x" * 3000)


def mutated_model(data: bytes, rng: random.Random) -> bytes:
    """A copy of a model with one to three of its fields changed, removed, doubled or exchanged."""
    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        messages: list[Any] = []
        _gather(model, messages)
        _change(rng.choice(messages), messages, rng)
    return bytes(model.SerializeToString())


def _gather(message: Any, found: list[Any]) -> None:
    """Every message within; a node and its attributes weigh more than the model's few own fields."""
    found.append(message)
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for each in value if _is_repeated(value) else (value,):
                _gather(each, found)


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "append") or hasattr(value, "add")


def _change(message: Any, messages: list[Any], rng: random.Random) -> None:
    fields = message.ListFields()
    if not fields:
        return
    descriptor, value = rng.choice(fields)
    if rng.random() < 0.06:
        message.ClearField(descriptor.name)
    elif _is_repeated(value):
        _change_repeated(descriptor, value, messages, rng)
    elif descriptor.type == descriptor.TYPE_MESSAGE:
        alike = [other for other in messages if other.DESCRIPTOR is value.DESCRIPTOR]
        value.CopyFrom(_copied(rng.choice(alike)))  # it may be within
    else:
        setattr(message, descriptor.name, _other(descriptor, value, messages, rng))


def _change_repeated(descriptor: Any, values: Any, messages: list[Any], rng: random.Random) -> None:
    at, other = rng.randrange(len(values)), rng.randrange(len(values))
    what = rng.random()
    if what < 0.2:
        del values[at]
    elif what < 0.35:
        held = [_copied(value) for value in values]
        held[at], held[other] = held[other], held[at]
        del values[:]
        values.extend(held)
    elif what < 0.5:
        values.extend([_copied(values[at])])
    elif descriptor.type == descriptor.TYPE_MESSAGE:
        alike = [one for one in messages if one.DESCRIPTOR is values[at].DESCRIPTOR]
        values[at].CopyFrom(_copied(rng.choice(alike)))
    else:
        values[at] = _other(descriptor, values[at], messages, rng)


def _copied(value: Any) -> Any:
    if not hasattr(value, "CopyFrom"):
        return value
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def _other(descriptor: Any, value: Any, messages: list[Any], rng: random.Random) -> Any:
    """Another value of the same type."""
    if descriptor.type == descriptor.TYPE_ENUM:
        return rng.choice(list(descriptor.enum_type.values_by_number))
    if isinstance(value, int):
        low, high = (-(2**31), 2**31 - 1) if descriptor.cpp_type == descriptor.CPPTYPE_INT32 else (-(2**63), 2**63 - 1)
        if descriptor.cpp_type in (descriptor.CPPTYPE_UINT32, descriptor.CPPTYPE_UINT64):
            low, high = 0, 2**32 - 1
        picked = rng.choice((*_NUMBERS, value + 1, value - 1, value * 2, -value, rng.randrange(1, 30)))
        return min(max(picked, low), high)
    if isinstance(value, float):
        return rng.choice((*_FLOATS, value * 2))
    if isinstance(value, str):
        return rng.choice((*_WORDS, *_MORE, *_PLACES)) if rng.random() < 0.4 else rng.choice(_names(messages))
    if rng.random() < 0.3:
        return rng.choice((*_WORDS, *_MORE, *_PLACES)).encode()
    size = rng.choice((0, len(value) // 2, len(value) - 1, len(value), len(value) + 4, len(value) * 2))
    return (
        rng.choice((bytes(4), b"\x00\x00\xc0\x7f", b"\xff\xff\xff\xff", value or b"\x00", rng.randbytes(4)))
        * (size + 1)
    )[:size]


def _names(messages: list[Any]) -> list[str]:
    """The values and nodes of the model."""
    nodes = [one for one in messages if isinstance(one, onnx.NodeProto)]
    return [*(name for node in nodes for name in (*node.input, *node.output, node.name, node.op_type)), ""]
