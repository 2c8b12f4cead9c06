"""Where the reports of ``verify`` go: to the terminal or as JSON to stdout, into files, and to GitHub."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import note

if TYPE_CHECKING:
    from ..parity import Report

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
    from ..errors import FileError
    from ..files import require_writable

    for path, suffix in ((junit, ".xml"), (html, ".html")):
        if path is not None:
            if not path.lower().endswith(suffix):
                raise FileError(f"{path}: is no name for this report; name a file that ends in {suffix}")
            require_writable(path)


def show(reports: Sequence[Report], *, as_json: bool, junit: str | None, html: str | None) -> None:
    """Print one report as a JSON object, several as a list of them, or each as a table; and write the files.

    Raises:
        FileError: a file cannot be written.
    """
    import json

    from ..parity.reports import github, table

    if as_json:
        made = [report.to_dict() for report in reports]
        click.echo(json.dumps(made[0] if len(made) == 1 else made, indent=2, allow_nan=False))
    else:
        table.show(reports, sys.stdout)
    github.tell(reports, note)
    if junit is not None:
        from ..parity.reports.junit import document

        _write(junit, document(reports))
    if html is not None:
        from ..parity.reports.html import page

        _write(html, page(reports).encode())


def _write(path: str, content: bytes) -> None:
    from ..files import atomic_write

    with atomic_write(path) as stream:
        stream.write(content)
    note(f"wrote {path}")
