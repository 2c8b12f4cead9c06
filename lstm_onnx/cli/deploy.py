"""``lstm-onnx deploy``."""

from __future__ import annotations

import click

from .options import json_option, report
from .params import FILE, option


@click.group()
def deploy() -> None:
    """Write FILE in the layout that another server needs."""


@deploy.command()
@click.argument("file", type=FILE)
@option("-o", "--output", metavar="FOLDER", type=FILE, required=True, help="Triton's model repository.")
@option("--name", help="Name of the model.  [default: the file's stem]")
@option("--max-batch", type=click.IntRange(1, 2**31 - 1), default=64, show_default=True, help="Most rows in a batch.")
@option(
    "--idle",
    type=click.FloatRange(0, 10**6, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="End a sequence without a request for so long.",
)
@json_option
def triton(file: str, output: str, name: str | None, max_batch: int, idle: float, as_json: bool) -> None:
    """Write FILE as a model of Triton Inference Server.

    FOLDER/NAME gets the model with the batch first, and config.pbtxt: with the sequence batcher and
    implicit state for a FILE that can be streamed, with dynamic batching for any other.
    """
    from ..deploy import deploy_triton

    report(deploy_triton(file, output, name=name, max_batch=max_batch, idle_seconds=idle), as_json=as_json)
