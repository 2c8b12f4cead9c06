"""``lstm-onnx check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .error_text import print_error
from .options import json_option, provider_option, report, say_json_of
from .params import FILE, option
from .streams import say

if TYPE_CHECKING:
    from ..check import CheckReport


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, type=FILE)
@provider_option
@option("--require", is_flag=True, help="Every node must run on the provider; lists where each one runs.")
@option("--strict", is_flag=True, help="Warnings fail the check too.")
@option("--ignore", multiple=True, metavar="RULE", help="Skip a rule, by id or name; may be repeated.")
@option("--explain", metavar="RULE", help="Explain a rule, and how to fix its findings.")
@option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit per FILE, which fails if it takes longer.  [default: 60, more for large files]",
)
@option("--rules", is_flag=True, help="List all rules.")
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
    """Find errors in any ONNX FILE.

    FILE must be valid, its dynamic axes truly dynamic, each node runnable on the provider, and its
    states paired.  Checks every file, even if one cannot be read.  With several files, --json prints an object with
    the key "reports".
    """
    if sum((bool(files), explain is not None, rules)) != 1:
        raise click.UsageError("pass a FILE, --explain RULE or --rules, exactly one of them")
    if not files:
        from ..check.rule import Rules, catalogue, find

        report(Rules(catalogue()) if explain is None else find(explain), as_json=as_json)
        return 0
    from .. import check as checks
    from ..errors import EXIT_FAILED, FileError, ModelError
    from ..isolation.process import Child

    reports: list[CheckReport] = []
    error_code = 0
    with Child() as child:
        for file in files:
            try:
                reports.append(
                    checks.check(
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
                error_code = print_error(error)
    if as_json:
        say_json_of(reports, single=len(files) == 1)
    elif reports:
        say("\n\n".join(map(str, reports)))
    return error_code or (0 if all(reports) else EXIT_FAILED)
