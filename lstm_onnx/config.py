"""models/*.toml: a configured nn.LSTM, where its weights are, and how it is exported."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError, FileError
from .files import readable_file
from .spec import ExportOptions, LSTMSpec, allowed_values

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
_SEED_LIMIT = 2**63
T = TypeVar("T", LSTMSpec, ExportOptions)


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights come from: exactly one of `seed` and `file`.

    `prefix` is what the parameters' names start with in `file`, such as "encoder.lstm.".
    """

    seed: int | None = None
    file: Path | None = None
    prefix: str = ""


@dataclass(frozen=True)
class LSTMConfig:
    """A models/*.toml, read and checked."""

    path: Path
    spec: LSTMSpec
    weights: WeightsSource
    options: ExportOptions


def load_config(path: str | os.PathLike[str]) -> LSTMConfig:
    """Read a configured model.

    Raises:
        FileError: the file cannot be read.
        ConfigError: it is not TOML, or holds an unknown key, a wrong type or an impossible value;
            the message names the file, the key and what is allowed.
    """
    found = readable_file(path, "a model's .toml")
    try:
        tables = tomllib.loads(found.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error
    if "module" in tables or "inputs" in tables:
        raise ConfigError(
            f"{path}: [module] names a model that is more than an LSTM, which this version cannot export; "
            "describe a bare nn.LSTM with [lstm] and [weights]"
        )
    _known_keys(path, "", tables, ("lstm", "weights", "export"))
    for name in ("lstm", "weights"):
        if name not in tables:
            raise ConfigError(f"{path}: the table [{name}] is missing")
    return LSTMConfig(
        path=found,
        spec=_table(path, "lstm", tables["lstm"], LSTMSpec),
        weights=_weights(path, tables["weights"], found.parent),
        options=_table(path, "export", tables.get("export", {}), ExportOptions),
    )


def _table(path: str | os.PathLike[str], name: str, table: object, cls: type[T]) -> T:
    values = _mapping(path, name, table)
    allowed = allowed_values(cls)
    _known_keys(path, name, values, tuple(allowed))
    for item in dataclasses.fields(cls):
        if item.default is dataclasses.MISSING and item.name not in values:
            raise ConfigError(f"{path}: [{name}] lacks {item.name}; it must be {allowed[item.name]}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: [{name}] {error}") from error


def _weights(path: str | os.PathLike[str], table: object, folder: Path) -> WeightsSource:
    values = _mapping(path, "weights", table)
    _known_keys(path, "weights", values, ("seed", "file", "prefix"))
    if ("seed" in values) == ("file" in values):
        raise ConfigError(f"{path}: [weights] needs exactly one of seed and file")
    if "seed" in values:
        seed = values["seed"]
        if type(seed) is not int or not 0 <= seed < _SEED_LIMIT:
            raise ConfigError(f"{path}: [weights] seed = {seed!r} is not possible; it must be an integer of 0 or more")
        if "prefix" in values:
            raise ConfigError(f"{path}: [weights] prefix goes with file, not with seed")
        return WeightsSource(seed=seed)
    file, prefix = values["file"], values.get("prefix", "")
    if not isinstance(file, str) or Path(file).suffix.lower() not in WEIGHT_SUFFIXES or "\0" in file:
        raise ConfigError(
            f"{path}: [weights] file = {file!r} is not possible; it must be a path ending in "
            f"{', '.join(WEIGHT_SUFFIXES[:-1])} or {WEIGHT_SUFFIXES[-1]}"
        )
    if not isinstance(prefix, str):
        raise ConfigError(f"{path}: [weights] prefix = {prefix!r} is not possible; it must be a string")
    return WeightsSource(file=folder / file, prefix=prefix)


def _mapping(path: str | os.PathLike[str], name: str, table: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} = {table!r} is not possible; it must be a table, [{name}]")
    return table


def _known_keys(path: str | os.PathLike[str], table: str, values: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            place = f"[{table}] {key} is not a key" if table else f"[{key}] is not a table"
            raise ConfigError(f"{path}: {place} of a model; {hint}allowed are {', '.join(known)}")
