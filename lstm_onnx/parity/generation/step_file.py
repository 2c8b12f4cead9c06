"""Verifies a generating file with smaller weights against its step's own file in a Python loop.

The step's file is exported again from the PyTorch model in the same precision and verified like any such file.  What
remains to be proven is the loop: every token must be equal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ModelError
from ...exporter.sources.source import ModuleSource
from ...generation.python_loop import Arrays
from ...runtime import Model
from ...runtime.chunk_check import rounded
from ..converted.source import export_again
from ..expected import as_float64
from ..report import ParityReport
from .verification import GenerationVerification, generation_of, view_of_step


def export_step(
    source: Any, model: Model, path: str | os.PathLike[str], *, example_inputs: Any = None, seed: int = 0
) -> None:
    """Write the file of the step that a generating file repeats, in the same precision.

    Args:
        source: the nn.Module, or a source that was loaded.
        model: the generating file, open.
        path: the file to write.
        example_inputs: for an nn.Module, as in `verify`.
        seed: of inputs that are drawn to trace a module.

    Raises:
        ModelError: the step was not exported by lstm-onnx.
        ExportError, ConfigError: the source cannot be exported so.
    """
    options = model.metadata.options
    if options is None:
        raise ModelError(
            "repeats a step of a file that lstm-onnx did not export, so it cannot be exported again",
            path=model.path,
            hint="verify the step's own file against its float32 file; make_generating compared the two when it wrote "
            "this one",
        )
    if isinstance(source, ModuleSource):
        step = replace(source.options, export=options, states="explicit", generation=None)
        replace(source, options=step).export(path)
        return
    export_again(source, view_of_step(model), path, example_inputs, seed, export=options, states="explicit")


class _StepRun:
    """A step's file as the step of a Python loop, which computes in float64 around it."""

    largest_cell = 1.0

    def __init__(self, step: Model, *, moved: bool) -> None:
        self.step, self.moved = step, moved

    def __call__(self, arrays: Arrays) -> Mapping[str, np.ndarray]:
        given = {name: np.asarray(array, self.step.inputs[name].dtype) for name, array in arrays.items()}
        return as_float64(self.step.run(rounded(given) if self.moved else given))


def step_loop(
    model: Model, step: Model, source: Any, *, seed: int = 0, data: Sequence[Mapping[str, Any]] = ()
) -> GenerationVerification:
    """The verification of a generating file against the file of its step.

    Args:
        model: the generating file, open.
        step: the step's file, open.
        source: the PyTorch model that the step was exported from.
        seed: of the random prompts, states and noise.
        data: inputs to compare in addition to the random ones, by the file's input names.

    Raises:
        ModelError: the step does not have the inputs and outputs that the file describes.
    """
    described = generation_of(model)
    missing = {*described.outputs, *described.generation.states.values()} - set(step.outputs)
    missing |= set(model.states) - set(step.inputs)
    if missing:
        raise ModelError(
            f"repeats a step with {', '.join(sorted(missing))}, which a fresh export of this model does not have",
            path=model.path,
            hint="is it this model's file?",
        )
    # A step with inputs off by a rounding shows how far rounding can move a choice.
    runs = (_StepRun(step, moved=True), _StepRun(step, moved=False))
    states = model.states
    return GenerationVerification(
        model, source, *runs, dtype="float32", argument_states=list(states), own_states=states, seed=seed, data=data
    )


def joined_report(step: ParityReport, loop: ParityReport) -> ParityReport:
    """The report on a generating file: that on its step's file, and that on its loop."""
    return replace(
        loop,
        cases=(*(replace(case, label=f"the step: {case.label}") for case in step.cases), *loop.cases),
        location=(step.location and replace(step.location, case=f"the step: {step.location.case}")) or loop.location,
        causes=(*step.causes, *loop.causes),
        mutants=(*step.mutants, *loop.mutants),
        notes=tuple(dict.fromkeys((*step.notes, *loop.notes))),
        precision=step.precision,
        drift=step.drift,
    )
