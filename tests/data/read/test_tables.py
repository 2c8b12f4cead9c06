"""Tables and records: csv, jsonl, parquet."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lstm_onnx import data
from lstm_onnx.errors import FileError, MissingDependencyError

from .support import encoded, parquet, parsed, refused


def table(text: str, **options: Any) -> np.ndarray:
    (record,) = parsed(text, "csv", **options)
    (array,) = record.values()
    assert array.dtype == np.float64
    return array


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


@pytest.mark.parametrize(("first", "column"), [("1,x", 2), ("1.5,2a", 2), ("o,1", 1)])
def test_a_csv_row_with_one_wrong_cell_is_not_taken_for_a_header(first: str, column: int) -> None:
    assert f"line 1 has a number in column {3 - column}" in refused(f"{first}\n3,4\n", "csv")
    assert f"text in column {column}" in refused(f"{first}\n3,4\n", "csv", columns=["1"])
    # Whoever names a column knows that it is a header.
    name = first.split(",")[column - 1]
    assert table(f"{first}\n3,4\n", columns=[name]).tolist() == [[2 + column]]


@pytest.mark.parametrize("text", ["0,1,2\n1,2,3\n", "0,1\n0.5,2\n", '"0","1"\n1e-3,2\n'])
def test_numbers_of_columns_are_no_time_step(text: str) -> None:
    """pandas writes them as the names of columns that have none."""
    assert "line 1 numbers the columns from 0, as pandas does" in refused(text, "csv")
    assert "line 1 numbers the columns from 0, as pandas does" in refused(text, "csv", columns=["1"])


@pytest.mark.parametrize("text", ["0,1\n1,0\n", "0\n0.5\n", "0,1,2\n", "0.0,1.0\n0.5,2\n", "a,b\n0,1\n0.5,2\n"])
def test_a_time_step_may_look_like_numbers_of_columns(text: str) -> None:
    assert table(text)[0].tolist() == list(range(text.count(",", 0, text.index("\n")) + 1))


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
        ("1,2\n", ["3"], "there is no column '3'; it has no header, so columns are numbers from 1 to 2"),
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
        ("1,2\n3\n", "line 2: the number of cells is 1, but 2 in the first row"),
        ("1,2\n3,4,5\n", "line 2: the number of cells is 3, but 2 in the first row"),
        ("1,2\n3,\n", "line 2, column 2: the cell is empty; write a number"),
        ("1,\n3,4\n", "line 1, column 2: the cell is empty"),
        ("1,2\n3, \n", "the cell is empty"),
        ('1\n""\n', "line 2, column 1: the cell is empty"),
        ("1,2\n\n3,4\n", "line 2 is empty within the table"),
        ("1\n\n\n2\n", "line 2 is empty within the table"),
        ("a,b\n", "has a header but no rows"),
        ("\n\n", "has no rows"),
        ("a,b\r1,2\r3,4", "its lines end with only a carriage return; save it with LF or CRLF"),
        ('1,"2\n', "line 1: unexpected end of data; fix the quotes"),
        ('a,b\n"1"2,3\n', "line 2: ',' expected after '\"'; fix the quotes"),
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


def test_csv_numbers_that_no_float_holds_are_told_from_infinities() -> None:
    assert table("a,b\n1e308,1e308\ninf,-Infinity\nnan,3\n").tolist()[:2] == [[1e308, 1e308], [np.inf, -np.inf]]
    for cells in ("1e999,2", "-1e400,inf", f"nan,1{'0' * 400}"):
        message = refused(f"a,b\n1,2\n{cells}\n", "csv")
        assert message.startswith("stdin: line 3, column ")
        assert "is too large for a float; write inf if that is meant" in message


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
    (record,) = parsed('{"x": [Infinity, -Infinity, 1e308], "y": null, "z": [[null]]}')
    assert record["x"].tolist() == [np.inf, -np.inf, 1e308]
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
        ('{"x": ["a"]}', "key 'x' has text"),
        ('{"x": [1, true]}', "key 'x' has a boolean"),
        ('{"x": false}', "key 'x' has a boolean"),
        ('{"x": {"y": 1}}', "key 'x' has an object"),
        ('{"x": 1, "x": 2}', "the key 'x' occurs twice"),
        ('{"x": 9223372036854775808}', "key 'x' has an integer that does not fit into 64 bits"),
        ('{"x": [0.5, 1%s]}' % ("0" * 400), "key 'x' has an integer that"),
        ('{"x": [Infinity, 2], "y": [1, -1e999]}', "'-1e999' is too large for a float; write Infinity if"),
        ("1" * 5000, "is not JSON"),
        ("[" * 40 + "]" * 40, "more than 32 levels of lists"),
        ("[" * 100_000, "is not JSON"),
        ('{"x": [1, 2', "is not JSON: Expecting ',' delimiter at column 12"),
        ('{"x": [1, 2\n', "is not JSON: Expecting ',' delimiter at column 12"),
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
    assert "has no records" in refused("\n  \n", "jsonl")


def test_jsonl_gives_the_records_before_the_wrong_one() -> None:
    rows = data.read("-", stdin=io.BytesIO(b"[1]\n[2]\noops\n")).rows
    assert [next(rows)["input"].tolist(), next(rows)["input"].tolist()] == [[1], [2]]
    with pytest.raises(FileError, match="line 3"):
        next(rows)


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
    assert "not numeric: text (string)" in message
    assert "--columns" in message


@pytest.mark.parametrize(
    ("content", "columns", "says"),
    [
        (parquet({"x": [[1.0]], "id": ["a"]}), None, "not numeric: id (string)"),
        (parquet({"x": [["a"]]}), None, "not numeric: x (list<"),
        (parquet({"x": [{"a": 1}]}), None, "not numeric: x (struct<"),
        (parquet({"x": [[1.0]]}), ["y"], "there is no column 'y'; it has x"),
        (parquet({"x": [1.0]}), ["y"], "there is no column 'y'; it has x"),
        (parquet({"x": [[[1, 2], [3]]]}), None, "row 1, column 'x': is ragged"),
        (parquet({"x": [[[1]], [[1], [3, 4]]]}), None, "row 2, column 'x': is ragged"),
        (parquet({"x": [[1], None]}), None, "column 'x', row 2: null instead of a list"),
        (parquet({"x": [[[1], None]]}), None, "column 'x', rows 1 and on: null instead of a list"),
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
