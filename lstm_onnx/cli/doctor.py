"""``lstm-onnx doctor``."""

from __future__ import annotations

import click

from .options import json_option, report


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Show what works on this machine.

    Each execution provider is tested with a small LSTM.  Prints what to install for the rest.
    """
    from ..doctor import diagnose
    from ..errors import EXIT_ERROR

    result = diagnose()
    report(result, as_json=as_json)
    return 0 if result else EXIT_ERROR
