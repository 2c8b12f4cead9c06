"""Prints a report as text: with colours and line wrapping on a terminal, plain elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

from ...terminal_text import table_lines
from .content import COLUMNS, Remark, Row, columns, headline, remarks, rows, summary

if TYPE_CHECKING:
    from rich.console import Console

    from ..results import Results

_INDENT = "    "
_FAILS = "FAILS"
_WIDE, _BROAD = 84, 60
"""The least terminal widths for a table with columns, and for remarks with labels beside them."""
_LABELS = 17
"""The width of the remarks' labels."""
NUMBERS = range(1, 5)
"""The indices of `COLUMNS` that are aligned to the right."""


def plain(report: Results) -> str:
    """The report as text, reproducible, with one fact per line and lines of any length."""
    lines = [headline(report), summary(report)]
    if report.worst:
        lines += table(rows(report), columns(report))
    for remark in remarks(report):
        lines.append(f"{remark.label} {remark.text}")
        lines += [f"{_INDENT}{label} {text}" for label, text in remark.details]
    return "\n".join(lines)


def table(shown: Sequence[Row], names: Sequence[str] = COLUMNS) -> list[str]:
    """The lines of the table of outputs, under the names of its columns; the last may be long, so marks precede it."""
    if all(row.passed for row in shown):
        return table_lines([names, *(row.cells for row in shown)], right=NUMBERS)
    marked = [(*row.cells[:-1], "" if row.passed else _FAILS, row.cells[-1]) for row in shown]
    return table_lines([(*names[:-1], "", names[-1]), *marked], right=NUMBERS)


def show(reports: Iterable[Results], stream: IO[str]) -> None:
    """Print reports, one after the other.

    A terminal gets colours (unless NO_COLOR is set) and lines that fit it, if rich is installed; anything else gets
    `plain`.
    """
    if not stream.isatty() or importlib.util.find_spec("rich") is None:
        print("\n\n".join(map(plain, reports)), file=stream)
        return
    from rich.console import Console

    # Names are data: no markup, emoji or highlighting.
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    for index, report in enumerate(reports):
        if index:
            console.print()
        _draw(report, console)


def _draw(report: Results, console: Console) -> None:
    from rich.text import Text

    console.print(Text(headline(report), style="bold green" if report else "bold red"))
    console.print(Text(summary(report), style="dim"))
    console.print()
    if report.worst:
        _draw_rows(rows(report), columns(report), console)
    for remark in remarks(report):
        _draw_remark(remark, console)


def _draw_rows(shown: Sequence[Row], names: Sequence[str], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if console.width < _WIDE:
        for row in shown:
            console.print(Text(f"{row.output}  {_mark(row)}", style=_style(row)))
            grid = Table.grid(padding=(0, 2, 0, 0))
            for label, text in zip(names[1:], row.cells[1:], strict=True):
                grid.add_row(Text(f"  {label}", style="dim"), Text(text, overflow="fold"))
            console.print(grid)
        console.print()
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    drawn.add_column("", no_wrap=True)
    for column, name in enumerate(names):
        right = column in NUMBERS
        drawn.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in shown:
        drawn.add_row(Text(_mark(row), style=_style(row)), *map(Text, row.cells))
    console.print(drawn)
    console.print()


def _mark(row: Row) -> str:
    """The verdict without colours."""
    return "ok" if row.passed else "FAILS"


def _style(row: Row) -> str:
    return "green" if row.passed else "bold red"


def _draw_remark(remark: Remark, console: Console) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head = Text(remark.label, style="bold red" if remark.bad else "bold")
    body = [Text(remark.text, overflow="fold")]
    body += [Text.assemble((f"{label} ", "dim"), text, overflow="fold") for label, text in remark.details]
    if console.width < _BROAD:
        console.print(head)
        for text in body:
            console.print(Padding(text, (0, 0, 0, 2)))
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=_LABELS)
    grid.add_column(ratio=1)
    for index, text in enumerate(body):
        grid.add_row(head if index == 0 else "", text)
    console.print(grid)
