"""Where the reports of ``verify`` go: to the terminal or as JSON to stdout, into files, and to GitHub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import note, say_json, write_then_show
from .streams import say_command, stdout, terminal

if TYPE_CHECKING:
    from ..parity import ParityReport

F = TypeVar("F", bound=Callable[..., Any])


def file_options(function: F) -> F:
    """--junit and --html."""
    function = click.option("--html", metavar="OUT.html", help="Write the result as a page to look at, too.")(function)
    return click.option("--junit", metavar="OUT.xml", help="Write the result as JUnit XML, too.")(function)


def check_files(junit: str | None, html: str | None) -> None:
    """Refuse what `show` could not write, before anything is compared; and a model's name, which was a slip.

    Raises:
        FileError: the folder does not exist, it is a directory, or the suffix is another format's.
    """
    from ..atomic_io import require_writable
    from ..errors import FileError

    for path, suffix in ((junit, ".xml"), (html, ".html")):
        if path is not None:
            if not path.lower().endswith(suffix):
                raise FileError(f"{path}: is no name for this report; name a file that ends in {suffix}")
            require_writable(path)


def show(
    reports: Sequence[ParityReport],
    *,
    as_json: bool,
    junit: str | None,
    html: str | None,
    more: Callable[[], None] | None = None,
) -> None:
    """Write the files, and print one report as a JSON object, several as a list of them, or each as a table.

    Args:
        reports: those of one command.
        as_json: whether they are printed as JSON.
        junit: the path of their JUnit XML.
        html: the path of their page.
        more: writes a further file.

    Raises:
        FileError: a file cannot be written.
    """
    from ..parity.reports import github, table

    annotations: list[str] = []

    def write_junit() -> None:
        from ..parity.reports.junit import document

        if junit is not None:
            _write(junit, document(reports))

    def write_html() -> None:
        from ..parity.reports.page import page

        if html is not None:
            _write(html, page(reports).encode())

    def print_all() -> None:
        if as_json:
            made = [report.to_dict() for report in reports]
            say_json(made[0] if len(made) == 1 else made)
        else:
            table.show(reports, terminal(stdout()))
        for line in annotations:
            say_command(line)

    def tell_github() -> None:
        github.tell(reports, annotations.append, remark=note)

    writes = (write_junit, write_html, tell_github, more)
    write_then_show([write for write in writes if write is not None], print_all)


def _write(path: str, content: bytes) -> None:
    from ..atomic_io import atomic_write

    with atomic_write(path) as stream:
        stream.write(content)
    note(f"wrote {path}")
