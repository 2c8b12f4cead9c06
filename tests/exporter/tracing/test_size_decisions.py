"""Of a comparison of sizes, where it changes; of steps, where there are none."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, Mod

from lstm_onnx.exporter.tracing.size_decisions import Bound, Decision, RecurrentSize, changes, least_steps

S, B, U = (sympy.Symbol(name, integer=True, positive=True) for name in ("s1", "s0", "u0"))
TIME, BATCH = ("x", 1), ("x", 0)
SYMBOLS = {S: TIME, B: BATCH}
OWN = {TIME: 12, BATCH: 2}


def decision(expression: Any) -> Decision:
    return Decision(expression, {symbol: SYMBOLS[symbol] for symbol in expression.free_symbols}, None)


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        (S <= 200, [200, 201]),
        (S < 20_000, [20_000, 20_001]),
        (sympy.Ne(S, 50), [50, 51]),
        (sympy.Ne(FloorDiv(S, 5), 3), [15, 20]),
        (FloorDiv(S, 4) <= 10, [40, 44]),
        (0.1 * S <= 20.5, [205, 206]),
        (3 * S * B <= 1000, [167]),
        (S >= B, [2, 3]),
        (sympy.Ne(Mod(S, 2), 0), [2, 3, 4, 5, 6, 7]),
        (sympy.Ne(Mod(S, 97), 0), [97, 98]),
        (sympy.Ne(Mod(S * B, 97), 0), [97, 98]),
        (sympy.Ne(Mod(S, 5003), 7), [7, 8, 5003, 5010]),
        (Mod(S, 97) >= 4, [4, 5, 97, 101]),
        (sympy.Ne(S * S, 2500), [50, 51]),
        ((S - 140) ** 2 >= 4, [138, 139, 142, 143]),
        (sympy.Abs(S - B - 300) >= 1, [301, 302, 303, 304]),
        (S < 10**9, []),
        (sympy.Ne(Mod(S - 6, 3), 0), [7, 9, 10, 12, 13, 15]),  # torch has no remainder of a negative number
    ],
)
def test_sizes_at_which_a_comparison_changes(expression: Any, first: list[int]) -> None:
    assert changes(decision(expression), TIME, OWN) == first


def test_a_decision_goes_the_traced_way_or_another() -> None:
    found = decision(S <= 200)
    assert found.holds({TIME: 200, BATCH: 1})
    assert not found.holds({TIME: 201, BATCH: 1})
    assert found.holds({BATCH: 1})  # nothing is known of it


def recurrent(expression: Any) -> RecurrentSize:
    symbols = {symbol: SYMBOLS[symbol] for symbol in expression.free_symbols if symbol in SYMBOLS}
    return RecurrentSize("gru", 0, "steps", expression, symbols)


@pytest.mark.parametrize(
    ("expression", "bound"),
    [
        (S - 2, Bound(TIME, 3)),
        (FloorDiv(S - 4, 3) + 1, Bound(TIME, 4)),
        (FloorDiv(S, 2), Bound(TIME, 2)),
        (FloorDiv(S + 1, 2), None),
        (sympy.Max(S - 2, 1), None),
        (S + 3, None),
        (Mod(S, 5), Bound()),
        (S - B, Bound()),
        (S - U, Bound()),
        (U, Bound()),
    ],
)
def test_steps_are_bound_where_a_least_size_is_enough(expression: Any, bound: Bound | None) -> None:
    assert least_steps(recurrent(expression), OWN, {}) == bound


def test_limits_that_are_asked_for_need_no_other() -> None:
    assert least_steps(recurrent(S - 2), OWN, {TIME: 3}) is None
    assert least_steps(recurrent(S - 2), OWN, {TIME: 2}) == Bound(TIME, 3)
