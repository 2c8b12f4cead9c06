"""Numbers that callers pass to the runtime: a wrong one is an InputError that says what is possible."""

from __future__ import annotations

import math
import operator
from typing import Any

from ..errors import InputError


def positive_integer(name: str, value: Any) -> int:
    """`value`, an integer of any kind, numpy's too, but no bool (InputError)."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except Exception:  # noqa: BLE001 - an object's own __index__ may raise anything
        number = 0
    if not 1 <= number < 2**63:
        raise InputError(f"{name} = {shown(value)} is not possible; it must be a positive integer")
    return number


def seconds(name: str, value: Any, most: float) -> float:
    """`value`, a number from 0 to `most` that is no bool (InputError)."""
    number = math.nan
    if not isinstance(value, bool):
        try:
            number = float(value) if hasattr(value, "__float__") or hasattr(value, "__index__") else math.nan
        except Exception:  # noqa: BLE001 - as above
            number = math.nan
    if not 0 <= number <= most:
        limit = "0 or more" if most > 1e6 else f"from 0 to {most:g}"
        raise InputError(f"{name} = {shown(value)} is not possible; it must be seconds, {limit}")
    return number


def shown(value: object) -> str:
    """A wrong argument in an error: on one line, and not the whole of a large one."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except Exception:  # noqa: BLE001 - its own __repr__ may be what is wrong
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
