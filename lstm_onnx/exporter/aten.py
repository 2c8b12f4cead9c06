"""torch's operators by their names."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten


def aten_operators(names: str) -> frozenset[Any]:
    """The operators of these names, with spaces between them: ``cat`` is its default overload, ``to.dtype`` another."""
    found = (name.partition(".") for name in names.split())
    return frozenset(getattr(getattr(aten, packet), overload or "default") for packet, _, overload in found)
