"""Validates numbers and flags that callers pass."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..errors import InputError, LSTMOnnxError

LARGEST_SEED = 2**63 - 1


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int; numpy integers are accepted, bools are not (InputError)."""
    number = _index(value)
    if number is None or not 1 <= number < 2**63:
        raise InputError.of_argument(name, value, "a positive integer")
    return number


def integer(name: str, value: Any, least: int, most: int, other: str = "") -> int:
    """`value` as an int from `least` to `most`; `other` names anything else that may be passed (InputError)."""
    number = _index(value)
    if number is None or not least <= number <= most:
        raise InputError.of_argument(name, value, f"from {least} to {most}" + (f", {other}" if other else ""))
    return number


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except Exception:  # noqa: BLE001 - an object's own __index__ may raise anything
        return None


def seconds(name: str, value: Any, most: float) -> float:
    """`value` as a float from 0 to `most`; bools are not accepted (InputError)."""
    number = math.nan
    if not isinstance(value, bool):
        try:
            number = float(value) if hasattr(value, "__float__") or hasattr(value, "__index__") else math.nan
        except Exception:  # noqa: BLE001 - as above
            number = math.nan
    if not 0 <= number <= most:
        raise InputError.of_argument(name, value, f"seconds, {'0 or more' if most > 1e6 else f'from 0 to {most:g}'}")
    return number


def flag(name: str, value: Any, error: type[LSTMOnnxError] = InputError) -> bool:
    """`value` as a bool; raises `error` unless it is a Python or numpy bool."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise error.of_argument(name, value, "True or False")


def flag_or_none(name: str, value: Any) -> bool | None:
    """`value` as a bool, or None (InputError)."""
    return None if value is None else flag(name, value)
