"""``lstm-onnx help``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ..errors import ConfigError
from .streams import say, stdout

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MOST_SUMMARY = 90
"""The most characters of a topic's summary in the list."""


class _Topic(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """The name of a command or topic, which a shell completes."""

    name = "topic"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that start with `incomplete`."""
        del param
        group = ctx.parent.command if ctx.parent else None
        commands = group.commands if isinstance(group, click.Group) else {}
        return [CompletionItem(name) for name in sorted({*commands, *topics()}) if name.startswith(incomplete)]


@click.command("help")
@click.argument("names", metavar="[COMMAND or TOPIC]", nargs=-1, type=_Topic())
@click.pass_context
def help_command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show the help of a command, or a topic of the documentation.

    Without an argument, list the commands and the topics.
    """
    parent = ctx.parent
    assert parent is not None  # noqa: S101 - a command of the group
    assert isinstance(parent.command, click.Group)  # noqa: S101 - as above
    pages = topics()
    if not names:
        show("\n".join([parent.get_help(), "", "Topics:", *_summaries(pages)]))
        return
    name = " ".join(names)  # it may have two parts, such as deploy web
    command = parent.command.get_command(parent, names[0])
    for word in names[1:]:
        command = command.get_command(ctx, word) if isinstance(command, click.Group) else None
    page = pages.get(name.lower().replace("_", "-").removesuffix(".md"))
    parts = []
    if command is not None:
        with click.Context(command, info_name=name, parent=parent) as context:
            parts.append(command.get_help(context))
    if page is not None:
        parts.append(page.read_text(encoding="utf-8").rstrip())
    if not parts:
        hint = did_you_mean(name, [*parent.command.commands, *pages]) or ";"
        raise ConfigError(f"there is no command or topic {name!r}{hint} lstm-onnx help lists all")
    show("\n\n".join(parts))


def topics() -> dict[str, Traversable]:
    """The pages of the documentation by topic, sorted."""
    from importlib.resources import files

    folder = files(__package__.rpartition(".")[0]) / "docs"
    if not folder.is_dir():
        return {}
    return {
        page.name.removesuffix(".md"): page
        for page in sorted(folder.iterdir(), key=lambda page: page.name)
        if page.name.endswith(".md")
    }


def did_you_mean(name: str, names: list[str]) -> str:
    """A suggestion such as ``; did you mean 'export'?``; "" if none of `names` is similar."""
    import difflib

    known = name.lower()
    close = difflib.get_close_matches(known, names, 1) or [
        other for other in names if len(known) > 2 and known in other
    ]
    return f"; did you mean {close[0]!r}?" if close else ""


def _summaries(pages: dict[str, Traversable]) -> list[str]:
    width = max(map(len, pages), default=0)
    return [f"  {topic:{width}}  {_summary(page)}".rstrip() for topic, page in pages.items()]


def _summary(page: Traversable) -> str:
    """The first line of a page that is neither a heading nor empty."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            return line if len(line) <= _MOST_SUMMARY else f"{line[: _MOST_SUMMARY - 4].rstrip()} ..."
    return ""


def show(text: str) -> None:
    """Print `text`, through a pager if stdin and stdout are a terminal."""
    if stdout().isatty() and sys.stdin is not None and sys.stdin.isatty() and _paged(text):
        return
    say(text)


def _paged(text: str) -> bool:
    """Show `text` in a pager; return whether that worked."""
    import shlex
    import subprocess

    environment = {"LESS": "FRX", **os.environ}  # less then exits at once if the text fits the screen
    try:
        command = shlex.split(os.environ.get("PAGER", "")) or (["more"] if os.name == "nt" else ["less"])
        subprocess.run(command, input=text, encoding="utf-8", env=environment, check=False)  # noqa: S603 - the user's
    except (OSError, ValueError):  # the program does not exist, or PAGER has an unclosed quote
        return False
    return True
