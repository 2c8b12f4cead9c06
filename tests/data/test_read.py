"""Reading: every format as it should be, and every way that a file can be wrong."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_onnx import data
from lstm_onnx.data import arrays
from lstm_onnx.errors import FileError, MissingDependencyError

if TYPE_CHECKING:
    from pathlib import Path

BINARY = ("npz", "npy", "safetensors", "parquet")
RECORD = {
    "input": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "h0": np.full((2, 3), 0.5, np.float16),
    "lengths": np.array(4, np.int32),
    "on": np.array([True, False]),
}


def encoded(format: str) -> bytes:
    """A sound file of `format`."""
    out = io.BytesIO()
    data.write("-", [RECORD], many=False, format=format, stdout=out)
    return out.getvalue()


def parsed(content: bytes | str, format: str | None = None, **options: Any) -> list[data.Record]:
    content = content.encode() if isinstance(content, str) else content
    return list(data.read("-", stdin=io.BytesIO(content), format=format, **options).rows)


def table(text: str, **options: Any) -> np.ndarray:
    (record,) = parsed(text, "csv", **options)
    (array,) = record.values()
    assert array.dtype == np.float64
    return array


def refused(content: bytes | str, format: str | None = None, **options: Any) -> str:
    """The message with which `content` is refused, at once or while its records are read."""
    with pytest.raises(FileError) as caught:
        parsed(content, format, **options)
    message = str(caught.value)
    assert message.startswith("stdin: ")
    assert "\n" not in message
    return message


def parquet(columns: dict[str, Any], schema: Any = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), out)
    return out.getvalue()


def npy_bytes(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + body


# --- which format, which source


@pytest.mark.parametrize("format", data.FORMATS)
def test_format_of_goes_by_the_suffix_in_either_case(format: str) -> None:
    assert data.format_of(f"a.b/x.{format}") == format
    assert data.format_of(f"X.{format.upper()}") == format


@pytest.mark.parametrize("path", ["x.txt", "x", "a.npz/x", ".npz", ""])
def test_format_of_lists_what_is_allowed(path: str) -> None:
    with pytest.raises(FileError, match=r"\.npz, \.npy, \.csv, \.safetensors, \.jsonl or \.parquet"):
        data.format_of(path)


@pytest.mark.parametrize("format", data.FORMATS)
def test_content_tells_the_format_of_stdin(format: str) -> None:
    found = data.read("-", stdin=io.BytesIO(encoded(format)))
    assert found.format == format
    assert found.typed == (format not in ("csv", "jsonl"))
    assert found.many == (format in ("jsonl", "parquet"))
    assert found.count == (None if format == "jsonl" else 1)
    assert len(list(found.rows)) == 1


@pytest.mark.parametrize("format", data.FORMATS)
def test_a_path_and_stdin_give_the_same(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{format.upper()}"
    path.write_bytes(encoded(format))
    (one,), (other,) = data.read(path).rows, parsed(encoded(format))
    assert list(one) == list(other)
    for name in one:
        assert np.array_equal(one[name], other[name])
        assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize("format", data.FORMATS)
def test_an_asked_format_wins_over_the_suffix(format: str, tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(encoded(format))
    assert data.read(str(path), format=format).format == format


@pytest.mark.parametrize("text", ["\ufeff[[1, 2]]", "\n\n[[1, 2]]", ' {"input": [[1, 2]]}', "{\n", "[\n1]"])
def test_sniffing_sees_jsonl_through_marks_and_blanks(text: str) -> None:
    if text in ("{\n", "[\n1]"):
        assert "line 1 is not JSON" in refused(text)
    else:
        (record,) = parsed(text)
        assert record["input"].tolist() == [[1, 2]]


@pytest.mark.parametrize("length", [123, 91, 0x0A48, 0x0A0A])
def test_sniffing_tells_safetensors_from_text_that_its_length_resembles(length: int) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (record,) = parsed(struct.pack("<Q", length) + header.ljust(length) + b"\0\0\x80\x3f")
    assert record["x"].tolist() == [1]


@pytest.mark.parametrize("format", data.FORMATS)
def test_stdin_is_read_from_where_it_is(format: str) -> None:
    stdin = io.BytesIO(b"skipped" + encoded(format))
    stdin.seek(len(b"skipped"))
    assert len(list(data.read("-", stdin=stdin).rows)) == 1


def test_stdin_left_out_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1,2\n")))
    (record,) = data.read("-").rows
    assert record["input"].tolist() == [[1, 2]]


def test_stdin_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(FileError, match="stdin: is closed"):
        data.read("-")


@pytest.mark.parametrize("format", [None, *data.FORMATS])
def test_nothing_on_stdin(format: str | None) -> None:
    assert "is empty" in refused(b"", format)


@pytest.mark.parametrize("format", data.FORMATS)
def test_paths_that_are_no_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{format}"
    with pytest.raises(FileError, match=r"x\..*No such file"):
        data.read(path)
    path.touch()
    with pytest.raises(FileError, match=r"x\..* is empty"):
        data.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=r"x\..* is a directory"):
        data.read(path)


def test_unknown_format() -> None:
    with pytest.raises(FileError, match="no format 'xml'; choose one of npz, npy"):
        data.read("-", format="xml")


def test_unreadable_streams_are_named() -> None:
    class Broken(io.BytesIO):
        def readline(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(FileError, match="stdin: cannot be read: Input/output error"):
        data.read("-", stdin=Broken(b"x"))


def test_a_stream_that_breaks_while_records_are_read() -> None:
    class Breaking(io.BytesIO):
        def __next__(self) -> bytes:
            raise OSError(5, "Input/output error")

    rows = data.read("-", stdin=Breaking(b'{"x": 1}\n{"x": 2}\n')).rows
    assert next(rows) == {"x": 1}
    with pytest.raises(FileError, match="stdin: cannot be read: Input/output error"):
        next(rows)


def test_out_of_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object) -> None:
        raise MemoryError

    content = encoded("npy")
    monkeypatch.setattr(arrays.np, "empty", empty)
    assert "needs more memory" in refused(content, "npy")


@pytest.mark.parametrize("format", data.FORMATS)
def test_a_pipe_can_be_read_by_path(format: str, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    path = tmp_path / f"x.{format}"
    os.mkfifo(path)
    writer = "import sys; open(sys.argv[1], 'wb').write(bytes.fromhex(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", writer, str(path), encoded(format).hex()]):
        assert len(list(data.read(path).rows)) == 1


def test_jsonl_comes_line_by_line() -> None:
    source, sink = os.pipe()
    with open(sink, "wb", buffering=0) as writer, open(source, "rb") as reader:
        writer.write(b"[1]\n")  # shorter than what sniffing looks at, and no more to come for now
        rows = data.read("-", stdin=reader).rows
        assert next(rows)["input"].tolist() == [1]
        writer.write(b"[2, 3]\n")
        assert next(rows)["input"].tolist() == [2, 3]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_records_that_nobody_reads_leave_no_file_open(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{format}"
    path.write_bytes(encoded(format))
    data.read(path)  # an open file would be a ResourceWarning, and so an error


@pytest.mark.parametrize("format", ["npz", "npy", "safetensors", "jsonl"])
def test_columns_go_with_tables_only(format: str) -> None:
    message = refused(encoded(format), format, columns=["a"])
    assert "--columns goes with csv and parquet tables only" in message
    assert format in message


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_columns_name_at_least_one(format: str) -> None:
    assert "names no column" in refused(encoded(format), format, columns=[])


@pytest.mark.parametrize("format", data.FORMATS)
@pytest.mark.parametrize("true", data.FORMATS)
def test_a_file_of_another_format_is_named(format: str, true: str) -> None:
    text = ("csv", "jsonl")
    if format == true:
        return
    message = refused(encoded(true), format)
    if true not in text:
        assert f"is not {format}, its content is {true}" in message
    elif format not in text:
        assert f"is not {format}, its content is text" in message


@pytest.mark.parametrize("format", BINARY)
def test_cut_short_anywhere(format: str, tmp_path: Path) -> None:
    whole = encoded(format)
    path = tmp_path / f"x.{format}"
    for size in range(1, len(whole), 1 + len(whole) // 150):
        assert refused(whole[:size], format)
        path.write_bytes(whole[:size])
        with pytest.raises(FileError, match=r"x\."):
            list(data.read(path).rows)


@pytest.mark.parametrize("format", data.FORMATS)
@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 0.999), byte=st.integers(0, 255), more=st.binary(max_size=3))
def test_damage_gives_a_file_error_or_numbers(format: str, where: float, byte: int, more: bytes) -> None:
    content = bytearray(encoded(format))
    content[int(where * len(content))] = byte
    try:
        parsed(bytes(content) + more, format)
    except FileError as error:
        assert "\n" not in str(error)  # noqa: PT017


# --- npz, npy, safetensors


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
    assert "not numbers" in refused(out.getvalue())


HEADER = "{'descr': %s, 'fortran_order': False, 'shape': %s, }"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy_bytes((HEADER % ("'<f4'", "(3,)")).encode(), b"\0" * 8), "declares 12 bytes of numbers and has 8"),
        (npy_bytes((HEADER % ("'<f4'", "(1,)")).encode(), b"\0" * 8), "4 bytes after its array"),
        (npy_bytes((HEADER % ("'<f4'", "(10**3,)")).encode()), "makes no sense"),
        (npy_bytes((HEADER % ("'<f4'", "(99999999999999,)")).encode(), b"\0" * 8), "declares 399999999999996 bytes"),
        (npy_bytes((HEADER % ("'<f4'", "(-1,)")).encode()), "with the shape (-1,)"),
        (npy_bytes((HEADER % ("'<f4'", "[1]")).encode()), "with the shape [1]"),
        (npy_bytes((HEADER % ("'<f3'", "(1,)")).encode()), "with the dtype '<f3'"),
        (npy_bytes((HEADER % ("'<f16'", "(0,)")).encode()), "which no model takes"),
        (npy_bytes(b"{'descr': '<f4'}"), "makes no sense"),
        (npy_bytes(b"(" * 9000), "makes no sense"),
        (npy_bytes(b"x" * 60000), "header of 60000 bytes"),
        (npy_bytes(b"", version=b"\x09\x00"), "version 9.0"),
        (npy_bytes(b"", version=b"\x02\x00")[:11], "ends within its npy header"),
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
    assert "holds 'readme.txt', which is not an array" in refused(zipped({"readme.txt": b"x"}))
    assert "array 'a': ends within" in refused(zipped({"a.npy": b"x"}))
    assert "array 'a': is not npy" in refused(zipped({"a.npy": b"x" * 100}))
    assert "holds no arrays" in refused(zipped({}))
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
    arrays._check_bomb("x", 64 * 2**30, 2**30)
    arrays._check_bomb("x", 256 * 2**20, 1)
    with pytest.raises(FileError, match="64 GiB"):
        arrays._check_bomb("x", 64 * 2**30 + 1, 2**30)
    with pytest.raises(FileError, match="1000 times"):
        arrays._check_bomb("x", 256 * 2**20 + 1, 2**18)


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
    assert "holds no arrays" in refused(safetensors.numpy.save({}))


# --- csv


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "1,2\r\n3,4",
        "a,b\n1,2\n3,4\n",
        "a;b\n1;2\n3;4\n",
        "a\tb\n1\t2\n3\t4\n",
        "\ufeffa,b\n1,2\n3,4\n",
        "\ufeff1,2\n3,4\n",
        '"a,c",b\n"1",2\n3,4\n',
        "\n\na,b\n 1 , 2\n3.0,4e0\n\n  \n\n",
        ",x\n1,2\n3,4\n",
    ],
)
def test_csv_tables(text: str) -> None:
    assert table(text).tolist() == [[1, 2], [3, 4]]


def test_csv_of_one_column_under_another_name() -> None:
    (record,) = parsed("x\n1\n2\n", name="signal")
    assert record["signal"].tolist() == [[1], [2]]


def test_csv_nan_and_inf_are_numbers() -> None:
    assert np.array_equal(table("nan,inf\n-inf,NaN\n"), [[np.nan, np.inf], [-np.inf, np.nan]], equal_nan=True)


def test_csv_columns() -> None:
    text = "time,a,b\n2024-01-01,1,2\n2024-01-02,3,4\n"
    assert table(text, columns=["b", "a"]).tolist() == [[2, 1], [4, 3]]
    assert table(text, columns=["b"]).tolist() == [[2], [4]]
    assert table("1,2\n3,4\n", columns=["2"]).tolist() == [[2], [4]]
    assert table("5,6\n3,4\n", columns=["2", "1"]).tolist() == [[6, 5], [4, 3]]


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("a,b\n1,2\n", ["c"], "there is no column 'c'; it has a, b"),
        ("a,b\n1,2\n", ["1"], "there is no column '1'; it has a, b"),
        ("1,2\n", ["3"], "there is no column '3'; it has no header, so they go by number, 1 to 2"),
        ("1,2\n", ["0"], "there is no column '0'"),
        ("1,2\n", ["a"], "there is no column 'a'"),
        ("a,a\n1,2\n", ["a"], "has 'a' more than once"),
        ("a,b\n1,2\nx,3\n", ["b", "a"], "line 3, column 1 (a): 'x' is not a number"),
    ],
)
def test_csv_columns_that_are_wrong(text: str, columns: list[str], says: str) -> None:
    assert says in refused(text, "csv", columns=columns)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3,x\n", "line 3, column 2 (b): 'x' is not a number; write"),
        ("1,2\n3,x\n", "line 2, column 2: 'x' is not a number; write"),
        ("1,2\n3,1_000\n", "'1_000' is not a number"),
        ("1 2\n3 4\n", "'3 4' is not a number; write a number with a decimal point and separate cells by commas"),
        ("a\n" + "x" * 99, "..."),
        ("1,2\n3\n", "line 2 has 1 cells and the first row 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 cells and the first row 2"),
        ("1,2\n3,\n", "line 2, column 2: the cell is empty; fill it in"),
        ("1,\n3,4\n", "line 1, column 2: the cell is empty"),
        ("1,2\n3, \n", "the cell is empty"),
        ('1\n""\n', "line 2, column 1: the cell is empty"),
        ("1,2\n\n3,4\n", "line 2 is empty within the table"),
        ("1\n\n\n2\n", "line 2 is empty within the table"),
        ("a,b\n", "has a header and no rows"),
        ("\n\n", "has no rows"),
        ('1,"2\n', "line 1: unexpected end of data; mend the quotes"),
        ('a,b\n"1"2,3\n', "line 2: ',' expected after '\"'; mend the quotes"),
        ("1\n" + "2" * 200_000, "field larger than"),
        (b"a\n\xff\xfe\n", "line 2 is not UTF-8 text; save the file as UTF-8"),
        ("1,2\n".encode("utf-16"), "line 1 is not UTF-8 text"),
    ],
)
def test_csv_that_is_wrong(text: str | bytes, says: str) -> None:
    assert says in refused(text, "csv")


def test_csv_lines_count_through_quoted_line_ends() -> None:
    assert "line 4, column 1" in refused('"a\nb",c\n1,2\nx,3\n', "csv")


def test_csv_headers_however_odd_are_told_in_one_line() -> None:
    header = ",".join(f'"a\n{i}"' for i in range(30))
    message = refused(f"{header}\n" + "1," * 29 + "1\n", "csv", columns=["x"])
    assert "a 0, a 1," in message
    assert "a 19 and 10 more" in message
    assert table(f"{header}\n" + "1," * 29 + "2\n", columns=["a\n29"]).tolist() == [[2]]


# --- jsonl


def test_jsonl_records() -> None:
    text = '{"input": [[1, 2], [3, 4.5]], "lengths": 2}\n\n  \n[[1, 2]]\r\n{"x": [1, null, NaN], "y": [[], []]}'
    first, second, third = parsed(text, name="input")
    assert first["input"].tolist() == [[1, 2], [3, 4.5]]
    assert first["input"].dtype == np.float64
    assert (first["lengths"].shape, first["lengths"].dtype) == ((), np.int64)
    assert (second["input"].tolist(), second["input"].dtype) == ([[1, 2]], np.int64)
    assert np.array_equal(third["x"], [1, np.nan, np.nan], equal_nan=True)
    assert (third["y"].shape, third["y"].dtype) == ((2, 0), np.float64)


def test_jsonl_infinity_and_nulls() -> None:
    (record,) = parsed('{"x": [Infinity, -Infinity, 1e999], "y": null, "z": [[null]]}')
    assert record["x"].tolist() == [np.inf, -np.inf, np.inf]
    assert record["y"].shape == ()
    assert np.isnan(record["y"])
    assert np.isnan(record["z"]).tolist() == [[True]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"x": [[1, 2], [3]]}', "key 'x' is ragged"),
        ('{"x": [1, [2]]}', "key 'x' is ragged"),
        ('{"x": [[1], [[2]]]}', "key 'x' is ragged"),
        ("[[1], []]", "is ragged"),
        ('{"x": ["a"]}', "key 'x' holds text"),
        ('{"x": [1, true]}', "key 'x' holds true or false"),
        ('{"x": false}', "key 'x' holds true or false"),
        ('{"x": {"y": 1}}', "key 'x' holds an object"),
        ('{"x": 1, "x": 2}', "the key 'x' is there twice"),
        ('{"x": 9223372036854775808}', "key 'x' holds an integer that 64 bits cannot hold"),
        ('{"x": [0.5, 1%s]}' % ("0" * 400), "key 'x' holds an integer that"),
        ("1" * 5000, "is not JSON"),
        ("[" * 40 + "]" * 40, "nested deeper than 32"),
        ("[" * 100_000, "is not JSON"),
        ('{"x": [1, 2', "is not JSON: Expecting ',' delimiter at column 12"),
        ("[1] [2]", "is not JSON: Extra data"),
        ("{}", "is neither an object of arrays nor a list"),
        ("5", "is neither an object of arrays nor a list"),
        ('"text"', "is neither an object of arrays nor a list"),
        ("null", "is neither an object of arrays nor a list"),
        (b'{"\xff": 1}', "is not UTF-8"),
    ],
)
def test_jsonl_that_is_wrong(line: str | bytes, says: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    message = refused(b"[1]\n\n" + line, "jsonl")
    assert message.startswith("stdin: line 3")
    assert says in message
    assert "line 1" in refused(line, "jsonl")


def test_jsonl_of_blank_lines_only() -> None:
    assert "holds no records" in refused("\n  \n", "jsonl")


def test_jsonl_gives_the_records_before_the_wrong_one() -> None:
    rows = data.read("-", stdin=io.BytesIO(b"[1]\n[2]\noops\n")).rows
    assert [next(rows)["input"].tolist(), next(rows)["input"].tolist()] == [[1], [2]]
    with pytest.raises(FileError, match="line 3"):
        next(rows)


# --- parquet


def test_parquet_records() -> None:
    content = parquet(
        {
            "input": pa.array([[[1, 2], [3, 4]], [[5, None]], []], pa.list_(pa.list_(pa.float32()))),
            "tags": pa.array([[1], [2, 3], []], pa.large_list(pa.int16())),
            "state": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float64(), 2)),
            "lengths": pa.array([2, 1, 0], pa.int64()),
        }
    )
    found = data.read("-", stdin=io.BytesIO(content))
    assert (found.many, found.count, found.typed) == (True, 3, True)
    first, second, third = found.rows
    assert first["input"].tolist() == [[1, 2], [3, 4]]
    assert first["input"].dtype == np.float32
    assert first["input"].flags.writeable
    assert np.array_equal(second["input"], [[5, np.nan]], equal_nan=True)
    assert third["input"].shape == (0, 0)
    assert [r["tags"].tolist() for r in (first, second, third)] == [[1], [2, 3], []]
    assert first["tags"].dtype == np.int16
    assert [r["state"].tolist() for r in (first, second, third)] == [[1, 2], [3, 4], [5, 6]]
    assert (second["lengths"].shape, second["lengths"].dtype, int(second["lengths"])) == ((), np.int64, 1)


def test_parquet_records_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.data.parquet._BATCH_ROWS", 7)
    sequences = [[[float(i), float(j)] for j in range(i % 5)] for i in range(50)]
    content = parquet({"x": pa.array(sequences, pa.list_(pa.list_(pa.float64()))), "n": list(range(50))})
    records = parsed(content)
    assert [record["x"].tolist() for record in records] == sequences
    assert [int(record["n"]) for record in records] == list(range(50))


def test_parquet_nulls_are_nan() -> None:
    content = parquet({"x": [[1], [None, 2], [3]], "n": [None, 2, 3], "b": [[True], [None], [False]]})
    records = parsed(content)
    assert [np.isnan(record["n"]).item() for record in records] == [True, False, False]
    assert np.isnan(records[1]["x"]).tolist() == [True, False]
    assert np.isnan(records[1]["b"]).tolist() == [True]


def test_parquet_names_with_dots_stay_apart() -> None:
    content = parquet({"a.b": [[1.0]], "a": [[2.0]], "a.0": [[3.0]], "text": ["x"]})
    (record,) = parsed(content, columns=["a", "a.b"])
    assert {name: array.tolist() for name, array in record.items()} == {"a": [2], "a.b": [1]}


def test_parquet_tables() -> None:
    content = parquet(
        {
            "a": pa.array([1, None, 3], pa.int64()),
            "b": pa.array([0.5, 1, 2], pa.float32()),
            "flag": [True, False, True],
            "price": pa.array([1, 2, 3], pa.decimal128(10, 2)),
            "text": ["x", "y", "z"],
        }
    )
    found = data.read("-", stdin=io.BytesIO(content), columns=["b", "a"], name="signal")
    assert (found.many, found.count) == (False, 1)
    (record,) = found.rows
    assert np.array_equal(record["signal"], [[0.5, 1], [1, np.nan], [2, 3]], equal_nan=True)
    (record,) = parsed(content, columns=["b"])
    assert record["input"].dtype == np.float32
    (record,) = parsed(content, columns=["flag", "price"])
    assert record["input"].tolist() == [[1, 1], [0, 2], [1, 3]]
    message = refused(content)
    assert "not numbers: text (string)" in message
    assert "--columns" in message


@pytest.mark.parametrize(
    ("content", "columns", "says"),
    [
        (parquet({"x": [[1.0]], "id": ["a"]}), None, "not numbers: id (string)"),
        (parquet({"x": [["a"]]}), None, "not numbers: x (list<"),
        (parquet({"x": [{"a": 1}]}), None, "not numbers: x (struct<"),
        (parquet({"x": [[1.0]]}), ["y"], "there is no column 'y'; it has x"),
        (parquet({"x": [1.0]}), ["y"], "there is no column 'y'; it has x"),
        (parquet({"x": [[[1, 2], [3]]]}), None, "row 1, column 'x': is ragged"),
        (parquet({"x": [[[1]], [[1], [3, 4]]]}), None, "row 2, column 'x': is ragged"),
        (parquet({"x": [[1], None]}), None, "column 'x', row 2: null in place of a list"),
        (parquet({"x": [[[1], None]]}), None, "column 'x', rows 1 and on: null in place of a list"),
        (parquet({"x": pa.array([], pa.float32())}), None, "has no rows"),
        (parquet({"x": pa.array([], pa.list_(pa.float32()))}), None, "has no rows"),
        (parquet({}), None, "has no rows"),
    ],
)
def test_parquet_that_is_wrong(content: bytes, columns: list[str] | None, says: str) -> None:
    assert says in refused(content, columns=columns)


def test_parquet_with_one_name_twice() -> None:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"]), out)
    assert "has the column 'x' more than once" in refused(out.getvalue())


def test_parquet_with_rows_and_no_columns() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2]}).select([]), out)
    message = refused(out.getvalue())
    assert "has no rows" in message or "has no columns" in message  # pyarrow may not keep the number of rows


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lstm-onnx\[parquet\]'"):
        parsed(content)


# --- weight


def imported_by(statement: str) -> set[str]:
    code = f"import sys, numpy; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"pyarrow", "safetensors", "torch", "onnx", "onnxruntime", "zipfile", "csv", "json"}
    assert not heavy & imported_by("import lstm_onnx.data")
    assert heavy & imported_by("import safetensors, zipfile")  # the check can fail


def test_records_are_a_context_that_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("[[1]]\n[[2]]\n[[3]]\n")
    with data.read(path) as records:
        assert next(records.rows)["input"].tolist() == [[1]]
    assert next(records.rows, None) is None
    with data.read(path) as records:
        assert len(list(records.rows)) == 3
