"""Tracing by torch.export and translation by torch.onnx, with opaque operators for recurrent modules.

What cannot be traced becomes an error that names the line of the user's code and what to write instead.
"""

from __future__ import annotations

import contextlib
import copy
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir
import torch
from onnx.defs import OpSchema
from onnxscript import values

from ...errors import ExportError, LSTMOnnxError
from ..functional.attribute_states import ForwardFailed
from ..functional.functional_module import FixedSizeError, FunctionalModule, Tensors, inference_context, within_operator
from ..opaque.operators import OPERATOR, RecurrentModule
from ..opaque.packed_sequences import replace_packing_functions
from ..traced_values import constants, each_number, function_mode, python_builtins
from ..traced_values.constants import Constants
from ..traced_values.each_number import RetraceError
from ..traced_values.function_mode import TracingMode
from ..traced_values.python_builtins import Builtins
from ..translations.interpolation import INTERPOLATIONS
from ..translations.size_arithmetic import RANGES, SCALARS, exact_floor_division, keep_doubles
from ..translations.sorting import SORTING
from ..translations.views import VIEWS
from ..user_code import NUMBERS, error_line, first_line, stack_trace_line
from .assigned_parameters import assigned_parameters
from .pooling import SymbolicPooling
from .size_decisions import SizeFacts, axis_of, size_facts
from .torch_logs import GuardLog, record_guards, record_size_strings, suppress_torch_output

DOMAIN, OP_TYPE = OPERATOR.split("::")
TRACED_OPSET = 18
"""The oldest opset that torch's translations are written in."""
ONE_AT_A_TIME = threading.RLock()
"""Held by each trace: the tracer, the replaced packing functions and Python's warning filters are global state."""
_CHECK_NOTE = "the file does not check this; where PyTorch raises an error by the numbers, it gives numbers"
_THROUGH = [str(module.__file__) for module in (constants, each_number, function_mode, python_builtins)]
_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)"]


@dataclass(frozen=True)
class Traced:
    """A traced module.

    `model` has the inputs of the forward and then the attribute states, and as outputs the forward's
    and then the states after, in order and under torch's own names.  `facts` are what the tracer
    decided by sizes; `notes` are for the user.
    """

    model: onnx_ir.Model
    facts: SizeFacts
    notes: tuple[str, ...] = ()


def trace(functional: FunctionalModule, inputs: Tensors, states: Tensors, opset: int) -> Traced:
    """The ONNX graph of a module, with a node ``lstm_onnx::recurrent`` for each call of a recurrent module.

    Args:
        functional: the module.
        inputs: with more than one entry along every open axis.
        states: the attribute states, likewise.
        opset: the file's; the trace is made at 18 at least (see `downgrade_opset`).

    Raises:
        ExportError: the module does something that has no form in ONNX.
    """
    builtins = Builtins()
    while True:
        try:
            return _trace(functional, inputs, states, opset, builtins)
        except RetraceError as retrace:
            if not builtins.replace_more(retrace):
                raise ExportError(str(retrace)) from None


def _trace(functional: FunctionalModule, inputs: Tensors, states: Tensors, opset: int, builtins: Builtins) -> Traced:
    given, held = [inputs[name] for name in functional.arguments.tensors], list(states.values())
    axes = functional.arguments.axes  # in the order of the tensors
    shapes = [dict.fromkeys(own, torch.export.Dim.DYNAMIC) or None for own in axes.values()]
    auto = torch.export.Dim.AUTO
    held_shapes = [{axis: auto for axis, size in enumerate(state.shape) if size != 1} for state in held]
    with (
        ONE_AT_A_TIME,
        inference_context(functional.dtype),
        suppress_torch_output(),
        replace_packing_functions(),
        assigned_parameters(functional.stateful),
        _traced(functional),
    ):
        program, guards, mode = _exported(functional, (given, held), (shapes, held_shapes), builtins)
        _require_rank(functional, mode)
        try:
            with _translations_kept():
                translated = torch.onnx.export(
                    program,
                    dynamo=True,
                    opset_version=max(opset, TRACED_OPSET),
                    custom_translation_table={
                        **SCALARS,
                        **RANGES,
                        **INTERPOLATIONS,
                        **VIEWS,
                        **SORTING,
                        torch.ops.lstm_onnx.recurrent.default: _translation,
                    },
                    verbose=False,
                )
        except Exception as error:
            raise (_own_error(error) or ExportError(_translation_problem(error, program))) from error
    assert translated is not None  # noqa: S101 - without a file it is returned
    keep_doubles(translated.model)
    # Here, as the translation may compare sizes, too.
    facts = size_facts(program, _input_axes(functional), guards.decided, torch.ops.lstm_onnx.recurrent.default)
    notes = tuple(f"{line}: {_CHECK_NOTE}" for line in mode.passed_checks)
    facts = replace(facts, texts=tuple(dict.fromkeys(guards.texts)), sorts=tuple(mode.sorts), each=mode.each)
    return Traced(translated.model, facts, notes)


@contextlib.contextmanager
def _traced(functional: FunctionalModule) -> Iterator[None]:
    for recurrent in functional.recurrent_modules.values():
        recurrent.tracing = True
    try:
        with SymbolicPooling():
            yield
    finally:
        for recurrent in functional.recurrent_modules.values():
            recurrent.tracing = False


_TABLES: dict[tuple[type, int], Any] = {}


@contextlib.contextmanager
def _translations_kept() -> Iterator[None]:
    """Let torch build its table of translations once in a process: at each export, it would be half of the time.

    A torch that has it elsewhere goes on as it does.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        own: Any = ONNXRegistry.__dict__["from_torchlib"]
        build = own.__func__
    except (ImportError, KeyError, AttributeError):
        yield
        return

    def kept(kind: type, opset_version: int = TRACED_OPSET) -> Any:
        key = (kind, opset_version)
        if key not in _TABLES:
            _TABLES[key] = build(kind, opset_version)
        table = copy.copy(_TABLES[key])
        table.functions = {target: list(metas) for target, metas in table.functions.items()}  # callers add theirs
        return table

    setattr(ONNXRegistry, "from_torchlib", classmethod(kept))  # noqa: B010 - mypy forbids the plain assignment
    try:
        yield
    finally:
        setattr(ONNXRegistry, "from_torchlib", own)  # noqa: B010


def _exported(
    functional: FunctionalModule, args: tuple[Any, ...], shapes: tuple[Any, ...], builtins: Builtins
) -> tuple[torch.export.ExportedProgram, GuardLog, TracingMode]:
    mode = TracingMode(Constants(functional.stateful), builtins)
    with record_guards(_THROUGH) as guards:
        try:
            with (
                mode,
                mode.checking_symbols(),
                builtins.replaced(),
                record_size_strings(guards.texts),
                exact_floor_division(),
            ):
                program = torch.export.export(functional.stateful, args, dynamic_shapes=shapes, strict=False)
        except LSTMOnnxError:
            raise
        except Exception as error:
            cause = _own_error(error)
            if cause is not None:
                raise cause from None
            problem = _explained(functional, error, guards.lines)
            if problem is not None:
                raise problem from None  # torch's traceback, of some 90 lines, adds nothing
            raise _unexplained(error) from error
    return program, guards, mode


def _require_rank(functional: FunctionalModule, mode: TracingMode) -> None:
    """Refuse a squeeze of an axis that may be 1: then the result has another rank, and a graph has one alone."""
    axes = _input_axes(functional)
    for size, line in mode.squeezed:
        found = axis_of(size, axes)
        label = functional.arguments.axes.get(found[0], {}).get(found[1]) if found is not None else None
        if label is not None and functional.arguments.limits.get(label, (1, None))[0] == 1:
            raise ExportError(
                f"at {line}: squeeze removes the axis {label} where it is 1, and keeps it elsewhere, so the result has "
                "another number of axes there, and a graph has one alone; squeeze an axis that is always 1, or bound "
                f"this one: torch.export.Dim({label!r}, min=2)"
            )


def _input_axes(functional: FunctionalModule) -> dict[str, tuple[str, int]]:
    """Each axis of an input by what torch calls it."""
    return {
        f"{source}.size()[{axis}]": (name, axis)
        for source, name in _sources(functional).items()
        for axis in range(functional.arguments.tensors[name].dim())
    }


def _own_error(error: BaseException) -> LSTMOnnxError | None:
    """An error of ours that torch wrapped in one of its own."""
    current: BaseException | None = error
    while current is not None and not isinstance(current, LSTMOnnxError):
        current = current.__cause__ or current.__context__
    return current


_REWRITES = (
    (
        r"GuardOnData|data-dependent|DataDependentOutput|Could not guard|Could not extract special|_local_scalar_dense",
        NUMBERS,
    ),
    (
        r"aten\.nonzero|masked_select|unique|DynamicOutputShape",
        "the size of the result depends on the numbers in a tensor; use a mask and torch.where instead",
    ),
    (
        r"\.numpy\(\) is not supported",
        "numpy computes outside of the graph; write it with torch's operations",
    ),
    (
        r"fake tensor in the exported program constant",
        "a tensor is computed where tracing does not see it, such as in another thread; compute it in forward itself",
    ),
)


def _explained(functional: FunctionalModule, error: Exception, lines: Mapping[str, str]) -> ExportError | None:
    """A tracing error whose cause is known, with what to write instead; None for others."""
    if isinstance(error, ForwardFailed) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error)
    fixed = _fixed_axes(functional, text, lines) or within_operator(error)
    if fixed:
        return fixed
    line = error_line(error)
    at = f"at {line}: " if line else ""
    for pattern, advice in _REWRITES:
        if re.search(pattern, type(error).__name__ + text):
            return ExportError(f"{at}{advice}")
    return None


def _unexplained(error: Exception) -> ExportError:
    if isinstance(error, ForwardFailed) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    line = error_line(error)
    at = f"at {line}: " if line else ""
    if type(error).__name__ == "UnsupportedOperatorException":
        return ExportError(f"{at}{first_line(error)} is an operator that torch cannot trace; write it with others")
    return ExportError(f"{at}torch.export cannot trace the module: {type(error).__name__}: {first_line(error)}")


_FIXED_AXIS = re.compile(r"(L\[[^\n]*?\])\.size\(\)\[(\d+)\]|inputs(\[[^\n]*?\])\.shape\[(\d+)\]")
_FIXED_SIZE = re.compile(r"(?:constant \(|static shape of |hint of )(\d+)")


def _fixed_axes(functional: FunctionalModule, text: str, lines: Mapping[str, str]) -> FixedSizeError | None:
    """torch says that an axis came out as a constant: which, and why."""
    known = _sources(functional)
    found: dict[str, str] = {}
    axes: list[tuple[str, int]] = []
    where: str | None = None
    for row in text.splitlines():
        match, size = _FIXED_AXIS.search(row), _FIXED_SIZE.search(row)
        if match is None or size is None:
            continue
        source, axis = match.group(1) or "L" + match.group(3), int(match.group(2) or match.group(4))
        name = known.get(source)
        if name is None:
            continue
        axes.append((name, axis))
        label = functional.arguments.axes.get(name, {}).get(axis)
        named = label is not None and label not in functional.arguments.unnamed
        found[f"{label} of {name}" if named else f"axis {axis} of {name}"] = size.group(1)
        where = where or lines.get(f"{source}.size()[{axis}]")
    if not found:
        return None
    names = ", ".join(f"{name} (always {size})" for name, size in found.items())
    at = f"at {where}: " if where else ""
    looped = next(
        (
            recurrent
            for recurrent in functional.recurrent_modules.values()
            if recurrent.cell and recurrent.num_traced > 1
        ),
        None,
    )
    advice = _loop_advice(looped) if looped is not None else _SIZE_ADVICE
    return FixedSizeError(f"{at}{names} would be fixed: {advice}", axes)


_SIZE_ADVICE = (
    "the module's code turns the size into a constant (a Python loop over the axis, an if on a size, int() of one, a "
    "number in view or expand, a parameter of that size); compute with x.size(i) and whole tensors in its place, or "
    "leave the axis out of dynamic_shapes"
)


def _loop_advice(recurrent: RecurrentModule) -> str:
    """What to write in the place of a loop over a cell."""
    whole = {"LSTM": "nn.LSTM", "GRU": "nn.GRU", "RNN": "nn.RNN"}[recurrent.spec.op_type]
    return (
        f"{recurrent.path} is called in a Python loop over time, which a trace unrolls; use {whole} with the same "
        "weights (weight_ih becomes weight_ih_l0, and so on), or export a single step and keep the loop outside"
    )


def _sources(functional: FunctionalModule) -> dict[str, str]:
    """Each input by what torch calls it, after StatefulModule.forward's own argument."""
    return {f"L['tensors'][{index}]": name for index, name in enumerate(functional.arguments.tensors)}


def _translation_problem(error: BaseException, program: torch.export.ExportedProgram) -> str:
    """Which operator has no translation, and the line that calls it."""
    text = f"{error}\n{error.__cause__}"
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    line = stack_trace_line(text) or (_line_of(program, missing.group(1)) if missing else None)
    at = f"at {line}: " if line else ""
    if missing:
        return (
            f"{at}{missing.group(1)} has no translation to ONNX in this torch; write it with other operations, "
            "or update torch"
        )
    root = error
    while root.__cause__ is not None:  # the exporter's own errors name steps of its, and the inner one the cause
        root = root.__cause__
    return f"{at}torch.onnx cannot translate the module: {type(root).__name__}: {first_line(root)}"


def _line_of(program: torch.export.ExportedProgram, operator: str) -> str | None:
    """The user's line that calls an operator, given as ``aten.linalg_eig``."""
    name = operator.rpartition(".")[2].removeprefix("_").removesuffix("_ex")
    for node in program.graph.nodes:
        if name in str(node.target) and (line := stack_trace_line(str(node.meta.get("stack_trace", "")))):
            return line
    return None


def _schema() -> OpSchema:
    single, optional = OpSchema.FormalParameterOption.Single, OpSchema.FormalParameterOption.Optional
    parameter, attribute = OpSchema.FormalParameter, OpSchema.Attribute
    return OpSchema(
        OP_TYPE,
        DOMAIN,
        1,
        "stands for a recurrent module until the real nodes take its place",
        inputs=[
            parameter("x", "T", param_option=single),
            parameter("h0", "T", param_option=optional),
            parameter("c0", "T", param_option=optional),
            parameter("lengths", "I", param_option=optional),
        ],
        outputs=[parameter(name, "T") for name in ("output", "hn", "cn")],
        type_constraints=[("T", _FLOATS, ""), ("I", ["tensor(int32)", "tensor(int64)"], "")],
        attributes=[
            attribute("module", OpSchema.AttrType.STRING, "", required=True),
            attribute("call", OpSchema.AttrType.INT, "", required=True),
            attribute("batch_first", OpSchema.AttrType.INT, "", required=True),
        ],
    )


_OPAQUE = values.Op(values.Opset(DOMAIN, 1), OP_TYPE, _schema())


def _translation(
    x: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    module: str,
    call: int,
    batch_first: bool,
    rows: int,  # noqa: ARG001
    output_size: int,  # noqa: ARG001
    h_size: int,  # noqa: ARG001
    c_size: int,  # noqa: ARG001
) -> Any:
    return _OPAQUE(x, h0, c0, lengths, module=module, call=call, batch_first=int(batch_first))
