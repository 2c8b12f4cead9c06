"""Reads ranges of rows of a Parquet file, for workers that share its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

from ..errors import FileError
from .formats import Record
from .parquet import batch_rows, damage, has_sequences, picked_columns, require_pyarrow, rows_of

_BUFFER = 2**20
"""Bytes of a column that are read at a time, since a row group can be larger than memory."""


class RowReader:
    """Reads ranges of rows; this is cheap if each range starts after the previous one.

    Attributes:
        rows: the number of rows.
        row_bytes: the approximate size of a row in memory, in bytes.
        columns: names and Arrow types of the columns that are read.
    """

    def __init__(self, stream: BinaryIO, place: str, columns: Sequence[str] | None) -> None:
        """Open a file.

        Args:
            stream: seekable, and open for as long as rows are read; may be a ``pyarrow.NativeFile``.
            place: its name in errors.
            columns: the columns to read; None reads all.

        Raises:
            FileError: it is not Parquet, has no column of lists, or has columns that are not numeric.
            MissingDependencyError: pyarrow is not installed.
        """
        self._pa, pq = require_pyarrow()
        self._place = place
        with damage(self._pa, place):
            self._file = pq.ParquetFile(stream, buffer_size=_BUFFER)
            meta, schema = self._file.metadata, self._file.schema_arrow
            if not has_sequences(self._pa, schema):
                raise FileError(
                    f"{place}: has no column of lists, so it is a table, which is one sequence; write a row of lists "
                    "for each sequence"
                )
            self._picked = picked_columns(self._pa, place, schema, columns)
        self.rows: int = meta.num_rows
        self.columns = {name: str(schema.field(name).type) for name in self._picked}
        groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._batch_rows = batch_rows(meta)
        self.row_bytes = sum(group.total_byte_size for group in groups) // max(self.rows, 1)
        self._batches: Iterator[Any] = iter(())
        self._at = 0  # the first row of the next batch of `_batches`
        self._rest: Any = None  # the rest of the batch before it

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """The records of the rows `start` to `stop - 1`, counted from 0.

        Raises:
            FileError: the file is damaged, or a row is ragged.
        """
        with damage(self._pa, self._place):
            self._seek(start)
            while start < stop:
                batch, self._rest = self._rest, None
                if batch is None:
                    batch = next(self._batches, None)
                    if batch is None:
                        raise FileError(f"{self._place}: has fewer rows than its footer says; write it again")
                    self._at += batch.num_rows
                first = self._at - batch.num_rows
                if self._at > stop:
                    self._rest, batch = batch.slice(stop - first), batch.slice(0, stop - first)
                if first < start:
                    batch = batch.slice(min(start - first, batch.num_rows))
                if batch.num_rows:
                    yield from rows_of(self._pa, self._place, self._picked, batch, start)
                    start += batch.num_rows

    def _seek(self, start: int) -> None:
        """Start again at the row group of a row that is before the current one, or in a later row group."""
        position = self._at - (0 if self._rest is None else self._rest.num_rows)
        group = next(index for index, end in enumerate(self._starts[1:]) if start < end)
        if start < position or self._starts[group] > position or position == 0:
            self._at, self._rest = self._starts[group], None
            groups = list(range(group, len(self._starts) - 1))
            self._batches = self._file.iter_batches(self._batch_rows, row_groups=groups, columns=self._picked)
