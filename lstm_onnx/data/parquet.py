"""Reads and writes Parquet with pyarrow, an optional dependency.

A file with list columns has one record per row.  A file without them is a table, as in csv.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import FileError, MissingDependencyError, reason
from .arrays import check_expansion
from .formats import PlacedRecord, Record, enumerated, listed_columns
from .piped import cut_on_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BATCH_BYTES = 8 * 2**20
"""Approximate number of bytes that are read or written at a time."""
_BATCH_ROWS = 4096
_NUMBER_BYTES = 8
"""Bytes of the widest dtype that a model takes."""


def read_parquet(
    stream: BinaryIO, place: str, columns: Sequence[str] | None, name: str
) -> tuple[bool, int, Iterator[Record]]:
    """Read the records of a parquet file.

    Args:
        stream: seekable, at its start, and open while records are read.
        place: its name in errors.
        columns: the columns to read; None reads all.
        name: the name of a table's array.

    Returns:
        Whether there is one record per row, the number of records, and the records.  A table is one record
        ``{name: (time, features)}`` in the common dtype of its columns.

    Raises:
        FileError: the file is not parquet, is truncated, or has columns that are not numeric.
        MissingDependencyError: pyarrow is not installed.
    """
    pa, pq = require_pyarrow()
    with damage(pa, place):
        file = pq.ParquetFile(stream)
        rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows == 0:
            raise FileError(f"{place}: has no rows; write at least one")
        many = has_sequences(pa, schema)
        picked = picked_columns(pa, place, schema, columns)
    # Runs of equal numbers take almost no space in a file, but their full size in memory.
    declared = declared_bytes(file.metadata)
    check_expansion(place, declared, stream.seek(0, os.SEEK_END), "write it again without dictionaries and compression")
    if many:
        return True, rows, _records(pa, file, place, picked)
    return False, 1, iter(({name: _table(pa, file, place, picked)},))


def write_parquet(
    stream: BinaryIO, records: Iterator[Mapping[str, np.ndarray]], place: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Write one row per record, in row groups as records arrive; an axis is a level of lists.

    Args:
        stream: the stream, which need not be seekable.
        records: all with the names, dtypes and numbers of axes of the first one.
        place: its name in errors.
        metadata: metadata to store in the file.

    Raises:
        FileError: a record differs from the first one.
        MissingDependencyError: pyarrow is not installed.
    """
    pa, pq = require_pyarrow()
    try:
        with contextlib.ExitStack() as stack:
            writer, layout, waiting, size = None, {}, [], 0
            for index, record in enumerate(records):
                record_layout = {key: (array.dtype, array.ndim) for key, array in record.items()}
                if writer is None:
                    layout, schema = record_layout, _schema(pa, record_layout, metadata)
                    # No dictionaries: they merge the bit patterns of NaN, and save nothing here.
                    writer = stack.enter_context(pq.ParquetWriter(stream, schema, use_dictionary=False))
                    stack.enter_context(cut_on_error(stream))
                if record_layout != layout:
                    raise _layout_error(place, index, record_layout, layout)
                waiting.append(record)
                size += sum(array.nbytes for array in record.values())
                if size >= _BATCH_BYTES or len(waiting) >= _BATCH_ROWS:
                    writer.write_batch(_batch(pa, schema, waiting))
                    waiting, size = [], 0
            if writer is not None and waiting:
                writer.write_batch(_batch(pa, schema, waiting))
    except pa.ArrowException as error:
        raise FileError(f"{place}: parquet cannot store this: {reason(error)}; write .npz instead") from error


def require_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet`` (MissingDependencyError)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install 'lstm-onnx[parquet]'") from error
    return pa, pq


def declared_bytes(meta: Any) -> int:
    """The bytes of all numbers of all columns in memory."""
    groups = (meta.row_group(index) for index in range(meta.num_row_groups))
    values = sum(max(0, group.column(at).num_values) for group in groups for at in range(group.num_columns))
    return int(values) * _NUMBER_BYTES


@contextlib.contextmanager
def damage(pa: Any, place: str) -> Iterator[None]:
    """A context in which what pyarrow raises for a damaged file becomes a FileError."""
    # Besides its own errors, Arrow raises OSError for damaged pages and ValueError for text that is not UTF-8.
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileError(
            f"{place}: is truncated, damaged or not a parquet file: {reason(error)}; write it again"
        ) from error


def has_sequences(pa: Any, schema: Any) -> bool:
    """Whether there is one record per row, rather than a table, which is one record."""
    return any(_is_list(pa, kind) for kind in schema.types)


def _is_list(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_numeric(pa: Any, kind: Any) -> bool:
    while _is_list(pa, kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def picked_columns(pa: Any, place: str, schema: Any, columns: Sequence[str] | None) -> list[str]:
    """The names of the columns to read: each exists once and is numeric."""
    available = list(schema.names)
    picked = available if columns is None else list(columns)
    for column in picked:
        if column not in available:
            raise FileError(f"{place}: there is no column {column!r}; it has {listed_columns(available)}")
        if available.count(column) > 1:
            raise FileError(f"{place}: has the column {column!r} more than once; rename one")
    others = [
        f"{column} ({schema.field(column).type})" for column in picked if not _is_numeric(pa, schema.field(column).type)
    ]
    if others:
        raise FileError(f"{place}: these columns are not numeric: {enumerated(others)}; select others with --columns")
    if not picked:
        raise FileError(f"{place}: has no columns; write at least one")
    return picked


def _table(pa: Any, file: Any, place: str, picked: list[str]) -> np.ndarray:
    parts = []
    with damage(pa, place):
        for batch in file.iter_batches(columns=picked):
            columns = [_numbers(pa, _column(batch, column)) for column in picked]
            parts.append(np.stack(columns, axis=1))  # promotes to the common dtype
        return np.concatenate(parts)


def _records(pa: Any, file: Any, place: str, picked: list[str]) -> Iterator[Record]:
    row = 0
    with damage(pa, place):
        for batch in file.iter_batches(batch_size=batch_rows(file.metadata), columns=picked):
            yield from rows_of(pa, place, picked, batch, row)
            row += batch.num_rows


def batch_rows(meta: Any) -> int:
    """How many rows are read at a time."""
    stored: int = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    size, rows = max(stored, declared_bytes(meta)), int(meta.num_rows)
    # A row can be a long sequence, so batches are limited by bytes instead of Arrow's 65,536 rows.
    return min(_BATCH_ROWS, max(1, _BATCH_BYTES * rows // max(size, 1)))


def rows_of(pa: Any, place: str, picked: list[str], batch: Any, before: int) -> Iterator[Record]:
    """The records of a batch that comes after `before` rows."""
    split = {name: _levels(pa, place, name, _column(batch, name), before) for name in picked}
    for index in range(batch.num_rows):
        row = before + index + 1
        arrays = {name: _cell(place, name, *parts, index, row) for name, parts in split.items()}
        yield PlacedRecord(arrays, f"row {row}")


def _column(batch: Any, name: str) -> Any:
    # By index: pyarrow reads "a", "a.0" and "a.1" for the name "a", so a batch may have more columns than requested.
    return batch.column(batch.schema.get_field_index(name))


def _levels(pa: Any, place: str, name: str, column: Any, before: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The offsets of each level of lists of a batch's column, and the numbers of the innermost one."""
    offsets: list[np.ndarray] = []
    while _is_list(pa, column.type):
        if column.null_count:
            where = (
                f"rows {before + 1} and on"
                if offsets
                else f"row {before + 1 + column.is_null().to_pylist().index(True)}"
            )
            raise FileError(f"{place}: column {name!r}, {where}: null instead of a list; write a list of numbers")
        if pa.types.is_fixed_size_list(column.type):
            bounds = np.arange(len(column) + 1) * column.type.list_size
        else:
            bounds = column.offsets.to_numpy()
        offsets.append(bounds - bounds[0])
        column = column.flatten()  # unlike .values, this has only the batch's part
    return offsets, _numbers(pa, column)


def _cell(place: str, name: str, levels: list[np.ndarray], numbers: np.ndarray, index: int, row: int) -> np.ndarray:
    start, stop = index, index + 1
    shape: list[int] = []
    for offsets in levels:
        sizes = np.diff(offsets[start : stop + 1])
        if sizes.size and (sizes != sizes[0]).any():
            raise FileError(f"{place}: row {row}, column {name!r}: is ragged; its inner lists must have equal lengths")
        shape.append(int(sizes[0]) if sizes.size else 0)
        start, stop = int(offsets[start]), int(offsets[stop])
    return numbers[start:stop].reshape(shape).copy()  # Arrow's memory is read-only, and is shared by the whole batch


def _numbers(pa: Any, column: Any) -> np.ndarray:
    """A column without lists as an array; null is NaN."""
    if pa.types.is_decimal(column.type) or (column.null_count and not pa.types.is_floating(column.type)):
        column = column.cast(pa.float64(), safe=False)
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    return numbers


def _schema(pa: Any, layout: Mapping[str, tuple[np.dtype, int]], metadata: Mapping[str, str] | None) -> Any:
    fields = []
    for name, (dtype, ndim) in layout.items():
        kind = pa.from_numpy_dtype(dtype)
        for _ in range(ndim):
            kind = pa.list_(kind)
        fields.append(pa.field(name, kind, nullable=False))
    return pa.schema(fields, metadata)


def _batch(pa: Any, schema: Any, records: Sequence[Mapping[str, np.ndarray]]) -> Any:
    columns = []
    for field in schema:
        arrays = [record[field.name] for record in records]
        column = pa.array(np.concatenate([array.ravel() for array in arrays]))
        for axis in reversed(range(arrays[0].ndim)):
            # For axis 2 an array of shape (a, b, c) has a*b lists of c numbers, for axis 1 it has a lists of b lists.
            sizes = np.repeat([a.shape[axis] for a in arrays], [math.prod(a.shape[:axis]) for a in arrays])
            column = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32()), column)
        columns.append(column)
    return pa.record_batch(columns, schema=schema)


def _layout_error(place: str, index: int, differing: Mapping[str, Any], layout: Mapping[str, Any]) -> FileError:
    def text(names: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} ({dtype}, {ndim} axes)" for name, (dtype, ndim) in names.items())

    return FileError(
        f"{place}: record {index + 1} has {text(differing)}, but the first {text(layout)}; they must be alike, or "
        "write .jsonl"
    )
