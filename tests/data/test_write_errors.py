"""What can't be written: an error that says so, and nothing half-written is left."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

from lstm_onnx import data
from lstm_onnx.errors import FileError, MissingDependencyError

from .test_write import MANY, ONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_stdout_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(FileError, match="stdout: is closed"):
        data.write("-", [ONE], many=False, format="csv")


def test_stdout_needs_a_format() -> None:
    with pytest.raises(FileError, match=r"stdout: .*choose the format, one of npz, npy, csv"):
        data.write("-", [ONE], many=False, stdout=io.BytesIO())


def test_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"end the name in \.npz"):
        data.write(tmp_path / "x.txt", [ONE], many=False)
    with pytest.raises(FileError, match="choose one of npz"):
        data.write(tmp_path / "x.npz", [ONE], many=False, format="xml")
    data.write(tmp_path / "x.txt", [ONE], many=False, format="csv")
    assert (tmp_path / "x.txt").read_text().startswith("output_0,output_1\n")


@pytest.mark.parametrize("format", data.FORMATS)
def test_records_that_fail_midway_leave_the_old_file(format: str, tmp_path: Path) -> None:
    def records() -> Iterator[dict[str, np.ndarray]]:
        yield ONE
        raise FileError("the data: line 7 is wrong")

    path = tmp_path / f"x.{format}"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="line 7"):
        data.write(path, records(), many=format in MANY)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("format", data.FORMATS)
def test_a_full_disk_leaves_nothing(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"x\..*No space left on device"):
        data.write(tmp_path / f"x.{format}", [ONE], many=False)
    assert not list(tmp_path.iterdir())


class Failing(io.RawIOBase):
    """A stream that takes the first bytes and then fails with `error`."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def writable(self) -> bool:
        return True

    def write(self, _: Any, /) -> int:
        raise self.error


@pytest.mark.parametrize("format", data.FORMATS)
def test_stdout_that_fails(format: str) -> None:
    with pytest.raises(FileError, match="stdout: cannot be written: No space left on device"):
        data.write(
            "-", [ONE], many=False, format=format, stdout=Failing(OSError(errno.ENOSPC, "No space left on device"))
        )


@pytest.mark.parametrize("format", data.FORMATS)
def test_a_reader_that_left_is_the_caller_s_to_end_on(format: str) -> None:
    with pytest.raises(BrokenPipeError):
        data.write("-", [ONE], many=False, format=format, stdout=Failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))


@pytest.mark.parametrize("format", data.FORMATS)
@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(2, complex), np.zeros(1, "M8[s]")])
def test_arrays_that_are_not_numbers(format: str, array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=rf"'y' has dtype .*, which {format} cannot store"):
        data.write(tmp_path / f"x.{format}", [{"y": array}], many=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", data.FORMATS)
@pytest.mark.parametrize("value", [[np.zeros(2), np.zeros(1)], [np.zeros(2), np.zeros(2)], {"a": 1}, None])
def test_outputs_that_are_not_tensors(format: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=rf"'y' is a \w+, not a tensor .*, which {format} cannot store"):
        data.write(tmp_path / f"x.{format}", [{"y": value}], many=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", data.FORMATS)
def test_nothing_to_write(format: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no records to write"):
        data.write(tmp_path / f"x.{format}", [], many=False)
    with pytest.raises(FileError, match="record 1 has no arrays"):
        data.write(tmp_path / f"x.{format}", [{}], many=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", data.FORMATS)
def test_more_records_than_were_said_is_a_bug_of_the_caller(format: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="many=False"):
        data.write(tmp_path / f"x.{format}", [ONE, ONE], many=False)
    assert not list(tmp_path.iterdir())


def test_names_that_safetensors_keeps_for_itself(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="safetensors"):
        data.write(tmp_path / "x.safetensors", [{"__metadata__": np.zeros(1)}], many=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "where", "error"),
    [
        ("parquet", "lstm_onnx.data.parquet._schema", pa.ArrowInvalid("too\nlarge")),
        ("safetensors", "safetensors.numpy.save", safetensors.SafetensorError("too\nlarge")),
    ],
)
def test_what_the_libraries_refuse(
    format: str, where: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(FileError, match=rf"{format} cannot store this: too large; write \.npz instead") as caught:
        data.write(tmp_path / f"x.{format}", [ONE], many=False)
    assert caught.value.__cause__ is error
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lstm-onnx\[parquet\]'"):
        data.write(tmp_path / "x.parquet", [ONE], many=False)
    assert not list(tmp_path.iterdir())
