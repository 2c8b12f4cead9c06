"""``lstm-onnx check``."""

from __future__ import annotations

import click

from .options import json_option, provider_option, report


@click.command()
@click.argument("file", required=False)
@provider_option
@click.option("--require", is_flag=True, help="Every node has to be on the provider; lists where each one is.")
@click.option("--strict", is_flag=True, help="Warnings fail the check, too.")
@click.option("--ignore", multiple=True, metavar="RULE", help="Leave a rule out, by its id or name (may be repeated).")
@click.option("--explain", metavar="RULE", help="Say what a rule is about, and how to mend what it finds.")
@click.option("--rules", is_flag=True, help="List all rules.")
@json_option
def check(
    file: str | None,
    provider: str,
    require: bool,
    strict: bool,
    ignore: tuple[str, ...],
    explain: str | None,
    rules: bool,
    as_json: bool,
) -> int:
    """Is FILE valid, truly dynamic, runnable, its states paired?  Says why not."""
    from ..errors import EXIT_FAILED

    if sum((file is not None, explain is not None, rules)) != 1:
        raise click.UsageError("give a FILE to check, --explain RULE or --rules, one of them")
    if file is None:
        from ..check.rules import Rules, catalogue, find

        report(Rules(catalogue()) if explain is None else find(explain), as_json=as_json)
        return 0
    from .. import check as checks

    result = checks.check(file, provider=provider, require=require, strict=strict, ignore=ignore)
    report(result, as_json=as_json)
    return 0 if result else EXIT_FAILED
