"""The user's own inputs as cases of a verification."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from .. import data as files
from ..data import Record
from ..data.cast_inputs import add_batch_axis, cast_inputs
from ..data.formats import TABLES, place_of
from ..errors import InputError
from ..runtime import Model
from ..runtime.tensor_info import checked

MOST = 64
"""Records of a data file that are compared; each costs a run of PyTorch in two precisions."""


@dataclass(frozen=True)
class UserData:
    """The first records of a data file, read once for any number of models.

    `more` says that the file holds others; `typed` and `table` are of its format.  An array that the file
    gives no name has the name ``""``.
    """

    place: str
    records: tuple[Record, ...]
    more: bool
    typed: bool
    table: bool

    def feeds(self, model: Model) -> tuple[list[Record], list[str]]:
        """What `model` is called with, record by record, and what should be said of it.

        An array without a name is the first input.  Numbers are cast to the model's dtypes, and where a
        record is one sequence without the batch axis it gets one of 1.

        Raises:
            InputError: a record does not fit the model; the message says which.
        """
        calls, notes = [], []
        if self.more:
            notes.append(f"of {self.place} only the first {MOST} records were compared")
        for index, record in enumerate(self.records):
            named = {name or next(iter(model.inputs)): array for name, array in record.items()}
            try:
                feeds, remarks = cast_inputs(model.inputs, named, typed=self.typed)
                feeds = add_batch_axis(model.inputs, feeds)
                fitting(model, feeds)
            except InputError as error:
                which = f"{place_of(record, index)}: " if len(self.records) > 1 else ""
                hint = "; choose the features among a table's columns with --columns" if self.table else ""
                raise InputError(f"{self.place}: {which}{error}{hint}") from error
            calls.append(feeds)
            notes += sorted(remarks.difference(notes))
        return calls, notes


def read(source: str | os.PathLike[str], *, columns: Sequence[str] | None = None) -> UserData:
    """Read the first `MOST` records of a data file of any format that `lstm_onnx.data` knows.

    Args:
        source: a path, or ``-`` for the standard input.
        columns: of a table, the features.

    Raises:
        FileError: it cannot be read.
        MissingDependencyError: it is parquet and pyarrow is not installed.
    """
    with files.read(source, columns=columns, name="") as found:
        records = tuple(islice(found.rows, MOST))
        more = next(found.rows, None) is not None
    place = "stdin" if os.fspath(source) == "-" else os.fspath(source)
    return UserData(place, records, more, found.typed, found.format in TABLES and not found.many)


def fitting(model: Model, feeds: Mapping[str, Any]) -> Record:
    """`feeds` as arrays with what `Model.run` fills in, once it is known that they fit.

    Raises:
        InputError: they do not.
    """
    arrays = {name: np.asarray(array) for name, array in feeds.items()}
    return checked(model.inputs, model.completed(arrays))
