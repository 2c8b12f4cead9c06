"""Text that is safe to print, since names and messages may come from hostile files; and tables of text.

A name can contain terminal escape codes, newlines, bidirectional control characters, and commands for a CI runner
(``::error::`` at the start of a line on GitHub, ``##[error]`` and ``##vso[...]`` within one), and be as long as its
file.  The content of JSON and data files is not changed.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 400
"""Characters of a name or a note."""
MOST_MESSAGE = 2000
"""Characters of an error's message, which may list names."""
_CUT = " ... "
_LONG = re.compile(rf"\S{{{MOST + 1},}}")
_BREAKS = re.compile(r"[^\S ]+ *")
_COMMAND = re.compile(r"##(?=\w*\[)")
"""The start of a command of GitHub, Azure Pipelines or TeamCity within a line."""


def one_line(text: object, most: int = MOST) -> str:
    """`text` on one line of at most `most` characters, without the middle of a longer text.

    Line breaks and tabs become spaces, and surrounding spaces are removed; unprintable characters become escapes
    such as ``\\x1b``, and commands for CI runners are disabled.
    """
    line = str(text)
    if most > MOST:  # names in it are shortened before the whole text is
        line = _LONG.sub(lambda found: _cut(found[0], MOST), line)
    if len(line) > 2 * most:  # before the slower steps
        line = line[:most] + _CUT + line[-most:]
    line = _escaped(_BREAKS.sub(" ", line).strip())
    if line.startswith("::"):
        line = rf"\x3a{line[1:]}"
    return _cut(line, most)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - len(_CUT)) // 2
    return text[:head] + _CUT + text[len(text) - (most - len(_CUT) - head) :]


def printable(text: str, *, starts_line: bool = True) -> str:
    """`text` of several lines, with its newlines and tabs, of any length; otherwise as `one_line`.

    Args:
        text: what is to be printed.
        starts_line: whether only white space precedes it on its first line.
    """
    if text.isascii() and text.isprintable() and "##" not in text and not (starts_line and ":" in text):
        return text  # the common case
    lines = text.split("\n")
    return "\n".join(_printable(line, starts=starts_line or index > 0) for index, line in enumerate(lines))


def _printable(line: str, *, starts: bool) -> str:
    line = "\t".join(map(_escaped, line.split("\t")))
    # CI runners skip white space before a command.
    head = len(line) - len(line.lstrip())
    return rf"{line[:head]}\x3a{line[head + 1 :]}" if starts and line.startswith("::", head) else line


def _escaped(line: str) -> str:
    if not line.isprintable():
        line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)
    return _COMMAND.sub(r"#\\x23", line)


def safe_copy(value: T) -> T:
    """A copy of a report for display: every string in it, at any depth, passed through `one_line`."""
    changed: Any = value
    if isinstance(value, str):
        changed = one_line(value)
    elif isinstance(value, bytes):
        changed = one_line(value.decode(errors="surrogateescape"))
    elif isinstance(value, tuple):
        items = [safe_copy(item) for item in value]
        changed = type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    elif isinstance(value, list):
        changed = [safe_copy(item) for item in value]
    elif isinstance(value, dict):
        changed = _safe_keys(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            # Not dataclasses.replace: a name made safe need not be one that the class would take.
            object.__setattr__(changed, field.name, safe_copy(getattr(value, field.name)))
    return changed  # type: ignore[no-any-return]


def _safe_keys(items: dict[Any, Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, item in items.items():
        name = safe_copy(key)
        while name in made:  # two keys that look the same stay two
            name = f"{name}'"
        made[name] = safe_copy(item)
    return made


def json_text(value: object, *, indent: int | None = 2, finite: bool = True) -> str:
    """`value` as complete ASCII JSON without commands for CI runners.

    Args:
        value: what json can serialize.
        indent: spaces per level; None for one line.
        finite: whether NaN and infinities, which JSON does not have, are refused.

    Raises:
        ValueError: `finite`, and there is one of these.
    """
    import json

    return _COMMAND.sub(r"#\\u0023", json.dumps(value, indent=indent, allow_nan=not finite))


def table_lines(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """The rows as lines whose columns line up, two blanks apart, without blanks at the ends of lines.

    Args:
        rows: the heading and the rows below it, equally many cells each.
        right: indices of the columns that are aligned right, as numbers are; the others are aligned left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
