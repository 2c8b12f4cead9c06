"""Files of arrays: npz, npy, safetensors."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from lstm_onnx.data import arrays
from lstm_onnx.errors import FileError

from .support import RECORD, encoded, parsed, refused


def npy_bytes(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + body


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_s_own_npz(save: Any) -> None:
    out = io.BytesIO()
    save(out, **RECORD)
    (record,) = parsed(out.getvalue())
    for name, array in RECORD.items():
        assert np.array_equal(record[name], array)
        assert record[name].dtype == array.dtype
        assert record[name].flags.writeable


@pytest.mark.parametrize("array", [np.asfortranarray(RECORD["input"]), np.arange(3, dtype=">i4"), np.zeros((0, 3))])
def test_numpy_s_own_npy(array: np.ndarray) -> None:
    out = io.BytesIO()
    np.save(out, array)
    (record,) = parsed(out.getvalue(), name="x")
    assert np.array_equal(record["x"], array)
    assert record["x"].dtype == array.dtype.newbyteorder("=")
    assert record["x"].dtype.isnative


def test_newer_npy_headers() -> None:
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }\n"
    for version in (b"\x02\x00", b"\x03\x00"):
        (record,) = parsed(npy_bytes(header, b"\1\0\2\0", version))
        assert record["input"].tolist() == [1, 2]


def test_pickles_are_never_loaded() -> None:
    out = io.BytesIO()
    np.save(out, np.array([{}], object), allow_pickle=True)
    assert "pickle" in refused(out.getvalue())
    out = io.BytesIO()
    np.savez(out, a=np.array([{}], object))
    message = refused(out.getvalue())
    assert "pickle" in message
    assert "'a'" in message


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(1, [("a", "f4")]),
        np.zeros(1, "M8[s]"),
        np.zeros(1, complex),
        np.zeros(1, "V2"),
    ],
)
def test_arrays_that_are_not_numbers(array: np.ndarray) -> None:
    out = io.BytesIO()
    np.save(out, array)
    assert "not numeric" in refused(out.getvalue())


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy_bytes((HEADER % ("'<f4'", "(3,)")).encode(), b"\0" * 8), "declares 12 bytes of numbers, but has 8"),
        (npy_bytes((HEADER % ("'<f4'", "(1,)")).encode(), b"\0" * 8), "4 bytes after its array"),
        (npy_bytes((HEADER % ("'<f4'", "(10**3,)")).encode()), "invalid npy header"),
        (npy_bytes((HEADER % ("'<f4'", "(99999999999999,)")).encode(), b"\0" * 8), "declares 399999999999996 bytes"),
        (npy_bytes((HEADER % ("'<f4'", "(-1,)")).encode()), "with the invalid shape (-1,)"),
        (npy_bytes((HEADER % ("'<f4'", "[1]")).encode()), "with the invalid shape [1]"),
        (npy_bytes((HEADER % ("'<f3'", "(1,)")).encode()), "with the invalid dtype '<f3'"),
        (npy_bytes((HEADER % ("'<f16'", "(0,)")).encode()), "which no model takes"),
        (npy_bytes(b"{'descr': '<f4'}"), "invalid npy header"),
        (npy_bytes(b"(" * 9000), "invalid npy header"),
        (npy_bytes(b"x" * 60000), "header of 60000 bytes"),
        (npy_bytes(b"", version=b"\x09\x00"), "version 9.0"),
        (npy_bytes(b"", version=b"\x02\x00")[:11], "ends within the npy header"),
    ],
)
def test_npy_headers_that_are_wrong(content: bytes, says: str) -> None:
    assert says in refused(content)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_npz_that_is_some_other_zip() -> None:
    assert "has 'readme.txt', which is not an array" in refused(zipped({"readme.txt": b"x"}))
    assert "array 'a': ends within" in refused(zipped({"a.npy": b"x"}))
    assert "array 'a': is not npy" in refused(zipped({"a.npy": b"x" * 100}))
    assert "has no arrays" in refused(zipped({}))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", encoded("npy"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", encoded("npy"))
    assert "the array 'a' twice" in refused(out.getvalue())


def test_npz_that_is_encrypted() -> None:
    content = bytearray(zipped({"a.npy": encoded("npy")}))
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refused(bytes(content))


def declared(content: bytes, size: int) -> bytes:
    """`content`, a zip of one member, with another unpacked size in its directory."""
    at = content.rindex(b"PK\x01\x02") + 24
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def test_npz_bombs_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    small = zipped({"a.npy": encoded("npy")}, zipfile.ZIP_DEFLATED)
    assert "times its size" in refused(declared(small, 2**31))
    monkeypatch.setattr(arrays, "LARGEST_NPZ", 2**30)
    assert "declares 2.0 GiB of arrays, more than the 1 GiB allowed" in refused(declared(small, 2**31))


def test_npz_bounds() -> None:
    arrays.check_expansion("x", 64 * 2**30, 2**30)
    arrays.check_expansion("x", 256 * 2**20, 1)
    with pytest.raises(FileError, match="64 GiB"):
        arrays.check_expansion("x", 64 * 2**30 + 1, 2**30)
    with pytest.raises(FileError, match="1000 times"):
        arrays.check_expansion("x", 256 * 2**20 + 1, 2**18)


def test_safetensors_bfloat16_becomes_float32() -> None:
    header = b'{"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    body = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2").tobytes()
    (record,) = parsed(struct.pack("<Q", len(header)) + header + body)
    assert record["x"].dtype == np.float32
    assert record["x"].tolist() == [[1, -2], [np.inf, float.fromhex("0x1p-133")]]


@pytest.mark.parametrize("code", ["F8_E4M3", "F8_E5M2"])
def test_safetensors_types_that_numpy_lacks(code: str) -> None:
    header = b'{"x":{"dtype":"%s","shape":[1],"data_offsets":[0,1]}}' % code.encode()
    assert f"array 'x' has the dtype {code}" in refused(struct.pack("<Q", len(header)) + header + b"\0")


def test_safetensors_without_arrays() -> None:
    assert "has no arrays" in refused(safetensors.numpy.save({}))
