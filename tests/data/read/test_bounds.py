"""Files that would never end or never fit: what is refused, with the bound that it passed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx import FileError, LSTMOnnxError, data, load
from lstm_onnx.data import arrays, data_stream
from lstm_onnx.exporter.sources.checkpoint import load_state_dict
from lstm_onnx.exporter.sources.config import load_config
from lstm_onnx.inspect import inspect
from lstm_onnx.parity.golden import read as read_golden

from .support import encoded

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_line_that_is_too_long(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_stream, "LARGEST_LINE", 2**20)
    good = b"1,2\n" if format == "csv" else b"[1, 2]\n"
    start = good if format == "csv" else b""
    for content, line in (
        (start + b"1" * (2**20 + 1), 2 if start else 1),
        (good + b"[" + b"1," * 2**20 + b"1]\n", 2),
        (b"[" + b"1," * 2**20 + b"1]\n" if format == "jsonl" else b"1," * 2**20 + b"1\n", 1),
    ):
        with pytest.raises(FileError, match=rf"stdin: line {line} is longer than the 1 MiB allowed; .*\.npz or"):
            list(data.read("-", format=format, stdin=io.BytesIO(content)).rows)
    fits = b"[" + b"1, " * 300_000 + b"1]\n" if format == "jsonl" else b"1," * 300_000 + b"1\n"
    assert next(data.read("-", format=format, stdin=io.BytesIO(fits)).rows)["input"].size == 300_001


class Endless(io.RawIOBase):
    """A pipe that gives the same bytes for ever."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    def readable(self) -> bool:
        return True

    def readinto(self, into: bytearray) -> int:  # type: ignore[override]
        count = min(len(into), len(self._piece))
        into[:count] = self._piece[:count]
        return count


@pytest.mark.parametrize(("format", "piece"), [("csv", b"1,2\n" * 2048), ("npy", b"\x93NUMPY\x01\x00" + b"\0" * 8184)])
def test_a_pipe_without_an_end(format: str, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_stream, "LARGEST_PIPE", 2**20)
    with pytest.raises(FileError, match="has more than the 0 GiB that are read from a pipe; save it to a file"):
        data.read("-", format=format, stdin=io.BufferedReader(Endless(piece)))


def test_jsonl_has_no_end_where_each_line_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_stream, "LARGEST_PIPE", 2**16)
    rows = data.read("-", format="jsonl", stdin=io.BufferedReader(Endless(b"[1, 2]\n" * 100))).rows
    assert sum(next(rows)["input"].sum() for _ in range(20_000)) == 60_000


@pipes
@pytest.mark.parametrize("format", data.FORMATS)
def test_a_pipe_that_nobody_writes_to(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_stream, "WRITER_SECONDS", 0.1)
    os.mkfifo(tmp_path / f"x.{format}")
    with pytest.raises(FileError, match=rf"x\.{format}: is a pipe without a writer"):
        data.read(tmp_path / f"x.{format}")


@pipes
def test_a_pipe_whose_writer_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_stream, "WRITER_SECONDS", 60.0)
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    writer = "import sys, time; f = open(sys.argv[1], 'w'); time.sleep(0.3); f.write('1,2\\n3,4\\n')"
    with subprocess.Popen([sys.executable, "-c", writer, str(path)]):
        assert next(data.read(path).rows)["input"].tolist() == [[1, 2], [3, 4]]


READERS = {
    "a model": (load, "m.onnx"),
    "an inspected model": (inspect, "m.onnx"),
    "a config": (load_config, "m.toml"),
    "weights": (load_state_dict, "w.pt"),
    "safetensors": (load_state_dict, "w.safetensors"),
    "a golden file": (read_golden, "g.npz"),
}


@pipes
@pytest.mark.parametrize(("read", "name"), READERS.values(), ids=READERS)
def test_what_is_no_regular_file_is_refused_at_once(read: object, name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / name).symlink_to("/dev/zero")
    for path, kind in ((tmp_path / name, "a pipe"), (tmp_path / "zero" / name, "a device")):
        with pytest.raises(LSTMOnnxError, match=f"is {kind}, not a regular file"):
            read(path)  # type: ignore[operator]


def test_a_device_is_no_data() -> None:
    with pytest.raises(FileError, match="/dev/null: is a device, not a regular file"):
        data.read("/dev/null", format="csv")


@pytest.mark.parametrize("shape", [(0, 10**26, 4), (0, 2**63, 2), (0, 2**62, 2**62), (0,) * 33])
def test_a_shape_that_no_array_has(shape: tuple[int, ...]) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(FileError, match=r"the (invalid )?shape"):
        data.read("-", format="npy", stdin=io.BytesIO(content))


def test_a_safetensors_shape_that_no_array_has() -> None:
    header = b'{"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}'
    content = len(header).to_bytes(8, "little") + header
    with pytest.raises(FileError, match=r"declares the shape .*, which numpy does not support"):
        data.read("-", format="safetensors", stdin=io.BytesIO(content))
    with pytest.raises(FileError, match=r"declares the shape .*, which numpy does not support"):
        arrays.reshaped(np.zeros(0), (0, 2**62, 4), "x")


def test_a_parquet_file_that_expands_a_thousandfold(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    part = pa.table({"a": pa.array(np.zeros(2**20))})
    with pq.ParquetWriter(path, part.schema, use_dictionary=True) as writer:
        for _ in range(64):
            writer.write_table(part)
    assert path.stat().st_size < 2**20
    with pytest.raises(FileError, match=r"x\.parquet: unpacks to \d+ times its size, more than the 1000 times allowed"):
        data.read(path)
    with pq.ParquetWriter(path, part.schema, use_dictionary=True) as writer:
        writer.write_table(part)  # no harm in 8 MiB, however small the file
    assert next(data.read(path).rows)["input"].shape == (2**20, 1)


def test_every_format_is_still_read_from_a_stream() -> None:
    for format in data.FORMATS:
        assert len(list(data.read("-", stdin=io.BytesIO(encoded(format))).rows)) >= 1
