"""Which format, which source, and what a reader imports."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_onnx import data
from lstm_onnx.data import arrays
from lstm_onnx.errors import FileError

from .support import encoded, parsed, refused

BINARY = ("npz", "npy", "safetensors", "parquet")


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
    with pytest.raises(FileError, match="the format 'xml' is unknown; choose one of npz, npy"):
        data.read("-", format="xml")


def test_unreadable_streams_are_named() -> None:
    class Broken(io.BytesIO):
        def readline(self, _: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(FileError, match="stdin: cannot be read: Input/output error"):
        data.read("-", stdin=Broken(b"x"))


def test_a_stream_that_breaks_while_records_are_read() -> None:
    class Breaking(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().readline(size)

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
    assert "--columns is only for csv and parquet" in message
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
        assert f"is not {format}: its content is {true}" in message
    elif format not in text:
        assert f"is not {format}: its content is text" in message


def test_control_characters_are_no_text() -> None:
    assert "its content is in no known format" in refused(b"\x08\x08\x12\x09lstm-onnx", "npz")


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
