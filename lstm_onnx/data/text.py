"""Reads the text formats: csv and jsonl."""

from __future__ import annotations

import array
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileError, reason, shown
from .formats import PlacedRecord, Record, enumerated, listed_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_DEEPEST = 32  # axes; the limit of numpy 1, and far below Python's recursion limit


def read_csv(lines: Iterable[bytes], place: str, columns: Sequence[str] | None, name: str) -> Record:
    """Read a table with one row per time step, as ``{name: (time, features) float64}``.

    Cells are separated by commas or, if the first line has none, by semicolons or tabs.  The first row is a header if
    one of its cells is neither empty nor a number.

    Args:
        lines: of the file, with line ends.
        place: its name in errors.
        columns: the columns to read, in this order; None reads all.
        name: of the array.

    Raises:
        FileError: there are no rows, a row has another length, a cell is empty or not numeric, or a column is missing;
            the message has the line and the column.
    """
    import csv

    text = _decoded(lines, place)
    opening = list(_up_to_content(text))
    first_line = opening[-1] if opening else ""
    delimiter = next((d for d in ",;\t" if d in first_line), ",")
    reader = csv.reader(itertools.chain(opening, text), delimiter=delimiter, strict=True)
    try:
        rows = _filled_rows(place, ((reader.line_num, row) for row in reader))
        return {name: _table(place, rows, columns)}
    except csv.Error as error:
        if "\r" in first_line.rstrip("\r\n"):
            raise FileError(f"{place}: its lines end with only a carriage return; save it with LF or CRLF") from error
        raise FileError(f"{place}: line {reader.line_num}: {reason(error)}; fix the quotes in that row") from error


def is_number(text: str) -> bool:
    """Whether `text` is a number; ``nan`` and ``inf`` count as numbers."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # 1_000 is a number only in Python


def overflowing_numeral(text: str | bytes) -> str | None:
    """The first numeral in a JSON text that is read as an infinity, such as 1e999, but not ``Infinity`` itself."""
    import json

    found: list[str] = []

    def read(numeral: str) -> float:
        number = float(numeral)
        if math.isinf(number):
            found.append(numeral)
        return number

    json.loads(text, parse_float=read)
    return found[0] if found else None


def read_jsonl(lines: Iterable[bytes], place: str, name: str) -> Iterator[Record]:
    """Read the records of a jsonl file, one per line: an object of nested lists by name, or one bare list.

    Args:
        lines: of the file, with line ends; read as records are needed.
        place: its name in errors.
        name: the name of the array in a line that is a bare list.

    Yields:
        One record per line; arrays with only integers are int64, others float64; null becomes NaN.

    Raises:
        FileError: a line is not JSON, ragged, or has values that are not numbers; the message has the line and the key.
    """
    import json

    for number, line in enumerate(_decoded(lines, place), 1):
        if not line.strip():
            continue
        line_name = f"line {number}"
        where = f"{place}: {line_name}"
        try:
            value = json.loads(line.rstrip(), object_pairs_hook=unique_keys)  # so that an error is not on the next line
        except (ValueError, RecursionError) as error:
            # The line number in the error is always 1.
            what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else reason(error)
            raise FileError(f"{where} is not JSON: {what}; write one complete value per line") from error
        if isinstance(value, list):
            arrays = {name: _array(value, where)}
        elif isinstance(value, dict) and value:
            arrays = {key: _array(item, f"{where}, key {key!r}") for key, item in value.items()}
        else:
            raise FileError(f"{where} is neither an object of arrays nor a list; write {{{name!r}: [[...], ...]}}")
        if any(np.isinf(found).any() for found in arrays.values()) and (numeral := overflowing_numeral(line)):
            raise FileError(f"{where}: {shown(numeral)} is too large for a float; write Infinity if that is meant")
        yield PlacedRecord(arrays, line_name)


def _decoded(lines: Iterable[bytes], place: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{place}: line {number} is not UTF-8 text; save the file as UTF-8") from error


def _up_to_content(text: Iterator[str]) -> Iterator[str]:
    for line in text:
        yield line
        if line.strip():
            return


def _filled_rows(place: str, rows: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    """Rows with their line numbers, without empty lines before and after the table.

    An empty line within the table is an error: it may be a missing time step, or separate two sequences, and
    skipping it would be wrong in both cases.
    """
    empty, begun = 0, False
    for line, row in rows:
        # A quoted "" is a cell in a table of one column, not an empty line.
        if not row or (len(row) == 1 and row[0].isspace()):
            empty = empty or line if begun else 0
        elif empty:
            raise FileError(f"{place}: line {empty} is empty within the table; remove it, or write nan in its cells")
        else:
            begun = True
            yield line, row


def _table(place: str, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str] | None) -> np.ndarray:
    line, row = next(rows, (0, []))
    if not row:
        raise FileError(f"{place}: has no rows; write one per time step")
    width = len(row)
    header: list[str] | None = None
    if any(cell.strip() and not is_number(cell) for cell in row):
        header = [cell.strip() for cell in row]
        if columns is None or all(map(is_number, columns)):
            _require_names(place, line, header)
    else:
        rows = itertools.chain(((line, row),), rows)
    first, opening = line, row
    picked = list(range(width)) if columns is None else _picked(place, columns, header, width)
    values = array.array("d")  # eight bytes a number, where a list of floats takes 32
    for line, row in rows:
        if len(row) != width:
            counts = f"the number of cells is {len(row)}, but {width} in the first row"
            raise FileError(f"{place}: line {line}: {counts}; they must be equal")
        cells = row if columns is None else [row[i] for i in picked]
        try:
            numbers = [float(cell) for cell in cells]
            valid = "_" not in "".join(cells) and (math.isfinite(sum(numbers)) or not any(map(_overflows, cells)))
            values.extend(numbers)
        except ValueError:
            valid = False
        if not valid:
            raise _bad_cell(place, line, row, picked, header)
    if not values:
        raise FileError(f"{place}: has a header but no rows; write one per time step below it")
    table = np.frombuffer(values, np.float64).reshape(-1, len(picked))
    if header is None and [cell.strip() for cell in opening] == list(map(str, range(width))):
        _require_steps(place, first, table, width)
    return table


def _require_steps(place: str, line: int, table: np.ndarray, width: int) -> None:
    """Refuse a first row 0, 1, 2 above others, which pandas writes for columns without names: it is not a time step.

    A row 0, 1 of integers may be a time step, and so may a single 0.
    """
    if len(table) > 1 and (width > 2 or (width == 2 and (table != np.floor(table)).any())):
        raise FileError(
            f"{place}: line {line} numbers the columns from 0, as pandas does where they have no names, and would be "
            "read as a time step; remove it (header=False), name the columns, or write 0.0 if it is a time step"
        )


def _require_names(place: str, line: int, header: list[str]) -> None:
    """Refuse a first row of names and numbers: a time step with one wrong cell would be lost silently as a header."""
    number = next((index for index, cell in enumerate(header) if is_number(cell)), None)
    if number is None:
        return
    text = next(index for index, cell in enumerate(header) if cell and not is_number(cell))
    raise FileError(
        f"{place}: line {line} has a number in column {number + 1} ({header[number]}) and text in column {text + 1} "
        f"({enumerated(header[text : text + 1])}); a row has only numbers, a header only names: correct the cell, "
        "rename the column, or name those to read with --columns"
    )


def _picked(place: str, columns: Sequence[str], header: list[str] | None, width: int) -> list[int]:
    """The indices of `columns`."""
    if header is None:
        available = [str(i + 1) for i in range(width)]
        listing = f"it has no header, so columns are numbers from 1 to {width}"
    else:
        available = header
        listing = f"it has {listed_columns(header)}"
    for column in columns:
        if column not in available:
            raise FileError(f"{place}: there is no column {column!r}; {listing}")
        if available.count(column) > 1:
            raise FileError(f"{place}: the header has {column!r} more than once; rename one")
    return [available.index(column) for column in columns]


def _bad_cell(place: str, line: int, row: list[str], picked: list[int], header: list[str] | None) -> FileError:
    index = next(i for i in picked if not is_number(row[i]) or _overflows(row[i]))
    cell = row[index]
    where = f"{place}: line {line}, column {index + 1}" + (
        f" ({enumerated(header[index : index + 1])})" if header else ""
    )
    if not cell.strip():
        return FileError(f"{where}: the cell is empty; write a number, or nan (which an LSTM does not skip)")
    if is_number(cell):
        return FileError(f"{where}: {shown(cell)} is too large for a float; write inf if that is meant")
    text = repr(cell if len(cell) <= 40 else cell[:37] + "...")
    hint = "write a number with a decimal point and separate cells by commas, or leave the column out with --columns"
    return FileError(f"{where}: {text} is not a number; {hint}")


def _overflows(cell: str) -> bool:
    """Whether a number, such as 1e999, is read as an infinity that its text does not name."""
    return math.isinf(float(cell)) and "inf" not in cell.lower()


def repeated_key(pairs: list[tuple[str, Any]]) -> str | None:
    """The first key that a JSON object has more than once: json keeps only its last value, without an error."""
    counts = Counter(key for key, _ in pairs)
    return None if len(counts) == len(pairs) else next(key for key, count in counts.items() if count > 1)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict for a JSON object; ValueError if a key occurs twice."""
    if (twice := repeated_key(pairs)) is not None:
        raise ValueError(f"the key {twice!r} occurs twice")
    return dict(pairs)


def _array(value: object, where: str) -> np.ndarray:
    """Nested lists of numbers as an array."""
    types: set[type] = set()
    _shape(value, types, where)
    others = types - {int, float, type(None)}
    if others:
        words = {str: "text", bool: "a boolean", dict: "an object"}
        raise FileError(
            f"{where} has {words[min(others, key=str)]}; write numbers only, and null or NaN for missing ones"
        )
    try:
        return np.array(value, np.int64 if types == {int} else np.float64)
    except OverflowError as error:
        raise FileError(f"{where} has an integer that does not fit into 64 bits; write it as a float (1e30)") from error


def _shape(value: object, types: set[type], where: str, depth: int = 0) -> tuple[int, ...]:
    """The shape of nested lists; also adds the types of their items to `types`."""
    if not isinstance(value, list):
        types.add(type(value))
        return ()
    if depth == _DEEPEST:
        raise FileError(f"{where} has more than {_DEEPEST} levels of lists, the maximum number of axes")
    kinds = set(map(type, value))
    if list not in kinds:  # the innermost level, handled at once since it has all the numbers
        types |= kinds
        return (len(value),)
    shapes = {_shape(item, types, where, depth + 1) for item in value}
    if len(shapes) > 1:
        raise FileError(f"{where} is ragged: lists of one level differ in length or depth; they must be alike")
    return (len(value), *shapes.pop())
