"""What a forward in another file counts in this one."""

from __future__ import annotations

calls = {"all": [{"n": 0}]}
_ticks = [0]


class Counter:
    """Counts in an attribute that begins as its class's."""

    n = 0


counter = Counter()


def tick() -> int:
    """One more."""
    _ticks[0] += 1
    return _ticks[0]
