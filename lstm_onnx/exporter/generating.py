"""An export that generates: the step's file, as `generation.make_generating` repeats any."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from ..generation.convert import write_generating
from ..generation_spec import Generation
from ..spec import ExportOptions
from .intermediate_file import intermediate_file
from .targets import written_for
from .write import ExportResult, require_output_path


def write_step_or_loop(
    write_step: Callable[[str | os.PathLike[str]], ExportResult],
    generation: Generation | None,
    options: ExportOptions,
    path: str | os.PathLike[str],
) -> ExportResult:
    """Write a module's file or, with a `generation`, one that repeats its step.

    Args:
        write_step: writes the module's file to a path.
        generation: how it is repeated; None where it is not.
        options: how the module's file is written.
        path: the file to write.

    Raises:
        LSTMOnnxError: see `export_module` and `make_generating`.
    """
    if generation is None:
        return write_step(path)
    require_output_path(path)
    return written_for(options.target, lambda target: _write_loop(write_step, generation, target), path)


def _write_loop(
    write_step: Callable[[str | os.PathLike[str]], ExportResult],
    generation: Generation,
    path: str | os.PathLike[str],
) -> ExportResult:
    with intermediate_file("step.onnx", path) as step:
        written = write_step(step)
        made = write_generating(step, path, generation)
    return replace(
        written,
        path=os.fspath(path),
        nodes=made.nodes,
        num_bytes=made.num_bytes,
        external_data=made.external_data,
        inputs=made.inputs,
        outputs=made.outputs,
        states=dict(made.states),
        notes=(*written.notes, str(made.proof)),
    )
