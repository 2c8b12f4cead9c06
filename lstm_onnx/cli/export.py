"""``lstm-onnx export``."""

from __future__ import annotations

import click

from .options import json_option, note
from .streams import say


@click.command()
@click.argument("source")
@click.option("-o", "--output", metavar="FILE", help="The file to write.  [default: SOURCE's name with .onnx]")
@click.option("--lengths/--no-lengths", default=None, help="Add the input `lengths`.  [default: as SOURCE says]")
@click.option("--projection", type=click.Choice(["scan", "fold"]), help="How proj_size is lowered.")
@click.option("--opset", type=int, help="ONNX opset, 14 to 23.  [default: as SOURCE says, else 18]")
@click.option(
    "--states", type=click.Choice(["zero", "explicit"]), help="Of a module: keep LSTM states in, or lift them."
)
@click.option("--check/--no-check", default=True, help="Of a module: try the file at other shapes first.")
@json_option
def export(
    source: str,
    output: str | None,
    lengths: bool | None,
    projection: str | None,
    opset: int | None,
    states: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Write SOURCE, a model's .toml or package.module:callable, to an ONNX file."""
    from pathlib import Path

    from ..atomic_io import is_stdout, require_apart, require_utf8, require_writable
    from ..exporter.sources.source import load_source, source_files
    from ..terminal_text import json_text, one_line

    is_file = source.lower().endswith(".toml")
    stem = Path(source).stem if is_file else source.rpartition(":")[2].rpartition(".")[2]
    target = f"{stem}.onnx" if output is None else output
    if Path(target).suffix.lower() in (".toml", ".safetensors", ".pt", ".pth", ".py"):
        raise click.UsageError(f"-o {target} names no ONNX file, and could overwrite what is exported; end it in .onnx")
    require_utf8(target)
    require_writable(target)
    require_apart([target], source_files(source))
    model = load_source(source).with_options(lengths=lengths, projection=projection, opset=opset, states=states)
    result = model.export(target, check=check)
    for remark in result.notes:
        note(f"note: {remark}")
    tell = note if is_stdout(target) else say  # nothing may stand behind the model
    if as_json:
        tell(json_text(result.to_dict()))
        return
    nodes = "1 node" if result.nodes == 1 else f"{result.nodes} nodes"
    tell(f"{one_line(result.path)}: {nodes}, {result.parameters:,} parameters, {result.num_bytes:,} bytes")
    if result.external_data:
        note(f"the weights are over 2 GB and stand beside it in {result.external_data}; keep the two together")
