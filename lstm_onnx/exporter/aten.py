"""torch's operators by their names, and an operator's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

aten = torch.ops.aten


def aten_operators(names: str) -> frozenset[Any]:
    """The operators of these names, with spaces between them: ``cat`` is its default overload, ``to.dtype`` another."""
    found = (name.partition(".") for name in names.split())
    return frozenset(getattr(getattr(aten, packet), overload or "default") for packet, _, overload in found)


def argument(args: Sequence[Any], place: int, default: Any = 0) -> Any:
    """An argument of a traced operator, which leaves out the last ones where they have their defaults."""
    return args[place] if len(args) > place else default
