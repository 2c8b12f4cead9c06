"""Writes the outputs of ``verify``: text or JSON on stdout, report files, and annotations on GitHub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .options import note, say_json, write_then_show
from .params import FILE, option
from .streams import say_command, stdout, terminal

if TYPE_CHECKING:
    from ..parity.report import ParityReport

F = TypeVar("F", bound=Callable[..., Any])


def file_options(function: F) -> F:
    """--junit and --html."""
    function = option("--html", metavar="OUT.html", type=FILE, help="Also write the report as an HTML page.")(function)
    return option("--junit", metavar="OUT.xml", type=FILE, help="Also write the report as JUnit XML.")(function)


def check_files(junit: str | None, html: str | None) -> None:
    """Check that the report files can be written, before anything is compared.

    Raises:
        FileError: the folder does not exist, the path is a directory, or the suffix is another format's.
    """
    from ..atomic_io import require_writable
    from ..errors import FileError

    for path, suffix in ((junit, ".xml"), (html, ".html")):
        if path is not None:
            if not path.lower().endswith(suffix):
                raise FileError(f"{path}: the name of this report must end in {suffix}")
            require_writable(path)


def show(
    reports: Sequence[ParityReport],
    *,
    as_json: bool,
    junit: str | None,
    html: str | None,
    more: Callable[[], None] | None = None,
) -> None:
    """Write the files, and print the reports as tables or JSON; several are one object with the key ``reports``.

    Args:
        reports: the reports of one command.
        as_json: whether to print JSON.
        junit: the path for JUnit XML.
        html: the path for the HTML page.
        more: a function that writes another file.

    Raises:
        FileError: a file cannot be written.
    """
    from ..parity.reports import github, table

    annotations: list[str] = []
    writes: list[Callable[[], None]] = []
    if junit is not None:
        from ..parity.reports.junit import document

        writes.append(lambda: _write(junit, document(reports)))
    if html is not None:
        from ..parity.reports.page import page

        writes.append(lambda: _write(html, page(reports).encode()))
    writes.append(lambda: github.tell(reports, annotations.append, remark=note))
    if more is not None:
        writes.append(more)

    def print_all() -> None:
        if as_json:
            results = [report.to_dict() for report in reports]
            say_json(results[0] if len(results) == 1 else {"reports": results})
        else:
            table.show(reports, terminal(stdout()))
        for line in annotations:
            say_command(line)

    write_then_show(writes, print_all)


def _write(path: str, content: bytes) -> None:
    from ..atomic_io import atomic_write

    with atomic_write(path) as stream:
        stream.write(content)
    note(f"wrote {path}")
