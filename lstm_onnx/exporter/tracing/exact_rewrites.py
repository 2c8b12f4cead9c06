"""torch's rewriting of a graph, with constants compared exactly.

onnxscript removes ``x + c`` and ``x - c`` where c is 0, and ``x * c`` and ``x / c`` where it is 1; but it takes every c
below 1e-8 for 0, and every c within 1e-5 of 1 for 1.  So it removes the eps of a norm: zeros divided by their deviation
become NaN.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any


class _ExactMath:
    """The module math, in which numbers are close where they are equal."""

    def __getattr__(self, name: str) -> Any:
        return getattr(math, name)

    @staticmethod
    def isclose(one: float, other: float, **_tolerances: float) -> bool:
        """Whether two numbers are equal."""
        return one == other


@contextlib.contextmanager
def exact_rewrites() -> Iterator[None]:
    """Compare constants of patterns exactly for the duration of the context."""
    from onnxscript.rewriter import _matcher

    matcher: Any = _matcher
    own = matcher.math  # an AttributeError here is better than a file without some of its constants
    matcher.math = _ExactMath()
    try:
        yield
    finally:
        matcher.math = own
