"""``lstm-onnx check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import json_option, note, provider_option, report, say_json
from .streams import say

if TYPE_CHECKING:
    from ..check import CheckReport


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1)
@provider_option
@click.option("--require", is_flag=True, help="Every node has to be on the provider; lists where each one is.")
@click.option("--strict", is_flag=True, help="Warnings fail the check, too.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Leave a rule out, by its id or name (may be repeated).")
@click.option("--explain", metavar="RULE", help="Say what a rule is about, and how to mend what it finds.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For each FILE; one that takes longer fails.  [default: 60, more for a large file]",
)
@click.option("--rules", is_flag=True, help="List all rules.")
@json_option
def check(
    files: tuple[str, ...],
    provider: str,
    require: bool,
    strict: bool,
    ignore: tuple[str, ...],
    explain: str | None,
    time_limit: float | None,
    rules: bool,
    as_json: bool,
) -> int:
    """Is FILE valid, truly dynamic, runnable, its states paired?  Says why not.

    Of several files each is checked, also behind one that cannot be read; --json is then a list.
    """
    if sum((bool(files), explain is not None, rules)) != 1:
        raise click.UsageError("give a FILE to check, --explain RULE or --rules, one of them")
    if not files:
        from ..check.rule import Rules, catalogue, find

        report(Rules(catalogue()) if explain is None else find(explain), as_json=as_json)
        return 0
    from .. import check as check_file
    from ..errors import EXIT_FAILED, FileError, ModelError
    from ..isolation.process import Child

    found: list[CheckReport] = []
    unread = 0
    with Child() as child:
        for file in files:
            try:
                found.append(
                    check_file(
                        file,
                        provider=provider,
                        require=require,
                        strict=strict,
                        ignore=ignore,
                        seconds=time_limit,
                        child=child,
                    )
                )
            except (FileError, ModelError) as error:
                if len(files) == 1:
                    raise
                note(f"lstm-onnx: {error}")
                unread = error.exit_code
    if len(files) == 1:
        report(found[0], as_json=as_json)
    elif as_json:
        say_json([item.to_dict() for item in found])
    elif found:
        say("\n\n".join(map(str, found)))
    return unread or (0 if all(found) else EXIT_FAILED)
