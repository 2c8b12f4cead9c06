"""``lstm-onnx check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import json_option, note, provider_option, report

if TYPE_CHECKING:
    from ..check import CheckReport


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1)
@provider_option
@click.option("--require", is_flag=True, help="Every node must be on the provider; lists where each one is.")
@click.option("--strict", is_flag=True, help="Warnings fail the check, too.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Leave out a rule, by id or name (may be repeated).")
@click.option("--explain", metavar="RULE", help="Explain a rule, and how to mend what it finds.")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For each FILE; a file that takes longer fails.  [default: 60, more for a large file]",
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
    """Check that each FILE is valid, truly dynamic and runnable, and its states paired; say why not.

    Checks every file, even if one cannot be read.
    """
    if sum((bool(files), explain is not None, rules)) != 1:
        raise click.UsageError("give a FILE to check, --explain RULE or --rules, one of them")
    if not files:
        from ..check.rules import RuleList, all_rules, find_rule

        report(RuleList(all_rules()) if explain is None else find_rule(explain), as_json=as_json)
        return 0
    from .. import check as check_file
    from ..check.report import CheckReports
    from ..errors import EXIT_FAILED, FileError, ModelError
    from ..isolation.process import Child

    done: list[CheckReport] = []
    errors: dict[str, str] = {}
    exit_code = 0
    with Child() as child:
        for file in files:
            try:
                done.append(
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
                if len(files) == 1 and not as_json:
                    raise
                note(f"lstm-onnx: {error}")
                errors[file] = str(error)
                exit_code = error.exit_code
    reports = CheckReports(tuple(done), errors)
    if as_json or done:
        report(reports, as_json=as_json)
    return exit_code or (0 if reports else EXIT_FAILED)
