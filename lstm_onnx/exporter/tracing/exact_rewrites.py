"""torch's rewriting of a graph, with constants compared exactly.

onnxscript removes ``x + c`` and ``x - c`` where c is 0, and ``x * c`` and ``x / c`` where it is 1; but it takes every c
below 1e-8 for 0, and every c within 1e-5 of 1 for 1.  So it removes the eps of a norm: zeros divided by their deviation
become NaN.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from types import SimpleNamespace

from ..copies.caller_state import replaced


def _isclose(one: float, other: float, **_tolerances: float) -> bool:
    return one == other


@contextlib.contextmanager
def exact_rewrites() -> Iterator[None]:
    """Compare constants of patterns exactly for the duration of the context."""
    from onnxscript.rewriter import _matcher

    # An AttributeError here is better than a file without some of its constants.
    with replaced(_matcher, "math", SimpleNamespace(**{**vars(math), "isclose": _isclose})):
        yield
