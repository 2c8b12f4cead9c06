"""Tracing: a prepared module through torch.export and torch.onnx, its recurrent modules left opaque.

What the tracer cannot follow becomes an error that names the line of the user's code and what to
write instead.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir
import torch
from onnx.defs import OpSchema
from onnxscript import values

from ..errors import ExportError, LSTMOnnxError
from .packed import padded_instead
from .prepared import Prepared, Tensors, quiet
from .recurrent import OPERATOR
from .user_code import line_of

DOMAIN, OP_TYPE = OPERATOR.split("::")
TRACED_OPSET = 18
"""The oldest opset that torch's translations are written in."""
ONE_AT_A_TIME = threading.RLock()
"""torch's tracer has global state, and so has the exchange of the packing functions."""
_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)"]


def trace(prepared: Prepared, inputs: Tensors, states: Tensors, opset: int) -> onnx_ir.Model:
    """The ONNX graph of a module, with a node ``lstm_onnx::recurrent`` for each call of a recurrent module.

    Its inputs are those of the forward and then the attribute states, its outputs the forward's
    and then the states after, in order and under torch's own names.

    Args:
        prepared: the module.
        inputs: with more than one entry along every open axis.
        states: the attribute states, likewise.
        opset: 18 or later.

    Raises:
        ExportError: the module does something that has no form in ONNX.
    """
    args, kwargs = prepared.arguments.call(inputs)
    dynamic = torch.export.Dim.DYNAMIC
    open_axes = {name: dict.fromkeys(axes, dynamic) or None for name, axes in prepared.arguments.axes.items()}
    shapes = prepared.arguments.shapes(open_axes)
    held = list(states.values())
    held_shapes = [dict.fromkeys(range(state.dim()), torch.export.Dim.AUTO) for state in held]
    with ONE_AT_A_TIME, quiet(prepared.dtype), _hushed(), padded_instead(), _traced(prepared):
        program = _exported(prepared, (args, kwargs, held), (*shapes, held_shapes))
        _refuse_torch_recurrence(program)
        try:
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=max(opset, TRACED_OPSET),
                custom_translation_table={torch.ops.lstm_onnx.recurrent.default: _translation},
                verbose=False,
            )
        except Exception as error:
            raise ExportError(_translation_problem(error)) from error
    assert translated is not None  # noqa: S101 - without a file it is returned
    model: onnx_ir.Model = translated.model
    return model


@contextlib.contextmanager
def _traced(prepared: Prepared) -> Iterator[None]:
    for site in prepared.sites.values():
        site.tracing = True
    try:
        yield
    finally:
        for site in prepared.sites.values():
            site.tracing = False


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """torch's own remarks on what it does: warnings and log lines."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _exported(prepared: Prepared, args: tuple[Any, ...], shapes: tuple[Any, ...]) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(prepared.stateful, args, dynamic_shapes=shapes, strict=False)
    except LSTMOnnxError:
        raise
    except Exception as error:
        cause = _own_error(error)
        if cause is not None:
            raise cause from error
        raise ExportError(_trace_problem(prepared, error)) from error


def _own_error(error: BaseException) -> LSTMOnnxError | None:
    """An error of ours that torch wrapped in one of its own."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, LSTMOnnxError):
            return current
        current = current.__cause__ or current.__context__
    return None


_REWRITES = (
    (
        r"GuardOnDataDependent|data-dependent|Could not guard|Could not extract specialized integer|_local_scalar_dense",
        "the code depends on the numbers in a tensor (an if on a value, tolist(), item() as a size), which a graph "
        "cannot follow; write it with tensor operations such as torch.where, and leave lengths a tensor",
    ),
    (
        r"aten\.nonzero|masked_select|unique",
        "the size of the result depends on the numbers in a tensor; use a mask and torch.where instead",
    ),
)


def _trace_problem(prepared: Prepared, error: Exception) -> str:
    text = str(error)
    line = line_of(error)
    at = f"at {line}: " if line else ""
    fixed = _fixed_axes(prepared, text)
    if fixed:
        return fixed
    for pattern, advice in _REWRITES:
        if re.search(pattern, type(error).__name__ + text):
            return f"{at}{advice}"
    first = next((row for row in text.splitlines() if row.strip()), type(error).__name__)
    return f"{at}torch.export cannot trace the module: {type(error).__name__}: {first.strip()}"


def _fixed_axes(prepared: Prepared, text: str) -> str | None:
    """torch says that an axis came out as a constant: which, and why."""
    if "constant" not in text and "specialized" not in text:
        return None
    found: dict[str, str] = {}
    flat = list(prepared.arguments.tensors)
    for match in re.finditer(r"\[([^\n]*?)\]\.(?:size\(\)|shape)\[(\d+)\][^\n]*?constant(?: \((\d+)\))?", text):
        name = _argument_of(match.group(1), flat)
        axis = int(match.group(2))
        label = prepared.arguments.axes.get(name, {}).get(axis, f"axis {axis}")
        found[f"{label} of {name}"] = match.group(3) or ""
    if not found:
        return None
    names = ", ".join(f"{name} (always {size})" if size else name for name, size in found.items())
    loops = [
        (site, site.calls[0].line)
        for site in prepared.sites.values()
        if site.cell and len(site.calls) > 1
    ]
    if loops:
        site, line = loops[0]
        whole = {"LSTM": "nn.LSTM", "GRU": "nn.GRU", "RNN": "nn.RNN"}[site.spec.op_type]
        return (
            f"{names} would be fixed: {site.path} is called in a Python loop over time ({line}), which a trace "
            f"unrolls; use {whole} with the same weights (weight_ih becomes weight_ih_l0, and so on), or export a "
            "single step and keep the loop outside"
        )
    return (
        f"{names} would be fixed: the module's code turns the size into a constant (len() in a loop, an if on a size, "
        "a number in view or expand); use x.size(i) in its place, or leave the axis out of dynamic_shapes"
    )


def _argument_of(expression: str, names: list[str]) -> str:
    """The input that torch means by ``'args'][0]['x'``: the last key or index in it, as far as that tells."""
    parts = re.findall(r"'([^']+)'|\[?(\d+)\]?", expression)
    keys = [word or number for word, number in parts]
    for name in names:
        if keys and name.split(".")[-1] == keys[-1]:
            return name
    positions = [int(key) for key in keys if key.isdecimal()]
    return names[positions[-1]] if positions and positions[-1] < len(names) else names[0]


def _refuse_torch_recurrence(program: torch.export.ExportedProgram) -> None:
    """LSTMs that did not come through their modules, such as torch.lstm or one held by no nn.Module."""
    for node in program.graph.nodes:
        name = str(node.target)
        if node.op == "call_function" and re.match(r"aten\.(lstm|gru|rnn_tanh|rnn_relu|lstm_cell|gru_cell)\b", name):
            stack = str(node.meta.get("stack_trace") or "").strip().splitlines()
            line = " ".join(part.strip() for part in stack[-2:])
            raise ExportError(
                f"{name} is called past the module's own nn.LSTM ({line or 'no line of Python'}); "
                "hold the LSTM as a submodule and call it"
            )


def _translation_problem(error: BaseException) -> str:
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error) + str(error.__cause__))
    if missing:
        return (
            f"{missing.group(1)} has no translation to ONNX in this torch; write it with other operations, or update torch"
        )
    rows = [row.strip() for row in str(error).splitlines() if row.strip()]
    return f"torch.onnx cannot translate the module: {type(error).__name__}: {rows[0] if rows else ''}"


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
