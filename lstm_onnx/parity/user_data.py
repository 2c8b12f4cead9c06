"""Reads the user's own inputs for a verification, and checks the arguments `seed` and `data`."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import data as files
from ..data import Record
from ..data.cast_inputs import add_batch_axis, arrange_table, cast_inputs, fill_in_lengths, is_single_sequence
from ..data.formats import place_of
from ..errors import ConfigError, InputError
from ..runtime import Model
from ..runtime.run import complete_feeds

MOST = 64
"""The most records of a data file that are compared; each needs a run of PyTorch in two precisions."""


@dataclass(frozen=True)
class UserData:
    """The first records of a data file, read once for any number of models.

    `more` says that the file has further records; `typed` that its format has dtypes, `table` that it is a table.
    An array without a name in the file has the name ``""``.
    """

    place: str
    records: tuple[Record, ...]
    more: bool
    typed: bool
    table: bool

    def feeds(self, model: Model) -> tuple[list[Record], list[str]]:
        """The inputs of `model`, record by record, and notes for the report.

        An array without a name is the first input.  Numbers are cast to the model's dtypes, and a record that is
        one sequence without a batch axis gets a batch of 1, and the lengths that it lacks.

        Raises:
            InputError: a record does not fit the model; the message says which.
        """
        calls, notes = [], []
        if self.more:
            notes.append(f"of {self.place} only the first {MOST} records were compared")
        for index, record in enumerate(self.records):
            named = {name or next(iter(model.inputs)): array for name, array in record.items()}
            try:
                if self.table:
                    named = arrange_table(model.inputs, named)
                feeds, remarks = cast_inputs(model.inputs, named, typed=self.typed)
                if is_single_sequence(model.inputs, feeds):
                    feeds = fill_in_lengths(model.inputs, model.counts, add_batch_axis(model.inputs, feeds))
                complete_feeds(model, feeds)
            except InputError as error:
                which = f"{place_of(record, index)}: " if len(self.records) > 1 else ""
                fits = self.table and error.name in (None, next(iter(model.inputs)))
                hint = "; choose the features among a table's columns with --columns" if fits else ""
                raise InputError(f"{self.place}: {which}{error}{hint}") from error
            calls.append(feeds)
            notes += sorted(remarks.difference(notes))
        return calls, notes


def read(source: str | os.PathLike[str], *, columns: Sequence[str] | None = None) -> UserData:
    """Read the first `MOST` records of a data file in any format that `lstm_onnx.data` reads.

    Args:
        source: a path, or ``-`` for the standard input.
        columns: the feature columns of a table.

    Raises:
        FileError: the file cannot be read.
        MissingDependencyError: the file is parquet, but pyarrow is not installed.
    """
    with files.read(source, columns=columns, name="") as found:
        records = tuple(islice(found.rows, MOST))
        more = next(found.rows, None) is not None
    place = "stdin" if os.fspath(source) == "-" else os.fspath(source)
    return UserData(place, records, more, found.typed, found.is_table)


def require_drawing(seed: Any, data: Any) -> None:
    """Check the `seed` and `data` arguments of a verification.

    Raises:
        ConfigError: `seed` is not an integer from 0 to 2**63 - 1, or `data` is not a list of dicts of arrays.
    """
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except Exception:  # noqa: BLE001 - an object's own __index__ may raise anything
        number = -1
    if not 0 <= number < 2**63:
        raise ConfigError.of_argument("seed", seed, "an integer from 0 to 2**63 - 1")
    records = (
        isinstance(data, Sequence)
        and not isinstance(data, (str, bytes))
        and all(isinstance(record, Mapping) for record in data)
    )
    if not records or not all(isinstance(name, str) for record in data for name in record):
        raise ConfigError.of_argument("data", data, "a list of records, {name: array} each")
