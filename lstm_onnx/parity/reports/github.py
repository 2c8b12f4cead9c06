"""Writes reports on GitHub: annotations of a run, and the summary of its step.

The runner reads a line that begins with ``::`` as a command, on stdout and on stderr; commands go to stderr, since
stdout may be JSON.  The escaping is that of the runner's ActionCommand.cs.  GitHub shows at most ten errors of a step,
and refuses a summary of more than 1 MiB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...terminal_text import MOST_MESSAGE, one_line
from .content import clean, columns, headline, remarks, rows, summary, verdict
from .table import NUMBERS, plain

if TYPE_CHECKING:
    from ..results import Results

_MOST_SUMMARY = 2**19
"""The most bytes of a summary, which leaves room for others in the step."""
_MOST_MESSAGE = 20_000
"""The most characters of a message; GitHub's limit is 64 KB."""
_SPECIAL = re.compile(r"([\\`*_\[\]#|~$@])")
"""Characters that are markup in a line of Markdown; < and & become entities."""


def tell(
    reports: Sequence[Results],
    say: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
    remark: Callable[[str], None] | None = None,
) -> None:
    """Annotate the run and add to the step's summary, if this is a run of GitHub Actions.

    Args:
        reports: the reports of one command.
        say: prints a line, unchanged, to a stream that the runner reads.
        environ: the environment, as the runner sets it.
        remark: prints a line that is not a command; `say` by default.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return
    for line in commands(reports, environ.get("GITHUB_WORKSPACE") or "."):
        say(line)
    path = environ.get("GITHUB_STEP_SUMMARY")
    if path:
        try:
            _append(path, step_summary(reports).encode())
        except (OSError, ValueError) as error:
            # The verdict is also printed elsewhere, so this is not an error of the command.
            why = getattr(error, "strerror", None) or error
            (remark or say)(one_line(f"{path}: the step's summary was not written: {why}", MOST_MESSAGE))


def _append(path: str, content: bytes) -> None:
    """Append in one write, so that an interrupt leaves all of the content or none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    finally:
        os.close(descriptor)


def commands(reports: Sequence[Results], workspace: str | os.PathLike[str]) -> Iterator[str]:
    """A command for each report that does not pass, at its source or its file if that is in `workspace`."""
    for report in reports:
        if report:
            continue
        place = _place(report, Path(workspace))
        where = f"file={_property(place)}," if place else ""
        title = f"{clean(report.file)} on {clean(report.provider)}: {verdict(report)}"
        message = plain(report)
        if len(message) > _MOST_MESSAGE:
            message = f"{message[:_MOST_MESSAGE]} ..."
        yield f"::error {where}title={_property(title)}::{_data(message)}"


def _place(report: Results, workspace: Path) -> str | None:
    """The file that an annotation is attached to, relative to the workspace."""
    root = workspace.resolve()
    for name in (report.source, report.file):
        if os.path.isfile(name):  # noqa: PTH113 - which takes any text
            path = Path(name).resolve()
            if path.is_relative_to(root) and str(path).isprintable():
                return path.relative_to(root).as_posix()
    return None


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def step_summary(reports: Sequence[Results]) -> str:
    """The reports in GitHub's Markdown."""
    text = "".join(map(_markdown, reports))
    if len(text.encode()) > _MOST_SUMMARY:
        text = "".join(map(_heading, reports))
    return text


def _heading(report: Results) -> str:
    return f"### {'✅' if report else '❌'} {_escaped(headline(report))}\n\n"


def _markdown(report: Results) -> str:
    lines = [_escaped(summary(report)), ""]
    if report.worst:
        aligned = ("--:" if column in NUMBERS else ":--" for column in range(len(columns(report))))
        lines += [_line("", *map(_escaped, columns(report))), _line(":--", *aligned)]
        lines += [_line("✅" if row.passed else "❌", *map(_escaped, row.cells)) for row in rows(report)]
        lines.append("")
    for remark in remarks(report):
        lines.append(f"- **{_escaped(remark.label)}** {_escaped(remark.text)}")
        lines += [f"  - {_escaped(label)} {_escaped(text)}" for label, text in remark.details]
    return _heading(report) + "\n".join(lines).rstrip() + "\n\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")
