"""Wrong copies of good files: by bytes, and by what their format is made of."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from .schema import mutated_model
from .wire import mutated_message

_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
    2**31,
    2**63,
    10**30,
    "",
    "x" * 3000,
    "float64",
    "bfloat16",
    "chunks",
    "pool",
    "input",
    "h0",
    "\x00",
    "\ud800",
    [],
    [[]],
    {},
    [1, 2],
    [0],
    {"input": 1},
)


def mutated(kind: str, data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A wrong copy of `data`, which may be equal to it.

    Args:
        kind: "onnx", "toml", "npz" or "safetensors".
        data: a good file.
        other: another one of its kind, to splice with.
        rng: what is done follows from it alone.
    """
    if rng.random() < 0.15:
        return _bytewise(data, other, rng)
    return _BY_FORMAT[kind](data, rng)


def _bytewise(data: bytes, other: bytes, rng: random.Random) -> bytes:
    what = rng.randrange(6)
    changed = bytearray(data)
    if what == 0:
        return data[: rng.randrange(len(data))]
    if what == 1:
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif what == 2:
        at = rng.randrange(len(changed))
        changed[at : at + rng.choice((1, 2, 4, 8, 64))] = rng.randbytes(rng.choice((0, 1, 4, 8, 64)))
    elif what == 3:
        return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
    elif what == 4:
        at, size = rng.randrange(len(data)), rng.randrange(1, 256)
        return data[:at] + data[at : at + size] * 2 + data[at + size :]
    else:
        at = rng.randrange(len(changed))
        changed[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, b"\xff\xff\xff\x7f" * 2, b"\x00\x00\x00\x80" * 2))
    return bytes(changed)


# --- JSON: a golden file's header, a safetensors file's, a model's metadata ---------------------------


def mutated_json(text: bytes, rng: random.Random) -> bytes:
    """JSON of which one to three values are others, missing, doubled or exchanged."""
    value = {"": json.loads(text)}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holders: list[Any] = []
        _gather(value, holders)
        holder = rng.choice(holders)
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        what = rng.randrange(5)
        if what == 0 and holder is not value:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[rng.choice(("", "x", "input", "time", "lengths"))] = copy.deepcopy(holder[key])
        elif what == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif what == 3:
            # What stands under the same name elsewhere: another case's axes, another tensor's dtype.
            alike = [each[key] for each in holders if type(each) is type(holder) and _has(each, key)]
            holder[key] = copy.deepcopy(rng.choice(alike))
        elif type(holder[key]) in (int, float) and rng.random() < 0.5:
            holder[key] = rng.choice((holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000))
        else:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))
    return json.dumps(value[""]).encode()


def _gather(value: Any, holders: list[Any]) -> None:
    if isinstance(value, (dict, list)) and value:
        holders.append(value)
        for each in value.values() if isinstance(value, dict) else value:
            _gather(each, holders)


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


# --- the formats --------------------------------------------------------------------------------------


def _onnx(data: bytes, rng: random.Random) -> bytes:
    what = rng.random()
    if what < 0.2:
        return _mutated_metadata(data, rng) or mutated_model(data, rng)
    return mutated_model(data, rng) if what < 0.75 else mutated_message(data, rng)


def _mutated_metadata(data: bytes, rng: random.Random) -> bytes | None:
    """The model with other JSON in its metadata."""
    import onnx

    model = onnx.load_model_from_string(data)
    entries = [entry for entry in model.metadata_props if entry.key.startswith("lstm_onnx.")]
    if not entries:
        return None
    entry = rng.choice(entries)
    try:
        entry.value = mutated_json(entry.value.encode(), rng).decode()
    except ValueError:
        entry.value = "{"
    return bytes(model.SerializeToString())


_TOKEN = re.compile(r'"[^"\n]*"|[A-Za-z_][\w.-]*|-?\d[\d_.e+-]*|[\[\]{}=,\n]|[ \t]+|.')
_TOML_VALUES = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "100",
        "20000",
        "1000000000",
        "9223372036854775807",
        "99999999999999999999",
        "1.5",
        "1e400",
    ),
    *(
        "nan",
        "-inf",
        "true",
        "false",
        '""',
        '"scan"',
        '"fold"',
        '"float64"',
        '"none.pt"',
        '"../x.safetensors"',
        "[]",
        "{}",
    ),
    *(
        '"/dev/zero"',
        '"net.toml"',
        '"\\u0000"',
        '"\\uD800"',
        '"x',
        "[[",
        "]]",
        "=",
        "\n",
        "# ",
        '"""',
        "1979-05-27",
        "[1, [2]]",
    ),
    *(
        "hidden_size",
        "proj_size",
        "num_layers",
        "lstm",
        "weights",
        "export",
        "module",
        "inputs",
        "prefix",
        "seed",
        "range",
    ),
    *('"json:loads"', '"nothing:here"', '["batch", 4]', '["time", "time"]', '"int64"', "[0, 10]", "[" * 2000),
)


def _toml(data: bytes, rng: random.Random) -> bytes:
    tokens = _TOKEN.findall(data.decode())
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(tokens))
        what = rng.randrange(5)
        if what == 0:
            del tokens[at]
        elif what == 1:
            tokens.insert(at, rng.choice(tokens))
        elif what == 2:
            tokens.insert(at, rng.choice(_TOML_VALUES))
        else:
            # Rather a value than a blank: numbers, words and strings.
            words = [i for i, token in enumerate(tokens) if token[0].isalnum() or token[0] == '"'] or [at]
            tokens[rng.choice(words)] = rng.choice(_TOML_VALUES)
        if not tokens:
            break
    return "".join(tokens).encode("utf-8", "surrogatepass")


def _npz(data: bytes, rng: random.Random) -> bytes:
    """An archive with other members: their npy headers, their numbers, their names, or the golden header."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(members))
        heads = [i for i, (name, _) in enumerate(members) if name == "golden.npy"]
        if heads and rng.random() < 0.6:
            at = heads[0]
        name, content = members[at]
        what = rng.randrange(8)
        if what == 0 and len(members) > 1:
            del members[at]
        elif what == 1:
            members[at] = (
                rng.choice((members[rng.randrange(len(members))][0], "x.npy", "x.txt", "../x.npy", ".npy")),
                content,
            )
        elif what == 2:
            members[at] = (name, members[rng.randrange(len(members))][1])
        elif what == 3:
            members[at] = (name, _bytewise(content, content, rng))
        else:
            members[at] = (name, _mutated_npy(content, rng, golden=name == "golden.npy"))
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
        for index, (name, content) in enumerate(members):
            # LZMA sets up megabytes for each member, so that it and BZIP2 are those of every eighth alone.
            own = method if index % 8 == 0 else min(method, zipfile.ZIP_DEFLATED)
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=own)
    return out.getvalue()


_NPY = (
    "'<f4'",
    "'<f8'",
    "'>f8'",
    "'<f2'",
    "'<i8'",
    "'|b1'",
    "'<c8'",
    "'<U3'",
    "'|O'",
    "'<M8[s]'",
    "[('a', '<f4')]",
    "True",
    "False",
)
_SHAPES = (
    "()",
    "(0,)",
    "(1,)",
    "(3, 0, 4)",
    "(-1,)",
    "(9223372036854775807,)",
    "(2, 3)",
    "(1, 1, 4)",
    "(1, 5, 4)",
    "(1,) * 9",
)


def _mutated_npy(content: bytes, rng: random.Random, *, golden: bool) -> bytes:
    size = 10 + int.from_bytes(content[8:10], "little")
    head, numbers = content[:size], content[size:]
    if golden and rng.random() < 0.85:
        try:
            numbers = mutated_json(numbers, rng)
        except ValueError:  # a second mutation, of what the first has left of it
            return content
        return _npy_head(head, f"({len(numbers)},)", None) + numbers
    what = rng.randrange(4)
    if what == 0:
        return _npy_head(head, rng.choice(_SHAPES), None) + numbers
    if what == 1:
        return _npy_head(head, None, rng.choice(_NPY)) + numbers
    if what == 2:  # as many numbers as the shape has, and odd ones
        odd = rng.choice(
            (b"\x00", b"\xff", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", rng.randbytes(4))
        )
        return head + (odd * len(numbers))[: len(numbers)]
    return head + _bytewise(numbers, numbers, rng) if numbers else head


def _npy_head(head: bytes, shape: str | None, dtype: str | None) -> bytes:
    text = head[10:].decode("latin1").rstrip()
    if shape is not None:
        text = re.sub(r"'shape': \(.*?\)", f"'shape': {shape}", text)
    if dtype is not None:
        text = re.sub(r"'descr': '.*?'", f"'descr': {dtype}", text)
    line = text.encode("latin1") + b"\n"
    return head[:8] + len(line).to_bytes(2, "little") + line


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, numbers = data[8 : 8 + size], data[8 + size :]
    what = rng.randrange(6)
    if what == 0:
        return rng.choice((0, 1, size - 1, size + 1, 2**40, 2**64 - 1)).to_bytes(8, "little") + header + numbers
    if what == 1:
        odd = rng.choice((b"\xff", b"\x00\x00\xc0\x7f", b"\xff\xff\x7f\x7f"))
        return data[: 8 + size] + (odd * len(numbers))[: len(numbers)]
    header = _mutated_tensor(header, rng) if what < 4 else mutated_json(header, rng)
    return len(header).to_bytes(8, "little") + header + numbers


def _mutated_tensor(header: bytes, rng: random.Random) -> bytes:
    """Another dtype, shape or name, that its bytes may fill as well."""
    tensors = json.loads(header)
    name = rng.choice([key for key in tensors if key != "__metadata__"])
    tensor, what = tensors[name], rng.randrange(4)
    if what == 0:
        tensor["dtype"] = rng.choice(
            ("F32", "I32", "U32", "F16", "BF16", "I16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "C64")
        )
    elif what == 1:
        tensor["shape"] = rng.choice(
            ([math.prod(tensor["shape"])], tensor["shape"][::-1], [*tensor["shape"], 1], [0], [])
        )
    elif what == 2:
        tensors[rng.choice(("x", "", "input", "h0", "encoder.x", "é"))] = tensors.pop(name)
    else:
        tensors[name], other = tensor, rng.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], tensors[name]
    return json.dumps(tensors).encode()


_BY_FORMAT: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "onnx": _onnx,
    "toml": _toml,
    "npz": _npz,
    "safetensors": _safetensors,
}
