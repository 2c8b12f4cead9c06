"""``lstm-onnx check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..spec import TARGETS
from .error_text import print_error
from .options import json_option, provider_option, report
from .params import FILE, NumberRange, option

if TYPE_CHECKING:
    from ..check import CheckReport


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, type=FILE)
@provider_option
@option(
    "--target",
    "targets",
    type=click.Choice(TARGETS),
    multiple=True,
    help="Also find what this engine or server refuses or computes wrongly; may be repeated.",
)
@option("--require", is_flag=True, help="Every node must run on the provider; lists where each one runs.")
@option("--strict", is_flag=True, help="Warnings fail the check too.")
@option("--ignore", multiple=True, metavar="RULE", help="Skip a rule, by id or name; may be repeated.")
@option("--explain", metavar="RULE", help="Explain a rule, and how to fix its findings.")
@option(
    "--time-limit",
    "seconds",
    type=NumberRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit per FILE; beyond it, the check fails.  [default: 20 per stage and 60 in all, more for large "
    "files]",
)
@option("--rules", is_flag=True, help="List all rules.")
@json_option
def check(files: tuple[str, ...], explain: str | None, rules: bool, as_json: bool, **options: Any) -> int:
    """Find errors in any ONNX FILE.

    Checks that FILE is valid, its dynamic axes are really dynamic, its nodes can run on the provider, and its states
    are paired.  All files are checked, even if one cannot be read.  --json prints an object with the key "files".
    """
    if sum((bool(files), explain is not None, rules)) != 1:
        raise click.UsageError("pass a FILE, --explain RULE or --rules, exactly one of them")
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
    error_code = 0
    with Child() as child:
        for file in files:
            try:
                done.append(check_file(file, child=child, **options))
            except (FileError, ModelError) as error:
                if len(files) == 1 and not as_json:
                    raise
                error_code = print_error(error)
                errors[file] = str(error)
    reports = CheckReports(tuple(done), errors)
    if as_json or done:
        report(reports, as_json=as_json)
    return error_code or (0 if reports else EXIT_FAILED)
