"""Any module that contains an LSTM, as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper
from torch import nn

from .. import __version__
from ..atomic_io import temporary_folder
from ..errors import ConfigError, ExportError, ProviderError
from ..input_spec import InputSpec
from ..metadata import Metadata, Origin
from ..spec import ExportOptions
from .bare_lstm import ExportResult
from .lowering.lower import Lifted, Opaque, carried_states, lift_states, opaque_calls, splice
from .lowering.opset_downgrade import lower
from .lowering.rename import Dims, TracedGraph, named
from .tracing.arguments import Arguments
from .tracing.functional import FixedSizeError, Prepared, example_sizes, prepare, resized
from .tracing.open_axes import dynamic_shapes_text, is_extra, open_axes, without
from .tracing.torch_export import ONE_AT_A_TIME, trace
from .trials import stream_trial as streams
from .trials.axis_limits import Limits, asked_limits, try_out
from .trials.shape_trial import Trial
from .trials.size_decisions import SizeFacts, axis_names
from .weights import Array, digest
from .write import write_model

STATES = ("zero", "explicit")
_REORDERED = ("Cast", "Identity", "Gather", "TopK")
"""What may stand between an input that is lengths and the operator: modules that sort their sequences themselves."""


@dataclass(frozen=True)
class ModuleOptions:
    """How a module is exported.

    `states` is "zero" or "explicit"; `outputs` names the results; `ranges` describes the inputs in
    the place of what the examples show; `check` runs the file at other shapes before it is kept.
    """

    options: ExportOptions
    states: str = "zero"
    outputs: tuple[str, ...] | None = None
    ranges: tuple[InputSpec, ...] | None = None
    check: bool = True

    def __post_init__(self) -> None:
        """Refuse what is not possible."""
        if self.states not in STATES:
            raise ConfigError(f'states = {self.states!r} is not possible; it must be "zero" or "explicit"')


def export_module(
    module: nn.Module, arguments: Arguments, options: ModuleOptions, path: str | os.PathLike[str]
) -> ExportResult:
    """Write a module to `path`.

    Raises:
        ExportError: the module, or something in it, has no form in ONNX; or the file that came out is
            not right at other shapes, and was not kept.
        WeightsError: a projection cannot be folded.
        FileError: `path` cannot be written.
    """
    with ONE_AT_A_TIME:
        prepared = prepare(module, arguments, output_names=options.outputs)
        make = _made_with_open_axes if arguments.guessed else _made_at_some_size
        model, initializers, metadata, notes = make(prepared, type(module).__name__, options)
    external, num_bytes = write_model(model, initializers, path)
    return ExportResult(
        path=os.fspath(path),
        spec=None,
        options=options.options,
        nodes=len(model.graph.node),
        parameters=sum(array.size for array in initializers.values() if array.dtype.kind == "f"),
        num_bytes=num_bytes,
        digest=str(metadata.digest),
        external_data=external,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        states=dict(metadata.states),
        notes=notes,
    )


_Made = tuple[ModelProto, dict[str, np.ndarray], Metadata, tuple[str, ...]]


def _made_with_open_axes(prepared: Prepared, name: str, options: ModuleOptions) -> _Made:
    """As `_made_at_some_size`, with the open axes that the module shows; one that comes out fixed is not opened.

    Batch and time stay open, or it is refused: a file for a single length is not what anybody expects.
    """
    arguments = open_axes(prepared)
    while True:
        try:
            made = _made_at_some_size(replace(prepared, arguments=arguments), name, options)
        except FixedSizeError as error:
            extra = {axis for axis in error.axes if is_extra(arguments, axis)}
            if not extra:
                raise
            arguments = without(arguments, extra)
        else:
            note = f"dynamic_shapes was not given; the open axes are dynamic_shapes={dynamic_shapes_text(arguments)}"
            return *made[:3], (note, *made[3])


def _made_at_some_size(prepared: Prepared, name: str, options: ModuleOptions) -> _Made:
    """As `_made`; where a size comes out fixed, that may be for want of a larger example."""
    problem: FixedSizeError | None = None
    for sizes in example_sizes(prepared):
        try:
            return _made(prepared, name, sizes, options)
        except ExportError as error:
            if problem is not None:
                continue  # what was wrong at the example's own sizes says more
            if not isinstance(error, FixedSizeError):
                raise
            problem = error
    assert problem is not None  # noqa: S101 - the loop runs at least once
    raise problem


def _made(prepared: Prepared, name: str, sizes: Mapping[str, int], options: ModuleOptions) -> _Made:
    """The model, traced at `sizes` and tried out; its initializers, its metadata, and notes."""
    inputs, states = resized(prepared, sizes)
    traced = trace(prepared, inputs, states, options.options.opset)
    graph = named(traced.model, prepared)
    lower(graph, options.options.opset)
    _require_open_outputs(graph, prepared)
    _require_separate(graph, prepared)
    calls = opaque_calls(graph, prepared.sites)
    if not calls:
        raise ExportError("no output of the module depends on its recurrent modules; there is nothing to export")
    lifted = lift_states(graph, calls, prepared.states) if options.states == "explicit" else Lifted()
    metadata = _story(prepared, graph, calls, lifted, options)
    facts = traced.facts.known_of(axis_names(metadata))
    limits = asked_limits(prepared, metadata, facts)
    splice(graph, calls, options.options, limits.guarded)
    model = _model(graph, name, options.options, metadata)
    time = streams.time_axis(model, graph.nodes.initializers, graph, metadata) if metadata.states else None
    notes = tuple(lifted.notes)
    shown = streams.Tried()
    with temporary_folder() as folder:
        path = folder / "trial.onnx"
        if options.check:
            write_model(model, graph.nodes.initializers, path)
            notes += _tried_out(path, prepared, metadata, facts, limits)
        else:
            notes += limits.notes
        metadata = replace(metadata, axis_limits=limits.axis_limits, size_boundaries=limits.boundaries)
        if options.check:
            shown = streams.tried(path, metadata, time)
    metadata = streams.told(metadata, time, shown, graph.lines)
    if metadata.not_streamable:
        notes += (f"the file cannot be streamed: {metadata.not_streamable}",)
    if metadata.batch_mixes:
        notes += (f"the sequences of a batch are not independent: {metadata.batch_mixes}",)
    helper.set_model_props(model, metadata.to_metadata())
    return model, graph.nodes.initializers, metadata, notes


def _tried_out(path: Path, prepared: Prepared, metadata: Metadata, facts: SizeFacts, limits: Limits) -> tuple[str, ...]:
    """Run a file at other shapes; narrows `limits`, and returns notes."""
    try:
        trial = Trial(path, prepared, metadata, facts, limits.guarded)
    except ProviderError as error:
        return (*limits.notes, f"the file was not tried out: {error}")
    return try_out(trial, limits)


def _require_open_outputs(graph: TracedGraph, prepared: Prepared) -> None:
    """Hold the traced outputs' sizes to those of the module at other sizes; see also `try_out`.

    Raises:
        FixedSizeError: an output's size is a number in the graph, and another one in the module.
    """
    within = prepared.arguments.within
    larger = {name: within(name, 2 * size + 1) for name, size in prepared.arguments.sizes.items()}
    try:
        inputs, states = resized(prepared, larger)
        outputs, after = prepared.run(inputs, states)
    except ExportError:
        return  # it does not run at these sizes, and those at which it does are tried out later
    for name, tensor in {**outputs, **after}.items():
        for axis, (dim, size) in enumerate(zip(graph.dims[name], tensor.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                at = ", ".join(f"{label} {value}" for label, value in larger.items())
                raise FixedSizeError(
                    f"axis {axis} of the output {name} is always {dim} in the graph, and {size} in the module at {at}; "
                    "something in the module freezes a size: a Python loop, or a number in view or expand"
                )


def _require_separate(graph: TracedGraph, prepared: Prepared) -> None:
    """Refuse that two axes of different names are one in the graph, where the module takes them of different sizes.

    Raises:
        FixedSizeError: they are, as the module's code compares them, and they were alike in the trace.
    """
    found: dict[str, str] = {}
    for key, axes in prepared.arguments.axes.items():
        for axis, label in axes.items():
            dim = graph.dims[key][axis]
            if isinstance(dim, str) and label not in prepared.arguments.unnamed:
                first = found.setdefault(dim, label)
                if first != label and _runs_apart(prepared, label):
                    raise FixedSizeError(
                        f"{first} and {label} are one size in the graph, and the module takes two: its code compares "
                        "them, or leaves open which of both an output has; give an example in which they differ"
                    )


def _runs_apart(prepared: Prepared, label: str) -> bool:
    """Whether the module runs where one axis alone is longer, or shorter."""
    sizes, within = prepared.arguments.sizes, prepared.arguments.within
    own = sizes[label]
    for size in {within(label, own + 1), within(label, own - 1), within(label, 2 * own + 1)} - {own}:
        try:
            resized(prepared, {**sizes, label: size})  # which runs it
        except ExportError:
            continue
        return True
    return False


def _story(
    prepared: Prepared, graph: TracedGraph, calls: list[Opaque], lifted: Lifted, options: ModuleOptions
) -> Metadata:
    """Pairs of states, and drop those attributes that the forward writes and never reads."""
    used = {name for node in graph.nodes.nodes for name in node.input}
    states = {}
    for name, after in prepared.states.items():
        if name in used:
            states[name] = after
            graph.dims[name] = _fed_back(graph.dims[name], graph.dims[after])
            continue
        graph.inputs.remove(name)
        graph.outputs.remove(after)
    carried = carried_states(graph, calls)
    states |= lifted.states | {
        name: after for name, after in carried.items() if name not in states and name not in lifted.states
    }
    initial = dict(lifted.initial)
    for slot in prepared.slots:
        for name, tensor in zip(slot.names, slot.initial or (), strict=False):
            if name in states and bool(tensor.any()):
                initial[name] = _alike(tensor.detach().cpu().numpy(), graph.dims[name])
    return Metadata(
        options=options.options,
        states=states,
        versions={"lstm_onnx": __version__, "onnx": onnx.__version__, "torch": torch.__version__.split("+")[0]},
        digest=parameter_digest(prepared),
        inputs=_inputs(prepared.arguments, graph, calls, options.ranges),
        initial=initial,
        origins={name: Origin(*source) for name, source in lifted.sources.items()},
    )


def _fed_back(dims: Dims, after: Dims) -> Dims:
    """A state's axes: open only where those of the output that feeds it are; a cache of two steps has two."""
    if len(dims) != len(after):
        return dims
    return tuple(end if isinstance(end, int) else dim for dim, end in zip(dims, after, strict=True))


def _alike(array: Array, dims: tuple[int | str, ...]) -> Array:
    """One entry along an open axis where all entries are the same, so that it serves every size."""
    for axis, dim in enumerate(dims):
        if isinstance(dim, str):
            first = np.take(array, [0], axis=axis)
            if np.array_equal(array, np.broadcast_to(first, array.shape)):
                array = first
    return array


def parameter_digest(prepared: Prepared) -> str:
    """What identifies a module's weights: its parameters and buffers, but for those that hold state."""
    held = {f"{slot.path}.{slot.attribute}".removeprefix(".") for slot in prepared.slots}
    return digest(
        {
            name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()
            for name, tensor in prepared.stateful.inner.state_dict().items()
            if isinstance(tensor, torch.Tensor) and name not in held
        }
    )


def _inputs(
    arguments: Arguments, graph: TracedGraph, calls: list[Opaque], ranges: tuple[InputSpec, ...] | None
) -> tuple[InputSpec, ...]:
    """The inputs under the axes' final names; lengths run from 1 to their sequences' time."""
    found = {spec.name: spec for spec in ranges or arguments.specs()}
    lengths = _length_axes(graph, calls)
    specs = []
    for name, spec in found.items():
        made = replace(spec, shape=tuple(dim if dim != "" else size for dim, size in _dims(graph, spec)))
        if ranges is None and name in lengths:
            made = replace(made, low=1, high=lengths[name])
        specs.append(made)
    return tuple(specs)


def _dims(graph: TracedGraph, spec: InputSpec) -> list[tuple[Any, Any]]:
    return list(zip(graph.dims[spec.name], spec.shape, strict=True))


def _length_axes(graph: TracedGraph, calls: list[Opaque]) -> dict[str, str]:
    """Inputs that are lengths, and the name of the axis that they count along."""
    producers: Mapping[str, Any] = {output: node for node in graph.nodes.nodes for output in node.output}
    found: dict[str, str] = {}
    for call in calls:
        value = call.value(3)
        while value in producers and producers[value].op_type in _REORDERED:
            value = producers[value].input[0]
        dims = graph.dims.get(call.value(0), ())
        time = dims[1 if call.batch_first else 0] if dims else 1
        if value in graph.inputs and isinstance(time, str) and time.isidentifier():
            found[value] = time
    return found


def _model(graph: TracedGraph, name: str, options: ExportOptions, metadata: Metadata) -> ModelProto:
    """The model without its initializers."""
    opsets = [helper.make_opsetid("", options.opset)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes.nodes,
            name,
            [graph.value_info(value) for value in graph.inputs],
            [graph.value_info(value) for value in graph.outputs],
        ),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="lstm-onnx",
        producer_version=__version__,
    )
    helper.set_model_props(model, metadata.to_metadata())
    return model
