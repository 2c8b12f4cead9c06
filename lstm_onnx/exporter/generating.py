"""An export that generates: the file of a step, repeated as `generation.make_generating` repeats any step."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from ..atomic_io import intermediate_file
from ..generation.convert import write_generating
from .module_options import ModuleOptions
from .targets import written_for
from .write import ExportResult


def write_loop(
    write_step: Callable[[str | os.PathLike[str]], ExportResult], options: ModuleOptions, path: str | os.PathLike[str]
) -> ExportResult:
    """Write a file that repeats a module's step.

    Args:
        write_step: writes the module's file to a path.
        options: how it is exported, with a `generation`.
        path: the file to write.

    Raises:
        LSTMOnnxError: see `export_module` and `make_generating`.
    """
    generation = options.generation
    assert generation is not None  # noqa: S101 - the caller's condition

    def write(target: str | os.PathLike[str]) -> ExportResult:
        with intermediate_file("step.onnx", target) as step:
            written = write_step(step)
            made = write_generating(step, target, generation)
        return replace(
            written,
            path=os.fspath(target),
            nodes=made.nodes,
            num_bytes=made.num_bytes,
            external_data=made.external_data,
            inputs=made.inputs,
            outputs=made.outputs,
            states=dict(made.states),
            notes=(*written.notes, str(made.proof)),
        )

    return written_for(options.export.target, write, path)
