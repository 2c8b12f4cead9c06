"""Parquet, read and written through pyarrow, which is an extra.

A file with list columns is a record a row.  A file without them is a table like csv's.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from lstm_onnx.errors import FileError, MissingDependencyError

from .arrays import check_bomb
from .formats import Record, enumerated, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BATCH_BYTES = 8 * 2**20
"""About as much is read, and buffered before it is written, at a time."""
_BATCH_ROWS = 4096
_NUMBER_BYTES = 8
"""Of the widest number that a model takes."""


def read_parquet(
    stream: BinaryIO, place: str, columns: Sequence[str] | None, name: str
) -> tuple[bool, int, Iterator[Record]]:
    """The records of a parquet file.

    Args:
        stream: seekable, at its start, and open for as long as the records are read.
        place: what to call it in errors.
        columns: the columns to take; None takes all.
        name: the array's name where the file is a table.

    Returns:
        Whether there is a record a row; how many; the records.  A table is one record, ``{name:
        (time, features)}``, of the dtype that all its columns fit into.

    Raises:
        FileError: it is not parquet, is cut short, or has columns that are not numbers.
        MissingDependencyError: pyarrow is not installed.
    """
    pa, pq = _pyarrow()
    with _damage(pa, place):
        file = pq.ParquetFile(stream)
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows == 0:
            raise FileError(f"{place}: has no rows; write at least one")
        many = any(_is_list(pa, kind) for kind in schema.types)
        picked = _picked(pa, place, schema, columns)
    # Runs of equal numbers take next to nothing in a file, and their full size in memory.
    declared = _declared_bytes(file.metadata)
    check_bomb(place, declared, stream.seek(0, os.SEEK_END), "write it anew without dictionaries and compression")
    if many:
        return True, rows, _records(pa, file, place, picked)
    return False, 1, iter(({name: _table(pa, file, place, picked)},))


def write_parquet(stream: BinaryIO, records: Iterator[Mapping[str, np.ndarray]], place: str) -> None:
    """Write one row a record, in row groups as the records come; an axis is a level of lists.

    Args:
        stream: what to write to; need not be seekable.
        records: of the names, dtypes and numbers of axes of the first one.
        place: what to call it in errors.

    Raises:
        FileError: a record differs from the first one.
        MissingDependencyError: pyarrow is not installed.
    """
    pa, pq = _pyarrow()
    try:
        with contextlib.ExitStack() as stack:
            writer, layout, waiting, size = None, {}, [], 0
            for index, record in enumerate(records):
                found = {key: (array.dtype, array.ndim) for key, array in record.items()}
                if writer is None:
                    layout, schema = found, _schema(pa, found)
                    # No dictionaries: they would merge the bit patterns of NaN, and gain nothing here.
                    writer = stack.enter_context(pq.ParquetWriter(stream, schema, use_dictionary=False))
                if found != layout:
                    _differs(place, index, found, layout)
                waiting.append(record)
                size += sum(array.nbytes for array in record.values())
                if size >= _BATCH_BYTES or len(waiting) >= _BATCH_ROWS:
                    writer.write_batch(_batch(pa, schema, waiting))
                    waiting, size = [], 0
            if writer is not None and waiting:
                writer.write_batch(_batch(pa, schema, waiting))
    except pa.ArrowException as error:
        raise FileError(f"{place}: parquet cannot hold this: {one_line(error)}; write .npz instead") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install 'lstm-onnx[parquet]'") from error
    return pa, pq


def _declared_bytes(meta: Any) -> int:
    """The bytes of all numbers in all columns, unpacked."""
    groups = (meta.row_group(index) for index in range(meta.num_row_groups))
    values = sum(max(0, group.column(at).num_values) for group in groups for at in range(group.num_columns))
    return int(values) * _NUMBER_BYTES


@contextlib.contextmanager
def _damage(pa: Any, place: str) -> Iterator[None]:
    # Arrow's own tree, and beside it what it raises as Python's: OSError for damaged pages,
    # ValueError for text that is not UTF-8.
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(
            f"{place}: is not a whole parquet file: {one_line(error)}; it is cut short or damaged, make it anew"
        ) from error


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_numeric(pa: Any, kind: Any) -> bool:
    while _is_list(pa, kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _picked(pa: Any, place: str, schema: Any, columns: Sequence[str] | None) -> list[str]:
    """The names of the columns to read, each there once and numeric."""
    there = list(schema.names)
    picked = there if columns is None else list(columns)
    for column in picked:
        if column not in there:
            raise FileError(f"{place}: there is no column {column!r}; it has {enumerated(there)}")
        if there.count(column) > 1:
            raise FileError(f"{place}: has the column {column!r} more than once; give each its own name")
    others = [
        f"{column} ({schema.field(column).type})" for column in picked if not _is_numeric(pa, schema.field(column).type)
    ]
    if others:
        raise FileError(f"{place}: not numbers: {enumerated(others)}; name the columns to take with --columns")
    if not picked:
        raise FileError(f"{place}: has no columns; write at least one")
    return picked


def _table(pa: Any, file: Any, place: str, picked: list[str]) -> np.ndarray:
    parts = []
    with _damage(pa, place):
        for batch in file.iter_batches(columns=picked):
            columns = [_numbers(pa, _column(batch, column)) for column in picked]
            parts.append(np.stack(columns, axis=1))  # promotes to the dtype that fits all
        return np.concatenate(parts)


def _records(pa: Any, file: Any, place: str, picked: list[str]) -> Iterator[Record]:
    meta = file.metadata
    size = max(sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)), _declared_bytes(meta))
    # A row can be a whole sequence, so the batch is as many as fit and not Arrow's 65,536.
    batch_rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES * meta.num_rows // max(size, 1)))
    row = 0
    with _damage(pa, place):
        for batch in file.iter_batches(batch_size=batch_rows, columns=picked):
            split = {name: _levels(pa, place, name, _column(batch, name), row) for name in picked}
            for index in range(batch.num_rows):
                row += 1
                yield {name: _cell(place, name, *parts, index, row) for name, parts in split.items()}


def _column(batch: Any, name: str) -> Any:
    # By index: pyarrow takes "a" for all of "a", "a.0" and "a.1", so a batch may hold more than was asked for.
    return batch.column(batch.schema.get_field_index(name))


def _levels(pa: Any, place: str, name: str, column: Any, before: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The offsets of each level of lists, and the numbers at the bottom, of one batch's column."""
    offsets: list[np.ndarray] = []
    while _is_list(pa, column.type):
        if column.null_count:
            where = (
                f"rows {before + 1} and on"
                if offsets
                else f"row {before + 1 + column.is_null().to_pylist().index(True)}"
            )
            raise FileError(f"{place}: column {name!r}, {where}: null in place of a list; write a list of numbers")
        if pa.types.is_fixed_size_list(column.type):
            bounds = np.arange(len(column) + 1) * column.type.list_size
        else:
            bounds = column.offsets.to_numpy()
        offsets.append(bounds - bounds[0])
        column = column.flatten()  # unlike .values, only what this batch covers
    return offsets, _numbers(pa, column)


def _cell(place: str, name: str, levels: list[np.ndarray], numbers: np.ndarray, index: int, row: int) -> np.ndarray:
    start, stop = index, index + 1
    shape: list[int] = []
    for offsets in levels:
        sizes = np.diff(offsets[start : stop + 1])
        if sizes.size and (sizes != sizes[0]).any():
            raise FileError(f"{place}: row {row}, column {name!r}: is ragged; make its inner lists equally long")
        shape.append(int(sizes[0]) if sizes.size else 0)
        start, stop = int(offsets[start]), int(offsets[stop])
    return numbers[start:stop].reshape(shape).copy()  # Arrow's memory is read-only, and a whole batch


def _numbers(pa: Any, column: Any) -> np.ndarray:
    """A column without lists as numbers; null is NaN."""
    if pa.types.is_decimal(column.type) or (column.null_count and not pa.types.is_floating(column.type)):
        column = column.cast(pa.float64(), safe=False)
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    return numbers


def _schema(pa: Any, layout: Mapping[str, tuple[np.dtype, int]]) -> Any:
    fields = []
    for name, (dtype, ndim) in layout.items():
        kind = pa.from_numpy_dtype(dtype)
        for _ in range(ndim):
            kind = pa.list_(kind)
        fields.append(pa.field(name, kind, nullable=False))
    return pa.schema(fields)


def _batch(pa: Any, schema: Any, records: Sequence[Mapping[str, np.ndarray]]) -> Any:
    columns = []
    for field in schema:
        arrays = [record[field.name] for record in records]
        column = pa.array(np.concatenate([array.ravel() for array in arrays]))
        for axis in reversed(range(arrays[0].ndim)):
            # On this level an array of shape (a, b, c) has a*b lists of c for axis 2, a of b for axis 1.
            sizes = np.repeat([a.shape[axis] for a in arrays], [math.prod(a.shape[:axis]) for a in arrays])
            column = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32()), column)
        columns.append(column)
    return pa.record_batch(columns, schema=schema)


def _differs(place: str, index: int, found: Mapping[str, Any], layout: Mapping[str, Any]) -> None:
    def told(names: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} ({dtype}, {ndim} axes)" for name, (dtype, ndim) in names.items())

    raise FileError(
        f"{place}: record {index} has {told(found)} and the first {told(layout)}; make them alike, or write .jsonl"
    )
