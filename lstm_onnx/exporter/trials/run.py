"""Runs all trials of an exported file: at other shapes, in chunks, and row by row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from onnx import ModelProto, TensorShapeProto

from ...errors import ExportError, ModelError
from ...metadata import Metadata
from ...runtime import Model
from ...symbolic_dims import size_of
from ..functional.call_with_states import call_with_states
from ..functional.functional_module import FunctionalModule
from ..lowering.rename import TracedGraph
from ..result import BuiltModel
from ..tracing.size_decisions import SizeFacts
from ..write import float64_notes, rank_notes
from .axis_limits import run_shape_trial
from .limits import Limits
from .row_choices import chooses_by_a_number, rows_chosen
from .shape_trial import ShapeTrial, Sizes, written_for_trial
from .stream_trial import StreamTrialResult, find_time_axis, run_stream_trial, with_stream_facts


def run_trials(
    functional: FunctionalModule,
    graph: TracedGraph,
    built: BuiltModel,
    facts: SizeFacts,
    limits: Limits,
    batch: str,
    *,
    check: bool,
) -> BuiltModel:
    """Run a file beside its module.

    Args:
        functional: the module.
        graph: the lowered graph.
        built: the file, whose model's metadata is set.
        facts: the decisions that tracing made about sizes.
        limits: the requested limits of the axes, which the trial narrows.
        batch: the name of the batch axis.
        check: False skips everything that runs the file.

    Returns:
        The file, with notes for the user, and with metadata that says what was found about axes, streams and batches.

    Raises:
        ExportError: the file is wrong at sizes that no limit excludes.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    time = find_time_axis(built, graph) if built.metadata.states else None
    # The trials run on ONNX Runtime's CPU provider, which has no recurrent operators in float64.
    unrunnable = float64_notes(graph.nodes.nodes, graph.nodes.initializers)
    opened = _open(built, graph.lines) if check and not unrunnable else None
    notes = limits.notes
    if opened is not None:
        chooses = chooses_by_a_number(built.model, graph)
        trial = ShapeTrial(opened, functional, facts, limits.guarded, chooses=chooses)
        notes = run_shape_trial(trial, limits)
        declare_true_shapes(built.model, trial.shapes)
        notes += rank_notes(built.model.graph.output)
        if (note := trial.short_lengths_note()) is not None:
            notes += (note,)
    else:
        notes += tuple(f"the file was not tested: {note}" if check else note for note in unrunnable)
    metadata = replace(built.metadata, axis_limits=limits.axis_limits, size_boundaries=limits.boundaries)
    result = StreamTrialResult()
    if opened is not None:
        result = run_stream_trial(opened, metadata, time, partial(_run_module, functional, metadata), batch)
        if result.rows is not None:  # the condition's line says more than the difference
            result = replace(result, rows=rows_chosen(built, metadata, graph, batch) or result.rows)
    metadata = with_stream_facts(metadata, time, result, graph.lines)
    if metadata.batch_mixes:
        notes += (f"the sequences of a batch are not independent: {metadata.batch_mixes}",)
    return replace(built, metadata=metadata, notes=notes)


def _run_module(
    functional: FunctionalModule, metadata: Metadata, feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The module's outputs for arrays, by the names of the file's inputs and states."""
    device = next(iter(functional.arguments.tensors.values())).device
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in feeds.items()}
    own = {name: tensors.pop(name) for name in functional.arguments.tensors}
    return {name: tensor.cpu().numpy() for name, tensor in call_with_states(functional, metadata, own, tensors).items()}


def declare_true_shapes(model: ModelProto, shapes: Mapping[str, Collection[tuple[tuple[int, ...], Sizes]]]) -> None:
    """Change declared shapes of outputs that differ from those of the trial.

    The trace declares the size of ``x[-4:]`` as 4, even if the axis is shorter, and the rank of ``x.squeeze()`` as that
    of the example.  A mask of ``(batch, time)`` times ``x.squeeze()`` gives ``(batch, batch)`` if time is 1.

    Args:
        model: changed in place.
        shapes: of each output, with the sizes of the axes at which it had them.
    """
    for output in model.graph.output:
        found = shapes.get(output.name, ())
        shape = output.type.tensor_type.shape
        if any(len(each) != len(shape.dim) for each, _ in found):
            output.type.tensor_type.ClearField("shape")
            continue
        for axis, dim in enumerate(shape.dim):
            if any(_declared(dim, sizes) not in (None, each[axis]) for each, sizes in found):
                dim.dim_param = f"{output.name}_{axis}".replace(".", "_")


def _declared(dim: TensorShapeProto.Dimension, sizes: Sizes) -> int | None:
    """The declared size of an output's axis at these sizes of the axes; None where it does not follow from them."""
    return dim.dim_value if dim.HasField("dim_value") else size_of(dim.dim_param, sizes)


def _open(built: BuiltModel, lines: Mapping[str, str]) -> Model:
    try:
        return written_for_trial(built)
    except ModelError as error:  # without its path, which is that of a temporary file
        line = next((line for node, line in lines.items() if f"({node})" in error.message), None)
        at = f"at {line}: " if line else ""
        raise ExportError(f"{at}the exported file of {built.model.graph.name} is not valid: {error.reason}") from error
