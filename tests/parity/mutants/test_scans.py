"""Mistakes in the body of a Scan that is a Python loop."""

from __future__ import annotations

import onnx.parser
import pytest

from lstm_onnx.parity.mutants.scans import _only_fills

PLACE, ROW = "at = Reshape(i, one)\n", "where = Unsqueeze(i, zero)\nrow = Squeeze(Gather_1, zero)\n"
READ = "Gather_1 = Gather<axis = 0>(c, at)\n"
FILL = "new = Unsqueeze(x, zero)\nd = ScatterND(c, at, new)\n"
PART = "part = ScatterND(row, where, x)\nnew = Unsqueeze(part, zero)\nd = ScatterND(c, at, new)\n"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (PLACE + FILL, True),
        (PLACE + READ + ROW + PART, True),
        (PLACE + "size = Shape(c)\n" + FILL, True),
        (PLACE + READ + ROW + "sum = Add(row, x)\n" + PART, True),  # read by nothing
        (PLACE + READ + ROW + PART.replace("part = ScatterND(row, where, x)", "part = Add(row, x)"), False),
        ("at = Reshape(i, one)\nnext = Add(at, one)\nGather_1 = Gather<axis = 0>(c, next)\n" + ROW + PART, False),
        (PLACE + READ + "where = Cast<to = 7>(Gather_1)\nd = ScatterND(c, where, x)\n", False),
        (PLACE + FILL.replace("ScatterND(", 'ScatterND<reduction = "add">('), False),
        ("d = Add(c, x)\n", False),
    ],
)
def test_a_loop_that_only_fills_rows_is_the_same_with_a_step_twice(nodes: str, expected: bool) -> None:
    body = onnx.parser.parse_graph(f"body (float[n, 3] c, int64 i, float[3] x) => (float[n, 3] d) {{\n{nodes}}}")
    assert _only_fills(body, [0]) is expected


def test_what_a_row_held_before_may_be_no_result() -> None:
    text = "body (float[n, 3] c, int64 i, float[3] x) => (float[n, 3] d, float[1, 3] Gather_1) {\n"
    body = onnx.parser.parse_graph(f"{text}{PLACE}{READ}{FILL}}}")
    assert not _only_fills(body, [0])
