"""What callers of a comparison pass beside the model: a wrong value is a ConfigError that says what is possible."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, shown


def require_drawing(seed: Any, data: Any) -> None:
    """Refuse a seed that is none, and data that are not records of arrays by name (ConfigError)."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except Exception:  # noqa: BLE001 - an object's own __index__ may raise anything
        number = -1
    if not 0 <= number < 2**63:
        raise ConfigError(f"seed = {shown(seed)} is not possible; it must be an integer from 0 to 2**63 - 1")
    records = (
        isinstance(data, Sequence)
        and not isinstance(data, (str, bytes))
        and all(isinstance(record, Mapping) for record in data)
    )
    if not records or not all(isinstance(name, str) for record in data for name in record):
        raise ConfigError(f"data = {shown(data)} is not possible; it must be a list of records, {{name: array}} each")
