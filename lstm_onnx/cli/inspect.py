"""``lstm-onnx inspect``."""

from __future__ import annotations

import click

from .options import json_option, report


@click.command()
@click.argument("file")
@json_option
def inspect(file: str, as_json: bool) -> None:
    """Show the LSTMs in any ONNX FILE: sizes, states, parameters, bytes and FLOPs per step."""
    from .. import inspect as inspection

    report(inspection.inspect(file), as_json=as_json)
