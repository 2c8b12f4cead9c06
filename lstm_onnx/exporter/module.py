"""Export of any module that contains a recurrent one: trace it, lower its graph, try the file, write it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from ..errors import ExportError
from ..generation.convert import write_generating
from ..generation_spec import Generation
from ..metadata import Metadata
from ..onnxgraph.write import require_model_path
from ..symbolic_dims import is_expression, names_in, with_names
from .call.arguments import Arguments, size_notes
from .copies.caller_state import caller_state_kept, one_thread_if_small
from .functional.axis_advice import folded_advice, left_out_axes
from .functional.dynamic_axes import (
    all_axes,
    dynamic_shapes_text,
    find_dynamic_axes,
    is_batch,
    is_other_axis,
    without_axes,
)
from .functional.functional_module import (
    FixedSizeError,
    FunctionalModule,
    OtherSizesFailError,
    PartsError,
    Tensors,
    trace_sizes,
)
from .functional.make_functional import make_functional
from .functional.recurrent_calls import require_constant_weights
from .functional.resized_example import StepsInStateError, require_steps_apart, resize_example
from .functional.two_calls import held_in_two_calls
from .loops.detect import looped_axes, may_be_static
from .loops.lengths import lengths_to_try
from .loops.roll import RolledUp, rolled_up
from .loops.states import expose_loop_states, looped_calls
from .lowering.carried_states import carried_states
from .lowering.explicit_states import ExposedStates, expose_states, remove_unread_states
from .lowering.lower import OpaqueCall, batch_axis, exchanged_axes, lower_bodies, lower_calls, opaque_calls
from .lowering.opset_downgrade import downgrade_opset
from .lowering.rename import TracedGraph, rename, require_separate_names
from .module_metadata import module_metadata
from .module_options import ModuleOptions
from .result import BuiltModel, ExportResult
from .targets import intermediate_file, written_for
from .tracing.size_decisions import axis_names
from .tracing.torch_export import CHECK_NOTE, Traced, trace
from .trials.graph_axes import require_all_outputs, require_dynamic_outputs, require_separate_axes
from .trials.limits import requested_limits
from .trials.run import run_trials
from .trials.stream_trial import without_states
from .trials.streaming import with_caches
from .write import in_order_of_use, make_model, write_export

TRAINING_NOTE = (
    "the module is in training mode and was exported in eval mode, without dropout and with batch norm's running "
    "statistics; call module.eval() first to compare it with the file"
)
PARTIAL_TRAINING_NOTE = (
    "in training mode within a module in eval mode, and exported in eval mode, without dropout and with batch norm's "
    "running statistics"
)


def export_module(
    module: nn.Module, arguments: Arguments, options: ModuleOptions, path: str | os.PathLike[str]
) -> ExportResult:
    """Write a module to an ONNX file or, with a `generation`, one that repeats its step.

    Raises:
        ConfigError: the options do not go together.
        ExportError: the module, or something in it, has no form in ONNX; or the file is wrong at other
            shapes, and was not kept.
        WeightsError: a projection cannot be folded.
        FileError: `path` cannot be written.
    """
    options.require_explicit()
    require_model_path(path)
    if options.generation is not None:
        step = replace(options, generation=None)
        repeat = partial(_write_loop, lambda file: export_module(module, arguments, step, file), options.generation)
        return written_for(options.export.target, repeat, path)
    with caller_state_kept(), one_thread_if_small(module):
        functional = make_functional(module, arguments, output_names=options.output_names)
        require_constant_weights(functional)
        build = _build_with_found_axes if arguments.guessed else _build_at_trace_sizes
        built = build(functional, type(module).__name__, options).noted(*size_notes(arguments))
    if module.training:
        built = built.noted(TRAINING_NOTE)
    elif training := [path for path, part in module.named_modules() if part.training]:
        built = built.noted(f"{', '.join(training)}: {PARTIAL_TRAINING_NOTE}")
    # Those of the module itself: the copy's LSTMs may hold weights that a parametrization computed.
    parameters = sum(parameter.numel() for parameter in module.parameters())
    built = replace(built, initializers=in_order_of_use(built.model, built.initializers))
    return write_export(built, path, parameters=parameters)


def _write_loop(
    write_step: Callable[[Path], ExportResult], generation: Generation, path: str | os.PathLike[str]
) -> ExportResult:
    """Write a file that repeats the step that `write_step` writes, as `make_generating` repeats any step."""
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


def _build_with_found_axes(functional: FunctionalModule, name: str, options: ModuleOptions) -> BuiltModel:
    """As `_build_at_trace_sizes`, with the dynamic axes that the module shows; those that tracing fixes become static.

    Batch and time stay dynamic, or the export is refused: nobody expects a file for a single length.
    """
    arguments = find_dynamic_axes(functional)
    tried = dynamic_shapes_text(arguments)
    problem: FixedSizeError | None = None
    while True:
        try:
            built = _build_at_trace_sizes(replace(functional, arguments=arguments), name, options)
            single = _single_steps(functional, arguments, built)
            if single:
                with contextlib.suppress(ExportError):
                    fewer = without_axes(arguments, single)
                    other = _build_at_trace_sizes(replace(functional, arguments=fewer), name, options)
                    if other.metadata.states and not other.metadata.not_streamable:
                        built, arguments = other, fewer
        except StepsInStateError as error:
            arguments = without_axes(arguments, error.axes)
        except FixedSizeError as error:
            others = {axis for axis in error.axes or all_axes(arguments) if is_other_axis(arguments, axis)}
            problem = problem or error
            if not others:
                advice = folded_advice(replace(functional, arguments=arguments))
                raise ExportError(f"{problem}; dynamic_shapes was not given, and {tried} was tried{advice}") from None
            arguments = without_axes(arguments, others)
        else:
            note = f"dynamic_shapes was not given; the dynamic axes are dynamic_shapes={dynamic_shapes_text(arguments)}"
            return replace(built, notes=(note, *built.notes))


def _single_steps(functional: FunctionalModule, arguments: Arguments, built: BuiltModel) -> set[tuple[str, int]]:
    """The axes other than the batch of which the example has one entry, where more cannot be streamed.

    Of a file with attribute states: such a module is called once for each step, and longer calls may do something else.
    """
    if not built.metadata.not_streamable or functional.states.keys().isdisjoint(built.metadata.states):
        return set()
    tensors = functional.arguments.tensors
    return {
        axis for axis in all_axes(arguments) if not is_batch(arguments, axis) and tensors[axis[0]].shape[axis[1]] == 1
    }


def _build_at_trace_sizes(functional: FunctionalModule, name: str, options: ModuleOptions) -> BuiltModel:
    """As `_build`; where tracing fixes a size, at larger examples as well, which may leave it dynamic.

    At last where the file was wrong: after six strides of 2 no smaller size is more than 1.
    """
    problem: FixedSizeError | None = None
    for sizes in trace_sizes(functional):
        try:
            return _build(functional, name, sizes, options)
        except ExportError as error:
            if problem is not None:
                # The error at the example's own sizes says more, unless it is the trace's and a file was made here.
                made = not isinstance(error, OtherSizesFailError)
                if made and problem.axes and isinstance(error, FixedSizeError) and not error.axes:
                    problem = error
                continue
            if not isinstance(error, FixedSizeError):
                raise
            problem = error
    assert problem is not None  # noqa: S101 - the loop runs at least once
    if problem.unexplained is not None and problem.unexplained.keys() == functional.arguments.sizes.keys():
        clamp = functional.arguments.within
        with contextlib.suppress(ExportError):
            sizes = {label: clamp(label, max(size, 2)) for label, size in problem.unexplained.items()}
            return _build(functional, name, sizes, options)
    left_out = left_out_axes(functional)
    if left_out is not None:
        label, axes = left_out
        places = " and ".join(f"axis {axis} of {name}" for name, axis in axes)
        raise FixedSizeError(
            f"the module runs at other sizes of {label} only with {places} of the same size, which dynamic_shapes "
            f'leaves out; use the name "{label}" there, too'
        )
    raise problem


def _build(functional: FunctionalModule, name: str, sizes: Mapping[str, int], options: ModuleOptions) -> BuiltModel:
    """Trace at `sizes`, lower the graph, and try the file; a loop that was not rolled up may leave it right.

    Raises:
        ExportError: it is wrong; where there is such a loop, the error is about that.
    """
    require_steps_apart(functional)
    inputs, states = resize_example(functional, sizes)
    try:
        traced, rolled, refusal = _traced(functional, inputs, states, options.export.opset, sizes)
    except ExportError as error:
        problem = functional.stateful.number_problem
        if problem is None or isinstance(error, FixedSizeError):
            raise
        raise ExportError(f"{problem}; a number would become a tensor, but {error}") from error
    try:
        return _lowered(functional, name, inputs, traced, rolled, options)
    except FixedSizeError:
        if refusal is None:
            raise
        raise refusal from None


def _lowered(
    functional: FunctionalModule,
    name: str,
    inputs: Tensors,
    traced: Traced,
    rolled: RolledUp | None,
    options: ModuleOptions,
) -> BuiltModel:
    """The model of a trace, tried out."""
    require_all_outputs(len(traced.model.graph.outputs), functional)
    graph = rename(traced.model, functional, traced.state_axes)
    functional = _with_derived_axes(functional, graph)
    downgrade_opset(graph, options.export.opset)
    require_dynamic_outputs(graph, functional)
    require_separate_axes(graph, functional)
    remove_unread_states(graph, functional.outputs, functional.states)
    batch = batch_axis(graph)
    recurrent_modules = functional.recurrent_modules if rolled is None else rolled.recurrent_modules
    if rolled is not None:
        lower_bodies(graph, recurrent_modules, options.export)
    calls = opaque_calls(graph, recurrent_modules)
    # A subclass may write its equations out, for a number of steps that is fixed.
    unused = recurrent_modules and not any(item.own_forward for item in recurrent_modules.values())
    if unused and not calls and rolled is None:
        raise ExportError("no output of the module depends on its recurrent modules; there is nothing to export")
    explicit = options.states == "explicit"
    exchanged = exchanged_axes(graph, calls, explicit=explicit)
    if explicit and exchanged:
        raise ExportError(f"{exchanged}; a stream is cut along the time")
    carried = carried_states(graph, calls, partial(held_in_two_calls, functional))
    given = [*functional.states, *carried]
    exposed = _exposed(functional, graph, calls, rolled, inputs, given) if explicit else ExposedStates()
    require_separate_names(graph)
    metadata = module_metadata(functional, graph, calls, exposed, carried, options)
    metadata = replace(metadata, table_rows=traced.table_rows)
    facts = traced.facts.known_of(axis_names(metadata))
    limits = requested_limits(functional, metadata, facts)
    lower_calls(graph, calls, options.export, limits.guarded)
    graph.remove_unread_initializers()  # ONNX Runtime warns of them, such as of the 0 that Python's sum() begins with
    model = make_model(
        name,
        graph.nodes.nodes,
        [graph.value_info(value) for value in graph.inputs],
        [graph.value_info(value) for value in graph.outputs],
        options.export.opset,
    )
    built = BuiltModel(model, graph.nodes.initializers, metadata)
    built = run_trials(functional, graph, built, facts, limits, batch, check=options.check)
    if exchanged:
        built = built.noted(exchanged)
    if explicit and not built.metadata.states:
        built = without_states(graph, built, exposed.notes)
    if explicit and built.metadata.not_streamable:
        built = with_caches(graph, built, options)
    if built.metadata.not_streamable and not functional.states.keys().isdisjoint(built.metadata.states):
        built = replace(built, metadata=_with_fixed_chunks(built.metadata))
    if built.metadata.not_streamable:
        built = built.noted(f"the file cannot be streamed: {built.metadata.not_streamable}")
    notes = built.notes
    if built.metadata.streaming is not None:  # a chunk may have any number of steps
        notes = tuple(note.replace(" in the file: ", " in a whole sequence: ") for note in notes)
    return replace(built, notes=(*traced.notes, *exposed.notes, *notes))


def _with_fixed_chunks(metadata: Metadata) -> Metadata:
    """The reason why a file with attribute states does not stream, with the remedy: calls of one size do."""
    axes = ", ".join(metadata.time_axes) or "the time axis"
    mend = f"with {axes} left out of dynamic_shapes, chunks of as many steps as the example has can be streamed"
    return replace(metadata, not_streamable=f"{metadata.not_streamable}; {mend}")


def _traced(
    functional: FunctionalModule, inputs: Tensors, states: Tensors, opset: int, sizes: Mapping[str, int]
) -> tuple[Traced, RolledUp | None, ExportError | None]:
    """The module's trace; where Python loops go over an axis, that of the module with these rolled up.

    Returns:
        The trace, its loops, and why they were not rolled up, where a file of the trace may be right all the same.
    """
    loops = looped_axes(functional, sizes)
    refusal: ExportError | None = None
    if loops:
        try:
            rolled = rolled_up(functional, loops, sizes)
            if rolled is not None:
                return _traced_rolled(functional, inputs, states, opset, rolled), rolled, None
        except ExportError as error:
            refusal = error
    static = refusal is None or may_be_static(functional, loops)
    try:
        traced = trace(functional, inputs, states, opset)
    except FixedSizeError as error:
        unseen = _unseen_loops(functional, error) if not loops else []
        if unseen and (found := rolled_up(functional, unseen, sizes)) is not None:
            return _traced_rolled(functional, inputs, states, opset, found), found, None
        # Of a loop over a module that takes multiples of a block alone, the trace's own error says more.
        if static or refusal is None or isinstance(refusal, OtherSizesFailError) or isinstance(error, PartsError):
            raise
        raise refusal from None
    if refusal is not None and not static and _are_fixed(functional, traced, loops):
        raise refusal
    return traced, None, None if static else refusal


def _unseen_loops(functional: FunctionalModule, error: FixedSizeError) -> list[str]:
    """The names of fixed axes over which a loop may go in a branch of an ``if`` on a value, which no run has taken."""
    axes = functional.arguments.axes
    labels = dict.fromkeys(axes[name][axis] for name, axis in error.axes if axis in axes.get(name, {}))
    return [label for label in labels if label in functional.arguments.sizes] if functional.stateful.branched else []


def _are_fixed(functional: FunctionalModule, traced: Traced, labels: Collection[str]) -> bool:
    """Whether one of these axes has a single size in a trace, for all that torch did not say so."""
    axes = functional.arguments.axes.values()
    return any(
        label in labels and isinstance(value.shape[axis], int)
        for own, value in zip(axes, traced.model.graph.inputs, strict=False)
        for axis, label in own.items()
        if value.shape is not None
    )


def _traced_rolled(
    functional: FunctionalModule, inputs: Tensors, states: Tensors, opset: int, rolled: RolledUp
) -> Traced:
    traced = trace(functional, inputs, states, opset, rolled.module)
    names = list(functional.arguments.tensors)
    looped = tuple((names[number], axis) for number, axis in rolled.module.program.places)
    lengths = tuple(lengths_to_try(functional.stateful.inner))
    notes = tuple(f"{line}: {CHECK_NOTE}" for line in rolled.checks)
    return replace(traced, facts=replace(traced.facts, looped=looped, lengths=lengths), notes=notes)


def _exposed(
    functional: FunctionalModule,
    graph: TracedGraph,
    calls: list[OpaqueCall],
    rolled: RolledUp | None,
    inputs: Tensors,
    given: Collection[str],
) -> ExposedStates:
    """The states of recurrent modules, and what Python loops carry, as inputs and outputs of the graph; see `given`."""
    if rolled is None:
        return expose_states(graph, calls, given)
    tensors = list(inputs.values())
    looped = looped_calls(rolled, tensors, list(functional.recurrent_modules))
    exposed = expose_states(graph, calls, given, looped)
    exposed.loop_states += expose_loop_states(graph, rolled, tensors, exposed)
    return exposed


def _with_derived_axes(functional: FunctionalModule, graph: TracedGraph) -> FunctionalModule:
    """The module with the axes whose sizes the trace found to follow from others: ``4*time - 16``."""
    arguments = functional.arguments
    named = {
        dim: label
        for name, own in arguments.axes.items()
        for axis, label in own.items()
        if isinstance(dim := graph.dims[name][axis], str) and dim.isidentifier()
    }
    axes = {name: dict(own) for name, own in arguments.axes.items()}
    for name, own in axes.items():
        for axis in own:
            dim = graph.dims[name][axis]
            if isinstance(dim, str) and is_expression(dim) and names_in(dim) <= named.keys():
                own[axis] = with_names(dim, named)
    if axes == arguments.axes:
        return functional
    return replace(functional, arguments=replace(arguments, axes=axes))
