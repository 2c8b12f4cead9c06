"""Traces with torch.export and translates with torch.onnx, with opaque operators for recurrent modules.

What cannot be traced becomes an error that names the line of the user's code and what to write instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import onnx_ir
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ...errors import ExportError, LSTMOnnxError
from ..copies.caller_state import ONE_AT_A_TIME, replaced
from ..functional.functional_module import FunctionalModule, PartsError, Tensors, inference_context
from ..functional.resized_example import open_state_axes
from ..opaque.operators import record_uncalled
from ..opaque.packed_sequences import replace_packing_functions
from ..traced_values import FILES
from ..traced_values.constants import Constants
from ..traced_values.each_number import RetraceError
from ..traced_values.function_mode import TracingMode
from ..traced_values.python_builtins import Builtins
from ..traced_values.ranges import is_symbolic
from ..traced_values.truth_values import truth_values
from ..translations.cumulative import CUMULATIVE
from ..translations.diagonals import DIAGONALS
from ..translations.doubles import exact_constants, with_doubles
from ..translations.interpolation import INTERPOLATIONS
from ..translations.nn_functions import NN_FUNCTIONS
from ..translations.parts import PARTS
from ..translations.reductions import REDUCTIONS
from ..translations.size_arithmetic import RANGES, SCALARS, exact_floor_division, keep_doubles
from ..translations.sorting import SORTING
from ..translations.special_functions import SPECIAL_FUNCTIONS
from ..translations.wide_range import WIDE_RANGE
from .eager_branches import eager_branches
from .errors import explained, own_error, require_sound, sources, translation_error, unexplained
from .kernel_ranges import replace_limited_kernels
from .lost_writes import require_unwritten
from .opaque_node import translation
from .repeated_operators import operators_remembered
from .scripted_functions import scripted_functions_in_python
from .size_decisions import SizeFacts, axis_of, size_facts
from .table_rows import table_rows
from .torch_changes import assigned_parameters, exact_rewrites, keep_initializers, tables_kept
from .torch_logs import GuardLog, record_guards, record_strings, suppress_torch_output
from .widened_kernels import widen_kernels

TRACED_OPSET = 18
"""The oldest opset of torch's translations."""
CHECK_NOTE = "the file does not check this; where PyTorch raises an error because of the numbers, it gives numbers"
_TEXT_NOTE = "the code turns a number of a tensor into text; a file cannot do that, so no result may depend on the text"


@dataclass(frozen=True)
class Traced:
    """A traced module.

    `model` has as inputs those of the forward and then the attribute states, and as outputs those of the forward and
    then the next states, in order and under torch's own names.  `facts` are what the tracer decided by sizes; `notes`
    are for the user; `table_rows` are the inputs that are looked up in tables; `state_axes` are those of
    `open_state_axes`.
    """

    model: onnx_ir.Model
    facts: SizeFacts
    notes: tuple[str, ...] = ()
    table_rows: Mapping[str, int] = field(default_factory=dict)
    state_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def trace(
    functional: FunctionalModule, inputs: Tensors, states: Tensors, opset: int, rolled: nn.Module | None = None
) -> Traced:
    """The ONNX graph of a module, with a node ``lstm_onnx::recurrent`` for each call of a recurrent module.

    Args:
        functional: the module.
        inputs: with more than one entry along every dynamic axis.
        states: the attribute states, likewise.
        opset: the file's; the trace uses at least 18 (see `downgrade_opset`).
        rolled: a module that computes the same with its Python loops rolled up, which is traced instead.

    Raises:
        ExportError: the module does something that ONNX cannot express.
    """
    state_axes = open_state_axes(functional)

    def run(builtins: Builtins) -> Traced:
        with _tracing(functional):
            args, shapes = _export_arguments(functional, inputs, states, state_axes)
            if rolled is None:
                with _largest_sizes_known(functional):
                    program, guards, mode = _exported(functional, args, shapes, builtins)
                _require_rank(functional, mode)
                _require_parts(functional, mode)
            else:
                # None of the user's code runs.
                with record_guards(FILES) as guards, _errors_explained(functional, guards), _traced(functional):
                    program = torch.export.export(rolled, args, dynamic_shapes=shapes, strict=False)
                mode = TracingMode(functional.stateful, Constants(functional.stateful), builtins)
            rows = table_rows(program, [*functional.arguments.tensors, *states])  # before look-ups are decomposed
            try:
                with tables_kept(_devices(program)), exact_rewrites(), exact_constants(program):
                    translated = torch.onnx.export(
                        with_doubles(program),
                        dynamo=True,
                        opset_version=max(opset, TRACED_OPSET),
                        custom_translation_table={
                            **SCALARS,
                            **RANGES,
                            **INTERPOLATIONS,
                            **PARTS,
                            **DIAGONALS,
                            **NN_FUNCTIONS,
                            **SORTING,
                            **CUMULATIVE,
                            **WIDE_RANGE,
                            **REDUCTIONS,
                            **SPECIAL_FUNCTIONS,
                            torch.ops.lstm_onnx.recurrent.default: translation,
                        },
                        verbose=False,
                        optimize=False,
                    )
                    assert translated is not None  # noqa: S101 - without a file it is returned
                    keep_doubles(translated.model)
                    translated.optimize()
                    keep_initializers(translated.model)
            except Exception as error:
                raise translation_error(error, program) from error
            if translated.exported_program is not None:
                require_unwritten(translated.exported_program)
        require_sound(functional, translated.model, guards.lines)
        replace_limited_kernels(translated.model)
        widen_kernels(translated.model)
        # Read before the translation, which may compare sizes, too.
        facts = size_facts(program, _input_axes(functional), guards.decided, torch.ops.lstm_onnx.recurrent.default)
        noted = (mode.passed_checks, CHECK_NOTE), (mode.texts, _TEXT_NOTE)
        notes = tuple(f"{line}: {note}" for lines, note in noted for line in lines)
        facts = replace(facts, texts=tuple(dict.fromkeys(guards.texts)), sorts=tuple(mode.sorts), each=mode.each)
        return Traced(translated.model, facts, notes, rows, state_axes)

    return _with_builtins(run)


def fixed_graph(functional: FunctionalModule, inputs: Tensors, states: Tensors, *, lines: bool) -> FixedGraph:
    """A module's graph with all sizes fixed to those of these inputs; it takes a fraction of the time of `trace`.

    Args:
        functional: the module.
        inputs: its inputs.
        states: the attribute states.
        lines: keep the lines of the user's code, which takes a third of the time.

    Raises:
        ExportError: the module does something that cannot be traced.
    """
    given = [*(inputs[name] for name in functional.arguments.tensors), *states.values()]
    count = len(functional.arguments.tensors)
    structures: list[Any] = []

    def forward(*flat: Any) -> list[Any]:
        leaves, structure = pytree.tree_flatten(functional.stateful(list(flat[:count]), list(flat[count:])))
        structures[:] = [structure]
        return leaves

    def run(builtins: Builtins) -> FixedGraph:
        with _tracing(functional), operators_remembered():
            traced, _, mode = _traced_by(
                functional,
                builtins,
                lambda: make_fx(
                    forward,
                    tracing_mode="fake",
                    pre_dispatch=True,
                    _allow_non_fake_inputs=True,
                    record_stack_traces=lines,
                )(*given),
                fixed=True,
            )
        return FixedGraph(traced, structures[0], tuple(mode.passed_checks))

    return _with_builtins(run)


@dataclass(frozen=True)
class FixedGraph:
    """A graph with fixed sizes, pytree's description of its outputs, and the lines of checks that are not in it."""

    module: torch.fx.GraphModule
    structure: Any
    checks: tuple[str, ...]


def exported_program(functional: FunctionalModule, inputs: Tensors, states: Tensors) -> torch.export.ExportedProgram:
    """As `fixed_graph`, for a module that writes in place: traced by torch.export, which removes such writes.

    Raises:
        ExportError: the module does something that torch.export cannot trace.
    """

    def run(builtins: Builtins) -> torch.export.ExportedProgram:
        args, _ = _export_arguments(functional, inputs, states, {name: {} for name in states})
        # Keep what the last step computes for a further one, so that it looks like the other steps.
        with _tracing(functional), replaced(torch.fx.Graph, "eliminate_dead_code", lambda *_, **__: False):
            program = _exported(functional, args, None, builtins)[0].run_decompositions({})
            return cast("torch.export.ExportedProgram", program)

    return _with_builtins(run)


_Result = TypeVar("_Result")


def _with_builtins(run: Callable[[Builtins], _Result]) -> _Result:
    builtins = Builtins()
    while True:
        try:
            return run(builtins)
        except RetraceError as retrace:
            if not builtins.replace_more(retrace):
                raise ExportError(str(retrace)) from None
        except ExportError:
            if not builtins.leave_remainders():
                raise


def _export_arguments(
    functional: FunctionalModule, inputs: Tensors, states: Tensors, state_axes: Mapping[str, Mapping[int, str]]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The arguments of `StatefulModule.forward`, and their dynamic shapes."""
    given, held = [inputs[name] for name in functional.arguments.tensors], list(states.values())
    axes = functional.arguments.axes  # in the order of the tensors
    shapes = [dict.fromkeys(own, torch.export.Dim.DYNAMIC) or None for own in axes.values()]
    auto = torch.export.Dim.AUTO
    held_shapes = [
        {axis: auto for axis in sorted(state_axes[name]) if state.shape[axis] != 1} or None
        for name, state in states.items()
    ]
    return (given, held), (shapes, held_shapes)


@contextlib.contextmanager
def _tracing(functional: FunctionalModule) -> Iterator[None]:
    with ONE_AT_A_TIME, inference_context(functional.dtype), suppress_torch_output(), replace_packing_functions():
        yield


@contextlib.contextmanager
def _traced(functional: FunctionalModule) -> Iterator[None]:
    # The mode is on only while the module's code runs: it sees every call of torch, and decompositions make many.
    # Restore containers, since torch.export replaces those that a module holds by copies.
    with assigned_parameters(), scripted_functions_in_python(), functional.stateful.kept.restored():
        for recurrent in functional.recurrent_modules.values():
            recurrent.tracing = True
        try:
            yield
        finally:
            for recurrent in functional.recurrent_modules.values():
                recurrent.tracing = False


@contextlib.contextmanager
def _largest_sizes_known(functional: FunctionalModule) -> Iterator[None]:
    """A context in which torch.export assumes no size above the requested largest one while the module's code runs."""
    arguments, stateful = functional.arguments, functional.stateful
    own = stateful.call_arguments

    def call_arguments(tensors: Sequence[torch.Tensor]) -> Any:
        for tensor, axes in zip(tensors, arguments.axes.values(), strict=True):
            for axis, label in axes.items():
                size, largest = tensor.shape[axis], arguments.limits.get(label, (1, None))[1]
                # torch.export assumes a size of at least 2, so a largest size of 2 would fix it.
                if largest is not None and largest > 2 and is_symbolic(size) and size.node.expr.is_symbol:  # type: ignore[attr-defined]
                    size.node.shape_env.constrain_symbol_range(size.node.expr, 0, largest)  # type: ignore[attr-defined]
        return own(tensors)

    with replaced(stateful, "call_arguments", call_arguments):
        yield


def _exported(
    functional: FunctionalModule, args: tuple[Any, ...], shapes: tuple[Any, ...] | None, builtins: Builtins
) -> tuple[torch.export.ExportedProgram, GuardLog, TracingMode]:
    return _traced_by(
        functional,
        builtins,
        lambda: torch.export.export(functional.stateful, args, dynamic_shapes=shapes, strict=False),
    )


def _traced_by(
    functional: FunctionalModule, builtins: Builtins, tracer: Callable[[], _Result], *, fixed: bool = False
) -> tuple[_Result, GuardLog, TracingMode]:
    """Trace the module's code by `tracer`, with all replacements in place.

    With `fixed` sizes, the tracer leaves the module its parameters and buffers.
    """
    mode = TracingMode(functional.stateful, Constants(functional.stateful, kept=fixed), builtins)
    with (
        _branches_noted(functional, mode),
        record_guards(FILES) as guards,
        _errors_explained(functional, guards),
        _traced(functional),
        mode,
        truth_values(mode.passes, mode.rewrite, builtins.raised),
        builtins.replaced(),
        builtins.branches.replaced(mode.branches),
        eager_branches(),
        record_strings(guards.texts, mode.texts),
        exact_floor_division(),
    ):
        builtins.raised.clear()
        program = tracer()
        if builtins.raised:  # the user's code has caught an error that PyTorch would not raise
            raise builtins.raised[0]
    for path, recurrent in functional.recurrent_modules.items():
        record_uncalled(functional.stateful.inner.get_submodule(path), recurrent)
    return program, guards, mode


@contextlib.contextmanager
def _branches_noted(functional: FunctionalModule, mode: TracingMode) -> Iterator[None]:
    """Record at the end whether both branches of an ``if`` were computed: torch.export undoes what a module sets."""
    try:
        yield
    finally:
        functional.stateful.branched |= mode.branches.used


@contextlib.contextmanager
def _errors_explained(functional: FunctionalModule, guards: GuardLog) -> Iterator[None]:
    """Turn a tracer's errors into ours."""
    try:
        yield
    except LSTMOnnxError:
        raise
    except Exception as error:
        problem = own_error(error) or explained(functional, error, guards.lines)
        if problem is not None:
            raise problem from None  # torch's traceback of some 90 lines adds nothing
        raise unexplained(error) from error


def _devices(program: torch.export.ExportedProgram) -> set[str]:
    """The device types of all tensors that a program has or creates."""
    made = (node.meta.get("val") for node in program.graph.nodes)
    values = (*program.state_dict.values(), *program.constants.values(), *pytree.tree_leaves(list(made)))
    return {value.device.type for value in values if isinstance(value, torch.Tensor)}


def _require_rank(functional: FunctionalModule, mode: TracingMode) -> None:
    """Refuse a squeeze of an axis that may be 1, since the rank of its result would vary."""
    axes = _input_axes(functional)
    for size, line in mode.squeezed:
        found = axis_of(size, axes)
        label = functional.arguments.axes.get(found[0], {}).get(found[1]) if found is not None else None
        if label is not None and functional.arguments.limits.get(label, (1, None))[0] == 1:
            raise ExportError(
                f"at {line}: squeeze removes the axis {label} where it is 1 and keeps it otherwise, so the result "
                f"has a varying number of axes, which a graph cannot have; squeeze an axis that is always 1, or bound "
                f"this one: torch.export.Dim({label!r}, min=2)"
            )


def _require_parts(functional: FunctionalModule, mode: TracingMode) -> None:
    """Refuse a split whose number of parts depends on an axis's size, unless the axis is bounded to give one number."""
    axes = _input_axes(functional)
    for parts, line in mode.split:
        found = axis_of(parts.size, axes)
        label = functional.arguments.axes.get(found[0], {}).get(found[1]) if found is not None else None
        if found is None or label is None:
            continue
        least, largest = functional.arguments.limits.get(label, (1, None))
        if least < parts.least or largest is None or largest > (parts.largest or 0):
            raise PartsError(
                f"at {line}: split gives {len(parts.tensors)} parts where {label} is {parts.least} to {parts.largest}, "
                "and another number otherwise, but in a graph their number is fixed; cut the whole tensor with "
                "unfold or "
                "reshape, split it into the same number of parts with chunk or tensor_split, or bound the axis: "
                f"torch.export.Dim({label!r}, min={parts.least}, max={parts.largest})",
                [found],
            )


def _input_axes(functional: FunctionalModule) -> dict[str, tuple[str, int]]:
    """Each axis of an input, by torch's name for it."""
    return {
        f"{source}.size()[{axis}]": (name, axis)
        for source, name in sources(functional).items()
        for axis in range(functional.arguments.tensors[name].dim())
    }
