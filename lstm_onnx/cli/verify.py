"""``lstm-onnx verify``."""

from __future__ import annotations

import click

from .options import json_option, progress, provider_options, report


@click.command()
@click.argument("source")
@click.argument("file", required=False)
@provider_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the inputs that are drawn.")
@json_option
def verify(source: str, file: str | None, provider: str, threads: int | None, seed: int, as_json: bool) -> int:
    """Compare FILE with the PyTorch model SOURCE; without FILE, with a fresh export of it."""
    import tempfile
    from pathlib import Path

    from ..errors import EXIT_FAILED
    from ..exporter.checkpoint import import_torch
    from ..exporter.source import LSTMSource, load_source
    from ..runtime import load

    model_source = load_source(source)
    import_torch("verify compares with it")
    from .. import parity

    with tempfile.TemporaryDirectory(prefix="lstm-onnx-", ignore_cleanup_errors=True) as folder:
        if file is None:
            name = str(Path(folder) / "model.onnx")
            model_source.export(name, check=False)
        model = load(file or name, provider=provider, threads=threads)
        inputs = () if isinstance(model_source, LSTMSource) else model_source.inputs
        verification = parity.verification_of(model, model_source.module(), seed=seed, inputs=inputs)
        with progress(verification.results(), "verifying", verification.planned) as results:
            found = list(results)
        if model_source.options.lengths and "lengths" not in model.inputs:
            found.append(
                parity.CaseResult("lengths", error=f"{source} asks for the input lengths, and the file has none")
            )
        result = parity.make_report(verification, found, source=source, file=file or "a fresh export")
    report(result, as_json=as_json)
    return 0 if result else EXIT_FAILED
