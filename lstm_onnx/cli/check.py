"""``lstm-onnx check``."""

from __future__ import annotations

import click

from .options import json_option, provider_option, report


@click.command()
@click.argument("file")
@provider_option
@json_option
def check(file: str, provider: str, as_json: bool) -> int:
    """Is FILE valid, truly dynamic, runnable, its states paired?  Says why not."""
    from .. import check as checks
    from ..errors import EXIT_FAILED

    result = checks.check(file, provider=provider)
    report(result, as_json=as_json)
    return 0 if result else EXIT_FAILED
