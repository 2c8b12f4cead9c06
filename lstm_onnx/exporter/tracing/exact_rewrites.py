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

import onnx_ir as ir

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


def keep_initializers(model: ir.Model) -> None:
    """Store the constants that onnxscript's rules made but lost: two clips of one value give theirs the same names."""
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.const_value is None or value.producer() is not None:
                continue
            if not value.is_initializer() and not value.is_graph_input():
                model.graph.register_initializer(value)
