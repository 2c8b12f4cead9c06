"""``lstm-onnx run --engine ray``."""

from __future__ import annotations

import os
import secrets

import click

from .options import note, progress_bar


def run_on_ray(
    file: str,
    data: str | None,
    output: str | None,
    address: str | None,
    columns: list[str] | None,
    chunk: int | None,
    states: dict[str, str],
    provider: str,
    threads: int | None,
) -> None:
    """Run a data set on a Ray cluster, and write a folder."""
    if data is None or data == "-":
        raise click.UsageError("--engine ray runs a .parquet file or a folder of them; name one as DATA")
    if output is None or output == "-":
        raise click.UsageError("--engine ray writes a folder; name one with -o")
    from ..ray import map as map_dataset

    if address is None and "RAY_ADDRESS" not in os.environ:
        _ask_for_a_token()
    with progress_bar() as show:
        result = map_dataset(
            file,
            data,
            output,
            address=address,
            columns=columns,
            chunk=chunk,
            states=states or None,
            provider=provider,
            threads=threads or 1,
            on_note=lambda text: note(f"note: {text}"),
            progress=show,
        )
    kept = f", {result.kept} of them kept of an earlier run" if result.kept else ""
    note(f"wrote {result.out}: {result.rows} rows in {result.parts} files{kept}")


def _ask_for_a_token() -> None:
    """Make this command's cluster require a token, since Ray listens on every interface whatever its options."""
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
