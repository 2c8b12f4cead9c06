"""Writing: what is read back is what was written, and a failure leaves nothing behind."""

from __future__ import annotations

import io
import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lstm_onnx import data
from lstm_onnx.errors import FileError, InputError

pytestmark = pytest.mark.sweep(2)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = ("npz", "safetensors", "jsonl", "parquet")
ONE = {"output": np.array([[0.1, 2], [3, -4]], np.float32), "hn": np.ones((1, 2), np.float32)}


def written(records: list[dict[str, np.ndarray]], format: str, *, many: bool = False) -> bytes:
    out = io.BytesIO()
    data.write("-", records, many=many, format=format, stdout=out)
    return out.getvalue()


def again(
    records: list[dict[str, np.ndarray]], format: str, *, many: bool = False, **options: Any
) -> list[data.Record]:
    return list(data.read("-", stdin=io.BytesIO(written(records, format, many=many)), **options).rows)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]).map(np.dtype)
NAMES = st.text("abcXYZ019_./-é", min_size=1, max_size=6)


@st.composite
def array_of(draw: Any, dtypes: Any, *, min_side: int = 0, min_dims: int = 0, max_dims: int = 3) -> np.ndarray:
    """Arrays of any bits: every NaN, infinity and denormal number, and much faster than number by number."""
    dtype = draw(dtypes) if isinstance(dtypes, st.SearchStrategy) else np.dtype(dtypes)
    shape = draw(npst.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=4))
    count = math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    return (raw & 1 if dtype.kind == "b" else raw).view(dtype).reshape(shape)


# --- round trips


@pytest.mark.parametrize("format", ["npz", "safetensors"])
@settings(max_examples=60, deadline=None)
@given(record=st.dictionaries(NAMES, array_of(DTYPES), min_size=1, max_size=3))
def test_arrays_by_name_come_back_bit_for_bit(format: str, record: dict[str, np.ndarray]) -> None:
    (found,) = again([record], format)
    assert found.keys() == record.keys()
    assert all(same_bits(found[name], array) for name, array in record.items())


@settings(max_examples=60, deadline=None)
@given(array=array_of(DTYPES))
def test_npy_comes_back_bit_for_bit(array: np.ndarray) -> None:
    (found,) = again([{"output": array}], "npy", name="output")
    assert same_bits(found["output"], array)


@settings(max_examples=60, deadline=None)
@given(drawn=st.data())
def test_parquet_comes_back_bit_for_bit(drawn: st.DataObject) -> None:
    layout = drawn.draw(st.dictionaries(NAMES, st.tuples(DTYPES, st.integers(0, 3)), min_size=1, max_size=3))
    # One column of lists, without which a file is a table.
    layout["sequence"] = (np.dtype("f4"), 2)

    def record() -> dict[str, np.ndarray]:
        return {
            name: drawn.draw(array_of(dtype, min_side=1, min_dims=ndim, max_dims=ndim))
            for name, (dtype, ndim) in layout.items()
        }

    records = [record() for _ in range(drawn.draw(st.integers(1, 4)))]
    found = again(records, "parquet", many=True)
    assert len(found) == len(records)
    for one, other in zip(found, records, strict=True):
        assert list(one) == list(other)
        assert all(same_bits(one[name], array) for name, array in other.items())


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@settings(max_examples=100, deadline=None)
@given(drawn=st.data())
def test_jsonl_comes_back_in_value(dtype: str, drawn: st.DataObject) -> None:
    records = drawn.draw(
        st.lists(st.dictionaries(NAMES, array_of(dtype, min_side=1), min_size=1), min_size=1, max_size=3)
    )
    for one, other in zip(again(records, "jsonl", many=True), records, strict=True):
        assert list(one) == list(other)
        for name, array in other.items():
            assert np.array_equal(one[name].astype(dtype), array, equal_nan=True)
            assert one[name].shape == array.shape


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
@settings(max_examples=100, deadline=None)
@given(drawn=st.data(), name=NAMES)
def test_csv_comes_back_in_value(dtype: str, drawn: st.DataObject, name: str) -> None:
    array = drawn.draw(array_of(dtype, min_side=1, min_dims=2, max_dims=2))
    (found,) = again([{name: array}], "csv")
    assert np.array_equal(found["input"].astype(dtype), array, equal_nan=True)


@settings(max_examples=200, deadline=None)
@given(bits=st.integers(0, 2**32 - 1))
def test_any_float32_survives_text(bits: int) -> None:
    array = np.array([[bits]], np.uint32).view(np.float32)
    for format in ("csv", "jsonl"):
        (found,) = again([{"input": array}], format)
        assert np.array_equal(found["input"].astype(np.float32), array, equal_nan=True)


def test_other_orders_and_byte_orders() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    for format in data.FORMATS:
        for view in (array, array.T, array[:, ::2]):
            (found,) = again([{"input": view}], format)
            assert np.array_equal(found["input"], view)
            assert found["input"].dtype.isnative


# --- what a file holds


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_many_records_are_numbered(format: str) -> None:
    (found,) = again([ONE, {"output": np.zeros((5, 2))}], format, many=True)
    assert sorted(found) == ["hn.0", "output.0", "output.1"]
    assert np.array_equal(found["output.0"], ONE["output"])
    assert found["output.1"].shape == (5, 2)


def test_npz_is_numpy_s_too_and_the_same_bytes_each_time() -> None:
    content = written([{"file": np.arange(3), "l0/W": np.ones(2)}], "npz")
    with np.load(io.BytesIO(content)) as loaded:
        assert sorted(loaded) == ["file", "l0/W"]
        assert loaded["file"].tolist() == [0, 1, 2]
    assert content == written([{"file": np.arange(3), "l0/W": np.ones(2)}], "npz")


def test_npy_is_numpy_s_too() -> None:
    assert np.array_equal(np.load(io.BytesIO(written([ONE], "npy"))), ONE["output"])


@pytest.mark.parametrize("format", ["npy", "csv"])
def test_what_was_left_out_is_told(format: str) -> None:
    assert data.write("-", [ONE], many=False, format=format, stdout=io.BytesIO()) == ("hn",)


@pytest.mark.parametrize("format", MANY)
def test_nothing_is_left_out(format: str, tmp_path: Path) -> None:
    assert data.write(tmp_path / f"x.{format}", [ONE], many=False) == ()


@pytest.mark.parametrize("format", ["npy", "csv"])
def test_formats_of_one_array_refuse_many(format: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"write \.npz, \.safetensors, \.jsonl or \.parquet"):
        data.write(tmp_path / f"x.{format}", [ONE], many=True)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([[0.1, 2], [3e-7, -4]], np.float32), "y_0,y_1\n0.1,2.0\n3e-07,-4.0\n"),
        (np.array([[0.1, 1 / 3]]), "y_0,y_1\n0.1,0.3333333333333333\n"),
        (np.array([0.1, np.nan, -np.inf], np.float16), "y\n0.1\nnan\n-inf\n"),
        (np.array([[[1, 2]], [[3, 4]]]), "y_0,y_1\n1,2\n3,4\n"),
        (np.array([[[1, 2], [3, 4]]]), "y_0,y_1\n1,2\n3,4\n"),
        (np.array([[True], [False]]), "y\n1\n0\n"),
        (np.array([[2**64 - 1]], np.uint64), "y\n18446744073709551615\n"),
    ],
)
def test_csv_text(array: np.ndarray, text: str) -> None:
    assert written([{"y": array}], "csv").decode() == text


@pytest.mark.parametrize(
    ("name", "columns", "header"),
    [
        ("y", 1, "y"),
        ("y", 2, "y_0,y_1"),
        ("12", 1, "12_0"),
        ("nan", 1, "nan_0"),
        (" ", 1, " _0"),
        ('a,"b', 2, '"a,""b_0","a,""b_1"'),
    ],
)
def test_csv_headers_are_not_mistaken_for_rows(name: str, columns: int, header: str) -> None:
    content = written([{name: np.zeros((3, columns))}], "csv")
    assert content.decode().splitlines()[0] == header
    (found,) = data.read("-", stdin=io.BytesIO(content)).rows
    assert found["input"].shape == (3, columns)


@pytest.mark.parametrize("shape", [(), (2, 2, 2), (3, 0), (1, 1, 2, 2), (0,) * 3])
def test_csv_refuses_what_is_no_table(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'y' has shape .* write \.npz instead"):
        data.write(tmp_path / "x.csv", [{"y": np.zeros(shape)}], many=False)
    assert not list(tmp_path.iterdir())


def test_csv_longer_than_a_block() -> None:
    array = np.arange(5000, dtype=np.float32).reshape(2500, 2)
    (found,) = again([{"y": array}], "csv")
    assert np.array_equal(found["input"], array)


def test_jsonl_text() -> None:
    records = [
        {"y": np.array([[0.1, np.nan]], np.float32), "n": np.array(3), "b": np.array([True])},
        {"y": np.array(0.1, np.float16), "z": np.zeros((0, 2))},
    ]
    text = '{"y": [[0.1, NaN]], "n": 3, "b": [1]}\n{"y": 0.1, "z": []}\n'
    assert written(records, "jsonl", many=True).decode() == text


def test_jsonl_is_written_as_the_records_come() -> None:
    out = io.BytesIO()
    seen = []

    def records() -> Iterator[dict[str, np.ndarray]]:
        for i in range(3):
            seen.append(out.getvalue().count(b"\n"))
            yield {"i": np.array(i)}

    data.write("-", records(), many=True, format="jsonl", stdout=out)
    assert seen == [0, 1, 2]


def test_parquet_is_written_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.data.parquet._BATCH_ROWS", 4)
    records = [{"y": np.full((i, 2), i, np.float32), "n": np.array(i)} for i in range(1, 11)]
    path = tmp_path / "x.parquet"
    data.write(path, iter(records), many=True)
    assert pq.ParquetFile(path).metadata.num_row_groups == 3
    assert pq.read_table(path)["y"].to_pylist() == [record["y"].tolist() for record in records]
    found = list(data.read(path).rows)
    assert [int(record["n"]) for record in found] == list(range(1, 11))
    assert all(np.array_equal(one["y"], other["y"]) for one, other in zip(found, records, strict=True))


def test_parquet_large_records_are_groups_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.data.parquet._BATCH_BYTES", 100)
    data.write(tmp_path / "x.parquet", [{"y": np.zeros(50)}] * 3, many=True)
    assert pq.ParquetFile(tmp_path / "x.parquet").metadata.num_row_groups == 3
    assert [record["y"].shape for record in data.read(tmp_path / "x.parquet").rows] == [(50,)] * 3


@pytest.mark.parametrize("other", [{"z": np.zeros(2)}, {"y": np.zeros((2, 2))}, {"y": np.zeros(2, np.float32)}])
def test_parquet_records_have_to_be_alike(other: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"record 2 has . \(float.*the first y \(float64, 1 axes\)"):
        data.write(tmp_path / "x.parquet", [{"y": np.zeros(2)}, other], many=True)
    assert not list(tmp_path.iterdir())


def test_parquet_keeps_empty_axes_as_far_as_lists_can() -> None:
    (found,) = again([{"a": np.zeros((0, 3)), "b": np.zeros((2, 0)), "c": np.zeros(0)}], "parquet")
    assert [found[name].shape for name in "abc"] == [(0, 0), (2, 0), (0,)]


# --- targets and failures


@pytest.mark.parametrize("format", data.FORMATS)
def test_a_file_and_stdout_get_the_same(format: str, tmp_path: Path) -> None:
    data.write(str(tmp_path / f"x.{format.upper()}"), [ONE], many=False)
    assert (tmp_path / f"x.{format.upper()}").read_bytes() == written([ONE], format)


@pytest.mark.parametrize("format", data.FORMATS)
def test_stdout_need_not_be_seekable(format: str) -> None:
    source, sink = os.pipe()
    with open(source, "rb") as reader:
        with open(sink, "wb") as writer:
            data.write("-", [ONE], many=False, format=format, stdout=writer)
            assert not writer.closed
        (found,) = data.read("-", stdin=reader, name="output").rows
    assert np.array_equal(found["output"].astype(np.float32), ONE["output"])


@pytest.mark.parametrize("format", MANY)
def test_an_error_leaves_no_whole_file_on_stdout(format: str) -> None:
    def records() -> Iterator[dict[str, np.ndarray]]:
        yield ONE
        raise InputError("record 2 does not fit")

    out = io.BytesIO()
    with pytest.raises(InputError):
        data.write("-", records(), many=True, format=format, stdout=out)
    if format == "jsonl":
        assert out.getvalue().count(b"\n") == 1  # a line is whole in itself
        return
    with pytest.raises(FileError):
        list(data.read("-", stdin=io.BytesIO(out.getvalue()), format=format).rows)


def test_stdout_left_out_is_the_process_s(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    data.write("-", [{"y": np.array([1, 2])}], many=False, format="jsonl")
    assert json.loads(capsysbinary.readouterr().out) == {"y": [1, 2]}
