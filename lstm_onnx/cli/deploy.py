"""``lstm-onnx deploy``."""

from __future__ import annotations

import click

from .options import data_option, first_record, json_option, report, state_option
from .params import FILE, NumberRange, by_name, option


@click.group()
def deploy() -> None:
    """Package FILE for browsers, Node or Triton."""


@deploy.command()
@click.argument("file", type=FILE)
@option("-o", "--output", metavar="FOLDER", type=FILE, required=True, help="Triton's model repository.")
@option("--name", help="Name of the model.  [default: the file's stem]")
@option("--max-batch", type=click.IntRange(1, 2**31 - 1), default=64, help="Maximum batch size.")
@option(
    "--idle",
    type=NumberRange(0, 10**6, min_open=True),
    default=60.0,
    metavar="SECONDS",
    help="End a sequence that has had no request for this long.",
)
@json_option
def triton(file: str, output: str, name: str | None, max_batch: int, idle: float, as_json: bool) -> None:
    """Write FILE as a model of Triton Inference Server.

    FOLDER/NAME gets the model with the batch first, and config.pbtxt: with the sequence batcher and
    implicit state for a FILE that can be streamed, with dynamic batching for any other.
    """
    from ..deploy import deploy_triton

    report(deploy_triton(file, output, name=name, max_batch=max_batch, idle_seconds=idle), as_json=as_json)


@deploy.command()
@click.argument("file", type=FILE)
@option("-o", "--output", metavar="FOLDER", type=FILE, required=True, help="The folder to write.")
@option(
    "--golden",
    metavar="FILE.npz",
    type=FILE,
    help="Golden file to compare with, which FILE must pass.  [default: FILE's outputs in Python]",
)
@data_option("Inputs to run FILE on for the comparison")
@option(
    "--ort",
    metavar="PACKAGE",
    type=FILE,
    help="Copy onnxruntime-web from this npm package.  [default: the page loads it from a CDN]",
)
@option(
    "--sample-rate",
    type=click.IntRange(min=1),
    metavar="HZ",
    help="Sample rate of the audio that FILE takes; the page streams the microphone.  "
    "[default: 16000 if its input is called audio]",
)
@state_option(by_name)
@json_option
def web(
    file: str,
    output: str,
    golden: str | None,
    data: str | None,
    ort: str | None,
    sample_rate: int | None,
    states: dict[str, str],
    as_json: bool,
) -> None:
    """Package FILE for browsers and Node.

    FOLDER gets the model, lstm-onnx.mjs, which loads, runs and streams it, and index.html, which verifies it in the
    browser that opens it, times it, and streams the microphone to an audio model.
    """
    from ..deploy.web import deploy_web

    pairs = states or None
    inputs = first_record(file, data, pairs)
    result = deploy_web(file, output, golden=golden, ort=ort, sample_rate=sample_rate, states=pairs, inputs=inputs)
    report(result, as_json=as_json)
