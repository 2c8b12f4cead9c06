"""Text that is safe to print: names and messages come from files that anybody may have made.

A name can hold escape codes that a terminal obeys, newlines, signs that turn the writing direction, and what
the runner of a CI service takes for a command (``::error::`` at the start of a line on GitHub, ``##[error]`` and
``##vso[...]`` within one).  It can be as long as its file.  Nothing here changes what JSON or a data file holds.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 400
"""Characters of a name or a remark."""
MOST_MESSAGE = 2000
"""Characters of an error's message, which may list names."""
_CUT = " ... "
_LONG = re.compile(rf"\S{{{MOST + 1},}}")
_BREAKS = re.compile(r"[^\S ]+ *")
_COMMAND = re.compile(r"##(?=\w*\[)")
"""What the runners of GitHub and Azure Pipelines and TeamCity look for within a line, followed by a word."""


def one_line(text: object, most: int = MOST) -> str:
    """`text` on one line of at most `most` characters: of what is longer the middle is left out.

    Line breaks and tabs become blanks, and blanks at the ends go; what is not printable becomes an escape
    such as ``\\x1b``; and it is no command for a CI service's runner wherever it stands in a line.
    """
    line = str(text)
    if most > MOST:  # each name in it has an end, before the whole has
        line = _LONG.sub(lambda found: _cut(found[0], MOST), line)
    if len(line) > 2 * most:  # before every character of it is looked at
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
    """`text` of several lines, whose newlines and tabs stay; all else is as in `one_line`, at any length.

    Args:
        text: what is to be printed.
        starts_line: whether nothing but white space stands before it in its first line.
    """
    if text.isascii() and text.isprintable() and "##" not in text and not (starts_line and ":" in text):
        return text  # most of what is printed, a line at a time
    lines = text.split("\n")
    return "\n".join(_printable(line, starts=starts_line or index > 0) for index, line in enumerate(lines))


def _printable(line: str, *, starts: bool) -> str:
    line = "\t".join(map(_escaped, line.split("\t")))
    # The runner skips white space before a command.
    head = len(line) - len(line.lstrip())
    return rf"{line[:head]}\x3a{line[head + 1 :]}" if starts and line.startswith("::", head) else line


def _escaped(line: str) -> str:
    if not line.isprintable():
        line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line)
    return _COMMAND.sub(r"#\\x23", line)


def safe_copy(value: T) -> T:
    """A copy of a report for people: each text in its fields, however deep, on one line and not without end."""
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
        while name in made:  # two that look the same are two
            name = f"{name}'"
        made[name] = safe_copy(item)
    return made


def json_text(value: object, *, indent: int | None = 2, finite: bool = True) -> str:
    """`value` as JSON in ASCII, whole, and no command for a CI service's runner.

    Args:
        value: what json can write.
        indent: blanks a level; None is one line.
        finite: whether NaN and infinities, for which JSON has no words, are refused.

    Raises:
        ValueError: there is one of those.
    """
    import json

    return _COMMAND.sub(r"#\\u0023", json.dumps(value, indent=indent, allow_nan=not finite))
