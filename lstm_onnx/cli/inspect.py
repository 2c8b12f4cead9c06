"""``lstm-onnx inspect``."""

from __future__ import annotations

from typing import Any

import click

from .options import data_option, first_record, json_option, say_json, state_option
from .params import FILE, by_name, option
from .streams import say

_LANGUAGES = ("python", "javascript", "csharp", "java", "cpp", "rust")
"""The languages of `inspect.code`, which is imported only when it is used."""


@click.command()
@click.argument("file", type=FILE)
@option(
    "--code",
    "language",
    type=click.Choice(_LANGUAGES),
    help="Print a program that streams FILE with only ONNX Runtime, and checks the first outputs.",
)
@data_option("With --code, inputs whose sizes and integers the program uses")
@state_option(by_name)
@json_option
def inspect(file: str, language: str | None, data: str | None, states: dict[str, str], as_json: bool) -> None:
    """Show the recurrent layers of any ONNX FILE.

    Prints their sizes, states, parameters, bytes and FLOPs per time step.
    """
    if language is not None:
        from ..inspect.code import program

        text = program(file, language, first_record(file, data, states or None), states or None)
        _show({"language": language, "program": text}, text.rstrip("\n"), as_json=as_json)
        return
    if data is not None or states:
        raise click.UsageError(f"--{'state' if states else 'data'} is for --code, but that was not given")
    from ..atomic_io import require_readable
    from ..errors import ModelError
    from ..isolation.limits import Limits
    from ..isolation.process import Child, EndedError

    require_readable(file, "an .onnx file")
    with Child() as child:
        try:
            description = child.call("lstm_onnx.inspect.file:inspect_for_parent", {"path": file}, Limits.of(file))
        except EndedError as ended:
            raise ModelError(f"{file}: the child process that read it {ended}") from ended
    _show(**description, as_json=as_json)


def _show(fields: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(fields)
    else:
        say(text)
