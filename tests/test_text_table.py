from __future__ import annotations

import pytest

from lstm_onnx.text_table import table_lines


def test_columns_line_up_and_lines_have_no_blanks_at_the_end():
    rows = [("name", "size", "note"), ("a", "1", ""), ("longer", "1,000", "x")]
    assert table_lines(rows, right=(1,)) == [
        "name     size  note",
        "a           1",
        "longer  1,000  x",
    ]


def test_columns_are_aligned_left_by_default():
    assert table_lines([("a", "b"), ("aa", "bb")]) == ["a   b", "aa  bb"]


def test_rows_have_equally_many_cells():
    with pytest.raises(ValueError, match="zip"):
        table_lines([("a", "b"), ("a",)])
