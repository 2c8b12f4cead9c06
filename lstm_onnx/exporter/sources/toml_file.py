"""Reads a .toml as it comes from any editor: what is wrong with its text, in words."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from ...errors import ConfigError, FileError

ESCAPES = "a backslash in double quotes starts an escape; write the path with / or in 'single quotes'"


def read_toml(path: str | os.PathLike[str], file: Path) -> dict[str, object]:
    """The tables of `file`, which messages call `path`.

    Raises:
        FileError: it cannot be read.
        ConfigError: it is not UTF-8, with or without a byte order mark, or not TOML.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: is not valid TOML: line {line} is not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a TOMLDecodeError is one, and so is what int() raises
        place = re.search(r"at line (\d+)", str(error))
        line_text = text.split("\n")[int(place[1]) - 1] if place else ""
        hint = f"; {ESCAPES}" if "\\" in line_text else ""
        raise ConfigError(f"{path}: is not valid TOML: {error}{hint}") from None


def require_no_escape(table: str, key: str, value: str) -> None:
    """Refuse a path with a control character (ConfigError), such as the tab in "data\\train.pt"."""
    if re.search(r"[\0-\x1f\x7f]", value):
        raise ConfigError(f"[{table}] {key} = {value!r} has a control character, and cannot be a path; {ESCAPES}")
