"""Plain text tables, for reports on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table_lines(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """The rows as lines whose columns line up, two blanks apart, without blanks at the ends of lines.

    Args:
        rows: the heading and the rows below it, equally many cells each.
        right: indices of the columns that are aligned right, as numbers are; the others are aligned left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
